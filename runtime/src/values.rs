//! A source of rows that are known when the graph is made: `VALUES`, and a query without `FROM`.
//!
//! There is one split, whose position is the number of the next row, a decimal number.

use std::hash::Hasher;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use xxhash_rust::xxh3::Xxh3;

use crate::connector::{
    Enumeration, KnownSplits, Source, SourceContext, SourceEvent, SourceReader, SplitId, SplitStart,
};
use crate::state::Facet;
use crate::{Error, Result};

const SPLIT: &str = "rows";

/// Rows that are known.
#[derive(Debug)]
pub struct ValuesSource {
    rows: RecordBatch,
}

impl ValuesSource {
    /// A source that gives these rows and ends.
    pub fn new(rows: RecordBatch) -> Self {
        ValuesSource { rows }
    }

    /// A text that stands for the rows.
    fn fingerprint(&self) -> String {
        let mut hasher = Xxh3::new();
        hasher.write(format!("{:?}", self.rows).as_bytes());
        format!("{} with hash {:016x}", self.rows.num_rows(), hasher.finish())
    }
}

#[async_trait]
impl Source for ValuesSource {
    fn describe(&self) -> String {
        match self.rows.num_rows() {
            1 => "1 row of the statement".to_owned(),
            rows => format!("{rows} rows of the statement"),
        }
    }

    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn identity(&self) -> Vec<Facet> {
        vec![Facet::new("connector", "values"), Facet::new("rows", self.fingerprint())]
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn knows_its_end(&self) -> bool {
        true
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        Ok(known.of([SplitId(SPLIT.to_owned())], "the rows of the statement")?.into())
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let next = match splits.first() {
            None => None,
            Some(SplitStart { position: None, .. }) => Some(0),
            Some(SplitStart { position: Some(position), .. }) => {
                let number = std::str::from_utf8(position).ok().and_then(|text| text.parse().ok());
                let is_there = |next: &usize| *next <= self.rows.num_rows();
                let damaged = || Error::corrupt("the stored position in the rows of a statement is no number of a row");
                Some(number.filter(is_there).ok_or_else(damaged)?)
            }
        };
        let batch_rows = context.batch_rows.max(1);
        Ok(Box::new(ValuesReader { rows: self.rows.clone(), next, has_ended: false, batch_rows }))
    }
}

struct ValuesReader {
    rows: RecordBatch,
    /// `None` when the split is with another subtask.
    next: Option<usize>,
    has_ended: bool,
    batch_rows: usize,
}

#[async_trait]
impl SourceReader for ValuesReader {
    async fn next(&mut self) -> Result<SourceEvent> {
        let Some(next) = self.next.filter(|_| !self.has_ended) else { return std::future::pending().await };
        let count = self.batch_rows.min(self.rows.num_rows() - next);
        if count == 0 {
            self.has_ended = true;
            return Ok(SourceEvent::Ended { split: 0 });
        }
        self.next = Some(next + count);
        Ok(SourceEvent::Rows { split: 0, rows: self.rows.slice(next, count), rejected: None })
    }

    fn position(&self, _: usize) -> Bytes {
        Bytes::from(self.next.unwrap_or_default().to_string())
    }

    fn lag(&self) -> Option<u64> {
        self.next.map(|next| (self.rows.num_rows() - next) as u64)
    }
}
