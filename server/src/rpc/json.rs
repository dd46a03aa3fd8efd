//! A job as JSON: the protocol's message by the names of its fields, so that what a gRPC client and what `jq` see are one.

use serde::Serializer;

use super::proto;
use crate::{Error, JobReport, JobState, Result};

/// A job's state as a word rather than the number on the wire.
pub(super) fn state_word<S: Serializer>(state: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let word = match proto::JobState::try_from(*state) {
        Ok(proto::JobState::Running) => "running",
        Ok(proto::JobState::Finished) => "finished",
        Ok(proto::JobState::Stopped) => "stopped",
        Ok(proto::JobState::Cancelled) => "cancelled",
        Ok(proto::JobState::Failed) => "failed",
        Ok(proto::JobState::Created | proto::JobState::Unspecified) | Err(_) => JobState::Created.word(),
    };
    serializer.serialize_str(word)
}

impl JobReport {
    /// The report as one JSON object, in lines: the message `Job` of `proto/coulee.proto`, where `state` is a word. Times are
    /// milliseconds since 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// [`Error::Internal`]; there is no report that cannot be written.
    pub fn to_json(&self) -> Result<String> {
        let job = proto::Job::from(self.clone());
        serde_json::to_string_pretty(&job).map_err(|e| Error::Internal(format!("a report is not JSON: {e}")))
    }
}
