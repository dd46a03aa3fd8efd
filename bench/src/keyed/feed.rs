//! A source of keys: first each key once, then keys at random; as many as are allowed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::UInt64Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_runtime::connector::{Source, SourceContext, SourceEvent, SourceReader, SplitId, SplitStart};
use coulee_runtime::{Error, Result};
use tokio::sync::Notify;

#[derive(Debug, Clone)]
pub struct Feed {
    keys: u64,
    allowed: Arc<AtomicU64>,
    more: Arc<Notify>,
}

impl Feed {
    pub fn new(keys: u64) -> Self {
        Feed { keys, allowed: Arc::default(), more: Arc::default() }
    }

    /// Allows so many more rows; `u64::MAX` for any number.
    pub fn allow(&self, rows: u64) {
        let add = |allowed: u64| Some(allowed.saturating_add(rows));
        let _ = self.allowed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        self.more.notify_one();
    }
}

#[async_trait]
impl Source for Feed {
    fn describe(&self) -> String {
        "Feed".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("key", DataType::UInt64, false)]))
    }

    fn is_bounded(&self) -> bool {
        false
    }

    async fn splits(&self) -> Result<Vec<SplitId>> {
        Ok(vec![SplitId("feed".into())])
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let Some(split) = splits.first() else { return Ok(Box::new(Nothing)) };
        let position = split.position.as_ref().map(|bytes| bytes.as_ref().try_into()).transpose();
        let next = position.map_err(|_| Error::corrupt("a position has not 8 bytes"))?.map_or(0, u64::from_be_bytes);
        Ok(Box::new(Reader { feed: self.clone(), next, rows: context.batch_rows as u64 }))
    }
}

struct Reader {
    feed: Feed,
    next: u64,
    rows: u64,
}

/// A bijection that mixes well (SplitMix64's finaliser).
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[async_trait]
impl SourceReader for Reader {
    async fn next(&mut self) -> Result<SourceEvent> {
        loop {
            let allowed = self.feed.allowed.load(Ordering::SeqCst);
            if self.next < allowed {
                let end = allowed.min(self.next + self.rows);
                let keys = self.feed.keys;
                let key = |n: u64| mixed(if n < keys { n } else { mixed(n) % keys });
                let column = UInt64Array::from_iter_values((self.next..end).map(key));
                let rows = RecordBatch::try_new(self.feed.schema(), vec![Arc::new(column)])?;
                self.next = end;
                return Ok(SourceEvent::Rows { split: 0, rows, rejected: None });
            }
            self.feed.more.notified().await;
        }
    }

    fn positions(&self) -> Vec<(SplitId, Bytes)> {
        vec![(SplitId("feed".into()), Bytes::from(self.next.to_be_bytes().to_vec()))]
    }
}

/// The reader of a subtask without a split.
struct Nothing;

#[async_trait]
impl SourceReader for Nothing {
    async fn next(&mut self) -> Result<SourceEvent> {
        std::future::pending().await
    }

    fn positions(&self) -> Vec<(SplitId, Bytes)> {
        Vec::new()
    }
}
