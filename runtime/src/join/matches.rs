//! What matches the rows of a batch on the other side.

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;

use super::JoinSpec;
use super::side::{Kept, KeyedRows, Side};
use crate::Result;
use crate::operator::{InputIndex, Output};
use crate::pairs::holding;

/// A row of the other side that one of the batch might match.
struct Candidate {
    /// The number of its key.
    number: u32,
    /// Its stored form, in `stored`.
    row: Range<usize>,
    kept: Kept,
    is_changed: bool,
}

/// How many pairs are looked at at once, roughly: what rows multiply to must not wait in memory.
const PAIRS_MAX: usize = 1 << 16;

/// For each of some rows of a batch, the rows of the other side that match it.
pub(super) struct Matches {
    /// The rows of the batch.
    pub rows: Range<usize>,
    candidates: Vec<Candidate>,
    /// The stored forms of the candidates.
    stored: Vec<u8>,
    /// The columns of the candidates.
    pub columns: Vec<ArrayRef>,
    /// The rows' matches, as numbers of candidates, one row's after the other's.
    matching: Vec<u32>,
    /// Of each of the rows, which of `matching` are its own.
    of_row: Vec<Range<usize>>,
    counts: bool,
}

impl Matches {
    /// Reads what is kept of the other side for the keys of a batch from the row `start` on, at least for that row and for no more than make [`PAIRS_MAX`] pairs.
    /// Pairs whose condition fails are rejected, and do not match.
    pub fn find(
        spec: &JoinSpec,
        input: InputIndex,
        (rows, start): (&KeyedRows, usize),
        other: &mut Side,
        out: &mut Output,
    ) -> Result<Self> {
        let (mut candidates, mut stored) = (Vec::new(), Vec::new());
        let mut of_key: HashMap<u32, Range<usize>> = HashMap::new();
        let (mut of_row, mut pairs) = (Vec::with_capacity(rows.batch.len() - start), 0);
        for row in start..rows.batch.len() {
            if pairs > PAIRS_MAX {
                break;
            }
            if !rows.has_partner(row, spec.null_equals_null) {
                of_row.push(0..0);
                continue;
            }
            let Some(number) = other.number(rows.key(row)) else {
                of_row.push(0..0);
                continue;
            };
            let range = match of_key.get(&number) {
                Some(range) => range.clone(),
                None => {
                    let start = candidates.len();
                    other.rows_of(number, |row, kept| {
                        let from = stored.len();
                        stored.extend_from_slice(row);
                        candidates.push(Candidate { number, row: from..stored.len(), kept, is_changed: false });
                    })?;
                    of_key.insert(number, start..candidates.len());
                    start..candidates.len()
                }
            };
            pairs += range.len();
            of_row.push(range);
        }
        let columns = other.decoded(candidates.iter().map(|candidate| &stored[candidate.row.clone()]))?;
        let (mut matching, mut pairs_of_row) = (Vec::new(), Vec::with_capacity(of_row.len()));
        for range in of_row {
            let start = matching.len();
            matching.extend(range.map(|candidate| candidate as u32));
            pairs_of_row.push(start..matching.len());
        }
        let counts = spec.kind.counts_matches(opposite(input));
        let range = start..start + pairs_of_row.len();
        let mut matches = Matches { rows: range, candidates, stored, columns, matching, of_row: pairs_of_row, counts };
        if spec.condition.is_some() && !matches.matching.is_empty() {
            let keep = matches.conditions(spec, input, rows, out)?;
            matches.retain(&keep);
        }
        Ok(matches)
    }

    /// Of each pair, whether the condition holds.
    fn conditions(&self, spec: &JoinSpec, input: InputIndex, rows: &KeyedRows, out: &mut Output) -> Result<Vec<bool>> {
        let Some(condition) = &spec.condition else { return Ok(vec![false; self.matching.len()]) };
        let sides = spec.left.schema.fields().iter().chain(spec.right.schema.fields());
        let columns = self.pairs(input, rows)?;
        holding(condition, columns, sides.cloned().collect(), self.matching.len(), out)
    }

    /// The columns of the pairs: the left ones, then the right ones.
    fn pairs(&self, input: InputIndex, rows: &KeyedRows) -> Result<Vec<ArrayRef>> {
        let of_row = self.of_row.iter().enumerate();
        let own = of_row.flat_map(|(row, range)| {
            let row = (self.rows.start + row) as u32;
            range.clone().map(move |_| row)
        });
        let own: UInt32Array = own.collect();
        let matching = UInt32Array::from(self.matching.clone());
        let mut own_columns = Vec::with_capacity(rows.batch.rows().num_columns());
        for column in rows.batch.rows().columns() {
            own_columns.push(take(column, &own, None)?);
        }
        let mut other_columns = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            other_columns.push(take(column, &matching, None)?);
        }
        Ok(match input {
            InputIndex::FIRST => [own_columns, other_columns].concat(),
            _ => [other_columns, own_columns].concat(),
        })
    }

    fn retain(&mut self, keep: &[bool]) {
        let mut kept = Vec::with_capacity(self.matching.len());
        for range in &mut self.of_row {
            let start = kept.len();
            kept.extend(range.clone().filter(|pair| keep[*pair]).map(|pair| self.matching[pair]));
            *range = start..kept.len();
        }
        self.matching = kept;
    }

    /// The candidates that match a row.
    pub fn of(&self, row: usize) -> &[u32] {
        &self.matching[self.of_row[row - self.rows.start].clone()]
    }

    /// What is known of a candidate.
    pub fn kept(&self, candidate: u32) -> Kept {
        self.candidates[candidate as usize].kept
    }

    /// How many rows match a row, each as often as it is there.
    pub fn rows_of(&self, row: usize) -> u64 {
        self.of(row).iter().map(|candidate| self.kept(*candidate).count).sum()
    }

    /// A candidate has one more match, or one less; returns how many it had.
    pub fn count(&mut self, candidate: u32, is_retraction: bool) -> u64 {
        let candidate = &mut self.candidates[candidate as usize];
        let before = candidate.kept.matching;
        if self.counts {
            candidate.kept.matching = if is_retraction { before.saturating_sub(1) } else { before + 1 };
            candidate.is_changed = true;
        }
        before
    }

    /// Hands over what has changed of the candidates.
    pub fn store(&self, other: &mut Side) -> Result<()> {
        for candidate in self.candidates.iter().filter(|candidate| candidate.is_changed) {
            other.keep(candidate.number, &self.stored[candidate.row.clone()], candidate.kept)?;
        }
        Ok(())
    }
}

fn opposite(input: InputIndex) -> InputIndex {
    if input == InputIndex::FIRST { InputIndex::SECOND } else { InputIndex::FIRST }
}
