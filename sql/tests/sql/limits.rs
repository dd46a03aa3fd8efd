//! Statements that programs write: thousands of terms, columns and branches, and nesting without end. None may end the process.

use coulee_sql::{Effect, SqlError};

use crate::{evaluation::evaluate, run, run_all, session};

fn joined(count: usize, by: &str, term: impl Fn(usize) -> String) -> String {
    (0..count).map(term).collect::<Vec<_>>().join(by)
}

/// A query with a long condition, planned.
fn planned(condition: &str) -> Result<Effect, SqlError> {
    run(1, &format!("SELECT carrier FROM flights WHERE {condition}"))
}

#[test]
fn conditions_of_thousands_of_terms_are_planned() {
    for condition in [
        joined(5_000, " OR ", |i| format!("delay = {i}")),
        joined(5_000, " OR ", |i| format!("origin LIKE '%{i}%'")),
        joined(5_000, " AND ", |i| format!("delay <> {i}")),
        joined(5_000, " AND ", |i| format!("(delay > {i} OR carrier = '{i}')")),
        format!("delay IN ({})", joined(20_000, ", ", |i| i.to_string())),
        format!("carrier = {}", joined(5_000, " || ", |i| format!("'{i}'"))),
        format!("NOT ({})", joined(5_000, " OR ", |i| format!("delay = {i} AND origin = '{i}'"))),
        format!("delay = CASE {} END", joined(2_000, " ", |i| format!("WHEN delay = {i} THEN {i}"))),
        format!("carrier = COALESCE({})", joined(2_000, ", ", |i| format!("NULLIF(origin, '{i}')"))),
    ] {
        let Effect::Query(job, _) = planned(&condition).unwrap_or_else(|error| panic!("{error}")) else {
            panic!("a query")
        };
        drop(job);
    }
}

#[test]
fn a_long_condition_gives_what_a_short_one_gives() {
    // Of the delays 5, 20, null, 40, 1.
    let terms = joined(5_000, " OR ", |i| format!("delay = {}", i + 20));
    assert_eq!(evaluate(&format!("SELECT delay FROM flights WHERE {terms}")), ["20", "40"]);
    let terms = joined(5_000, " AND ", |i| format!("delay <> {}", i + 20));
    assert_eq!(evaluate(&format!("SELECT delay FROM flights WHERE {terms}")), ["1", "5"]);
    let terms = joined(3_000, " OR ", |i| format!("origin LIKE '%{i}%'"));
    assert_eq!(evaluate(&format!("SELECT delay FROM flights WHERE origin LIKE 'J%' OR {terms}")), ["40", "5"]);
    let text = joined(3_000, " || ", |_| "'ab'".to_owned());
    assert_eq!(evaluate(&format!("SELECT CHAR_LENGTH(carrier || {text}) FROM flights WHERE delay = 1")), ["6002"]);
    let sum = joined(400, " + ", |_| "delay".to_owned());
    assert_eq!(evaluate(&format!("SELECT {sum} FROM flights WHERE delay = 5")), ["2000"]);
}

#[test]
fn chains_that_are_not_associative_have_a_limit_with_a_place() {
    let sum = joined(5_000, " + ", |_| "delay".to_owned());
    let error = run(1, &format!("SELECT\n{sum}\nFROM flights")).expect_err("too long");
    assert!(error.message().contains("more than 500 operations follow each other"), "{error}");
    assert_eq!(error.position().0, 2);
    let nulls = format!("SELECT delay {} FROM flights", "IS NULL ".repeat(100_000));
    let error = run(1, &nulls).expect_err("too long");
    assert!(error.message().contains("more than 500 operations follow each other"), "{error}");
}

#[test]
fn nesting_has_a_limit_with_a_place() {
    let nested = |open: &str, inner: &str, close: &str, count: usize| {
        format!("{}{inner}{}", open.repeat(count), close.repeat(count))
    };
    for (script, line) in [
        (format!("SELECT\n{} FROM flights", nested("(", "1", ")", 100_000)), 2),
        (format!("SELECT\n{} FROM flights", nested("UPPER(", "carrier", ")", 100_000)), 2),
        (format!("SELECT\n{} FROM flights", nested("CASE WHEN TRUE THEN ", "1", " END", 20_000)), 2),
        (format!("SELECT\n{} delay FROM flights", "- ".repeat(20_000)), 2),
        (format!("SELECT carrier FROM flights WHERE\n{} TRUE", "NOT ".repeat(20_000)), 2),
        (format!("SELECT carrier FROM\n{}", nested("(SELECT carrier FROM ", "flights", ")", 20_000)), 2),
        (format!("SELECT carrier FROM\n{}", nested("(", "flights", ")", 20_000)), 2),
        (format!("SELECT CAST(carrier AS\n{}) FROM flights", nested("ARRAY<", "INT", ">", 20_000)), 2),
        (format!("CREATE TABLE t (a\n{})", nested("ROW<a ", "INT", ">", 20_000)), 2),
        (format!("SELECT carrier FROM flights\n{}", "UNION SELECT carrier FROM flights ".repeat(5_000)), 2),
    ] {
        let start: String = script.chars().take(60).collect();
        let error = run(1, &script).expect_err(&start);
        assert!(error.message().contains("more than"), "{start}: {}", error.message());
        assert_eq!(error.position().0, line, "{start}: {}", error.message());
    }
}

#[test]
fn what_people_nest_is_planned() {
    let nested = |open: &str, inner: &str, close: &str, count: usize| {
        format!("{}{inner}{}", open.repeat(count), close.repeat(count))
    };
    for expression in [
        nested("(", "delay", ")", 100),
        nested("UPPER(", "carrier", ")", 100),
        nested("CASE WHEN delay > 1 THEN ", "1", " ELSE 2 END", 60),
    ] {
        run(1, &format!("SELECT {expression} FROM flights")).unwrap_or_else(|error| panic!("{error}"));
    }
    run(1, &nested("SELECT carrier FROM (", "SELECT carrier FROM flights", ")", 50)).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn views_of_views_have_a_limit() {
    let mut session = session(1);
    run_all(&mut session, crate::TABLES).expect("the tables");
    let create = |session: &mut coulee_sql::Session, index: usize, query: &str| {
        let from = if index == 0 { "flights".to_owned() } else { format!("v{}", index - 1) };
        run_all(session, &format!("CREATE VIEW v{index} AS {}", query.replace('?', &from)))
    };
    // A plan that is as deep as there are views.
    let deep = (0..2_000).find_map(|index| create(&mut session, index, "SELECT carrier, delay FROM ?").err());
    assert!(deep.expect("a limit").message().contains("views of views"));
    for (query, part) in [
        // A plan and a condition that double with each view.
        ("SELECT delay FROM ? UNION ALL SELECT delay FROM ?", "views of views"),
        ("SELECT delay + delay AS delay FROM ? WHERE delay + delay > 1", "terms"),
    ] {
        let mut session = crate::session(1);
        run_all(&mut session, crate::TABLES).expect("the tables");
        let error = (0..64).find_map(|index| create(&mut session, index, query).err()).expect("a limit");
        assert!(error.message().contains(part), "{error}");
    }
}

#[test]
fn thousands_of_columns_and_branches_are_planned() {
    let columns = joined(3_000, ", ", |i| format!("c{i} INT"));
    let list = joined(3_000, ", ", |i| format!("c{i} + 1 AS d{i}"));
    let script = format!("CREATE TABLE wide ({columns}) WITH ('connector' = 'fake'); SELECT {list} FROM wide");
    run(1, &script).unwrap_or_else(|error| panic!("{error}"));
    let union = joined(1_000, " UNION ALL ", |i| format!("SELECT carrier, delay + {i} FROM flights"));
    let Effect::Query(job, _) = run(1, &union).unwrap_or_else(|error| panic!("{error}")) else { panic!("a query") };
    assert!(job.graph.check().is_ok());
}
