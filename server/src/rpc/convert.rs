//! Between the engine's values and the messages of the protocol.

mod figures;
mod states;

use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use coulee_checkpoint::snapshot::{ManifestFile, SnapshotKind};
use coulee_model::{Classify, ErrorKind, JobName, Timestamp};
use coulee_runtime::state::StateDescriptor;
use tonic::{Code, Status};

use super::proto;
use crate::script::ScriptEvent;
use crate::{
    Error, Failure, Finding, FindingCode, JobReport, JobState, KeptSnapshot, Progress, Result, Retry, SinkTarget,
};

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let code = match error.kind() {
            ErrorKind::Invalid => Code::InvalidArgument,
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::Fenced => Code::Aborted,
            ErrorKind::Corrupt => Code::DataLoss,
            ErrorKind::Internal => Code::Internal,
        };
        Status::new(code, error.to_string())
    }
}

/// What a status from a server means.
pub(crate) fn status_error(status: &Status) -> Error {
    let kind = match status.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition | Code::Unimplemented => ErrorKind::Invalid,
        Code::NotFound => ErrorKind::NotFound,
        Code::Aborted => ErrorKind::Fenced,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::Internal => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    };
    Error::Remote { kind, message: status.message().to_owned() }
}

fn time(at: Option<Timestamp>) -> i64 {
    at.map_or(0, Timestamp::millis)
}

fn some_time(at: i64) -> Option<Timestamp> {
    (at != 0).then_some(Timestamp(at))
}

fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl From<JobReport> for proto::Job {
    fn from(report: JobReport) -> Self {
        let state = match &report.state {
            JobState::Created => proto::JobState::Created,
            JobState::Running => proto::JobState::Running,
            JobState::Finished => proto::JobState::Finished,
            JobState::Stopped => proto::JobState::Stopped,
            JobState::Cancelled => proto::JobState::Cancelled,
            JobState::Failed { .. } => proto::JobState::Failed,
        };
        let retry_at_ms = time(report.retry.as_ref().map(|retry| retry.at));
        let cause = match (report.state, report.retry) {
            (JobState::Failed { cause }, _) | (_, Some(Retry { cause, .. })) => cause,
            _ => String::new(),
        };
        proto::Job {
            name: report.name.into(),
            incarnation: report.incarnation,
            state: state.into(),
            cause,
            retry_at_ms,
            origin: report.origin,
            script: report.script,
            statement: report.statement as u32,
            created_at_ms: report.created_at.millis(),
            attempts: report.attempts,
            parallelism: report.parallelism,
            sinks: report.sinks.into_iter().map(proto::SinkTarget::from).collect(),
            progress: report.progress.map(proto::Progress::from),
            restarts: report.restarts,
            last_failure: report.last_failure.map(|Failure { at, cause }| proto::Failure { at_ms: at.millis(), cause }),
            findings: report.findings.into_iter().map(proto::Finding::from).collect(),
            states: report.states.into_iter().map(proto::StateDescriptor::from).collect(),
            notes: report.notes,
        }
    }
}

impl TryFrom<proto::Job> for JobReport {
    type Error = Error;

    fn try_from(job: proto::Job) -> Result<Self> {
        let retry = some_time(job.retry_at_ms).map(|at| Retry { at, cause: job.cause.clone() });
        let state = match job.state() {
            proto::JobState::Unspecified | proto::JobState::Created => JobState::Created,
            proto::JobState::Running => JobState::Running,
            proto::JobState::Finished => JobState::Finished,
            proto::JobState::Stopped => JobState::Stopped,
            proto::JobState::Cancelled => JobState::Cancelled,
            proto::JobState::Failed => JobState::Failed { cause: job.cause },
        };
        Ok(JobReport {
            name: JobName::new(job.name)?,
            incarnation: job.incarnation,
            state,
            retry,
            origin: job.origin,
            script: job.script,
            statement: job.statement as usize,
            created_at: Timestamp(job.created_at_ms),
            attempts: job.attempts,
            parallelism: job.parallelism,
            sinks: job.sinks.into_iter().map(SinkTarget::from).collect(),
            progress: job.progress.map(Progress::from),
            restarts: job.restarts,
            last_failure: job
                .last_failure
                .map(|proto::Failure { at_ms, cause }| Failure { at: Timestamp(at_ms), cause }),
            // What a newer server has found out, an older client does not know to show.
            findings: job.findings.into_iter().filter_map(finding).collect(),
            states: job.states.into_iter().map(StateDescriptor::from).collect(),
            notes: job.notes,
        })
    }
}

impl From<Finding> for proto::Finding {
    fn from(Finding { code, operator, message, advice }: Finding) -> Self {
        proto::Finding { code: code.word().to_owned(), operator: operator.unwrap_or_default(), message, advice }
    }
}

fn finding(proto::Finding { code, operator, message, advice }: proto::Finding) -> Option<Finding> {
    Some(Finding { code: FindingCode::parse(&code)?, operator: some_text(operator), message, advice })
}

impl From<&KeptSnapshot> for proto::SnapshotInfo {
    fn from(kept: &KeptSnapshot) -> Self {
        let manifest = &kept.manifest;
        let note = match &manifest.kind {
            SnapshotKind::Savepoint { note, .. } => note.clone().unwrap_or_default(),
            SnapshotKind::Periodic => String::new(),
        };
        let file = |file: &ManifestFile| proto::SnapshotFile {
            path: file.path.clone(),
            size_bytes: file.bytes,
            hash: file.hash.to_string(),
        };
        proto::SnapshotInfo {
            job: manifest.job.to_string(),
            name: kept.name(),
            is_savepoint: manifest.kind != SnapshotKind::Periodic,
            note,
            at_ms: manifest.at.millis(),
            checkpoint: manifest.checkpoint().0,
            size_bytes: kept.size_bytes(),
            url: kept.url(),
            file_count: manifest.files.len() as u32,
            files: manifest.files.iter().map(file).collect(),
            // A record that does not decode is said when a job begins with it.
            states: kept.states().unwrap_or_default().into_iter().map(proto::StateDescriptor::from).collect(),
        }
    }
}

impl From<SinkTarget> for proto::SinkTarget {
    fn from(SinkTarget { table, connector, path, format }: SinkTarget) -> Self {
        proto::SinkTarget { table, connector, path, format }
    }
}

impl From<proto::SinkTarget> for SinkTarget {
    fn from(proto::SinkTarget { table, connector, path, format }: proto::SinkTarget) -> Self {
        SinkTarget { table, connector, path, format }
    }
}

/// # Errors
/// When rows cannot be written as Arrow IPC.
pub(super) fn script_event(event: ScriptEvent) -> Result<proto::ScriptEvent> {
    use proto::script_event::Event;
    let event = match event {
        ScriptEvent::Done(text) => Event::Done(text),
        ScriptEvent::Note(text) => Event::Note(text),
        ScriptEvent::Text(text) => Event::Text(text),
        ScriptEvent::Table(rows) => Event::Table(write_table(&rows)?),
        ScriptEvent::Started(report) => Event::Started(report.into()),
        ScriptEvent::AlreadyFinished(report) => Event::AlreadyFinished(report.into()),
        ScriptEvent::Ended(report) => Event::Ended(report.into()),
        ScriptEvent::Analyzed(report) => Event::Analyzed(report.into()),
    };
    Ok(proto::ScriptEvent { event: Some(event) })
}

impl TryFrom<proto::ScriptEvent> for ScriptEvent {
    type Error = Error;

    fn try_from(event: proto::ScriptEvent) -> Result<Self> {
        use proto::script_event::Event;
        Ok(match event.event {
            Some(Event::Done(text)) => ScriptEvent::Done(text),
            Some(Event::Note(text)) => ScriptEvent::Note(text),
            Some(Event::Text(text)) => ScriptEvent::Text(text),
            Some(Event::Table(bytes)) => ScriptEvent::Table(read_table(&bytes)?),
            Some(Event::Started(job)) => ScriptEvent::Started(job.try_into()?),
            Some(Event::AlreadyFinished(job)) => ScriptEvent::AlreadyFinished(job.try_into()?),
            Some(Event::Ended(job)) => ScriptEvent::Ended(job.try_into()?),
            Some(Event::Analyzed(job)) => ScriptEvent::Analyzed(job.try_into()?),
            None => return Err(Error::Invalid("the server is newer than this client: use a newer coulee".to_owned())),
        })
    }
}

fn write_table(rows: &RecordBatch) -> Result<Bytes> {
    let write = || -> Result<Vec<u8>, arrow::error::ArrowError> {
        let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
        writer.write(rows)?;
        writer.finish()?;
        writer.into_inner()
    };
    Ok(write().map_err(coulee_runtime::Error::from)?.into())
}

/// # Errors
/// When the bytes are not one batch of Arrow IPC.
fn read_table(bytes: &[u8]) -> Result<RecordBatch> {
    let mut reader = StreamReader::try_new(bytes, None).map_err(coulee_runtime::Error::from)?;
    match reader.next() {
        Some(batch) => Ok(batch.map_err(coulee_runtime::Error::from)?),
        None => Ok(RecordBatch::new_empty(reader.schema())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Operator;

    #[test]
    fn a_job_and_its_figures_survive_the_wire() {
        let progress = Progress { rows_read: 1, operators: vec![Operator::default()], ..Progress::default() };
        let report = JobReport {
            name: JobName::new("delays").unwrap(),
            incarnation: "0123456789ab".into(),
            state: JobState::Failed { cause: "the disk is full".into() },
            retry: None,
            origin: "delays.sql".into(),
            script: "SELECT 1".into(),
            statement: 2,
            created_at: Timestamp(4),
            attempts: 3,
            restarts: 1,
            last_failure: Some(Failure { at: Timestamp(8), cause: "no answer".into() }),
            parallelism: 2,
            sinks: vec![SinkTarget {
                table: "t".into(),
                connector: "filesystem".into(),
                path: "out".into(),
                format: "parquet".into(),
            }],
            progress: Some(progress),
            findings: vec![Finding {
                code: FindingCode::NoData,
                operator: Some("scan".into()),
                message: "nothing came".into(),
                advice: "wait".into(),
            }],
            states: states::tests::states(),
            notes: vec!["operator 'x' is new and begins without state".into()],
        };
        assert_eq!(JobReport::try_from(proto::Job::from(report.clone())).unwrap(), report);
    }

    #[test]
    fn an_error_keeps_its_kind_and_its_words() {
        let status = Status::from(Error::NoJob { name: "x".into(), existing: Vec::new() });
        assert_eq!(status.code(), Code::NotFound);
        let back = status_error(&status);
        assert_eq!(
            (back.kind(), back.to_string().as_str()),
            (ErrorKind::NotFound, "there is no job 'x'; there are no jobs yet")
        );
    }
}
