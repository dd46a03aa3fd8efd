//! The contract of sources: the same rows of each split in the same order, from any position on, whatever the size of batches.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use coulee_model::{Clock, OperatorId, SubtaskIndex};
use futures::FutureExt;

use crate::Batch;
use crate::connector::{KnownSplits, Source, SourceContext, SourceEvent, SourceReader, SplitId, SplitStart};
use crate::metrics::SubtaskMetrics;

/// What was read of each split: rows with their kinds, as text.
type Found = BTreeMap<SplitId, Vec<String>>;

/// Reads a bounded source whole, and again from every position that it told on the way; each time the rows must be the same.
///
/// # Panics
/// When the source breaks its contract, or has fewer than two rows in all.
pub async fn source_is_repeatable(source: &dyn Source, clock: Arc<dyn Clock>) {
    assert!(source.is_bounded(), "a source that is tested must end");
    let all = Read::begin(source, &clock, KnownSplits::default(), 8192).await.read_all().await;
    let rows: usize = all.values().map(Vec::len).sum();
    assert!(rows > 1, "{}: {rows} rows are too few for a test", source.describe());
    for batch_rows in [1, 3, 8192] {
        let mut read = Read::begin(source, &clock, KnownSplits::default(), batch_rows).await;
        loop {
            let rest = Read::begin(source, &clock, read.known(), batch_rows * 2).await.read_all().await;
            for (id, rows) in &all {
                let before = read.found.get(id).map_or(0, Vec::len);
                let rest = rest.get(id).map(Vec::as_slice).unwrap_or_default();
                assert_eq!(rest, &rows[before..], "split '{}' from row {before}, {batch_rows} rows a batch", id.0);
            }
            if !read.step().await {
                break;
            }
        }
        assert_eq!(read.found, all, "with {batch_rows} rows a batch");
    }
}

/// A source that is being read by one subtask.
struct Read {
    ids: Vec<SplitId>,
    reader: Box<dyn SourceReader>,
    ended: Vec<bool>,
    /// Splits that the attempt was told to be finished.
    finished: Vec<SplitStart>,
    found: Found,
}

impl Read {
    async fn begin(source: &dyn Source, clock: &Arc<dyn Clock>, known: KnownSplits, batch_rows: usize) -> Self {
        let finished = known.finished.clone();
        let begins = known.is_empty();
        let splits = source.enumerate(known.clone()).await.expect("splits").splits;
        let ids: Vec<SplitId> = splits.iter().map(|split| split.id.clone()).collect();
        assert!(
            begins || known.unfinished.iter().all(|split| ids.contains(&split.id)),
            "an unfinished split is gone: {ids:?}"
        );
        assert!(finished.iter().all(|split| !ids.contains(&split.id)), "a finished split is read again: {ids:?}");
        let metrics = Arc::new(SubtaskMetrics::new(OperatorId(0), SubtaskIndex(0)));
        let context = SourceContext { batch_rows, clock: clock.clone(), metrics };
        let reader = source.open(splits, context).await.expect("a reader");
        Read { ended: vec![false; ids.len()], ids, reader, finished, found: Found::new() }
    }

    /// What a checkpoint would have of it.
    fn known(&self) -> KnownSplits {
        let mut known = KnownSplits { unfinished: Vec::new(), finished: self.finished.clone() };
        for (split, id) in self.ids.iter().enumerate() {
            let start = SplitStart { id: id.clone(), position: Some(self.reader.position(split)) };
            if self.ended[split] { known.finished.push(start) } else { known.unfinished.push(start) }
        }
        known
    }

    async fn read_all(mut self) -> Found {
        while self.step().await {}
        self.found
    }

    /// Reads an event; `false` when every split has ended.
    async fn step(&mut self) -> bool {
        if self.ended.iter().all(|ended| *ended) {
            return false;
        }
        let before: Vec<_> = (0..self.ids.len()).map(|split| self.reader.position(split)).collect();
        // A call that is dropped loses nothing.
        let event = match self.reader.next().now_or_never() {
            Some(event) => event,
            None => self.reader.next().await,
        };
        let event = event.expect("an event");
        let split = event.split();
        assert!(!self.ended[split], "split '{}' goes on after its end", self.ids[split].0);
        for (other, before) in before.iter().enumerate().filter(|(other, _)| *other != split) {
            assert_eq!(self.reader.position(other), before, "a position moves without an event of its split");
        }
        match event {
            SourceEvent::Rows { rows, .. } => self.take(split, &Batch::inserts(rows)),
            SourceEvent::Changes { changes, .. } => self.take(split, &changes),
            SourceEvent::Ended { .. } => self.ended[split] = true,
            SourceEvent::CaughtUp { .. } | SourceEvent::Moved { .. } => {}
        }
        true
    }

    fn take(&mut self, split: usize, batch: &Batch) {
        let rows = self.found.entry(self.ids[split].clone()).or_default();
        let options = FormatOptions::new().with_null("null");
        let columns = batch.rows().columns().iter();
        let columns: Vec<_> =
            columns.map(|column| ArrayFormatter::try_new(column, &options).expect("a form")).collect();
        for row in 0..batch.len() {
            let values: Vec<String> = columns.iter().map(|column| column.value(row).to_string()).collect();
            let kind = batch.kinds().map_or(0, |kinds| kinds.value(row));
            rows.push(format!("{kind} {}", values.join("|")));
        }
    }
}
