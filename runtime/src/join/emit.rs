//! What a join emits for each row, in the order of the input.
//!
//! A pair that changes because a row came or went keeps the row's kind in an inner join; what an outer, semi or anti join emits is an insertion or a
//! deletion, as in Flink.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int8Array, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::matches::Matches;
use super::{JoinKind, JoinSpec};
use crate::batch::BATCH_ROWS;
use crate::operator::{InputIndex, Output};
use crate::{Batch, Result, RowKind};

/// Collects what leaves a join for one batch.
pub(super) struct Emitter<'a> {
    spec: &'a JoinSpec,
    input: InputIndex,
    /// Rows of the batch; none pads.
    own: Vec<Option<u32>>,
    /// Candidates; none pads.
    other: Vec<Option<u32>>,
    kinds: Vec<i8>,
    /// Whether the left row has a match; only of a mark join.
    marks: Vec<bool>,
    has_changes: bool,
}

impl<'a> Emitter<'a> {
    pub fn new(spec: &'a JoinSpec, input: InputIndex) -> Self {
        Emitter {
            spec,
            input,
            own: Vec::new(),
            other: Vec::new(),
            kinds: Vec::new(),
            marks: Vec::new(),
            has_changes: false,
        }
    }

    fn push(&mut self, own: Option<u32>, other: Option<u32>, kind: RowKind, times: u64) {
        self.has_changes |= kind != RowKind::Insert;
        for _ in 0..times {
            self.own.push(own);
            self.other.push(other);
            self.kinds.push(kind as i8);
        }
    }

    /// The same of a mark join.
    fn push_marked(&mut self, own: Option<u32>, other: Option<u32>, kind: RowKind, (mark, times): (bool, u64)) {
        self.push(own, other, kind, times);
        self.marks.extend((0..times).map(|_| mark));
    }

    /// What a row of the batch changes.
    pub fn row(&mut self, row: usize, kind: RowKind, matches: &mut Matches) {
        let (own, is_retraction) = (Some(row as u32), kind.is_retraction());
        let candidates = matches.of(row).to_vec();
        let join = self.spec.kind;
        if join == JoinKind::LeftMark {
            return self.marked(own, kind, &candidates, matches);
        }
        if join.is_left_only() {
            return self.left_only(own, kind, &candidates, matches);
        }
        let kind = match join {
            JoinKind::Inner => kind,
            _ => sign(is_retraction),
        };
        if candidates.is_empty() && join.is_outer(self.input) {
            self.push(own, None, kind, 1);
        }
        let pads_other =
            join.is_outer(if self.input == InputIndex::FIRST { InputIndex::SECOND } else { InputIndex::FIRST });
        for candidate in candidates {
            let kept = matches.kept(candidate);
            let before = matches.count(candidate, is_retraction);
            if pads_other && !is_retraction && before == 0 {
                self.push(None, Some(candidate), RowKind::Delete, kept.count);
            }
            self.push(own, Some(candidate), kind, kept.count);
            if pads_other && is_retraction && before == 1 {
                self.push(None, Some(candidate), RowKind::Insert, kept.count);
            }
        }
    }

    /// The same where only left rows leave the join.
    fn left_only(&mut self, own: Option<u32>, kind: RowKind, candidates: &[u32], matches: &mut Matches) {
        let is_anti = self.spec.kind == JoinKind::LeftAnti;
        if self.input == InputIndex::FIRST {
            if candidates.is_empty() == is_anti {
                self.push(own, None, kind, 1);
            }
            return;
        }
        let is_retraction = kind.is_retraction();
        for &candidate in candidates {
            let kept = matches.kept(candidate);
            let before = matches.count(candidate, is_retraction);
            let turns = if is_retraction { before == 1 } else { before == 0 };
            if turns {
                self.push(None, Some(candidate), sign(is_retraction != is_anti), kept.count);
            }
        }
    }

    /// The same where all left rows leave the join with a mark.
    fn marked(&mut self, own: Option<u32>, kind: RowKind, candidates: &[u32], matches: &mut Matches) {
        if self.input == InputIndex::FIRST {
            return self.push_marked(own, None, kind, (!candidates.is_empty(), 1));
        }
        let is_retraction = kind.is_retraction();
        for &candidate in candidates {
            let kept = matches.kept(candidate);
            let before = matches.count(candidate, is_retraction);
            let turns = if is_retraction { before == 1 } else { before == 0 };
            if turns {
                self.push_marked(None, Some(candidate), RowKind::UpdateBefore, (is_retraction, kept.count));
                self.push_marked(None, Some(candidate), RowKind::UpdateAfter, (!is_retraction, kept.count));
            }
        }
    }

    /// What a row of the batch gives where nothing is ever taken back: a row without a match leaves alone when it is forgotten, unless it does not wait.
    pub fn once(&mut self, row: usize, waits: bool, matches: &mut Matches) {
        let own = Some(row as u32);
        let candidates = matches.of(row).to_vec();
        let (kind, is_left) = (self.spec.kind, self.input == InputIndex::FIRST);
        let leaves_alone = candidates.is_empty() && !waits;
        match kind {
            JoinKind::LeftSemi if is_left && !candidates.is_empty() => self.push(own, None, RowKind::Insert, 1),
            JoinKind::LeftAnti if is_left && leaves_alone => self.push(own, None, RowKind::Insert, 1),
            JoinKind::LeftMark if is_left && (leaves_alone || !candidates.is_empty()) => {
                self.push_marked(own, None, RowKind::Insert, (!candidates.is_empty(), 1));
            }
            JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark if is_left => {}
            JoinKind::Inner | JoinKind::Left | JoinKind::Right | JoinKind::Full
                if leaves_alone && kind.is_outer(self.input) =>
            {
                self.push(own, None, RowKind::Insert, 1);
            }
            _ => {}
        }
        for candidate in candidates {
            let times = matches.kept(candidate).count;
            let is_first = matches.count(candidate, false) == 0;
            match kind {
                JoinKind::LeftSemi if !is_left && is_first => self.push(None, Some(candidate), RowKind::Insert, times),
                JoinKind::LeftMark if !is_left && is_first => {
                    self.push_marked(None, Some(candidate), RowKind::Insert, (true, times));
                }
                JoinKind::LeftSemi | JoinKind::LeftAnti | JoinKind::LeftMark => {}
                _ => self.push(own, Some(candidate), RowKind::Insert, times),
            }
        }
    }

    /// Emits all of it, in batches of the usual size.
    pub fn finish(self, batch: &Batch, matches: &Matches, out: &mut Output) -> Result<()> {
        let own_schema = &self.spec.side(self.input).schema;
        let other_schema =
            if self.input == InputIndex::FIRST { &self.spec.right.schema } else { &self.spec.left.schema };
        for start in (0..self.kinds.len()).step_by(BATCH_ROWS) {
            let end = (start + BATCH_ROWS).min(self.kinds.len());
            let own = UInt32Array::from(self.own[start..end].to_vec());
            let other = UInt32Array::from(self.other[start..end].to_vec());
            let own = taken(batch.rows().columns(), own_schema.fields(), &own)?;
            let other = taken(&matches.columns, other_schema.fields(), &other)?;
            let mut columns = match (self.spec.kind.is_left_only(), self.input) {
                // Left rows are the batch's own, or candidates.
                (true, InputIndex::FIRST) => own,
                (true, _) => other,
                (false, InputIndex::FIRST) => [own, other].concat(),
                (false, _) => [other, own].concat(),
            };
            if self.spec.kind == JoinKind::LeftMark {
                columns.push(Arc::new(BooleanArray::from(self.marks[start..end].to_vec())));
            }
            let options = RecordBatchOptions::new().with_row_count(Some(end - start));
            let rows = RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?;
            out.emit(match self.has_changes {
                true => Batch::changes(rows, Int8Array::from(self.kinds[start..end].to_vec())),
                false => Batch::inserts(rows),
            });
        }
        Ok(())
    }
}

/// An insertion, or a deletion.
fn sign(is_retraction: bool) -> RowKind {
    if is_retraction { RowKind::Delete } else { RowKind::Insert }
}

/// The rows with these numbers of some columns; null where there is no number.
fn taken(columns: &[ArrayRef], fields: &arrow::datatypes::Fields, rows: &UInt32Array) -> Result<Vec<ArrayRef>> {
    let mut out = Vec::with_capacity(fields.len());
    for (index, field) in fields.iter().enumerate() {
        out.push(match columns.get(index) {
            // No candidate at all.
            Some(column) if !column.is_empty() => take(column, rows, None)?,
            _ => new_null_array(field.data_type(), rows.len()),
        });
    }
    Ok(out)
}
