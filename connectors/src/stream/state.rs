//! What a writer gives to be committed, and how its transactions are named.
//!
//! JSON: `{"version":2,"prepared":[{"id":"0123456789ab/sink/0/7","producer":4611686018427387911}]}`: the transactions that
//! were prepared.
//!
//! A transaction's name is `<incarnation of the job>/<uid of the sink>/<subtask>/<number>`. The number tells those of one
//! writer apart; it begins at 0 with each attempt of the job.

use bytes::Bytes;
use coulee_log::{TransactionRef, TransactionalId};
use coulee_model::SubtaskIndex;
use coulee_runtime::connector::SinkContext;
use coulee_runtime::{Error, Result};
use serde::{Deserialize, Serialize};

use super::log_error;

const VERSION: u32 = 2;

/// Prepared transactions of one writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transactions {
    version: u32,
    pub(super) prepared: Vec<TransactionRef>,
}

impl Transactions {
    pub(super) fn new(prepared: Vec<TransactionRef>) -> Self {
        Transactions { version: VERSION, prepared }
    }

    pub(super) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and numbers have a JSON form").into()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |cause: String| Error::corrupt(format!("the state of a stream's writer is damaged: {cause}"));
        let state: Transactions = serde_json::from_slice(bytes).map_err(|cause| damaged(cause.to_string()))?;
        if state.version != VERSION {
            return Err(damaged(format!("version {}, expected {VERSION}", state.version)));
        }
        Ok(state)
    }
}

/// The names of one sink's transactions.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(context: &SinkContext) -> Self {
        Names { prefix: format!("{}/{}/", context.incarnation, context.uid) }
    }

    /// What they all begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// That of a writer's transaction.
    pub(super) fn of(&self, subtask: SubtaskIndex, number: u64) -> Result<TransactionalId> {
        TransactionalId::new(format!("{}{}/{number}", self.prefix, subtask.0)).map_err(|error| log_error(error.into()))
    }

    /// Whether a transaction is this sink's, and not of one whose uid begins with this one's.
    pub(super) fn is_own(&self, transaction: &TransactionRef) -> bool {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let rest = transaction.id.as_str().strip_prefix(&self.prefix).and_then(|rest| rest.split_once('/'));
        rest.is_some_and(|(subtask, number)| is_number(subtask) && is_number(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(id: &str) -> TransactionRef {
        let (id, producer) = (format!("\"{id}\""), i64::MAX);
        serde_json::from_str(&format!("{{\"id\":{id},\"producer\":{producer}}}")).expect("a reference")
    }

    #[test]
    fn states_survive_their_encoding() {
        let state = Transactions::new(vec![reference("i/s/0/1"), reference("i/s/0/2")]);
        assert_eq!(Transactions::decode(&state.encode()).expect("sound"), state);
        assert!(Transactions::decode(b"{\"version\":1,\"prepared\":[]}").is_err());
    }

    #[test]
    fn names_of_other_sinks_are_told_apart() {
        let names = Names { prefix: "i/s/".to_owned() };
        let own = names.of(SubtaskIndex(3), 12).expect("a name");
        assert_eq!(own.as_str(), "i/s/3/12");
        assert!(names.is_own(&reference("i/s/3/12")));
        for other in ["i/s/x/3/12", "i/s/3/", "i/s//1", "i/s/3", "i/sink/3/12", "j/s/3/12", "i/s/3/12/1"] {
            assert!(!names.is_own(&reference(other)), "{other}");
        }
    }
}
