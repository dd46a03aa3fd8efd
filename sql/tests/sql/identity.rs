//! Who an operator is and what its state means, through edits of a script: what must not change it, and what must.

use coulee_runtime::state::StateDescriptor;
use coulee_sql::Effect;

use crate::{error, run};

/// What the operators of a job keep.
fn states(parallelism: u32, script: &str) -> Vec<StateDescriptor> {
    match run(parallelism, script) {
        Ok(Effect::Insert(job) | Effect::Query(job, _)) => job.graph.states(),
        Ok(other) => panic!("{script}: {other:?}"),
        Err(error) => panic!("{error}"),
    }
}

fn uids(script: &str) -> Vec<String> {
    let mut uids: Vec<String> = states(1, script).into_iter().map(|state| state.uid).collect();
    uids.sort();
    uids
}

/// The facets of the operator of a name: name and text.
fn facets(parallelism: u32, script: &str, uid: &str) -> Vec<(String, String)> {
    let states = states(parallelism, script);
    let Some(state) = states.iter().find(|state| state.uid == uid) else {
        panic!("{script}: no '{uid}' in {:?}", states.iter().map(|state| &state.uid).collect::<Vec<_>>())
    };
    state.facets.iter().map(|facet| (facet.name.clone(), facet.text.clone())).collect()
}

/// The names of the facets of `delays/window` in which two scripts differ.
fn changed(before: &str, after: &str) -> Vec<String> {
    let (before, after) = (facets(1, before, "delays/window"), facets(1, after, "delays/window"));
    assert_eq!(before.len(), after.len());
    before.into_iter().zip(after).filter(|(was, is)| was != is).map(|(was, _)| was.0).collect()
}

const HOURS: &str = "INSERT INTO delays SELECT carrier, window_end, COUNT(*) FROM
    TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) WHERE delay > 10
    GROUP BY window_start, window_end, carrier";

#[test]
fn a_window_says_what_gives_its_state_its_meaning() {
    let expected = [
        ("window", "TUMBLE(flights.departed_at, 1 h)"),
        ("keys", "flights.carrier: Utf8"),
        ("aggregates", "count(*): Int64"),
        ("time zone", "UTC"),
        ("changelog", "inserts"),
        ("input", "flights WHERE (flights.delay > 10)"),
    ];
    let expected = expected.map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(facets(1, HOURS, "delays/window"), expected);
    assert_eq!(facets(4, HOURS, "delays/window"), expected, "in two stages, too");
}

#[test]
fn what_the_window_does_not_use_does_not_change_it() {
    for (what, after) in [
        ("blanks and case", HOURS.replace("COUNT", "count").replace('\n', "  ")),
        (
            "aliases",
            HOURS.replace("COUNT(*)", "COUNT(*) AS how_many").replace("SELECT carrier,", "SELECT carrier AS c,"),
        ),
        ("a filter behind it", format!("{HOURS} HAVING COUNT(*) > 3")),
        ("a column behind it", HOURS.replace("SELECT carrier", "SELECT UPPER(carrier)")),
        ("the order of conditions", HOURS.replace("delay > 10", "delay > 10 AND delay > 10")),
        (
            "a subquery that renames",
            HOURS
                .replace("TABLE flights", "TABLE f")
                .replace("INSERT", "CREATE VIEW f AS SELECT departed_at, carrier, delay, origin FROM flights; INSERT"),
        ),
        (
            "a column that nobody uses",
            HOURS.replace("TABLE flights", "TABLE f").replace(
                "INSERT",
                "CREATE VIEW f AS SELECT departed_at, carrier, delay, UPPER(origin) AS o, 7 AS n FROM flights; INSERT",
            ),
        ),
        ("another window bound", HOURS.replace("window_end, COUNT", "window_start, COUNT")),
    ] {
        assert!(changed(HOURS, &after).is_empty(), "{what}: {:?}", changed(HOURS, &after));
    }
}

#[test]
fn what_the_window_means_changes_it() {
    for (after, facet) in [
        (HOURS.replace("'1' HOUR", "'2' HOUR"), "window"),
        (HOURS.replace("INTERVAL '1' HOUR)", "INTERVAL '1' HOUR, INTERVAL '5' MINUTE)"), "window"),
        (HOURS.replace("delay > 10", "delay > 20"), "input"),
        (HOURS.replace("WHERE delay > 10", ""), "input"),
        (
            HOURS
                .replace("window_end, carrier", "window_end, UPPER(carrier)")
                .replace("SELECT carrier", "SELECT UPPER(carrier)"),
            "keys",
        ),
        (HOURS.replace("COUNT(*)", "COUNT(delay)"), "aggregates"),
        (HOURS.replace("COUNT(*)", "COUNT(DISTINCT delay)"), "aggregates"),
        (HOURS.replace("COUNT(*)", "COUNT(*) FILTER (WHERE delay > 30)"), "aggregates"),
        (HOURS.replace("COUNT(*)", "COUNT(*) + SUM(delay)"), "aggregates"),
        // A text that reads as the column does.
        (HOURS.replace("delay > 10", "delay > 10 AND origin = 'flights.carrier'"), "input"),
    ] {
        assert_eq!(changed(HOURS, &after), [facet], "{after}");
    }
    let columns = HOURS.replace("delay > 10", "delay > 10 AND origin = carrier");
    let text = HOURS.replace("delay > 10", "delay > 10 AND origin = 'flights.carrier'");
    assert_eq!(changed(&columns, &text), ["input"]);
    let corrections = HOURS.replace("TABLE flights", "TABLE corrections");
    assert_eq!(changed(HOURS, &corrections), ["window", "keys", "changelog", "input"]);
}

#[test]
fn the_order_of_keys_and_aggregates_does_not_matter() {
    let script = |select: &str, keys: &str| {
        format!(
            "CREATE TABLE two (a STRING, b STRING, n BIGINT, s BIGINT) WITH ('connector' = 'fake');
             INSERT INTO two (a, b, n, s) SELECT carrier, origin, {select} FROM
             TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY {keys}"
        )
    };
    let before = facets(3, &script("COUNT(*), SUM(delay)", "window_start, window_end, carrier, origin"), "two/window");
    for (select, keys) in [
        ("SUM(delay), COUNT(*)", "window_start, window_end, carrier, origin"),
        ("COUNT(*), SUM(delay)", "origin, carrier, window_end, window_start"),
    ] {
        assert_eq!(facets(3, &script(select, keys), "two/window"), before, "{select} {keys}");
    }
    assert_eq!(before[2].1, "count(*): Int64, sum(flights.delay): Int32");
}

#[test]
fn names_begin_at_the_sink_and_count_towards_the_sources() {
    let nested = "INSERT INTO delays WITH q AS (SELECT carrier, window_time AS rt, COUNT(*) AS n FROM
        TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_time, carrier)
        SELECT carrier, window_end, MAX(n) FROM TABLE(TUMBLE(TABLE q, DESCRIPTOR(rt), INTERVAL '1' DAY)) GROUP BY window_end, carrier";
    assert_eq!(uids(nested), ["delays/window", "delays/window-2", "sink:delays", "source:flights"]);
    let hour = facets(1, nested, "delays/window-2");
    assert_eq!(hour[0].1, "TUMBLE(flights.departed_at, 1 h)");
    let day = facets(1, nested, "delays/window");
    assert_eq!(day[0].1, "TUMBLE(window_time, 1 d)");
    assert_eq!(day[2].1, "max(count(*): Int64): Int64");
    assert_eq!(day[5].1, "[TUMBLE(flights.departed_at, 1 h) BY flights.carrier: count(*): Int64 OF flights]");
}

#[test]
fn branches_of_a_union_are_named_by_what_they_read() {
    let branch = |table: &str| {
        format!(
            "SELECT carrier, window_end, COUNT(*) FROM TABLE(TUMBLE(TABLE {table}, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_end, carrier"
        )
    };
    let (flights, corrections) = (branch("flights"), branch("corrections"));
    let names =
        ["delays/corrections/window", "delays/flights/window", "sink:delays", "source:corrections", "source:flights"];
    assert_eq!(uids(&format!("INSERT INTO delays {flights} UNION ALL {corrections}")), names);
    assert_eq!(uids(&format!("INSERT INTO delays {corrections} UNION ALL {flights}")), names);
    let twice = uids(&format!("INSERT INTO delays {flights} UNION ALL {flights}"));
    assert_eq!(twice, ["delays/flights-2/window", "delays/flights/window", "sink:delays", "source:flights"]);
}

const COPY: &str = "INSERT INTO copy SELECT carrier, delay FROM flights";

#[test]
fn other_statements_of_a_set_rename_nothing() {
    let set = |inserts: &[&str]| format!("EXECUTE STATEMENT SET BEGIN {}; END", inserts.join("; "));
    let both = uids(&set(&[HOURS, COPY]));
    assert_eq!(both, ["delays/window", "sink:copy", "sink:delays", "source:flights"]);
    assert_eq!(uids(&set(&[COPY, HOURS])), both);
    let alone = uids(&set(&[HOURS]));
    assert!(alone.iter().all(|uid| both.contains(uid)), "{alone:?}");
    for uid in &alone {
        let tells = |facet: &(String, String)| facet.0 != "input" || uid.contains("window");
        let of = |script: &str| facets(1, script, uid).into_iter().filter(tells).collect::<Vec<_>>();
        assert_eq!(of(&set(&[HOURS])), of(&set(&[COPY, HOURS])), "{uid}");
    }
}

#[test]
fn a_table_is_read_once_whatever_columns_are_asked_for() {
    let set = "EXECUTE STATEMENT SET BEGIN INSERT INTO copy SELECT carrier, delay FROM flights; INSERT INTO copy SELECT origin, 1 FROM flights; END";
    assert_eq!(uids(set), ["sink:copy", "sink:copy-2", "source:flights"]);
    let Ok(Effect::Insert(job)) = run(1, set) else { panic!("a job") };
    assert_eq!(job.graph.nodes[0].describe(), "Read carrier, origin, delay, departed_at");
}

#[test]
fn operators_that_only_a_number_tells_apart_are_a_family() {
    let set = format!("EXECUTE STATEMENT SET BEGIN {HOURS}; {}; END", HOURS.replace("'1' HOUR", "'2' HOUR"));
    let families: Vec<(String, Option<String>)> = states(1, &set).into_iter().map(|s| (s.uid, s.family)).collect();
    let named = |uid: &str, family: &str| (uid.to_owned(), Some(family.to_owned()));
    assert!(families.contains(&named("delays/window", "delays/window")), "{families:?}");
    assert!(families.contains(&named("delays-2/window", "delays/window")), "{families:?}");
    assert!(families.contains(&named("sink:delays-2", "sink:delays")), "{families:?}");
    assert!(families.contains(&("source:flights".to_owned(), None)), "{families:?}");
}

#[test]
fn a_hint_names_the_state_of_its_select() {
    let named = HOURS.replace("SELECT", "SELECT /*+ STATE_UID('hourly') */");
    assert_eq!(uids(&named), ["hourly", "sink:delays", "source:flights"]);
    assert_eq!(facets(2, &named, "hourly"), facets(2, HOURS, "delays/window"), "and changes nothing else");
    let Ok(Effect::Insert(job)) = run(1, &named) else { panic!("a job") };
    let Ok(Effect::Insert(plain)) = run(1, HOURS) else { panic!("a job") };
    let schema = |graph: &coulee_runtime::graph::Graph| graph.lineage(coulee_model::OperatorId(2)).schema().clone();
    assert_eq!(schema(&job.graph), schema(&plain.graph));
    // In a view, in a statement set, next to another.
    let view = format!(
        "CREATE VIEW v AS {}; INSERT INTO delays SELECT * FROM v",
        named.replace("INSERT INTO delays ", "").replace("COUNT(*)", "COUNT(*) AS n")
    );
    assert_eq!(uids(&view), ["hourly", "sink:delays", "source:flights"]);
    let set = format!("EXECUTE STATEMENT SET BEGIN {named}; {COPY}; END");
    assert_eq!(uids(&set), ["hourly", "sink:copy", "sink:delays", "source:flights"]);
}

#[test]
fn a_hint_that_says_nothing_is_refused() {
    for (script, expected) in [
        (COPY.replace("SELECT", "SELECT /*+ STATE_UID('x') */"), "this SELECT has no GROUP BY"),
        (HOURS.replace("SELECT", "SELECT /*+ STATE_TTL('flights' = '1d') */"), "is not known"),
        (COPY.replace("flights", "flights /*+ BROADCAST(flights) */"), "the hint BROADCAST is not known here"),
        (
            HOURS.replace("SELECT", "SELECT /*+ STATE_UID('source:flights') */"),
            "two operators are named 'source:flights'",
        ),
    ] {
        let shown = error(&script);
        assert!(shown.contains(expected), "{shown}");
    }
    let shown = error(&COPY.replace("SELECT", "SELECT\n  /*+ STATE_UID('x') */"));
    assert!(shown.starts_with("x.sql:1:18: "), "at the SELECT: {shown}");
}

#[test]
fn sources_and_sinks_say_what_they_read_and_write() {
    let source = facets(1, COPY, "source:flights");
    assert_eq!(source[1], ("event time".to_owned(), "departed_at".to_owned()));
    assert_eq!(source[2].0, "watermark");
    assert_eq!(facets(1, COPY, "sink:copy")[0], ("writes".to_owned(), "Write copy".to_owned()));
}

#[test]
fn a_long_condition_makes_a_short_facet() {
    let terms: Vec<String> = (0..150).map(|n| format!("carrier = 'c{n}' AND delay < {n}")).collect();
    let script = |last: &str| HOURS.replace("delay > 10", &format!("{} OR {last}", terms.join(" OR ")));
    let (a, b) = (facets(1, &script("delay = 1"), "delays/window"), facets(1, &script("delay = 2"), "delays/window"));
    assert!(a[5].1.len() < 5_000, "{}", a[5].1.len());
    assert_ne!(a[5], b[5]);
}
