//! Statements that scripts for Flink carry and that have nothing to do here, or cannot be done: what is answered to each.

use sqlparser::tokenizer::Token;

use crate::error::{Fault, Result};
use crate::statement::Body;
use crate::words::{CATALOG, Words, ident};

/// Reads such a statement, if one stands here.
///
/// # Errors
/// Why it cannot be done, and what to do instead.
pub(crate) fn statement(words: &mut Words<'_>) -> Result<Option<Body>> {
    if words.accept("USE") {
        return use_names(words).map(Some);
    }
    if words.accept_all(&["CREATE", "DATABASE"]) {
        words.accept_all(&["IF", "NOT", "EXISTS"]);
        let name = ident(words, "a database's name")?;
        words.skip_rest();
        return Ok(Some(Body::CreateDatabase(name)));
    }
    for (start, note) in NOTED {
        if words.accept_all(start) {
            words.skip_rest();
            return Ok(Some(Body::Noted(format!("{} has no effect: {note}", start.join(" ")))));
        }
    }
    for (start, message, help) in REFUSED {
        if words.accept_all(start) {
            let span = words.span_since(words.index() - start.len());
            return Err(Fault::new(*message).at(span).help(*help));
        }
    }
    Ok(None)
}

/// `USE CATALOG c`, `USE db`, `USE c.db`, `USE MODULES …`.
fn use_names(words: &mut Words<'_>) -> Result<Body> {
    if words.accept("MODULES") {
        words.skip_rest();
        return Ok(Body::Noted("USE MODULES has no effect: the functions are those that SHOW FUNCTIONS lists".into()));
    }
    let is_catalog = words.accept("CATALOG");
    let mut names = vec![ident(words, "a name")?];
    while words.accept_token(&Token::Period) {
        names.push(ident(words, "a name")?);
    }
    let database = if is_catalog { None } else { names.pop() };
    if let Some(catalog) = names.iter().find(|name| name.value != CATALOG) {
        return Err(Fault::new(format!("unknown catalog '{}'", catalog.value))
            .at(catalog.span)
            .help(format!("there is one catalog, '{CATALOG}': leave the statement out")));
    }
    Ok(database.map_or(Body::Noted(String::new()), Body::UseDatabase))
}

/// How statements begin that are taken without an effect, and why they have none.
const NOTED: &[(&[&str], &str)] = &[
    (&["ADD", "JAR"], "connectors and formats are built in"),
    (&["ADD", "JARS"], "connectors and formats are built in"),
    (&["REMOVE", "JAR"], "connectors and formats are built in"),
    (&["ANALYZE", "TABLE"], "plans do not depend on statistics"),
    (&["CLEAR"], "it is for the terminal of Flink's SQL client"),
    (&["QUIT"], "a script ends with its last statement"),
    (&["EXIT"], "a script ends with its last statement"),
];

const NO_CATALOG: &str =
    "there is one catalog, which holds what the script declares: write CREATE TABLE for each table";
const NO_FUNCTION: &str =
    "SHOW FUNCTIONS lists those that there are; a function of your own is an operator of the Rust API";
const APPEND: &str = "a stream only grows: write INSERT INTO, and what the rows mean into a column";

/// How statements begin that are refused, why, and what to do.
const REFUSED: &[(&[&str], &str, &str)] = &[
    (&["CREATE", "CATALOG"], "there are no other catalogs", NO_CATALOG),
    (&["DROP", "CATALOG"], "there are no other catalogs", NO_CATALOG),
    (&["ALTER", "CATALOG"], "there are no other catalogs", NO_CATALOG),
    (&["DROP", "DATABASE"], "there is one database, which stays", "DROP the tables instead"),
    (&["ALTER", "DATABASE"], "there is one database, without properties", "leave the statement out"),
    (&["CREATE", "FUNCTION"], "there are no functions of one's own", NO_FUNCTION),
    (&["CREATE", "TEMPORARY", "FUNCTION"], "there are no functions of one's own", NO_FUNCTION),
    (&["CREATE", "TEMPORARY", "SYSTEM"], "there are no functions of one's own", NO_FUNCTION),
    (&["DROP", "FUNCTION"], "there are no functions of one's own", NO_FUNCTION),
    (&["DROP", "TEMPORARY", "FUNCTION"], "there are no functions of one's own", NO_FUNCTION),
    (&["DROP", "TEMPORARY", "SYSTEM"], "there are no functions of one's own", NO_FUNCTION),
    (&["ALTER", "FUNCTION"], "there are no functions of one's own", NO_FUNCTION),
    (&["LOAD", "MODULE"], "there are no modules to load", NO_FUNCTION),
    (&["UNLOAD", "MODULE"], "there are no modules to unload", NO_FUNCTION),
    (&["CREATE", "MODEL"], "there are no models", "SHOW FUNCTIONS lists what can be computed"),
    (&["CREATE", "MATERIALIZED"], "materialized tables come in a later version", "CREATE TABLE, then INSERT INTO it"),
    (&["TRUNCATE"], "a table is not emptied", APPEND),
    (&["DELETE"], "rows are not deleted", APPEND),
    (&["UPDATE"], "rows are not updated", APPEND),
    (&["MERGE"], "rows are not merged", APPEND),
    (&["CALL"], "there are no procedures", "`coulee --help` lists what can be done outside of SQL"),
    (&["STOP", "JOB"], "jobs are stopped outside of SQL", "`coulee job stop NAME`"),
    (&["SHOW", "JOBS"], "jobs are listed outside of SQL", "`coulee job ls`"),
    (&["DESCRIBE", "JOB"], "jobs are shown outside of SQL", "`coulee job show NAME`"),
    (
        &["COMPILE", "PLAN"],
        "plans are not stored",
        "a job keeps its statement, and state by the names that EXPLAIN shows",
    ),
    (&["EXECUTE", "PLAN"], "plans are not stored", "submit the statement itself"),
    (&["HELP"], "there is no HELP here", "docs/sql.md lists the statements"),
    (&["EXPLAIN", "JSON_EXECUTION_PLAN"], "EXPLAIN answers in text", "write EXPLAIN alone"),
    (&["EXPLAIN", "ESTIMATED_COST"], "EXPLAIN knows no costs", "write EXPLAIN alone"),
    (&["EXPLAIN", "PLAN_ADVICE"], "EXPLAIN gives no advice", "write EXPLAIN alone"),
];

/// What to do instead of a connector of Flink's that there is not.
pub(crate) fn connector(name: &str) -> Option<&'static str> {
    const STREAM: &str = "a built-in stream takes the place of a topic: leave 'connector' and its options out, and the table is a stream of its name; \
        `coulee produce` writes to it";
    const FILES: &str =
        "files are read and written with 'connector' = 'filesystem' and 'format' = 'parquet', 'json' or 'csv'";
    const DATABASE: &str = "export the table to files, and read them with 'connector' = 'filesystem'";
    let help = match name {
        "upsert-kafka" => {
            "a built-in stream takes the place of a topic: 'connector' = 'upsert-stream' with a PRIMARY KEY"
        }
        "kafka" | "kinesis" | "kinesis-legacy" | "pulsar" | "rabbitmq" | "google-pubsub" | "sqs" => STREAM,
        "firehose" | "iceberg" | "delta" | "hudi" | "paimon" | "hive" | "file" | "files" | "s3" => FILES,
        "jdbc" | "mysql-cdc" | "postgres-cdc" | "mongodb-cdc" | "oracle-cdc" | "sqlserver-cdc" | "mongodb"
        | "hbase-1.4" | "hbase-2.2" | "hbase-2.6" | "dynamodb" | "elasticsearch-6" | "elasticsearch-7"
        | "elasticsearch-8" | "opensearch" | "opensearch-2" | "redis" | "clickhouse" | "starrocks" | "doris" => {
            DATABASE
        }
        "faker" | "sequence" => "made-up rows come from 'connector' = 'datagen'",
        "values" | "socket" | "raw" => {
            "write the rows to a stream with `coulee produce`, or read a file with 'connector' = 'filesystem'"
        }
        "console" | "stdout" => "rows are printed with 'connector' = 'print'",
        "null" | "devnull" => "rows go nowhere with 'connector' = 'blackhole'",
        _ => return None,
    };
    Some(help)
}
