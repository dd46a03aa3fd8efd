//! Ends the transactions that a shard finds open in its files and that nobody will end any more.
//!
//! These are the transactions that were not prepared when the process that began them ended, and those whose marker was
//! lost in a power cut. Their markers are written when the shard is opened, before any reader, so that no reader waits for
//! them.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::batch::header::Header;
use crate::batch::marker;
use crate::files::segment::Segment;
use crate::files::storage::WriteFailure;
use crate::shard::context::{ShardContext, TransactionFate};
use crate::shard::last_stable_offset::LastStableOffset;
use crate::shard::queue::{Answer, Marker, QueuedAppend};
use crate::shard::writer::Writer;

/// Writes the missing markers. When that fails, committed readers are held back until the next start, and an error is
/// logged.
pub(crate) fn end(
    context: &ShardContext,
    writer: &mut Writer,
    segments: &RwLock<Vec<Arc<Segment>>>,
    last_stable_offset: &Mutex<LastStableOffset>,
) {
    let mut group = missing_markers(context, writer);
    let (stream, shard) = (&context.place.stream, context.place.shard);
    while !group.is_empty() {
        match writer.write(context, segments, &group, last_stable_offset, &mut Vec::new()) {
            Ok(written) => {
                last_stable_offset.lock().advance(writer.producers().first_open(), &written.completed, |_| false);
                tracing::info!(
                    %stream, %shard, count = written.count,
                    "ended transactions that were left open by a process that is gone"
                );
                group.drain(..written.count);
            }
            Err(WriteFailure::NotWritten(error) | WriteFailure::Undetermined(error)) => {
                tracing::error!(
                    %stream, %shard, %error,
                    "cannot end transactions that were left open: committed readers wait until the next start"
                );
                return;
            }
        }
    }
}

/// The markers of the open transactions that have ended, numbered from the end of the shard on.
fn missing_markers(context: &ShardContext, writer: &Writer) -> VecDeque<QueuedAppend> {
    let (mut group, mut next) = (VecDeque::new(), writer.end());
    for producer in writer.producers().open() {
        let TransactionFate::Ended(outcome) = context.transactions.fate(producer) else { continue };
        match marker::build(producer, outcome, context.clock.now()) {
            Ok((batch, header)) => {
                let header = Header { base_sequence: next, ..header };
                next = header.end();
                let marker = Some(Marker { outcome, waits_for_others: false });
                let answer = Answer::default();
                group.push_back(QueuedAppend { batch, header, duplicate: false, marker, answer, reservation: None });
            }
            Err(error) => tracing::error!(%producer, %error, "a marker cannot be made"),
        }
    }
    group
}
