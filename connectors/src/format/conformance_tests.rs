//! What every format must do, run by each of [`FORMATS`]; and what the seam allows, by a changelog format made for the test.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int32Array, Int64Array, ListArray, StringArray, StructArray, Time32MillisecondArray, Time64NanosecondArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt32Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use arrow::record_batch::RecordBatch;
use coulee_runtime::RowKind;

use super::tests::settings;
use super::*;

/// One column of every type that a table may have: values at the ends of its range and in between, and a null.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let micros_max = 253_402_300_799_999_999;
    let micros_min = -62_167_219_200_000_000;
    let list = vec![Some(vec![Some(1), None, Some(3)]), Some(vec![Some(-1)]), None, Some(vec![Some(0)])];
    let a: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
    let b: ArrayRef = Arc::new(StringArray::from(vec!["x", "y,", "\"", "z"]));
    let row = StructArray::from(vec![
        (Arc::new(Field::new("a", DataType::Int64, true)), a),
        (Arc::new(Field::new("b", DataType::Utf8, true)), b),
    ]);
    let decimals = vec![Some(10i128.pow(38) - 1), Some(1 - 10i128.pow(38)), None, Some(1)];
    let micros = TimestampMicrosecondArray::from(vec![Some(micros_min), Some(micros_max), None, Some(-1)]);
    vec![
        ("boolean", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
        ("tinyint", Arc::new(Int8Array::from(vec![Some(i8::MIN), Some(i8::MAX), None, Some(0)]))),
        ("int", Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), None, Some(0)]))),
        ("bigint", Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None, Some(0)]))),
        ("float", Arc::new(Float32Array::from(vec![Some(f32::MIN), Some(f32::INFINITY), None, Some(0.1)]))),
        ("double", Arc::new(Float64Array::from(vec![Some(f64::MAX), Some(f64::NEG_INFINITY), None, Some(5e-324)]))),
        ("decimal", Arc::new(Decimal128Array::from(decimals).with_precision_and_scale(38, 18).unwrap())),
        ("text", Arc::new(StringArray::from(vec![Some("a,\"b\"\\ü"), Some(" 日\n\tz "), None, Some("null")]))),
        ("bytes", Arc::new(BinaryArray::from(vec![Some(&b"\x00\xff"[..]), Some(b"abc"), None, Some(b"\n")]))),
        ("date", Arc::new(Date32Array::from(vec![Some(-719_528), Some(2_932_896), None, Some(-1)]))),
        ("time3", Arc::new(Time32MillisecondArray::from(vec![Some(0), Some(86_399_999), None, Some(1)]))),
        ("time9", Arc::new(Time64NanosecondArray::from(vec![Some(0), Some(86_399_999_999_999), None, Some(1)]))),
        ("ts3", Arc::new(TimestampMillisecondArray::from(vec![Some(-1), Some(micros_max / 1_000), None, Some(0)]))),
        ("ts6", Arc::new(micros.clone())),
        ("ts9", Arc::new(TimestampNanosecondArray::from(vec![Some(i64::MIN), Some(i64::MAX), None, Some(-1)]))),
        ("ltz6", Arc::new(micros.with_timezone("+00:00"))),
        ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(list))),
        ("row", Arc::new(row)),
    ]
}

/// The columns that the format takes, without rows that it cannot tell apart from others: a raw null is an empty record.
fn rows_for(format: &dyn Format) -> RecordBatch {
    let is_raw = format.name() == "raw";
    let taken = columns().into_iter().filter(|(name, _)| !is_raw || *name == "text");
    let rows = RecordBatch::try_from_iter_with_nullable(taken.map(|(name, column)| (name, column, true))).unwrap();
    if is_raw { take_record_batch(&rows, &UInt32Array::from(vec![0, 1, 3])).unwrap() } else { rows }
}

/// The options under which a format keeps every value apart from every other.
fn options(format: &dyn Format) -> FormatSettings {
    let mut options = vec![("format", format.name())];
    if format.name() == "csv" {
        options.push(("csv.null-literal", "\\N"));
    }
    settings(&options)
}

#[test]
fn what_is_written_is_read_back() {
    for format in FORMATS {
        let settings = options(*format);
        let rows = rows_for(*format);
        let schema = rows.schema();
        let encoded = encoder(&settings, &schema).unwrap().encode(&Batch::inserts(rows.clone())).unwrap();
        assert_eq!(encoded.len(), rows.num_rows());
        let all: Vec<usize> = (0..schema.fields().len()).collect();
        let some: Vec<usize> = all.iter().rev().step_by(2).copied().collect();
        for projection in [all, some, vec![]] {
            for batch_rows in [1, 2, 100] {
                let mut decoder = decoder(&settings, &schema, &projection).unwrap();
                let mut read = Vec::new();
                for (i, record) in encoded.iter().enumerate() {
                    assert_eq!(decoder.decode(&Record::of(record)), Ok(1), "{format:?}: row {i}");
                    if decoder.len() == batch_rows {
                        read.push(decoder.flush().unwrap().into_rows());
                    }
                }
                read.push(decoder.flush().unwrap().into_rows());
                let expected = rows.project(&projection).unwrap();
                if projection.is_empty() {
                    assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), rows.num_rows());
                    continue;
                }
                let read = concat_batches(&expected.schema(), &read).unwrap();
                assert_eq!(read, expected, "{format:?}, {batch_rows} rows a batch");
            }
        }
    }
}

#[test]
fn a_file_gives_its_records_however_much_of_it_is_shown() {
    for format in FORMATS {
        let settings = options(*format);
        let mut rows = rows_for(*format);
        if format.name() == "raw" {
            // A text with a line end is two records.
            rows = take_record_batch(&rows, &UInt32Array::from(vec![0, 2])).unwrap();
        }
        let encoded = encoder(&settings, &rows.schema()).unwrap().encode(&Batch::inserts(rows.clone())).unwrap();
        let records: Vec<String> = encoded.iter().map(|record| String::from_utf8(record.to_vec()).unwrap()).collect();
        for (end, step) in [("\n", 1), ("\n", 7), ("\r\n", 64), ("\r\n", 100_000)] {
            let text = records.join(end);
            let mut framer = format.framer(&settings.options).unwrap();
            assert_eq!(framing::tests::frames(framer.as_mut(), text.as_bytes(), step), records, "{format:?}");
        }
    }
}

#[test]
fn a_refused_record_and_a_tombstone_leave_nothing_behind() {
    for format in FORMATS {
        let settings = options(*format);
        let rows = rows_for(*format);
        let encoded = encoder(&settings, &rows.schema()).unwrap().encode(&Batch::inserts(rows.clone())).unwrap();
        let all: Vec<usize> = (0..rows.num_columns()).collect();
        let mut decoder = decoder(&settings, &rows.schema(), &all).unwrap();
        for record in encoded.iter() {
            for cut in 1..record.len() {
                // Every format refuses a text that is not UTF-8; most refuse more of these.
                let broken = [&record[..cut], b"\xff"].concat();
                assert!(decoder.decode(&Record::of(&broken)).is_err(), "{format:?}: {broken:?}");
            }
            assert_eq!(decoder.decode(&Record::default()), Ok(0));
            assert_eq!(decoder.decode(&Record::of(record)), Ok(1));
        }
        assert_eq!(decoder.len(), rows.num_rows());
        assert_eq!(decoder.flush().unwrap().into_rows(), rows, "{format:?}");
        assert!(decoder.is_empty());
    }
}

#[test]
fn names_are_unique_and_options_begin_with_them() {
    let mut names: Vec<&str> = FORMATS.iter().map(|format| format.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FORMATS.len());
    for format in FORMATS {
        for option in format.options() {
            assert!(option.key.starts_with(&format!("{}.", format.name())), "{}", option.key);
        }
    }
}

/// A changelog of one column, for formats such as Debezium's: the key is a number, the value says how often it grows by one,
/// and a tombstone deletes it.
#[derive(Debug, Default)]
struct Growing {
    numbers: Vec<i64>,
    kinds: Vec<i8>,
}

impl RecordDecoder for Growing {
    fn decode(&mut self, record: &Record<'_>) -> Result<usize, Reject> {
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<i64>().ok());
        let key = record.key.and_then(number).ok_or_else(|| Reject::new("the key is no number"))?;
        let times = record.value.map(|value| number(value).ok_or_else(|| Reject::new("the value is no number")));
        let before = self.numbers.len();
        let mut push = |number, kind: RowKind| {
            self.numbers.push(number);
            self.kinds.push(kind as i8);
        };
        match times.transpose()? {
            None => push(key, RowKind::Delete),
            Some(times) => {
                for next in key..key + times {
                    push(next, RowKind::UpdateBefore);
                    push(next + 1, RowKind::UpdateAfter);
                }
            }
        }
        Ok(self.numbers.len() - before)
    }

    fn len(&self) -> usize {
        self.numbers.len()
    }

    fn flush(&mut self) -> Result<Batch> {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(std::mem::take(&mut self.numbers)));
        let kinds = Int8Array::from(std::mem::take(&mut self.kinds));
        Ok(Batch::changes(RecordBatch::try_new(schema, vec![numbers])?, kinds))
    }
}

#[test]
fn one_record_may_give_several_rows_with_kinds() {
    let mut decoder: Box<dyn RecordDecoder> = Box::new(Growing::default());
    let keyed = |value| Record { key: Some(b"7"), value, ..Record::default() };
    assert_eq!(decoder.decode(&keyed(Some(b"2"))), Ok(4));
    assert_eq!(decoder.decode(&keyed(Some(b"0"))), Ok(0));
    assert!(decoder.decode(&keyed(Some(b"x"))).is_err());
    assert_eq!(decoder.decode(&keyed(None)), Ok(1));
    let batch = decoder.flush().unwrap();
    let kinds: Vec<&str> = (0..batch.len()).map(|row| batch.kind(row).symbol()).collect();
    assert_eq!(kinds, ["-U", "+U", "-U", "+U", "-D"]);
    assert!(decoder.is_empty());
}
