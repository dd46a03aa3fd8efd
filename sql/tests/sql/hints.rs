//! Options of a table for one statement, and hints that do nothing.

use coulee_sql::{Effect, parse_script};

use crate::{TABLES, error, explained, run, run_all, session};

fn columns(script: &str) -> Vec<String> {
    match run(1, script) {
        Ok(Effect::Query(_, schema)) => schema.fields().iter().map(|field| field.name().clone()).collect(),
        Ok(other) => panic!("{other:?}"),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_hint_gives_a_table_other_options_for_one_statement() {
    let bounded = "/*+ OPTIONS('bounded' = 'true') */";
    let ordered = |table: &str| format!("SELECT carrier FROM {table} ORDER BY carrier");
    assert!(error(&ordered("flights")).contains("ORDER BY"), "an input without an end is not sorted");
    assert_eq!(columns(&ordered(&format!("flights {bounded}"))), ["carrier"]);
    let twice = format!("{}; {}", ordered(&format!("flights {bounded}")), ordered("flights"));
    assert!(error(&twice).contains("ORDER BY"), "the next statement reads the table as it is");
}

#[test]
fn a_table_with_a_hint_is_called_as_without() {
    let bounded = "/*+ options('bounded' = 'true') */";
    for query in [
        format!("SELECT flights.carrier FROM flights {bounded} ORDER BY flights.carrier"),
        format!("SELECT f.carrier FROM flights {bounded} AS f ORDER BY f.carrier"),
        format!("SELECT f.carrier FROM default_database.flights {bounded} f ORDER BY f.carrier"),
        format!("WITH f AS (SELECT * FROM flights {bounded}) SELECT carrier FROM f ORDER BY carrier"),
        format!("SELECT carrier FROM (SELECT * FROM flights{bounded}) ORDER BY carrier"),
    ] {
        assert_eq!(columns(&query), ["carrier"], "{query}");
    }
    let window = format!(
        "EXPLAIN INSERT INTO delays SELECT carrier, window_end, COUNT(*) FROM TABLE(TUMBLE(TABLE flights {bounded}, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY carrier, window_start, window_end"
    );
    assert_eq!(explained(1, &window), explained(1, &window.replace(bounded, "")), "and so are the operators");
}

#[test]
fn a_table_is_read_with_and_without_a_hint_in_one_statement() {
    let both = "EXPLAIN INSERT INTO copy SELECT carrier, delay FROM flights UNION ALL SELECT carrier, delay FROM flights /*+ OPTIONS('format' = 'csv') */";
    let shown = explained(1, both);
    assert!(shown.contains("source:flights") && shown.contains("source:flights-2"), "{shown}");
}

#[test]
fn a_sink_takes_a_hint() {
    let change = "SELECT carrier, COUNT(*) FROM flights GROUP BY carrier";
    assert!(error(&format!("INSERT INTO copy {change}")).contains("copy"));
    let hinted = format!("INSERT INTO copy /*+ OPTIONS('changes' = 'true') */ (carrier, delay) {change}");
    let Ok(Effect::Insert(job)) = run(1, &hinted) else { panic!("a job") };
    assert_eq!(job.tables, ["flights", "copy"]);
}

#[test]
fn a_view_keeps_the_options_of_its_hint() {
    let view = "CREATE VIEW v AS SELECT * FROM flights /*+ OPTIONS('bounded' = 'true') */;";
    assert_eq!(columns(&format!("{view} SELECT carrier FROM v ORDER BY carrier")), ["carrier"]);
}

#[test]
fn a_wrong_hint_is_an_error_at_its_place() {
    for (script, expected) in [
        ("SELECT carrier FROM flight /*+ OPTIONS('a' = 'b') */", "x.sql:1:21: unknown table 'flight'"),
        ("SELECT carrier FROM flights /*+ OPTIONS('bounde' = 'true') */", "'bounde'"),
        ("SELECT carrier FROM flights /*+ OPTIONS('bounded' = 'perhaps') */", "perhaps"),
        (
            "SELECT carrier FROM flights /*+ OPTIONS(bounded = true) */",
            "x.sql:1:29: the hint OPTIONS(bounded = true) is not understood",
        ),
        (
            "SELECT carrier FROM /*+ OPTIONS('a' = 'b') */ flights",
            "x.sql:1:21: OPTIONS belongs right behind the name of a table",
        ),
    ] {
        let shown = error(script);
        assert!(shown.contains(expected) && !shown.contains('\u{1}'), "{shown}");
    }
}

#[test]
fn hints_about_joins_do_nothing_and_say_so() {
    let mut session = session(1);
    run_all(&mut session, TABLES).expect("the tables");
    let joined = "SELECT /*+ BROADCAST(c), SHUFFLE_HASH(flights, c) */ f.carrier FROM flights AS f JOIN corrections AS c ON f.carrier = c.carrier";
    session.execute(&parse_script(joined, "x.sql").unwrap()[0]).expect("a query");
    assert_eq!(
        session.take_notes(),
        ["BROADCAST, SHUFFLE_HASH have no effect: there is one way to run each join here"]
    );
}
