//! The results of a table, where the result of a group may fail: a total that its type does not hold.
//!
//! Such a failure is of no single row: which one would come last depends on the order. So the group is told, and the other groups
//! have their results.

use arrow::array::{ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::{filter, take};

use super::GroupTable;
use crate::Result;
use crate::row_errors::Failure;

/// What a table gives at its end.
#[derive(Debug)]
pub struct Results {
    /// The keys, then one column per aggregate: of the groups that have a result.
    pub columns: Vec<ArrayRef>,
    /// The groups that have none.
    pub failed: Option<FailedGroups>,
}

/// Groups without a result.
#[derive(Debug)]
pub struct FailedGroups {
    /// Their keys.
    pub keys: Vec<ArrayRef>,
    /// Which aggregate failed, and why: one per group.
    pub failures: Vec<Failure>,
}

impl GroupTable {
    /// Empties the table into its result.
    ///
    /// # Errors
    /// When an accumulator fails for another reason than the data of a group, or when one that failed has lost its groups.
    pub fn take_results(&mut self) -> Result<Results> {
        let groups = self.len();
        let mut columns = self.groups.take_keys()?;
        let key_count = columns.len();
        let (results, failures) = self.accumulators.take_results(groups)?;
        columns.extend(results);
        if failures.is_empty() {
            return Ok(Results { columns, failed: None });
        }
        let keep: BooleanArray = (0..groups).map(|group| Some(!failures.contains_key(&group))).collect();
        let indexes: UInt32Array = failures.keys().map(|group| *group as u32).collect();
        let keys = columns[..key_count].iter().map(|key| Ok(take(key, &indexes, None)?)).collect::<Result<_>>()?;
        let kept = columns.iter().map(|column| Ok(filter(column, &keep)?)).collect::<Result<_>>()?;
        let failed = FailedGroups { keys, failures: failures.into_values().collect() };
        Ok(Results { columns: kept, failed: Some(failed) })
    }
}
