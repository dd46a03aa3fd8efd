//! The pipeline is cancelled in mid-stream again and again, goes on at another parallelism, and has judged every payment once.

use std::fmt::Write;

use coulee_model::Stopwatch;
use coulee_runtime::graph::NodeKind;
use coulee_runtime::job::JobOutcome;

use super::*;

const KINDS: [&str; 3] = ["card", "wire", "cash"];

/// (at, kind, above) of rules; from the beginning each kind has one.
fn rules() -> Vec<(i64, &'static str, i64)> {
    (0..60i64).map(|i| (i / 3 * 20_000, KINDS[(i % 3) as usize], 500 + (i * 137) % 400)).collect()
}

/// (at, account, kind, amount) of the payments in one of three files, up to 4 s out of order.
fn payments(file: i64) -> Vec<(i64, String, &'static str, i64)> {
    let payment = |i: i64| {
        let dice = (i * 3 + file) * 7_919;
        (i * 200 + dice % 4_000, format!("a{}", dice % 50), KINDS[(dice % 3) as usize], (dice / 7) % 1_000)
    };
    (0..2_000).map(payment).collect()
}

/// By a look at all rules for each payment.
fn expected() -> Vec<String> {
    let (rules, mut lines) = (rules(), Vec::new());
    for (at, account, kind, amount) in (0..3).flat_map(payments) {
        let known = rules.iter().enumerate().filter(|(_, rule)| rule.1 == kind && rule.0 <= at);
        let Some((number, rule)) = known.max_by_key(|(_, rule)| rule.0) else { continue };
        if amount > rule.2 {
            lines.push(format!("{account},{kind},{amount},rule {number}"));
        }
    }
    lines.sort();
    lines
}

fn write_inputs(folder: &Path) {
    let time = |millis: i64| coulee_model::Timestamp(millis).to_string();
    for name in ["payments", "rules"] {
        std::fs::create_dir(folder.join(name)).expect("a folder");
    }
    for file in 0..3 {
        let mut text = String::new();
        for (at, account, kind, amount) in payments(file) {
            writeln!(text, "{},{account},{kind},{amount}", time(at)).expect("text grows");
        }
        std::fs::write(folder.join(format!("payments/{file}.csv")), text).expect("a file");
    }
    let mut text = String::new();
    for (number, (at, kind, above)) in rules().into_iter().enumerate() {
        writeln!(text, "{},{kind},{above},rule {number}", time(at)).expect("text grows");
    }
    std::fs::write(folder.join("rules/all.csv"), text).expect("a file");
}

/// The visible lines, sorted; nothing else may be in the folder at the end.
fn found(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the sink's folder") {
        let path = entry.expect("an entry").path();
        assert_eq!(path.extension().expect("an extension"), "csv", "{} was left behind", path.display());
        lines.extend(std::fs::read_to_string(&path).expect("text").lines().map(str::to_owned));
    }
    lines.sort();
    lines
}

fn paced(parallelism: u32, folder: &Path) -> Graph {
    let [payments, rules, out] = ["payments", "rules", "suspicious"].map(|name| folder.join(name));
    let mut graph = graph(parallelism, &payments, &rules, &out).expect("a complete graph");
    for node in &mut graph.nodes {
        if let NodeKind::Source(source) = &mut node.kind {
            // So that there is a middle of the stream; rules keep step with payments.
            source.rate_limit = Some(if node.uid == "rules" { 100.0 } else { 10_000.0 });
        }
    }
    graph
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_payment_is_judged_once_by_the_rule_of_its_time() {
    let folder = tempfile::tempdir().expect("a folder");
    write_inputs(folder.path());
    let expected = expected();
    assert!((500..4_000).contains(&expected.len()), "{}", expected.len());
    let mut cancelled = 0;
    for parallelism in [2, 4, 1, 3, 2] {
        let job =
            crate::embed::start("payments", paced(parallelism, folder.path()), folder.path(), Duration::from_millis(5));
        let job = job.expect("the graph is sound");
        let (until, begun) = (job.status().checkpoint.0 + 3, Stopwatch::start());
        while job.status().checkpoint.0 < until && cancelled < 4 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoints");
            tokio::select! {
                // A machine that is slow to look sees it done.
                _ = job.outcome() => break,
                () = tokio::task::yield_now() => {}
            }
        }
        if cancelled < 4 {
            job.cancel();
        }
        match job.outcome().await {
            JobOutcome::Cancelled => cancelled += 1,
            JobOutcome::Finished => {
                assert!(cancelled > 0, "no attempt ended in mid-stream");
                assert!(
                    found(&folder.path().join("suspicious")) == expected,
                    "payments are lost, doubled or misjudged"
                );
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("the last attempt must come to the end");
}
