//! Queries and the graphs that they become.

use coulee_runtime::graph::NodeKind;
use coulee_sql::Effect;

use crate::{explained, golden, run, run_all, session};

#[test]
fn explain_shows_the_graph_event_times_and_state() {
    golden::check("plans.txt", |input| {
        let (parallelism, script) = input.split_once('\n').expect("the parallelism and a script");
        let parallelism = parallelism.trim_start_matches("parallelism ").parse().expect("a number");
        explained(parallelism, script)
    });
}

#[test]
fn jobs_are_named_after_the_script_unless_a_setting_names_them() {
    let mut session = session(1);
    run_all(&mut session, crate::TABLES).expect("the tables");
    let insert = "INSERT INTO copy SELECT carrier, delay FROM flights;";
    let script = format!(
        "{insert} EXPLAIN {insert} {insert} SET 'pipeline.name' = 'named'; {insert} RESET 'pipeline.name'; {insert}"
    );
    let effects = run_all(&mut session, &script).expect("the script");
    let name = |effect: &Effect| match effect {
        Effect::Insert(job) => Some(job.name.clone()),
        _ => None,
    };
    let names: Vec<String> = effects.iter().filter_map(name).collect();
    assert_eq!(names, ["job", "job-2", "named", "job-3"]);
}

#[test]
fn a_job_knows_its_tables_and_settings() {
    let script = "SET 'execution.checkpointing.interval' = '100 ms'; SET 'table.dml-sync' = 'true'; SET 'parallelism.default' = '3';
        INSERT INTO copy SELECT carrier, delay FROM flights";
    let Ok(Effect::Insert(job)) = run(1, script) else { panic!("a job") };
    assert_eq!(job.tables, ["flights", "copy"]);
    assert_eq!((job.settings.parallelism, job.settings.wait), (3, true));
    assert_eq!(job.settings.checkpoint_interval.as_millis(), 100);
    assert!(!job.graph.is_bounded());
}

#[test]
fn a_select_ends_in_the_callers_sink_with_distinct_names() {
    let Ok(Effect::Query(job, schema)) = run(1, "SELECT carrier, a.carrier, delay AS d, 1, 1 FROM flights AS a") else {
        panic!("a query")
    };
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["carrier", "carrier0", "d", "EXPR$3", "EXPR$4"]);
    let NodeKind::Sink(sink) = &job.graph.nodes.last().expect("a node").kind else { panic!("a sink") };
    assert_eq!(sink.describe(), "Write screen");
}
