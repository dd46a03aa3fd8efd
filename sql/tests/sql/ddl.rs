//! Tables, views and settings.

use arrow::array::AsArray;
use coulee_sql::{Effect, parse_script};

use crate::{run, run_all, session};

/// The rows of a `SHOW` or `DESCRIBE`, columns joined by ` | `.
fn rows(script: &str) -> Vec<String> {
    let Effect::Table(batch) = run(1, script).unwrap_or_else(|error| panic!("{error}")) else {
        panic!("{script}: rows")
    };
    let text = |row: usize| {
        let cells: Vec<&str> = batch.columns().iter().map(|column| column.as_string::<i32>().value(row)).collect();
        cells.join(" | ")
    };
    (0..batch.num_rows()).map(text).collect()
}

#[test]
fn describe_shows_types_keys_metadata_computed_columns_and_the_watermark() {
    let create = "CREATE TABLE e (
      id BIGINT COMMENT 'who',
      price DECIMAL(10, 2) NOT NULL,
      bid ROW<auction BIGINT, tags ARRAY<ARRAY<STRING>>> NOT NULL,
      attributes MAP<STRING, INT>,
      at_ms BIGINT,
      k STRING METADATA FROM 'key' VIRTUAL,
      ts AS TO_TIMESTAMP_LTZ(at_ms, 3),
      local TIMESTAMP(6) WITHOUT TIME ZONE,
      PRIMARY KEY (id) NOT ENFORCED,
      WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
    ) COMMENT 'bids' PARTITIONED BY (id) WITH ('connector' = 'fake',);
    DESCRIBE e";
    assert_eq!(
        rows(create),
        [
            "id | BIGINT | FALSE | PRI(id) |  |  | who",
            "price | DECIMAL(10, 2) | FALSE |  |  |  | ",
            "bid | ROW<auction BIGINT, tags ARRAY<ARRAY<STRING>>> | FALSE |  |  |  | ",
            "attributes | MAP<STRING, INT> | TRUE |  |  |  | ",
            "at_ms | BIGINT | TRUE |  |  |  | ",
            "k | STRING | TRUE |  | METADATA FROM 'key' VIRTUAL |  | ",
            "ts | TIMESTAMP_LTZ(3) | TRUE |  | AS TO_TIMESTAMP_LTZ(at_ms, 3) | ts - INTERVAL '5' SECOND | ",
            "local | TIMESTAMP(6) | TRUE |  |  |  | ",
        ]
    );
}

#[test]
fn names_are_case_sensitive_and_backticks_quote() {
    let create = "CREATE TABLE `Order` (`dateTime` INT, `select` STRING); CREATE VIEW v AS SELECT `dateTime`, `select` AS `a b` FROM `Order`;";
    assert_eq!(
        rows(&format!("{create} DESCRIBE v")),
        ["dateTime | INT | TRUE |  |  | ", "a b | STRING | TRUE |  |  | "]
    );
    let error = run(1, &format!("{create} SELECT datetime FROM `Order`")).expect_err("no such column");
    assert_eq!(error.help(), Some("did you mean 'dateTime'?"));
}

#[test]
fn tables_and_views_come_and_go() {
    assert_eq!(
        rows("CREATE VIEW v AS SELECT carrier FROM flights; SHOW TABLES"),
        ["copy", "corrections", "delays", "flights", "v"]
    );
    assert_eq!(rows("CREATE TEMPORARY VIEW v AS SELECT carrier FROM flights; SHOW VIEWS"), ["v"]);
    assert_eq!(rows("DROP TABLE copy; DROP TABLE IF EXISTS copy; SHOW TABLES"), ["corrections", "delays", "flights"]);
    assert_eq!(
        rows("CREATE TABLE IF NOT EXISTS copy (a INT); SHOW CREATE TABLE copy"),
        ["CREATE TABLE copy (carrier STRING, delay BIGINT) WITH ('connector' = 'fake')"]
    );
    assert_eq!(
        rows(
            "CREATE VIEW v AS SELECT carrier FROM flights; CREATE OR REPLACE VIEW v AS SELECT delay FROM flights; DESCRIBE v"
        ),
        ["delay | INT | TRUE |  |  | "]
    );
    let upper = "upper | scalar | UPPER(text) | in upper case: UPPER('aß') = 'ASS'".to_owned();
    assert!(rows("SHOW FUNCTIONS").contains(&upper));
}

#[test]
fn settings_are_kept_and_reset() {
    assert_eq!(rows("SET 'pipeline.name' = 'a'; SET"), ["pipeline.name | a"]);
    assert!(rows("SET 'pipeline.name' = 'a'; RESET; SET").is_empty());
    assert!(rows("SET 'pipeline.name' = 'a'; RESET 'pipeline.name'; SET").is_empty());
}

#[test]
fn an_error_leaves_the_session_as_it_was() {
    let mut session = session(1);
    run_all(&mut session, crate::TABLES).expect("the tables");
    run_all(&mut session, "SET 'parallelism.default' = 'x'").expect_err("not a number");
    run_all(&mut session, "INSERT INTO copy SELECT carrier FROM flights").expect_err("a column is missing");
    assert_eq!(session.settings().iter().count(), 0);
    let effects = run_all(&mut session, "INSERT INTO copy SELECT carrier, delay FROM flights").expect("a job");
    let Some(Effect::Insert(job)) = effects.last() else { panic!("a job") };
    assert_eq!(job.name, "job");
}

#[test]
fn statements_know_their_text_and_place() {
    let script = "-- first\nSET 'pipeline.name' = 'a;b'; /* ; */\n  SHOW TABLES\n;;";
    let statements = parse_script(script, "x.sql").expect("two statements");
    let places: Vec<_> = statements.iter().map(|s| (s.text(), s.line(), s.column())).collect();
    assert_eq!(places, [("SET 'pipeline.name' = 'a;b'", 2, 1), ("SHOW TABLES", 3, 3)]);
}

/// What the last statement of a script answers beside its effect.
fn notes(script: &str) -> Vec<String> {
    let mut session = session(1);
    run_all(&mut session, crate::TABLES).expect("the tables");
    run_all(&mut session, script).unwrap_or_else(|error| panic!("{error}"));
    session.take_notes()
}

#[test]
fn a_preamble_of_flinks_client_is_taken_with_a_word_about_each() {
    for (statement, note) in [
        ("SET 'sql-client.execution.result-mode' = 'tableau'", "SQL client"),
        ("SET table.exec.mini-batch.enabled = true", "batches of rows"),
        ("SET 'state.backend.type' = 'rocksdb'", "RocksDB"),
        ("SET 'pipeline.max-parallelism' = '128'", "256 key groups"),
        ("SET 'execution.checkpointing.mode' = 'AT_LEAST_ONCE'", "exactly once"),
        ("SET 'table.optimizer.join-reorder-enabled' = 'true'", "optimizer"),
        ("ADD JAR '/opt/flink/lib/x.jar'", "built in"),
        ("CREATE DATABASE IF NOT EXISTS db", "one database"),
    ] {
        let notes = notes(statement);
        assert!(
            notes.len() == 1 && notes[0].contains(note) && notes[0].contains("no effect"),
            "{statement}: {notes:?}"
        );
    }
    assert_eq!(notes("CREATE DATABASE db; USE db; QUIT").len(), 1);
    let quiet = "USE CATALOG default_catalog; USE default_database; USE default_catalog.default_database; SET parallelism.default = 4";
    assert!(notes(quiet).is_empty());
    assert_eq!(rows(&format!("{quiet}; SET")), ["parallelism.default | 4"]);
}

#[test]
fn settings_have_older_names_and_older_forms() {
    for script in [
        "SET 'state.checkpoints.dir' = 's3://b/state'",
        "SET state.checkpoints.dir = s3://b/state",
        "SET execution.checkpointing.dir = 's3://b/state'",
        "SET 'execution.checkpointing.dir' = 's3://b/state'",
        "SET execution.checkpointing.dir='s3://b/state' ;",
    ] {
        assert_eq!(rows(&format!("{script}; SET")), ["execution.checkpointing.dir | s3://b/state"], "{script}");
    }
    assert_eq!(rows("SET execution.checkpointing.interval = 10 s; SET"), ["execution.checkpointing.interval | 10 s"]);
    assert!(rows("SET 'state.checkpoints.dir' = 'x'; RESET 'state.checkpoints.dir'; SET").is_empty());
    assert!(rows("SET 'sql-client.verbose' = 'true'; RESET sql-client.verbose; SET").is_empty());
    assert_eq!(rows("SET 'sql-client.verbose' = 'true'; SET"), ["sql-client.verbose | true"]);
}

#[test]
fn statement_sets_have_three_forms() {
    let inserts = "INSERT INTO copy SELECT carrier, CASE WHEN delay > 1 THEN 1 ELSE 2 END FROM flights; INSERT INTO copy SELECT carrier, delay FROM flights;";
    for script in [
        format!("EXECUTE STATEMENT SET BEGIN {inserts} END;"),
        format!("EXECUTE STATEMENT SET\nBEGIN\n{inserts}\nEND"),
        format!("BEGIN STATEMENT SET; {inserts} END;"),
        format!("STATEMENT SET BEGIN {inserts} END"),
    ] {
        let Effect::Insert(job) = run(1, &script).unwrap_or_else(|error| panic!("{error}")) else { panic!("a job") };
        assert_eq!(job.graph.nodes.iter().filter(|node| node.uid.starts_with("sink:")).count(), 2);
        let explained = crate::explained(1, &format!("EXPLAIN {script}"));
        assert_eq!(explained.matches("sink:copy").count(), 2, "{explained}");
    }
    let Effect::Insert(_) = run(1, "EXECUTE INSERT INTO copy SELECT carrier, delay FROM flights").expect("a job")
    else {
        panic!("a job")
    };
    let Effect::Query(..) = run(1, "EXECUTE SELECT carrier FROM flights").expect("a query") else { panic!("a query") };
}

#[test]
fn tables_may_be_named_with_the_catalog_and_the_database() {
    let script =
        "INSERT INTO default_catalog.default_database.copy SELECT carrier, delay FROM default_database.flights";
    assert!(matches!(run(1, script), Ok(Effect::Insert(_))));
    let script = "CREATE TABLE `default_catalog`.`default_database`.t (a INT) WITH ('connector' = 'fake'); DESCRIBE t";
    assert_eq!(rows(script), ["a | INT | TRUE |  |  | "]);
    assert_eq!(rows("SHOW CURRENT CATALOG"), ["default_catalog"]);
    assert_eq!(rows("SHOW DATABASES"), ["default_database"]);
}

#[test]
fn declarations_act_or_are_answered() {
    // The key of a stream's records.
    let stream = "CREATE TABLE s (id BIGINT, b INT, PRIMARY KEY (id, b) NOT ENFORCED) WITH ('connector' = 'stream')";
    assert!(notes(stream).is_empty());
    let keyless = "CREATE TABLE s (id BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'bare')";
    assert_eq!(notes(keyless).len(), 1);
    let idle = "CREATE TABLE t (a INT) WITH ('connector' = 'fake', 'scan.watermark.idle-timeout' = '1 s')";
    assert_eq!(notes(idle), ["table 't': 'scan.watermark.idle-timeout' has no effect, as the table has no WATERMARK"]);
    for (clause, message) in [
        ("PARTITIONED BY (a)", "table 't': 'bare' has no partitions"),
        ("DISTRIBUTED BY HASH(a) INTO 3 BUCKETS", "table 't': 'bare' has no buckets"),
    ] {
        let script = format!("CREATE TABLE t (a INT) {clause} WITH ('connector' = 'bare')");
        assert_eq!(run(1, &script).expect_err("refused").message(), message);
    }
}

#[test]
fn an_error_of_an_option_is_shown_where_the_table_is_declared() {
    let script = "CREATE TABLE t (a INT) WITH (\n  'connector' = 'fake',\n  'sink.parallelism' = '0');\nINSERT INTO t SELECT delay FROM flights";
    let error = run(1, script).expect_err("refused");
    assert_eq!(error.position(), (3, 24), "{error}");
}

#[test]
fn scripts_of_other_editors_are_read() {
    let script = "\u{feff}-- ;\r\n/* a;\r\n b */ SHOW\u{a0}TABLES;\r\n\tSELECT ';--' AS `a;b`,\r\n\tnope FROM flights";
    let statements = parse_script(script, "x.sql").expect("two statements");
    let places: Vec<_> = statements.iter().map(|s| (s.text(), s.line(), s.column())).collect();
    assert_eq!(places[0], ("SHOW\u{a0}TABLES", 3, 7));
    let error = run(1, script).expect_err("no such column");
    assert_eq!((error.message(), error.position()), ("unknown column 'nope'", (5, 2)));
    // Where files were joined.
    assert!(parse_script("SHOW TABLES;\u{feff}SHOW VIEWS;\r\n\u{1a}", "x.sql").is_ok());
}

#[test]
fn what_is_not_closed_is_shown_where_it_begins() {
    for (script, position) in [
        ("SHOW TABLES;\n  SELECT 'a;\nSHOW VIEWS;", (2, 10)),
        ("SHOW TABLES; -- it's\n /* a\nSHOW VIEWS;", (2, 2)),
        ("SHOW TABLES;\nSELECT `a FROM b", (2, 8)),
        ("SHOW TABLES;\nSELECT \"a FROM b", (2, 8)),
        ("SELECT\n(1 + (2 FROM flights", (2, 9)),
    ] {
        let error = parse_script(script, "x.sql").expect_err(script);
        assert_eq!(error.position(), position, "{error}");
    }
}

#[test]
fn a_script_without_a_statement_is_an_error() {
    for script in ["", " \n", ";;", "-- nothing", "\u{feff}"] {
        let error = parse_script(script, "x.sql").expect_err("nothing to do");
        assert!(error.to_string().starts_with("x.sql:1:1: there is no statement here"), "{error}");
    }
}
