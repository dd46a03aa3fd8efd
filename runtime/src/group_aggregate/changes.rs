//! What a mini-batch changed: a changelog from the results of its groups before and after.
//!
//! As in Flink's `GroupAggFunction`: a first result is `+I`; another result is `-U`, if that is wanted, and `+U`; an equal result is nothing; the result
//! of a group whose last row was taken back is `-D`.

use std::cmp::Ordering;

use arrow::array::make_comparator;
use arrow::array::{ArrayRef, BooleanArray, Int8Array, UInt32Array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{SortOptions, cast, interleave, or, take};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::{Batch, Result, RowKind};

/// The results of a mini-batch's groups, one row per group.
pub(super) struct Evaluated {
    /// A column per aggregate.
    pub(super) columns: Vec<ArrayRef>,
    /// Which groups have a result.
    pub(super) exists: Vec<bool>,
}

/// How results become changes.
pub(super) struct Changelog {
    pub(super) schema: SchemaRef,
    /// Whether an update holds the old result.
    pub(super) update_before: bool,
    /// Whether a result is emitted also when it is as it was: it keeps the state behind this operator alive, where state expires.
    pub(super) repeats: bool,
}

impl Changelog {
    /// The changes between two results of the groups with these keys.
    pub(super) fn between(&self, keys: &[ArrayRef], before: &Evaluated, after: &Evaluated) -> Result<Batch> {
        let groups = after.exists.len();
        let differs = self.differs(before, after, groups)?;
        let (mut rows, mut kinds): (Vec<(usize, usize)>, Vec<i8>) = (Vec::new(), Vec::new());
        let mut emit = |kind: RowKind, of: usize, group: usize| {
            rows.push((of, group));
            kinds.push(kind as i8);
        };
        for group in 0..groups {
            match (before.exists[group], after.exists[group]) {
                (false, false) => {}
                (false, true) => emit(RowKind::Insert, AFTER, group),
                (true, false) => emit(RowKind::Delete, BEFORE, group),
                (true, true) if !differs.value(group) => {}
                (true, true) => {
                    if self.update_before {
                        emit(RowKind::UpdateBefore, BEFORE, group);
                    }
                    emit(RowKind::UpdateAfter, AFTER, group);
                }
            }
        }
        let group_of: UInt32Array = rows.iter().map(|(_, group)| *group as u32).collect();
        let mut columns = Vec::with_capacity(self.schema.fields().len());
        for key in keys {
            columns.push(take(key, &group_of, None)?);
        }
        for (old, new) in before.columns.iter().zip(&after.columns) {
            columns.push(interleave(&[old.as_ref(), new.as_ref()], &rows)?);
        }
        for (column, field) in columns.iter_mut().zip(self.schema.fields()) {
            if column.data_type() != field.data_type() {
                *column = cast(column, field.data_type())?;
            }
        }
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        // Distinct keys of rows that are only appended go where changelogs are not understood.
        Ok(match kinds.iter().all(|kind| *kind == RowKind::Insert as i8) {
            true => Batch::inserts(rows),
            false => Batch::changes(rows, Int8Array::from(kinds)),
        })
    }

    /// Which groups have another result than before.
    fn differs(&self, before: &Evaluated, after: &Evaluated, groups: usize) -> Result<BooleanArray> {
        let mut differs = BooleanArray::from(vec![self.repeats; groups]);
        if self.repeats {
            return Ok(differs);
        }
        for (old, new) in before.columns.iter().zip(&after.columns) {
            let column = match old.data_type().is_nested() {
                false => distinct(old, new)?,
                true => {
                    let compare = make_comparator(old, new, SortOptions::default())?;
                    (0..groups).map(|group| Some(compare(group, group) != Ordering::Equal)).collect()
                }
            };
            differs = or(&differs, &column)?;
        }
        Ok(differs)
    }
}

/// Where a row of the changelog is taken from.
const BEFORE: usize = 0;
const AFTER: usize = 1;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, Int64Array, ListArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;
    use crate::harness::changelog_lines;

    fn evaluated(column: ArrayRef, exists: [bool; 5]) -> Evaluated {
        Evaluated { columns: vec![column], exists: exists.to_vec() }
    }

    /// Five groups: new, gone, changed, as before, never there.
    fn lines(before: ArrayRef, after: ArrayRef, update_before: bool, repeats: bool) -> Vec<String> {
        let fields = vec![Field::new("k", DataType::Int64, true), Field::new("a", after.data_type().clone(), true)];
        let changelog = Changelog { schema: Arc::new(Schema::new(fields)), update_before, repeats };
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(4), Some(5)]));
        let before = evaluated(before, [false, true, true, true, false]);
        let after = evaluated(after, [true, false, true, true, false]);
        changelog_lines(&[changelog.between(&[keys], &before, &after).unwrap()]).unwrap()
    }

    #[test]
    fn each_group_is_emitted_as_what_happened_to_it() {
        let before = || Arc::new(Int64Array::from(vec![None, Some(20), Some(30), None, Some(50)])) as ArrayRef;
        let after = || Arc::new(Int64Array::from(vec![Some(10), Some(0), Some(31), None, Some(51)])) as ArrayRef;
        let update = ["+I | 1 | 10", "-D | 2 | 20", "-U |  | 30", "+U |  | 31"];
        assert_eq!(lines(before(), after(), true, false), update);
        assert_eq!(lines(before(), after(), false, false), ["+I | 1 | 10", "-D | 2 | 20", "+U |  | 31"]);
        let repeated = [&update[..], &["-U | 4 | ", "+U | 4 | "]].concat();
        assert_eq!(lines(before(), after(), true, true), repeated);
    }

    #[test]
    fn lists_are_compared_by_their_elements() {
        let lists = |lists: [Option<Vec<i64>>; 5]| {
            let items = lists.into_iter().map(|list| list.map(|list| list.into_iter().map(Some).collect::<Vec<_>>()));
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(items)) as ArrayRef
        };
        let before = lists([None, Some(vec![2]), Some(vec![3]), Some(vec![4, 4]), None]);
        let after = lists([Some(vec![1]), None, Some(vec![3, 3]), Some(vec![4, 4]), None]);
        let expected = ["+I | 1 | [1]", "-D | 2 | [2]", "-U |  | [3]", "+U |  | [3, 3]"];
        assert_eq!(lines(before, after, true, false), expected);
    }
}
