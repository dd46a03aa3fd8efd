//! The values of a key, as ordered multisets: for aggregates of distinct values and, over a changelog, for those that no row can be taken back from.
//!
//! A *set* is the values that some aggregates have as arguments, under one filter. An entry of a key's map is `set u16 | the values in Arrow's row format`,
//! which sorts as the values do, and says how often they are there (i64). So a minimum is the first entry of a set and a maximum the last one, whatever
//! number there is between them.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, UInt64Type};
use bytes::Bytes;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::CheckpointId;

use super::partials::Signs;
use crate::group_table::Interner;
use crate::row_codec::RowCodec;
use crate::state::{Backend, KeyRef, MapTable, Order};
use crate::{Error, Result};

/// One kind of values.
pub(super) struct ValueSet {
    /// What the entries of the set begin with.
    prefix: [u8; 2],
    codec: RowCodec,
    /// Of the values of a mini-batch with their groups.
    interner: Interner,
    /// Whether values with a null are left out.
    skips_nulls: bool,
    /// Whether it matters how often a value is there; otherwise only whether it is.
    counted: bool,
}

/// The values of a mini-batch, each once per group.
pub(super) struct ChangedValues {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) group_of_row: Vec<usize>,
    /// Those that are there now and were not, and those that are not any more.
    pub(super) signs: Signs,
}

/// The values of some groups, each with how often it is there.
pub(super) struct AllValues {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) group_of_row: Vec<usize>,
    pub(super) times: Int64Array,
}

impl ValueSet {
    /// Set number `number` of values of these types.
    pub(super) fn new(number: u16, types: Vec<DataType>, skips_nulls: bool, counted: bool) -> Result<Self> {
        let field = |(at, data_type): (usize, &DataType)| {
            Arc::new(Field::new(format!("value:{at}"), data_type.clone(), true)) as FieldRef
        };
        let group: FieldRef = Arc::new(Field::new("group", DataType::UInt64, false));
        let fields: Vec<FieldRef> = [group].into_iter().chain(types.iter().enumerate().map(field)).collect();
        let (codec, interner) = (RowCodec::new(types)?, Interner::new(&fields)?);
        Ok(ValueSet { prefix: number.to_be_bytes(), codec, interner, skips_nulls, counted })
    }

    /// Adds and takes back the values of rows. `numbers` are those of the groups in `maps`.
    pub(super) fn update(
        &mut self,
        maps: &mut ValueMaps,
        (values, filter): (&[ArrayRef], Option<&BooleanArray>),
        (group_of_row, numbers): (&[usize], &[u32]),
        signs: Option<&Signs>,
    ) -> Result<ChangedValues> {
        // Which rows change the set, and by how much.
        let (mut rows, mut by): (Vec<u32>, Vec<i64>) = (Vec::new(), Vec::new());
        for row in 0..group_of_row.len() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            let sign = signs.map_or(1, |signs| i64::from(signs.added.value(row)) - i64::from(signs.taken.value(row)));
            let is_null = || self.skips_nulls && values.iter().any(|column| column.is_null(row));
            if passes && sign != 0 && !is_null() {
                rows.push(row as u32);
                by.push(sign);
            }
        }
        let groups: UInt64Array = rows.iter().map(|row| group_of_row[*row as usize] as u64).collect();
        let rows = UInt32Array::from(rows);
        let mut keys: Vec<ArrayRef> = vec![Arc::new(groups)];
        for column in values {
            keys.push(take(column, &rows, None)?);
        }
        let distinct = self.interner.intern(&keys, rows.len())?;
        let mut net = vec![0; distinct];
        self.interner.of_row().iter().zip(by).for_each(|(value, by)| net[*value] += by);
        let mut columns = self.interner.take_keys()?;
        let group_of_row: Vec<usize> =
            columns.remove(0).as_primitive::<UInt64Type>().values().iter().map(|group| *group as usize).collect();
        let (added, taken) = self.count(maps, &columns, (&group_of_row, numbers), &net)?;
        Ok(ChangedValues { columns, group_of_row, signs: Signs { added, taken } })
    }

    /// Counts values up and down; tells which of them came, and which are gone.
    fn count(
        &self,
        maps: &mut ValueMaps,
        values: &[ArrayRef],
        (group_of_row, numbers): (&[usize], &[u32]),
        net: &[i64],
    ) -> Result<(BooleanArray, BooleanArray)> {
        let encoded = self.codec.encode(values)?;
        let keys: Vec<Vec<u8>> = (0..net.len()).map(|row| [&self.prefix[..], encoded.row(row)].concat()).collect();
        let place = |row: usize| (numbers[group_of_row[row]], &keys[row][..]);
        let changed: Vec<usize> = (0..net.len()).filter(|row| net[*row] != 0).collect();
        maps.table.prefetch(&changed.iter().map(|row| place(*row)).collect::<Vec<_>>())?;
        let (mut added, mut taken) = (vec![false; net.len()], vec![false; net.len()]);
        for row in changed {
            let (number, key) = place(row);
            let old = maps.table.get(number, key)?.map_or(Ok(0), |count| decoded(&count))?;
            if old > 0 && !self.counted && !maps.expires {
                continue;
            }
            let mut new = old + net[row];
            if maps.expires {
                // SUBTLE: what is taken back may have expired; counted below 0 it would hide a value that comes later.
                new = new.max(0);
            }
            match new {
                0 => maps.table.remove(number, key),
                new => maps.table.put(number, key, Bytes::copy_from_slice(&new.to_be_bytes())),
            }
            added[row] = old <= 0 && new > 0;
            taken[row] = old > 0 && new <= 0;
        }
        Ok((added.into(), taken.into()))
    }

    /// The first or the last value of each group, null for a group without values. The set has one column.
    pub(super) fn end(&self, maps: &mut ValueMaps, numbers: &[u32], order: Order) -> Result<ArrayRef> {
        let (mut found, mut at): (Vec<Vec<u8>>, Vec<Option<u32>>) = (Vec::new(), Vec::with_capacity(numbers.len()));
        for number in numbers {
            let before = found.len();
            maps.scan(*number, self.prefix, order, |value, _| {
                found.push(value.to_vec());
                ControlFlow::Break(())
            })?;
            at.push((found.len() > before).then_some(before as u32));
        }
        let mut columns = self.codec.decode(found.iter().map(Vec::as_slice))?;
        let column = columns.pop().ok_or_else(|| Error::internal("a set of values has no column"))?;
        Ok(take(&column, &UInt32Array::from(at), None)?)
    }

    /// All values of each group, in their order.
    pub(super) fn all(&self, maps: &mut ValueMaps, numbers: &[u32]) -> Result<AllValues> {
        let (mut found, mut group_of_row, mut times): (Vec<Vec<u8>>, _, Vec<i64>) =
            (Vec::new(), Vec::new(), Vec::new());
        for (group, number) in numbers.iter().enumerate() {
            maps.scan(*number, self.prefix, Order::Ascending, |value, count| {
                found.push(value.to_vec());
                group_of_row.push(group);
                times.push(count);
                ControlFlow::Continue(())
            })?;
        }
        let columns = self.codec.decode(found.iter().map(Vec::as_slice))?;
        Ok(AllValues { columns, group_of_row, times: Int64Array::from(times) })
    }
}

/// The maps of all keys, which hold the entries of all sets.
pub(super) struct ValueMaps {
    table: MapTable,
    expires: bool,
}

impl ValueMaps {
    pub(super) fn new(table: TableId, ttl_millis: Option<i64>) -> Self {
        ValueMaps { table: MapTable::new(table, ttl_millis), expires: ttl_millis.is_some() }
    }

    pub(super) fn open(&mut self, backend: Backend) -> Result<()> {
        self.table.open(backend)
    }

    /// The numbers of keys, which hold until the next `trim`.
    pub(super) fn load(&mut self, keys: &[KeyRef<'_>]) -> Vec<u32> {
        keys.iter().map(|key| self.table.load(*key)).collect()
    }

    /// Calls `visit` with the values of a set that are there, and how often.
    fn scan(
        &mut self,
        number: u32,
        prefix: [u8; 2],
        order: Order,
        mut visit: impl FnMut(&[u8], i64) -> ControlFlow<()>,
    ) -> Result<()> {
        let end = u16::from_be_bytes(prefix).checked_add(1).map(u16::to_be_bytes);
        let end = end.as_ref().map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
        self.table.scan(number, (Bound::Included(&prefix[..]), end), order, |key, count| match decoded(count)? {
            count if count > 0 => Ok(visit(key.get(prefix.len()..).unwrap_or_default(), count)),
            _ => Ok(ControlFlow::Continue(())),
        })
    }

    /// Removes everything of a key.
    pub(super) fn clear(&mut self, number: u32) -> Result<()> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        self.table.scan(number, (Bound::Unbounded, Bound::Unbounded), Order::Ascending, |key, _| {
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        keys.iter().for_each(|key| self.table.remove(number, key));
        Ok(())
    }

    pub(super) fn trim(&mut self) {
        self.table.trim();
    }

    pub(super) fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) {
        self.table.checkpoint(id, changes);
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.bytes()
    }
}

fn decoded(count: &Bytes) -> Result<i64> {
    let count = count.first_chunk().filter(|_| count.len() == 8);
    let count = count.ok_or_else(|| Error::corrupt("the stored count of a value has not 8 bytes"))?;
    Ok(i64::from_be_bytes(*count))
}

#[cfg(test)]
mod tests {
    use coulee_checkpoint::{CheckpointRecord, JobStore, StoreSettings};
    use coulee_model::{Clock, ManualClock, OperatorId, SubtaskIndex, Timestamp};

    use super::*;
    use crate::state::MemoryBudget;

    const KEY: KeyRef<'_> = KeyRef { hash: 7, bytes: b"key" };

    fn open(store: &Arc<JobStore>) -> (ValueMaps, ValueSet) {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp(0)));
        let budget = MemoryBudget::new(64 << 20);
        let backend = Backend::new(OperatorId(5), SubtaskIndex(0), 1, store.clone(), budget, clock);
        let mut maps = ValueMaps::new(TableId(2), None);
        maps.open(backend).unwrap();
        (maps, ValueSet::new(3, vec![DataType::Int64], true, true).unwrap())
    }

    /// Adds or takes back values of the key; gives which of them came and which are gone.
    fn update(maps: &mut ValueMaps, set: &mut ValueSet, values: &[Option<i64>], is_taken: bool) -> [Vec<bool>; 2] {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        let all = |value: bool| BooleanArray::from(vec![value; values.len()]);
        let (numbers, signs) = (maps.load(&[KEY]), Signs { added: all(!is_taken), taken: all(is_taken) });
        let groups = (&vec![0; values.len()][..], &numbers[..]);
        let changed = set.update(maps, (&[column], None), groups, Some(&signs)).unwrap();
        let bits = |column: &BooleanArray| column.values().iter().collect::<Vec<_>>();
        [bits(&changed.signs.added), bits(&changed.signs.taken)]
    }

    fn end(maps: &mut ValueMaps, set: &ValueSet, order: Order) -> Option<i64> {
        let numbers = maps.load(&[KEY]);
        let column = set.end(maps, &numbers, order).unwrap();
        let column = column.as_primitive::<arrow::datatypes::Int64Type>();
        column.is_valid(0).then(|| column.value(0))
    }

    #[test]
    fn a_value_comes_once_and_is_gone_with_the_last_row_that_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(JobStore::open(dir.path(), &StoreSettings::default()).unwrap());
        let (mut maps, mut set) = open(&store);
        assert_eq!(end(&mut maps, &set, Order::Ascending), None);
        let came = update(&mut maps, &mut set, &[Some(4), None, Some(4), Some(-1)], false);
        assert_eq!(came, [vec![true, true], vec![false, false]]);
        assert_eq!(update(&mut maps, &mut set, &[Some(4)], true), [[false], [false]]);
        assert_eq!(end(&mut maps, &set, Order::Descending), Some(4));
        assert_eq!(update(&mut maps, &mut set, &[Some(4)], true), [[false], [true]]);
        assert_eq!(end(&mut maps, &set, Order::Descending), Some(-1));
        // Taken back before it comes.
        assert_eq!(update(&mut maps, &mut set, &[Some(9)], true), [[false], [false]]);
        assert_eq!(end(&mut maps, &set, Order::Descending), Some(-1));
        assert_eq!(update(&mut maps, &mut set, &[Some(9)], false), [[false], [false]]);
        assert_eq!(end(&mut maps, &set, Order::Descending), Some(-1));
    }

    #[test]
    fn the_ends_of_a_large_set_are_read_alone() {
        const COUNT: i64 = 20_000;
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(JobStore::open(dir.path(), &StoreSettings::default()).unwrap());
        let (mut maps, mut set) = open(&store);
        update(&mut maps, &mut set, &(0..COUNT).map(|value| Some(value - 100)).collect::<Vec<_>>(), false);
        let mut changes = Changes::default();
        maps.checkpoint(CheckpointId(1), &mut changes);
        let record = CheckpointRecord { id: CheckpointId(1), at: Timestamp(0), job: String::new() };
        store.commit(record, [changes]).unwrap();
        let (mut maps, mut set) = open(&store);
        assert_eq!(end(&mut maps, &set, Order::Ascending), Some(-100));
        update(&mut maps, &mut set, &[Some(COUNT - 101)], true);
        assert_eq!(end(&mut maps, &set, Order::Descending), Some(COUNT - 102));
        assert!(maps.table.read_entries() <= 512, "{} entries were read", maps.table.read_entries());
        maps.load(&[KEY]).iter().for_each(|number| maps.clear(*number).unwrap());
        assert_eq!(end(&mut maps, &set, Order::Ascending), None);
    }
}
