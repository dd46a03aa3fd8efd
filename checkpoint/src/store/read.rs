//! Gets and scans. All of them see the last commit, less the entries of expiring tables whose time has come.

use std::ops::Range;

use bytes::Bytes;
use coulee_model::{KeyGroup, OperatorId, Timestamp};
use rocksdb::{DBRawIterator, ReadOptions};

use super::{JobStore, expiry};
use crate::{Result, StateKey, TableId};

/// One entry of a table: the key behind the table's prefix (`group u16 | rest`, big-endian) and the value.
pub type Entry = (Bytes, Bytes);

impl JobStore {
    /// The value of a key.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store).
    pub fn get(&self, key: &StateKey) -> Result<Option<Bytes>> {
        let found = self.db.get_pinned_cf(self.family(key.table()), key.as_bytes()).map_err(|e| self.wrap(e))?;
        let now = key.table().expires().then(|| self.clock.now());
        Ok(found.filter(|value| is_live(now, value)).map(|value| Bytes::copy_from_slice(&value)))
    }

    /// The values of many keys at once, in the order of the keys. Fastest when they ascend; others are sorted first.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store).
    pub fn get_many<'a>(&self, keys: impl IntoIterator<Item = &'a StateKey>) -> Result<Vec<Option<Bytes>>> {
        let keys: Vec<&StateKey> = keys.into_iter().collect();
        let mut found = vec![None; keys.len()];
        for expires in [false, true] {
            let mut wanted: Vec<usize> = (0..keys.len()).filter(|i| keys[*i].table().expires() == expires).collect();
            let Some(first) = wanted.first() else { continue };
            let table = keys[*first].table();
            if !wanted.is_sorted_by_key(|i| keys[*i]) {
                wanted.sort_unstable_by_key(|i| keys[*i]);
            }
            let now = expires.then(|| self.clock.now());
            // RocksDB reads each block once for all the keys in it, and skips comparing what is sorted already.
            let values =
                self.db.batched_multi_get_cf(self.family(table), wanted.iter().map(|i| keys[*i].as_bytes()), true);
            for (i, value) in wanted.iter().zip(values) {
                let value = value.map_err(|e| self.wrap(e))?;
                found[*i] = value.filter(|v| is_live(now, v)).map(|v| Bytes::copy_from_slice(&v));
            }
        }
        Ok(found)
    }

    /// Every entry of one table of an operator, in key order.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store), per item; the scan ends with it.
    pub fn scan(&self, operator: OperatorId, table: TableId) -> Scan<'_> {
        self.scan_range(operator, table, 0..u16::MAX, &[], None)
    }

    /// The entries of one table whose key group is in `groups` and whose `rest` is in `[start, end)`, in key order: group by group, and
    /// by `rest` within each. `end` = `None` is the end of the group. All of it is of one commit, though others follow meanwhile.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store), per item; the scan ends with it.
    pub fn scan_range(
        &self,
        operator: OperatorId,
        table: TableId,
        groups: Range<u16>,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Scan<'_> {
        let bound = |group: u16| StateKey::new(operator, table, KeyGroup(group), &[]).into_bytes();
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(bound(groups.start));
        read.set_iterate_upper_bound(bound(groups.end.max(groups.start)));
        let rows = self.db.raw_iterator_cf_opt(self.family(table), read);
        let now = table.expires().then(|| self.clock.now());
        let (start, end) = (start.to_vec(), end.map(<[u8]>::to_vec));
        let prefix = StateKey::table_start(operator, table);
        let mut scan = Scan { store: self, rows, now, prefix, start, end, done: groups.is_empty() };
        scan.seek(groups.start);
        scan
    }

    /// The entries of one table and key group whose `rest` is in `[start, end)`, the last one first. `end` = `None` is the end of the group. All of it is
    /// of one commit, though others follow meanwhile.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store), per item; the scan ends with it.
    pub fn scan_back(
        &self,
        operator: OperatorId,
        table: TableId,
        group: KeyGroup,
        (start, end): (&[u8], Option<&[u8]>),
    ) -> ScanBack<'_> {
        let bound = |group: KeyGroup, rest: &[u8]| StateKey::new(operator, table, group, rest).into_bytes();
        let (from, to) = match end {
            // RocksDB takes bounds in the wrong order for no bounds.
            Some(end) => (bound(group, start), bound(group, end.max(start))),
            None => (bound(group, start), bound(KeyGroup(group.0.saturating_add(1)), &[])),
        };
        let mut read = ReadOptions::default();
        read.set_iterate_lower_bound(from);
        read.set_iterate_upper_bound(to);
        let mut rows = self.db.raw_iterator_cf_opt(self.family(table), read);
        rows.seek_to_last();
        let now = table.expires().then(|| self.clock.now());
        ScanBack { store: self, rows, now, prefix: StateKey::table_start(operator, table).len(), done: false }
    }

    /// The entries of one table and key group whose `rest` begins with `prefix`, in key order.
    ///
    /// # Errors
    /// [`Error::Store`](crate::Error::Store), per item; the scan ends with it.
    pub fn scan_prefix(&self, operator: OperatorId, table: TableId, group: KeyGroup, prefix: &[u8]) -> Scan<'_> {
        self.scan_range(operator, table, group.0..group.0.saturating_add(1), prefix, after_prefix(prefix).as_deref())
    }
}

/// The first key after all that begin with `prefix`; `None` where there is none.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut next = prefix.to_vec();
    while let Some(last) = next.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return Some(next);
        }
        next.pop();
    }
    None
}

fn is_live(now: Option<Timestamp>, value: &[u8]) -> bool {
    now.is_none_or(|now| !expiry::is_expired(value, now))
}

/// A running scan; see [`JobStore::scan_range`]. Holds one block of each file it reads, not the table.
pub struct Scan<'a> {
    store: &'a JobStore,
    /// Bounded to the groups.
    rows: DBRawIterator<'a>,
    /// When it is, for a table that expires.
    now: Option<Timestamp>,
    /// Operator and table.
    prefix: Vec<u8>,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    done: bool,
}

/// A running scan from the last entry to the first; see [`JobStore::scan_back`].
pub struct ScanBack<'a> {
    store: &'a JobStore,
    /// Bounded to the entries that are wanted.
    rows: DBRawIterator<'a>,
    /// When it is, for a table that expires.
    now: Option<Timestamp>,
    /// The length of operator and table.
    prefix: usize,
    done: bool,
}

impl Iterator for ScanBack<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let Some((key, value)) = self.rows.item() else {
                self.done = true;
                return self.rows.status().err().map(|e| Err(self.store.wrap(e)));
            };
            let key = &key[self.prefix..];
            let entry = is_live(self.now, value).then(|| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            self.rows.prev();
            if let Some(entry) = entry {
                return Some(Ok(entry));
            }
        }
        None
    }
}

/// Where an entry lies, seen from the range that is wanted.
enum Place {
    Within,
    Before(u16),
    After(u16),
}

impl Scan<'_> {
    /// Goes to the first entry of `group` that is at or above `start`.
    fn seek(&mut self, group: u16) {
        if !self.done {
            let mut key = self.prefix.clone();
            key.extend_from_slice(&group.to_be_bytes());
            key.extend_from_slice(&self.start);
            self.rows.seek(key);
        }
    }

    fn place(&self, key: &[u8]) -> Place {
        let Some((group, rest)) = key.split_first_chunk::<2>() else { return Place::Within };
        let group = u16::from_be_bytes(*group);
        if rest < self.start.as_slice() {
            Place::Before(group)
        } else if self.end.as_ref().is_some_and(|end| rest >= end.as_slice()) {
            Place::After(group)
        } else {
            Place::Within
        }
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let Some((key, value)) = self.rows.item() else {
                self.done = true;
                return self.rows.status().err().map(|e| Err(self.store.wrap(e)));
            };
            let key = &key[self.prefix.len()..];
            match self.place(key) {
                Place::Before(group) => self.seek(group),
                Place::After(u16::MAX) => self.done = true,
                Place::After(group) => self.seek(group + 1),
                Place::Within => {
                    let entry =
                        is_live(self.now, value).then(|| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                    self.rows.next();
                    if let Some(entry) = entry {
                        return Some(Ok(entry));
                    }
                }
            }
        }
        None
    }
}
