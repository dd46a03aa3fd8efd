//! What happens to rows as a column, and back.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_runtime::harness::{Input, agrees, changelog_lines, through};
use coulee_runtime::op_codes::{OpCodes, from_changelog, to_changelog};
use coulee_runtime::{Batch, RowKind};

const KINDS: [RowKind; 4] = [RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter, RowKind::Delete];

fn codes() -> OpCodes {
    OpCodes::new(KINDS.map(|kind| (kind.symbol().to_owned(), kind)).to_vec())
}

fn plain() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]))
}

fn coded() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("op", DataType::Utf8, true), Field::new("id", DataType::Int64, true)]))
}

fn changes() -> Batch {
    let rows = RecordBatch::try_new(plain(), vec![Arc::new(Int64Array::from_iter_values(0..8))]).unwrap();
    Batch::changes(rows, Int8Array::from(vec![0, 0, 1, 2, 3, 0, 1, 2]))
}

#[test]
fn a_changelog_survives_the_way_there_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let (written, rejected) = through(&to_changelog(codes(), coded()), vec![changes()]).unwrap();
    assert!(rejected.is_empty() && written.iter().all(|batch| batch.kinds().is_none()));
    let mut count = 0;
    let inputs: Vec<Input> = written.into_iter().map(Input::Rows).collect();
    let read = agrees(&from_changelog(codes(), 0, plain()), &inputs, || {
        count += 1;
        folder.path().join(count.to_string())
    });
    assert_eq!(read.unwrap(), changelog_lines(&[changes()]).unwrap());
}

#[test]
fn changes_without_a_code_are_left_out() {
    let two = OpCodes::new(vec![("A".into(), RowKind::Insert), ("A".into(), RowKind::UpdateAfter)]);
    let (written, _) = through(&to_changelog(two, coded()), vec![changes()]).unwrap();
    let lines = changelog_lines(&written).unwrap();
    assert_eq!(lines, ["+I | A | 0", "+I | A | 1", "+I | A | 3", "+I | A | 5", "+I | A | 7"]);
}

#[test]
fn a_row_with_another_code_is_rejected_and_the_others_go_on() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("+I"), Some("x"), None, Some("-D")]));
    let rows = RecordBatch::try_new(coded(), vec![texts, Arc::new(Int64Array::from_iter_values(0..4))]).unwrap();
    let (read, rejected) = through(&from_changelog(codes(), 0, plain()), vec![Batch::inserts(rows)]).unwrap();
    assert_eq!(changelog_lines(&read).unwrap(), ["+I | 0", "-D | 3"]);
    let reasons: Vec<&str> = rejected[0].failures.iter().map(|failure| failure.reason.as_str()).collect();
    let expected = "expected one of '+I' +I, '-U' -U, '+U' +U, '-D' -D";
    assert_eq!(
        reasons,
        [format!("the code of a change is 'x', {expected}"), format!("the code of a change is null, {expected}")]
    );
}
