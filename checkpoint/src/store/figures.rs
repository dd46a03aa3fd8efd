//! What a store costs, in memory and on disk. Nothing here reads the state through.

use std::collections::BTreeMap;

use coulee_model::OperatorId;
use rocksdb::{IteratorMode, Range, ReadOptions};

use super::{JobStore, OWN, settings};
use crate::{Result, TableId};

impl JobStore {
    fn sum_of(&self, property: &str) -> u64 {
        [TableId(0), TableId(TableId::EXPIRES)]
            .into_iter()
            .filter_map(|table| self.db.property_int_value_cf(self.family(table), property).ok().flatten())
            .sum()
    }

    /// Bytes on disk and in RocksDB's memory, roughly.
    pub fn size_bytes(&self) -> u64 {
        ["rocksdb.total-sst-files-size", "rocksdb.total-blob-file-size", "rocksdb.cur-size-all-mem-tables"]
            .iter()
            .map(|property| self.sum_of(property))
            .sum()
    }

    /// Bytes of memory: changes not yet in files, readers of files, and the block cache unless it is shared (then see
    /// [`StoreResources::memory_bytes`](super::StoreResources::memory_bytes), which counts it once).
    pub fn memory_bytes(&self) -> u64 {
        let own = self.sum_of("rocksdb.cur-size-all-mem-tables") + self.sum_of("rocksdb.estimate-table-readers-mem");
        // Both families read through one cache.
        let cache = self.db.property_int_value_cf(self.family(TableId(0)), "rocksdb.block-cache-usage").ok().flatten();
        own + if self.shares_cache { 0 } else { cache.unwrap_or(0) }
    }

    /// Whether an operator has an entry.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store).
    pub fn holds(&self, operator: OperatorId) -> Result<bool> {
        for table in [TableId(0), TableId(TableId::EXPIRES)] {
            let mut rows = self.db.raw_iterator_cf_opt(self.family(table), keys_only());
            rows.seek(operator.0.to_be_bytes());
            if rows.key().and_then(operator_of) == Some(operator) {
                return Ok(true);
            }
            rows.status().map_err(|e| self.wrap(e))?;
        }
        Ok(false)
    }

    /// How many entries each operator has, by operator: for judging whether state fits a changed job. Reads every key.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store).
    pub fn operators(&self) -> Result<BTreeMap<OperatorId, u64>> {
        let mut counts = BTreeMap::new();
        for table in [TableId(0), TableId(TableId::EXPIRES)] {
            let mut rows = self.db.raw_iterator_cf_opt(self.family(table), keys_only());
            rows.seek_to_first();
            while let Some(key) = rows.key() {
                if let Some(operator) = operator_of(key).filter(|operator| *operator != OWN) {
                    *counts.entry(operator).or_default() += 1;
                }
                rows.next();
            }
            rows.status().map_err(|e| self.wrap(e))?;
        }
        Ok(counts)
    }

    /// Roughly how many bytes on disk each operator takes, without reading the state. What is still in memory is not counted.
    ///
    /// Values in blob files are not known by operator: their bytes are shared out by what a sample says of each operator's values.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store).
    pub fn operator_bytes(&self) -> Result<BTreeMap<OperatorId, u64>> {
        let mut bytes = BTreeMap::new();
        let mut weights = Vec::new();
        for table in [TableId(0), TableId(TableId::EXPIRES)] {
            let family = self.family(table);
            for operator in self.operators_of(table)? {
                let (start, end) = (operator.0.to_be_bytes(), (operator.0 + 1).to_be_bytes());
                let in_tables: u64 = self.db.get_approximate_sizes_cf(family, &[Range::new(&start, &end)]).iter().sum();
                *bytes.entry(operator).or_default() += in_tables;
                if !table.expires() {
                    weights.push((operator, in_tables as f64 * self.blob_share(&start, &end)?));
                }
            }
        }
        let blobs = self.sum_of("rocksdb.total-blob-file-size") as f64;
        let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
        for (operator, weight) in weights.into_iter().filter(|_| total > 0.0) {
            *bytes.entry(operator).or_default() += (blobs * weight / total) as u64;
        }
        Ok(bytes)
    }

    /// The operators that have entries in the family of `table`: one seek each.
    fn operators_of(&self, table: TableId) -> Result<Vec<OperatorId>> {
        let mut found = Vec::new();
        let mut rows = self.db.raw_iterator_cf_opt(self.family(table), keys_only());
        rows.seek_to_first();
        while let Some(operator) = rows.key().and_then(operator_of).filter(|operator| *operator != OWN) {
            found.push(operator);
            rows.seek((operator.0 + 1).to_be_bytes());
        }
        rows.status().map_err(|e| self.wrap(e))?;
        Ok(found)
    }

    /// Bytes in blob files for each byte in tables, over the first entries of a range of plain tables.
    fn blob_share(&self, start: &[u8], end: &[u8]) -> Result<f64> {
        const SAMPLE: usize = 256;
        let mut read = ReadOptions::default();
        read.set_iterate_range(start.to_vec()..end.to_vec());
        let (mut in_tables, mut in_blobs) = (0usize, 0usize);
        for entry in self.db.iterator_cf_opt(self.family(TableId(0)), read, IteratorMode::Start).take(SAMPLE) {
            let (key, value) = entry.map_err(|e| self.wrap(e))?;
            if value.len() as u64 >= settings::BLOB_BYTES_MIN {
                in_blobs += value.len();
                in_tables += key.len() + settings::BLOB_REFERENCE_BYTES;
            } else {
                in_tables += key.len() + value.len();
            }
        }
        Ok(in_blobs as f64 / in_tables.max(1) as f64)
    }
}

fn keys_only() -> ReadOptions {
    let mut read = ReadOptions::default();
    read.fill_cache(false);
    read
}

fn operator_of(key: &[u8]) -> Option<OperatorId> {
    key.first_chunk::<4>().map(|id| OperatorId(u32::from_be_bytes(*id)))
}
