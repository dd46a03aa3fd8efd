//! A source of keys: first each key once, then keys at random; as many as are allowed.
//!
//! Random keys are spread evenly, or as YCSB's `zipfian` spreads them: by Gray et al., "Quickly Generating Billion-Record Synthetic Databases"
//! (1994), with a constant of 0.99; the most frequent tenth of the keys then gets 86 % of the rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::array::UInt64Array;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_runtime::connector::{
    Enumeration, KnownSplits, Source, SourceContext, SourceEvent, SourceReader, SplitId, SplitStart,
};
use coulee_runtime::{Error, Result};
use tokio::sync::Notify;

#[derive(Debug, Clone)]
pub struct Feed {
    keys: u64,
    allowed: Arc<AtomicU64>,
    more: Arc<Notify>,
    skewed: Arc<AtomicBool>,
    zipf: Zipf,
}

impl Feed {
    pub fn new(keys: u64) -> Self {
        Feed { keys, allowed: Arc::default(), more: Arc::default(), skewed: Arc::default(), zipf: Zipf::new(keys) }
    }

    /// From now on some keys are frequent and most are rare.
    pub fn skew(&self) {
        self.skewed.store(true, Ordering::SeqCst);
    }

    /// The `n`-th row's key.
    fn key(&self, n: u64, skewed: bool) -> u64 {
        mixed(match n {
            first if first < self.keys => first,
            random if skewed => self.zipf.rank(mixed(random)),
            random => mixed(random) % self.keys,
        })
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

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        Ok(known.of([SplitId("feed".into())], "feed")?.into())
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let Some(split) = splits.first() else { return Ok(Box::new(Nothing)) };
        let position = split.position.as_ref().map(|bytes| bytes.as_ref().try_into()).transpose();
        let next = position.map_err(|_| Error::corrupt("a position has not 8 bytes"))?.map_or(0, u64::from_be_bytes);
        Ok(Box::new(Reader { feed: self.clone(), next, rows: context.batch_rows as u64 }))
    }
}

/// Ranks from 0, of which the `i`-th has a probability proportional to `1 / (i + 1)^THETA`.
#[derive(Debug, Clone, Copy)]
struct Zipf {
    ranks: f64,
    zeta: f64,
    eta: f64,
}

const THETA: f64 = 0.99;

impl Zipf {
    fn new(ranks: u64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-THETA)).sum::<f64>();
        let all = zeta(ranks);
        let eta = (1.0 - (2.0 / ranks as f64).powf(1.0 - THETA)) / (1.0 - zeta(2) / all);
        Zipf { ranks: ranks as f64, zeta: all, eta }
    }

    /// The rank that `random` stands for.
    fn rank(&self, random: u64) -> u64 {
        let u = random as f64 / u64::MAX as f64;
        let scaled = u * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let rank = self.ranks * (self.eta * (u - 1.0) + 1.0).powf(1.0 / (1.0 - THETA));
        (rank as u64).min(self.ranks as u64 - 1)
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
                let skewed = self.feed.skewed.load(Ordering::SeqCst);
                let column = UInt64Array::from_iter_values((self.next..end).map(|n| self.feed.key(n, skewed)));
                let rows = RecordBatch::try_new(self.feed.schema(), vec![Arc::new(column)])?;
                self.next = end;
                return Ok(SourceEvent::Rows { split: 0, rows, rejected: None });
            }
            self.feed.more.notified().await;
        }
    }

    fn position(&self, _: usize) -> Bytes {
        Bytes::from(self.next.to_be_bytes().to_vec())
    }
}

/// The reader of a subtask without a split.
struct Nothing;

#[async_trait]
impl SourceReader for Nothing {
    async fn next(&mut self) -> Result<SourceEvent> {
        std::future::pending().await
    }

    fn position(&self, _: usize) -> Bytes {
        Bytes::new()
    }
}
