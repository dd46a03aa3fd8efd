//! A source around another one that ends each split after a fixed number of records: what a stream that is still being
//! appended to needs to be an input with an end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use coulee_runtime::connector::{
    Bytes, Enumeration, KnownSplits, Source, SourceContext, SourceEvent, SourceReader, SplitId, SplitStart, async_trait,
};
use coulee_runtime::state::Facet;
use coulee_runtime::{Error, Result};

/// Reads the first `records` records of every split of `inner`.
#[derive(Debug)]
pub struct UpTo {
    pub inner: Arc<dyn Source>,
    pub records: u64,
}

#[async_trait]
impl Source for UpTo {
    fn describe(&self) -> String {
        format!("{}, the first {} of each shard", self.inner.describe(), self.records)
    }

    fn identity(&self) -> Vec<Facet> {
        self.inner.identity()
    }

    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn is_bounded(&self) -> bool {
        true
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        // A position of ours is how many records are left, then the inner one.
        let split_position = |split: &SplitStart| match &split.position {
            Some(position) if position.len() >= 8 => Ok((position.slice(..8), position.slice(8..))),
            _ => Err(Error::corrupt(format!("the position of split '{}' is too short", split.id.0))),
        };
        let inner = |splits: &[SplitStart]| -> Result<Vec<SplitStart>> {
            let inner =
                |split: &SplitStart| Ok(SplitStart { id: split.id.clone(), position: Some(split_position(split)?.1) });
            splits.iter().map(inner).collect()
        };
        let unfinished = inner(&known.unfinished)?;
        let found = self.inner.enumerate(KnownSplits { unfinished, finished: inner(&known.finished)? }).await?;
        let mut left: BTreeMap<SplitId, Bytes> = BTreeMap::new();
        for split in &known.unfinished {
            left.insert(split.id.clone(), split_position(split)?.0);
        }
        let outer = |SplitStart { id, position }: SplitStart| {
            let left = left.get(&id).cloned().unwrap_or_else(|| Bytes::copy_from_slice(&self.records.to_be_bytes()));
            SplitStart { position: Some([&left[..], &position.unwrap_or_default()].concat().into()), id }
        };
        Ok(found.splits.into_iter().map(outer).collect::<Vec<_>>().into())
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let (mut starts, mut left) = (Vec::new(), Vec::new());
        for SplitStart { id, position } in splits {
            // A position is how many records are left, then the inner one.
            let (count, position) = match position {
                None => (self.records, None),
                Some(position) => {
                    let count = position.first_chunk::<8>().ok_or_else(|| Error::corrupt("a position is too short"))?;
                    let inner = Some(position.slice(8..)).filter(|inner| !inner.is_empty());
                    (u64::from_be_bytes(*count), inner)
                }
            };
            left.push(count);
            starts.push(SplitStart { id, position });
        }
        let over = (0..left.len()).filter(|split| left[*split] == 0).collect();
        Ok(Box::new(UpToReader { inner: self.inner.open(starts, context).await?, left, over }))
    }
}

struct UpToReader {
    inner: Box<dyn SourceReader>,
    left: Vec<u64>,
    /// Splits whose end is still to be told.
    over: VecDeque<usize>,
}

#[async_trait]
impl SourceReader for UpToReader {
    async fn next(&mut self) -> Result<SourceEvent> {
        if let Some(split) = self.over.pop_front() {
            return Ok(SourceEvent::Ended { split });
        }
        // Nothing awaits behind this, so that a call that is dropped has changed nothing.
        let event = self.inner.next().await?;
        if let SourceEvent::Rows { split, rows, rejected } = &event {
            let count = rows.num_rows() + rejected.as_ref().map_or(0, RecordBatch::num_rows);
            let left = &mut self.left[*split];
            *left = left.checked_sub(count as u64).ok_or_else(|| {
                Error::invalid(format!("split {split} has more records than the input should: was --records changed?"))
            })?;
            if *left == 0 {
                self.over.push_back(*split);
            }
        }
        Ok(event)
    }

    fn position(&self, split: usize) -> Bytes {
        [&self.left[split].to_be_bytes()[..], &self.inner.position(split)].concat().into()
    }

    fn set_paused(&mut self, split: usize, paused: bool) {
        self.inner.set_paused(split, paused);
    }

    fn lag(&self) -> Option<u64> {
        Some(self.left.iter().sum())
    }
}
