//! The numbers of groups: equal keys have the same number, and numbers are given from 0 in the order in which keys come.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, Schema};
use datafusion_expr::EmitTo;
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;

use crate::Result;

/// Distinct keys, numbered.
pub(crate) struct Interner {
    /// `None` when there are no keys: one group, which exists once a row came.
    groups: Option<Box<dyn GroupValues>>,
    of_row: Vec<usize>,
    single_group_exists: bool,
}

impl Interner {
    /// An empty one for keys of these types; without any there is a single group.
    ///
    /// # Errors
    /// When DataFusion cannot group by such a type.
    pub(crate) fn new(keys: &[FieldRef]) -> Result<Self> {
        let groups = match keys {
            [] => None,
            keys => Some(new_group_values(Arc::new(Schema::new(keys.to_vec())), &GroupOrdering::None)?),
        };
        Ok(Interner { groups, of_row: Vec::new(), single_group_exists: false })
    }

    /// How many groups.
    pub(crate) fn len(&self) -> usize {
        self.groups.as_ref().map_or(usize::from(self.single_group_exists), |groups| groups.len())
    }

    /// Bytes in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.groups.as_ref().map_or(0, |groups| groups.size())
    }

    /// The group of each row of the last [`Interner::intern`].
    pub(crate) fn of_row(&self) -> &[usize] {
        &self.of_row
    }

    /// Finds the groups of `rows` rows; gives how many groups there are now.
    ///
    /// # Errors
    /// When the key columns are not of the expected types.
    pub(crate) fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<usize> {
        match &mut self.groups {
            Some(groups) => groups.intern(keys, &mut self.of_row)?,
            None => {
                self.of_row.clear();
                self.of_row.resize(rows, 0);
                self.single_group_exists |= rows > 0;
            }
        }
        Ok(self.len())
    }

    /// Gives the distinct keys in the order of their numbers, and forgets them. [`Interner::of_row`] stays.
    ///
    /// # Errors
    /// When DataFusion cannot make the columns.
    pub(crate) fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        self.single_group_exists = false;
        let Some(groups) = &mut self.groups else { return Ok(Vec::new()) };
        let keys = groups.emit(EmitTo::All)?;
        // SUBTLE: emitting takes the values, but some implementations keep the hash table that points to them.
        groups.clear_shrink(0);
        Ok(keys)
    }
}
