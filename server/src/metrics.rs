//! An engine's figures for Prometheus: what there is ([`catalogue`]), how it is written ([`exposition`]), and what it is now.

pub(crate) mod catalogue;
mod exposition;

use coulee_log::Log;
use coulee_model::{Clock, Timestamp};

use self::catalogue as of;
use self::exposition::Exposition;
use crate::{Engine, Figures, JobReport, JobState, Operator, Progress, Split};

/// The media type of the text format, version 0.0.4.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every state that a job can be in, for a metric with one sample per state.
const STATES: [&str; 6] = ["created", "running", "finished", "stopped", "cancelled", "failed"];

/// All figures of an engine now, in Prometheus' text format. Blocks: it may open shards.
pub(crate) fn scrape(engine: &Engine) -> String {
    let mut out = Exposition::new(of::ALL);
    out.add(&of::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1.0);
    for job in engine.jobs() {
        self::job(&mut out, &job);
        if let Some(progress) = job.progress.as_ref().filter(|_| job.state == JobState::Running) {
            running(&mut out, job.name.as_str(), progress, engine.clock().as_ref());
        }
    }
    streams(&mut out, engine.log());
    out.finish()
}

/// What is known of every job, whether it runs or not.
fn job(out: &mut Exposition, job: &JobReport) {
    let name = job.name.as_str();
    for state in STATES {
        let is = job.state.word() == state;
        out.add(&of::JOB_STATE, &[name, state], f64::from(u8::from(is)));
    }
    out.add(&of::JOB_STARTS, &[name], f64::from(job.attempts));
    out.add(&of::JOB_RESTARTS, &[name], f64::from(job.restarts));
    out.some(&of::JOB_LAST_FAILURE, &[name], job.last_failure.as_ref().map(|failure| instant(failure.at)));
    out.add(&of::JOB_SILENCE_FINDINGS, &[name], job.findings.len() as f64);
}

fn running(out: &mut Exposition, name: &str, progress: &Progress, clock: &dyn Clock) {
    let labels = [name];
    out.some(&of::JOB_STARTED, &labels, progress.started_at.map(instant));
    out.some(&of::JOB_LAST_READ, &labels, progress.read_at.map(instant));
    out.some(&of::JOB_LAST_DELIVERY, &labels, progress.delivered_at.map(instant));
    for found in &progress.rejections {
        out.add(&of::JOB_REJECTED, &[name, &found.table, found.stage.name()], found.rows as f64);
    }
    out.add(&of::CHECKPOINTS, &labels, progress.checkpoints as f64);
    out.some(&of::CHECKPOINT_TIME, &labels, progress.checkpoint_at.map(instant));
    out.add(&of::CHECKPOINT_INTERVAL, &labels, progress.checkpoint_interval.as_secs_f64());
    if progress.checkpoints > 0 {
        out.add(&of::CHECKPOINT_DURATION, &labels, progress.checkpoint_took.as_secs_f64());
        out.add(&of::CHECKPOINT_ALIGNMENT, &labels, progress.checkpoint_alignment.as_secs_f64());
        out.add(&of::CHECKPOINT_WRITE, &labels, progress.checkpoint_write.as_secs_f64());
        out.add(&of::CHECKPOINT_SIZE, &labels, progress.checkpoint_bytes as f64);
    }
    out.add(&of::STATE_BUDGET, &labels, progress.memory_budget_bytes as f64);
    out.add(&of::STATE_STORED, &labels, progress.stored_bytes as f64);
    if let Some(snapshot) = &progress.snapshot {
        out.add(&of::SNAPSHOT_TIME, &labels, instant(snapshot.at));
        out.add(&of::SNAPSHOT_DURATION, &labels, snapshot.took.as_secs_f64());
        out.add(&of::SNAPSHOT_SIZE, &labels, snapshot.bytes as f64);
        out.add(&of::SNAPSHOT_UPLOADED, &labels, snapshot.uploaded_bytes as f64);
    }
    out.add(&of::SNAPSHOT_FAILED, &labels, f64::from(u8::from(progress.snapshot_failure.is_some())));
    for operator in &progress.operators {
        self::operator(out, name, operator, clock.now());
    }
}

fn operator(out: &mut Exposition, job: &str, operator: &Operator, now: Timestamp) {
    for (index, subtask) in operator.subtasks.iter().enumerate() {
        let index = index.to_string();
        let labels = [job, operator.uid.as_str(), index.as_str()];
        figures(out, &labels, &subtask.figures, now);
        // A source of files may have very many: those that have ended say nothing any more.
        for split in subtask.splits.iter().filter(|split| !split.is_ended) {
            self::split(out, &[labels[0], labels[1], labels[2], split.id.as_str()], split);
        }
    }
}

/// Whatever the subtask counts that the catalogue knows.
fn figures(out: &mut Exposition, labels: &[&str], figures: &Figures, now: Timestamp) {
    for metric in of::ALL {
        if let Some(of) = metric.of {
            out.some(metric, labels, figures.get(of).map(|value| of.unit.in_base_units(value)));
        }
    }
    // At the end of its input nothing lags.
    let behind = figures.watermark().filter(|at| *at < Timestamp::MAX).map(|at| (now.0 - at.0) as f64 / 1e3);
    out.some(&of::WATERMARK_LAG, labels, behind);
}

fn split(out: &mut Exposition, labels: &[&str], split: &Split) {
    out.some(&of::SPLIT_WATERMARK, labels, split.watermark.map(instant));
    out.add(&of::SPLIT_IDLE, labels, f64::from(u8::from(split.is_idle)));
    out.add(&of::SPLIT_PAUSED, labels, f64::from(u8::from(split.is_paused)));
}

fn streams(out: &mut Exposition, log: &Log) {
    for stream in log.streams() {
        for shard in stream.shards() {
            let id = shard.id().0.to_string();
            let labels = [stream.name().as_str(), id.as_str()];
            out.add(&of::STREAM_EARLIEST, &labels, shard.earliest().0 as f64);
            out.add(&of::STREAM_END, &labels, shard.end().0 as f64);
            out.add(&of::STREAM_SIZE, &labels, shard.size_bytes() as f64);
        }
    }
}

/// Seconds since 1970; the two ends of time are infinite.
fn instant(at: Timestamp) -> f64 {
    match at {
        Timestamp::MIN => f64::NEG_INFINITY,
        Timestamp::MAX => f64::INFINITY,
        Timestamp(ms) => ms as f64 / 1e3,
    }
}
