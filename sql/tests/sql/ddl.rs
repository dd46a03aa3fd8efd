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
            "id | BIGINT | TRUE | PRI(id) |  | ",
            "price | DECIMAL(10, 2) | FALSE |  |  | ",
            "bid | ROW<auction BIGINT, tags ARRAY<ARRAY<STRING>>> | FALSE |  |  | ",
            "attributes | MAP<STRING, INT> | TRUE |  |  | ",
            "at_ms | BIGINT | TRUE |  |  | ",
            "k | STRING | TRUE |  | METADATA FROM 'key' VIRTUAL | ",
            "ts | TIMESTAMP_LTZ(3) | TRUE |  | AS TO_TIMESTAMP_LTZ(at_ms, 3) | ts - INTERVAL '5' SECOND",
            "local | TIMESTAMP(3) | TRUE |  |  | ",
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
    assert!(rows("SHOW FUNCTIONS").contains(&"upper | scalar".to_owned()));
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
