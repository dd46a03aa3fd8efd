//! What readers ask of a shard: where it begins and ends, where a time is, and the batches from a sequence number on.

use std::sync::Arc;

use bytes::Bytes;
use coulee_model::{SequenceNumber, Timestamp};

use crate::batch::header::Header;
use crate::error::{LogError, Result};
use crate::files::segment::{FileRange, Segment};
use crate::ids::ProducerId;
use crate::shard::fetch::{Fetched, FetchedRanges, Isolation};
use crate::shard::last_stable_offset::{self, TransactionRange};
use crate::shard::shard::{Open, READ_BYTES_MAX, Shard};
use crate::shard::tail::Tail;

impl Shard {
    /// The first sequence number that can be read. 0 while the shard cannot be [opened](Self::open).
    pub fn earliest(&self) -> SequenceNumber {
        self.opened().map_or(SequenceNumber(0), |open| SequenceNumber(open.earliest()))
    }

    /// The sequence number after the last record that readers may see, which is the next to be given to a record that
    /// becomes durable. 0 while the shard cannot be [opened](Self::open).
    pub fn end(&self) -> SequenceNumber {
        let _ = self.opened();
        SequenceNumber(self.head.borrow().end)
    }

    /// The sequence number after the last record that the shard can ever have, if it was split or merged: whoever has read up
    /// to there goes on in its children.
    pub fn sealed_end(&self) -> Option<SequenceNumber> {
        self.context.sealed.as_ref().map(|sealed| sealed.end)
    }

    /// The last stable offset: where the earliest transaction begins that is neither committed nor aborted, and
    /// [`end`](Self::end) without one. Committed readers see what is before it. 0 while the shard cannot be [opened](Self::open).
    pub fn last_stable_offset(&self) -> SequenceNumber {
        self.end_for(Isolation::ReadCommitted)
    }

    /// [`end`](Self::end) or [`last_stable_offset`](Self::last_stable_offset).
    pub fn end_for(&self, isolation: Isolation) -> SequenceNumber {
        let _ = self.opened();
        SequenceNumber(self.head.borrow().seen_by(isolation))
    }

    /// The first record, in order of the log, that the reader may see and whose timestamp is `timestamp` or later; the
    /// [end](Self::end_for) without one.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn sequence_at(&self, timestamp: Timestamp, isolation: Isolation) -> Result<SequenceNumber> {
        let open = self.opened()?;
        let end = self.check_life()?.seen_by(isolation);
        let aborted = open.aborted(isolation, 0, end);
        let skip = |batch: &Header| {
            batch.is_control() || last_stable_offset::is_in(&aborted, batch.producer, batch.base_sequence)
        };
        let segments = open.segments.read().clone();
        for segment in segments {
            if segment.summary().max_timestamp < timestamp.millis() {
                continue;
            }
            match segment.first_at(timestamp, skip) {
                Ok(None) => {}
                Ok(Some(found)) => return Ok(SequenceNumber(found.min(end))),
                // Retention was faster: the record that was looked for is gone.
                Err(_) if segment.base < open.earliest() => {}
                Err(error) => return Err(error),
            }
        }
        self.check_life().map(|head| SequenceNumber(head.seen_by(isolation)))
    }

    /// Where the records begin that were appended at or after `time` by the log's clock; the [end](Self::end_for) without
    /// one. No record before that place was appended at or after `time`, and none behind it a second or more before.
    ///
    /// After a crash the search may begin too early within the segment that was being written: the times of its appends
    /// are in its index only, which was lost, and are taken to be that of the last one. Markers and aborted records are not
    /// passed over.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn sequence_at_append_time(&self, time: Timestamp, isolation: Isolation) -> Result<SequenceNumber> {
        let open = self.opened()?;
        let end = self.check_life()?.seen_by(isolation);
        let segments = open.segments.read().clone();
        for segment in segments {
            match segment.first_appended_at(time) {
                Ok(None) => {}
                Ok(Some(found)) => return Ok(SequenceNumber(found.min(end))),
                // Retention was faster: the records that were looked for are gone.
                Err(_) if segment.base < open.earliest() => {}
                Err(error) => return Err(error),
            }
        }
        self.check_life().map(|head| SequenceNumber(head.seen_by(isolation)))
    }

    /// Reads whole batches from the one that holds `from`, at most `bytes_max` bytes (and [`READ_BYTES_MAX`]), but at
    /// least one batch if there is any. Empty when `from` is the end, or for a committed reader between the last stable
    /// offset and the end. Blocks for the disk.
    ///
    /// # Errors
    /// [`LogError::Trimmed`] before the earliest record, [`LogError::OutOfRange`] past the end, [`LogError::Corrupt`],
    /// [`LogError::Io`], [`LogError::Deleted`], [`LogError::Closed`].
    pub fn read(&self, from: SequenceNumber, bytes_max: usize, isolation: Isolation) -> Result<Fetched> {
        let read = |segment: &Segment, seen| segment.read(from.0, seen, bytes_max.min(READ_BYTES_MAX));
        match self.fetch(from, isolation, read)? {
            None => Ok(Fetched { bytes: Bytes::new(), next: from, end: from, aborted: Vec::new() }),
            Some((bytes, Extent { next, end, aborted })) => Ok(Fetched { bytes, next, end, aborted }),
        }
    }

    /// What [`read`](Self::read) would return, as parts of the segment files, which stay readable while they are held: for
    /// whoever sends them on without looking at them. Goes on into the next segments as long as their batches fit.
    /// Looks at the headers of a few batches; blocks for the disk.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn fetch_ranges(&self, from: SequenceNumber, bytes_max: usize, isolation: Isolation) -> Result<FetchedRanges> {
        let bytes_max = bytes_max.min(READ_BYTES_MAX) as u64;
        let ranges = |segment: &Segment, seen| {
            let (range, next) = segment.range(from.0, seen, bytes_max)?;
            Ok(self.more_ranges(vec![range], next, seen, bytes_max))
        };
        match self.fetch(from, isolation, ranges)? {
            None => Ok(FetchedRanges { ranges: Vec::new(), next: from, end: from, aborted: Vec::new() }),
            Some((ranges, Extent { next, end, aborted })) => Ok(FetchedRanges { ranges, next, end, aborted }),
        }
    }

    /// Adds the batches of the segments that follow, as many as fit. What is wrong there, the next fetch will tell.
    fn more_ranges(
        &self,
        mut ranges: Vec<FileRange>,
        mut next: u64,
        seen: u64,
        bytes_max: u64,
    ) -> (Vec<FileRange>, u64) {
        let mut bytes = ranges.iter().map(|range| range.bytes).sum::<u64>();
        while next < seen && bytes < bytes_max {
            let segment = self.opened().ok().and_then(|open| open.segment_of(next).ok());
            let Some(Ok((range, after))) = segment.map(|segment| segment.range(next, seen, bytes_max - bytes)) else {
                break;
            };
            bytes += range.bytes;
            if bytes > bytes_max {
                break;
            }
            ranges.push(range);
            next = after;
        }
        (ranges, next)
    }

    /// Has `read` read the segment that holds `from`, up to what the reader may see; `None` when that is nothing. `read`
    /// answers with what it has read and the sequence number after it.
    fn fetch<T>(
        &self,
        from: SequenceNumber,
        isolation: Isolation,
        read: impl FnOnce(&Segment, u64) -> Result<(T, u64)>,
    ) -> Result<Option<(T, Extent)>> {
        let open = self.opened()?;
        let head = self.check_life()?;
        let (end, seen) = (head.end, head.seen_by(isolation));
        let place = || self.context.place.clone();
        if from.0 > end {
            return Err(LogError::OutOfRange { place: place(), requested: from, end: SequenceNumber(end) });
        }
        let trimmed =
            |earliest| LogError::Trimmed { place: place(), requested: from, earliest: SequenceNumber(earliest) };
        let segment = open.segment_of(from.0).map_err(trimmed)?;
        if from.0 >= seen {
            return Ok(None);
        }
        let read = read(&segment, seen);
        // What happened meanwhile explains a failure better than the missing file does.
        let end = self.check_life()?.seen_by(isolation);
        let (read, next) = match read {
            Err(_) if from.0 < open.earliest() => return Err(trimmed(open.earliest())),
            read => read?,
        };
        let aborted = open.aborted(isolation, from.0, next);
        Ok(Some((read, Extent { next: SequenceNumber(next), end: SequenceNumber(end.max(next)), aborted })))
    }

    /// Watches the end of what a reader may see.
    pub fn tail(&self, isolation: Isolation) -> Tail {
        let _ = self.opened();
        Tail::new(self.head.subscribe(), self.context.place.clone(), isolation, self.context.sealed.clone())
    }

    /// The size of its segments, in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.opened().map_or(0, |open| open.segments.read().iter().map(|segment| segment.summary().bytes).sum())
    }

    /// How many records committed readers find. Markers and aborted records are not counted; while a transaction is open, or
    /// where retention has removed the beginning of an aborted one, a few more may be missing.
    pub fn record_count(&self) -> u64 {
        let Ok(open) = self.opened() else { return 0 };
        let records: u64 = open.segments.read().iter().map(|segment| segment.summary().records).sum();
        let last_stable_offset = open.last_stable_offset.lock();
        let head = *self.head.borrow();
        records
            .saturating_sub(last_stable_offset.aborted_records(head.last_stable))
            .saturating_sub(head.end - head.last_stable)
    }

    /// The epoch and the last number of an idempotent producer, with what is still queued.
    pub fn producer_sequence(&self, producer: ProducerId) -> Option<(i16, i32)> {
        self.opened().ok()?.queue.lock().producers().last(producer)
    }
}

/// How far a fetch came.
struct Extent {
    next: SequenceNumber,
    end: SequenceNumber,
    aborted: Vec<TransactionRange>,
}

impl Open {
    /// What the reader skips between two sequence numbers.
    fn aborted(&self, isolation: Isolation, from: u64, to: u64) -> Vec<TransactionRange> {
        match isolation {
            Isolation::ReadUncommitted => Vec::new(),
            Isolation::ReadCommitted => self.last_stable_offset.lock().aborted(from, to),
        }
    }

    /// The segment that holds a sequence number, or the earliest sequence number if it is before that.
    fn segment_of(&self, sequence: u64) -> Result<Arc<Segment>, u64> {
        let segments = self.segments.read();
        let after = segments.partition_point(|segment| segment.base <= sequence);
        match after.checked_sub(1) {
            Some(i) => Ok(Arc::clone(&segments[i])),
            None => Err(segments.first().map_or(0, |segment| segment.base)),
        }
    }
}
