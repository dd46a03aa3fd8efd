//! Settings of Flink that Coulee answers without having them: other names of its own, those without an effect here, and those that are refused.
//!
//! Scripts that ran on Flink begin with such settings. What cannot change a result is taken with one sentence about why it has no effect; what would change
//! a result is refused by name.

/// What is answered to `SET` of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Another name of this key of Coulee's.
    Alias(&'static str),
    /// It is taken and does nothing: why.
    NoEffect(&'static str),
    /// It is refused: why, and what to do.
    Refused(&'static str),
}

use Answer::{Alias, NoEffect, Refused};

/// What is answered to a key; `None` when Coulee does not know it.
pub(crate) fn answer(key: &str, value: &str) -> Option<Answer> {
    let rule = RULES.iter().find(|rule| {
        let covers = rule.key.strip_suffix('*').map_or(rule.key == key, |start| key.starts_with(start));
        covers && (rule.values.is_empty() || rule.values.iter().any(|known| known.eq_ignore_ascii_case(value)))
    });
    rule.map(|rule| rule.answer)
}

/// What is answered to the values of a key.
struct Rule {
    /// A key; one that ends in `*` stands for all with that beginning.
    key: &'static str,
    /// The values that the rule is for, whatever their case; empty: all.
    values: &'static [&'static str],
    answer: Answer,
}

const fn all(key: &'static str, answer: Answer) -> Rule {
    Rule { key, values: &[], answer }
}

const fn only(key: &'static str, values: &'static [&'static str], answer: Answer) -> Rule {
    Rule { key, values, answer }
}

const CLIENT: Answer =
    NoEffect("it is for the terminal of Flink's SQL client; `coulee run --output` says how rows are shown");
const CLUSTER: Answer =
    NoEffect("it sets up a Flink cluster; Coulee is one process, which its own settings file and flags set up");
const JVM: Answer = NoEffect("it is about how Flink runs Java code");
const ROCKSDB: Answer =
    NoEffect("state is always held in memory and in RocksDB; 'taskmanager.memory.managed.size' says how much memory");
const TUNING: Answer = NoEffect("it tunes an operator of Flink's and changes no result");
const CHECKPOINT: Answer = NoEffect(
    "checkpoints are always exactly once and aligned, and one is under way at a time; 'execution.checkpointing.interval' says how often",
);
const CREDENTIALS: Answer = Refused(
    "the access to an object store is not a setting of a script: give it by the environment (AWS_ACCESS_KEY_ID, AWS_REGION, …) or by a table's options ('s3.endpoint')",
);
const ONE_CATALOG: Answer =
    Refused("there is one catalog, 'default_catalog', with one database, 'default_database': leave the setting out");

/// The first rule that is for a key and its value is the answer.
const RULES: &[Rule] = &[
    // Older names.
    all("state.checkpoints.dir", Alias("execution.checkpointing.dir")),
    all("state.savepoints.dir", Alias("execution.checkpointing.savepoint-dir")),
    all("state.checkpoints.num-retained", Alias("execution.checkpointing.num-retained")),
    all("execution.savepoint.path", Alias("execution.state-recovery.path")),
    all("execution.savepoint.ignore-unclaimed-state", Alias("execution.state-recovery.ignore-unclaimed-state")),
    all("restart-strategy", Alias("restart-strategy.type")),
    only("table.exec.resource.default-parallelism", &["-1"], NoEffect("-1 means the job's parallelism, as without it")),
    all("table.exec.resource.default-parallelism", Alias("parallelism.default")),
    // The client.
    all("sql-client.*", CLIENT),
    all("table.display.*", CLIENT),
    all("client.*", CLIENT),
    // How the job is run.
    all("execution.checkpointing.mode", CHECKPOINT),
    all("execution.checkpointing.timeout", CHECKPOINT),
    all("execution.checkpointing.min-pause", CHECKPOINT),
    all("execution.checkpointing.max-concurrent-checkpoints", CHECKPOINT),
    all("execution.checkpointing.tolerable-failed-checkpoints", CHECKPOINT),
    all("execution.checkpointing.unaligned*", CHECKPOINT),
    all("execution.checkpointing.aligned-checkpoint-timeout", CHECKPOINT),
    all("execution.checkpointing.alignment-timeout", CHECKPOINT),
    all("execution.checkpointing.force-unaligned", CHECKPOINT),
    all("execution.checkpointing.interval-during-backlog", CHECKPOINT),
    all("execution.checkpointing.checkpoints-after-tasks-finish*", CHECKPOINT),
    all(
        "execution.checkpointing.externalized-checkpoint-retention",
        NoEffect("the last 'execution.checkpointing.num-retained' snapshots are kept, whatever ends the job"),
    ),
    all(
        "execution.checkpointing.incremental",
        NoEffect("snapshots are always incremental: only new files are uploaded"),
    ),
    all("execution.checkpointing.storage", NoEffect("'execution.checkpointing.dir' says where snapshots go")),
    all("execution.checkpointing.local-backup*", NoEffect("a job's state always has a copy on this disk")),
    all("execution.checkpointing.file-merging*", CHECKPOINT),
    all("execution.checkpointing.cleaner*", CHECKPOINT),
    all("execution.checkpointing.data-inline-threshold", CHECKPOINT),
    all("execution.checkpointing.write-buffer-size", CHECKPOINT),
    all("execution.buffer-timeout*", NoEffect("rows wait for at most 10 ms to be handed on together")),
    all(
        "execution.state-recovery.claim-mode",
        NoEffect("a snapshot that a job begins with is never changed by the job"),
    ),
    all("execution.savepoint-restore-mode", NoEffect("a snapshot that a job begins with is never changed by the job")),
    all("execution.attached", CLUSTER),
    all("execution.target", CLUSTER),
    all("execution.shutdown-on-attached-exit", CLUSTER),
    all("execution.batch*", TUNING),
    all("execution.sorted-inputs*", TUNING),
    all(
        "restart-strategy.exponential-delay.reset-backoff-threshold",
        NoEffect("a new checkpoint begins the count of attempts anew"),
    ),
    all(
        "restart-strategy.failure-rate*",
        Refused("there is no restart strategy by failure rate: take 'exponential-delay' as 'restart-strategy.type'"),
    ),
    all("pipeline.max-parallelism", NoEffect("state is always kept in 256 key groups, the most subtasks there can be")),
    all("pipeline.auto-watermark-interval", NoEffect("a watermark moves with every batch of rows")),
    all("pipeline.operator-chaining*", TUNING),
    all("pipeline.object-reuse", JVM),
    all("pipeline.jars", NoEffect("connectors and formats are built in: there is nothing to load")),
    all("pipeline.cached-files", JVM),
    all("pipeline.classpaths", JVM),
    all("pipeline.closure-cleaner-level", JVM),
    all("pipeline.default-kryo-serializers", JVM),
    all("pipeline.force-*", JVM),
    all("pipeline.generic-types", JVM),
    all("pipeline.global-job-parameters", JVM),
    all("pipeline.jobvertex-parallelism-overrides", TUNING),
    all("pipeline.registered-*", JVM),
    all("pipeline.serialization-config", JVM),
    all("pipeline.vertex-*", TUNING),
    all("pipeline.watermark-alignment.*", TUNING),
    all("state.backend*", ROCKSDB),
    all("state.storage*", ROCKSDB),
    all("state.changelog*", ROCKSDB),
    all("state.latency-track*", ROCKSDB),
    all("state.checkpoint*", ROCKSDB),
    all("jobmanager.*", CLUSTER),
    all("taskmanager.*", CLUSTER),
    all("cluster.*", CLUSTER),
    all("deployment.*", CLUSTER),
    all("kubernetes.*", CLUSTER),
    all("yarn.*", CLUSTER),
    all("high-availability*", CLUSTER),
    all("rest.*", CLUSTER),
    all("web.*", CLUSTER),
    all("metrics.*", NoEffect("metrics are served to Prometheus by `coulee server`")),
    all("heartbeat.*", CLUSTER),
    all("pekko.*", CLUSTER),
    all("akka.*", CLUSTER),
    all("blob.*", CLUSTER),
    all("io.*", CLUSTER),
    all("env.*", CLUSTER),
    all("classloader.*", JVM),
    all("fs.*", CREDENTIALS),
    all("s3.*", CREDENTIALS),
    all("s3a.*", CREDENTIALS),
    // Tables.
    all("table.exec.mini-batch.*", NoEffect("operators always work on batches of rows")),
    all("table.optimizer.*", NoEffect("it tunes Flink's optimizer and changes no result")),
    all("table.plan.*", NoEffect("it is about plans that Flink stores")),
    all("table.exec.uid.*", NoEffect("operators are named by Coulee's own rules, which EXPLAIN shows")),
    only("table.exec.sink.not-null-enforcer", &["ERROR"], NoEffect("it is what happens anyway")),
    all(
        "table.exec.sink.not-null-enforcer",
        Refused("a null in a NOT NULL column is an error: filter with WHERE … IS NOT NULL"),
    ),
    only("table.exec.sink.type-length-enforcer", &["IGNORE"], NoEffect("it is what happens anyway")),
    all(
        "table.exec.sink.type-length-enforcer",
        Refused("the lengths of VARCHAR(n) and CHAR(n) are not checked: shorten the text with SUBSTRING(text, 1, n)"),
    ),
    only("table.exec.sink.nested-constraint-enforcer", &["IGNORE"], NoEffect("it is what happens anyway")),
    all("table.exec.sink.*", NoEffect("it is about sinks that update rows; those of this version append them")),
    only("table.exec.legacy-cast-behaviour", &["DISABLED"], NoEffect("it is what happens anyway")),
    all(
        "table.exec.legacy-cast-behaviour",
        Refused("a CAST that fails is an error: write TRY_CAST where null is wanted instead"),
    ),
    only("table.exec.source.cdc-events-duplicate", &["false"], NoEffect("it is what happens anyway")),
    all("table.exec.source.cdc-events-duplicate", Refused("rows of a changelog are not made unique in this version")),
    all(
        "table.exec.emit.*",
        Refused(
            "a window leaves once, when the watermark reaches its end: choose a shorter watermark delay, and see 'late-rows.stream' for late rows",
        ),
    ),
    all("table.exec.async-*", TUNING),
    all("table.exec.deduplicate.*", TUNING),
    all("table.exec.disabled-operators", TUNING),
    all("table.exec.interval-join.*", TUNING),
    all("table.exec.local-hash-agg.*", TUNING),
    all("table.exec.operator-fusion-codegen.*", TUNING),
    all("table.exec.rank.*", TUNING),
    all("table.exec.simplify-operator-name-enabled", TUNING),
    all("table.exec.sort.*", TUNING),
    all("table.exec.spill-compression.*", TUNING),
    all("table.exec.window-agg.*", TUNING),
    all("table.generated-code.*", JVM),
    all("table.resources.*", JVM),
    only("table.sql-dialect", &["default"], NoEffect("it is what happens anyway")),
    all("table.sql-dialect", Refused("Coulee reads Flink's own SQL: leave the setting out")),
    only("table.builtin-catalog-name", &["default_catalog"], NoEffect("it is what happens anyway")),
    only("table.builtin-database-name", &["default_database"], NoEffect("it is what happens anyway")),
    all("table.builtin-*", ONE_CATALOG),
    only("table.dynamic-table-options.enabled", &["true"], NoEffect("it is what happens anyway")),
    all("table.dynamic-table-options.enabled", NoEffect("options in a hint are always taken")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_chooses_among_the_rules_of_a_key() {
        let sink = "table.exec.sink.not-null-enforcer";
        assert_eq!(answer(sink, "error"), Some(NoEffect("it is what happens anyway")));
        assert!(matches!(answer(sink, "DROP"), Some(Refused(_))));
        assert_eq!(answer("restart-strategy", "none"), Some(Alias("restart-strategy.type")));
        assert_eq!(answer("no.such.key", "x"), None);
    }

    #[test]
    fn aliases_are_keys_that_act() {
        for rule in RULES {
            if let Alias(key) = rule.answer {
                assert!(crate::settings::SETTINGS.iter().any(|spec| spec.key == key), "{key}");
            }
        }
    }
}
