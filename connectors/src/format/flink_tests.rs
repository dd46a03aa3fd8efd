//! Flink's options, and values at the edges of types: rounding, ranges, digits, texts for numbers.

use std::sync::Arc;

use arrow::array::{AsArray, Decimal128Array, Float64Array};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;

use super::tests::{decode, one, read_with, settings, try_settings};
use super::*;

fn list() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Int32, true)))
}

fn row() -> DataType {
    DataType::Struct(Fields::from(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]))
}

#[test]
fn json_values_at_the_edges_of_their_types() {
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let wrong_number = |ty: &str, number: &str| format!("field 'x': expected {ty}, found number {number}");
    let years = "from 0000-01-01 to 9999-12-31";
    for (data_type, value, expected) in [
        (&millis, "1714564800000000000", wrong_number(&format!("TIMESTAMP(3) {years}"), "1714564800000000000")),
        (&millis, "253402300799999", "9999-12-31T23:59:59.999".into()),
        (&millis, "253402300800000", wrong_number(&format!("TIMESTAMP(3) {years}"), "253402300800000")),
        (&millis, r#""0001-01-01T00:00:00.0019""#, "0001-01-01T00:00:00.001".into()),
        (&micros, r#""1582-10-14 10:17:00.1234567""#, "1582-10-14T10:17:00.123456".into()),
        (&micros, "-1", "1969-12-31T23:59:59.999".into()),
        (&nanos, r#""1969-12-31 23:59:59.123456789123""#, "1969-12-31T23:59:59.123456789".into()),
        (
            &nanos,
            r#""2262-04-12 00:00:00""#,
            r#"field 'x': expected TIMESTAMP(9) from 1677-09-21 to 2262-04-11, found text "2262-04-12 00:00:00""#
                .into(),
        ),
        // .NET writes '+' as an escape, and PHP '/'.
        (&millis, r#""2013-01-01T11:17:00\u002B01:00""#, "2013-01-01T10:17:00".into()),
        (&DataType::Binary, r#""\/+8=""#, "ffef".into()),
        (&DataType::Int64, r#""1\u0032""#, "12".into()),
        (&DataType::Int64, "1e3", "1000".into()),
        (&DataType::Int64, "9.223372036854775807e18", "9223372036854775807".into()),
        (&DataType::Int64, "-0", "0".into()),
        (&DataType::Int64, r#"" +12 ""#, "12".into()),
        (&DataType::Int64, r#""""#, r#"field 'x': expected BIGINT, found text """#.into()),
        (&DataType::Int32, "2147483648", wrong_number("INT", "2147483648")),
        (&DataType::Float64, "-0", "-0.0".into()),
        (&DataType::Float64, "1e400", wrong_number("DOUBLE", "1e400")),
        (&DataType::Float32, "1e39", wrong_number("FLOAT", "1e39")),
        (&DataType::Float64, "1e-400", "0.0".into()),
        (&DataType::Float64, r#""NaN""#, "NaN".into()),
        (&DataType::Float64, r#""-Infinity""#, "-inf".into()),
        (&DataType::Float64, "NaN", "not a JSON object: expected a value at byte 5, found 'N'".into()),
        // Rounded once: by way of a DOUBLE it would be 16777216.
        (&DataType::Float32, "16777217.000000001", "16777218.0".into()),
        (&DataType::Decimal128(10, 2), "2.345", "2.35".into()),
        (&DataType::Decimal128(10, 2), r#""-2.345""#, "-2.35".into()),
        (&DataType::Decimal128(10, 2), "99999999.995", wrong_number("DECIMAL(10, 2)", "99999999.995")),
        (&DataType::Utf8, "true", "true".into()),
        (
            &DataType::Utf8,
            r#""half \ud83d pair""#,
            r"field 'x': expected STRING, found half of a surrogate pair in half \ud83d pair".into(),
        ),
    ] {
        let found = read_with(&[], &one(data_type.clone()), &format!(r#"{{"x":{value}}}"#));
        assert_eq!(found, expected, "{data_type} from {value}");
    }
}

/// Jackson, and so Flink, writes them as texts.
#[test]
fn numbers_that_json_does_not_have_are_texts() {
    let schema = one(DataType::Float64);
    let values = [1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
    let rows = RecordBatch::try_new(schema.clone(), vec![Arc::new(Float64Array::from(values.to_vec()))]).unwrap();
    let encoded = encoder(&settings(&[]), &schema).unwrap().encode(&Batch::inserts(rows.clone())).unwrap();
    let lines: Vec<_> = encoded.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    let expected = [r#"{"x":1.5}"#, r#"{"x":"NaN"}"#, r#"{"x":"Infinity"}"#, r#"{"x":"-Infinity"}"#, r#"{"x":-0.0}"#];
    assert_eq!(lines, expected);
    let mut decoder = decoder(&settings(&[]), &schema, &[0]).unwrap();
    for record in encoded.iter() {
        decode(decoder.as_mut(), record).unwrap();
    }
    let read = decoder.flush().unwrap().into_rows();
    let bits = |rows: &RecordBatch| -> Vec<u64> {
        rows.column(0).as_primitive::<Float64Type>().values().iter().map(|value| value.to_bits()).collect()
    };
    assert_eq!(bits(&read), bits(&rows));
}

/// Expected by Java's `BigDecimal.toString` and `toPlainString`.
#[test]
fn small_decimals_have_an_exponent_unless_plain_ones_are_wanted() {
    let schema = one(DataType::Decimal128(20, 8));
    let values = Decimal128Array::from(vec![2, -12, 100, 123_456_789, 0]).with_precision_and_scale(20, 8).unwrap();
    let rows = RecordBatch::try_new(schema.clone(), vec![Arc::new(values)]).unwrap();
    let write = |options: &[(&str, &str)]| -> Vec<String> {
        let encoded = encoder(&settings(options), &schema).unwrap().encode(&Batch::inserts(rows.clone())).unwrap();
        encoded.iter().map(|line| String::from_utf8_lossy(&line[5..line.len() - 1]).into_owned()).collect()
    };
    assert_eq!(write(&[]), ["2E-8", "-1.2E-7", "0.00000100", "1.23456789", "0E-8"]);
    assert_eq!(
        write(&[("json.encode.decimal-as-plain-number", "true")]),
        ["0.00000002", "-0.00000012", "0.00000100", "1.23456789", "0.00000000"]
    );
}

/// Flink's `JsonToRowDataConverters.wrapIntoNullableConverter`: the innermost value that fails is null.
#[test]
fn json_parse_errors_make_fields_null_when_they_are_ignored() {
    let ignore = [("json.ignore-parse-errors", "true")];
    for (data_type, value, expected) in [
        (DataType::Float64, r#""n/a""#, "NULL"),
        (DataType::Int64, r#"{"deep":[1,{"x":"}"}]}"#, "NULL"),
        (DataType::Int64, "1.5", "NULL"),
        (DataType::Decimal128(4, 2), "123.45", "NULL"),
        (list(), r#"[1,"x",3]"#, "[1, NULL, 3]"),
        (list(), "3", "NULL"),
        (row(), r#"{"b":"y","a":"no"}"#, "{a: NULL, b: y}"),
        (row(), "[]", "NULL"),
        (DataType::Utf8, r#""half \ud83d pair""#, "NULL"),
    ] {
        let found = read_with(&ignore, &one(data_type.clone()), &format!(r#"{{"x":{value},"y":1}}"#));
        assert_eq!(found, expected, "{data_type} from {value}");
    }
    let broken = read_with(&ignore, &one(DataType::Int64), r#"{"x":"a","y":}"#);
    assert_eq!(broken, "not a JSON object: expected a value at byte 13, found '}'");
    let required: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, false)]));
    assert_eq!(read_with(&ignore, &required, r#"{"x":"a"}"#), r#"field 'x': expected BIGINT, found text "a""#);
    assert_eq!(settings(&ignore).rejects.on_error, OnError::Skip);
    let kept = [("json.ignore-parse-errors", "true"), ("format.on-error", "dead-letter")];
    assert_eq!(settings(&kept).rejects.on_error, OnError::DeadLetter);
}

#[test]
fn csv_takes_flinks_options() {
    let ignore = ("csv.ignore-parse-errors", "true");
    let null = ("csv.null-literal", "NA");
    let decimal = DataType::Decimal128(10, 2);
    for (options, data_type, record, expected) in [
        (vec![ignore], DataType::Int64, "x,1", "NULL"),
        (vec![ignore], DataType::Int64, "7", "7"),
        (vec![ignore], DataType::Int64, "7,8,9", "expected 2 fields, found 3"),
        (vec![null], list(), "1;NA;3,x", "[1, NULL, 3]"),
        (vec![("csv.array-element-delimiter", "::")], list(), "1::2,x", "[1, 2]"),
        (vec![], list(), "1;b,x", r#"column 'x': expected INT, found text "b""#),
        (vec![], row(), "1;b,x", "{a: 1, b: b}"),
        (vec![], row(), "1,x", "column 'x': expected ROW<a BIGINT, b STRING>, found 1 values"),
        (vec![], row(), "1;b;c,x", "column 'x': expected ROW<a BIGINT, b STRING>, found 3 values"),
        (vec![("csv.escape-character", "\\")], DataType::Utf8, "a\\,b,x", "a,b"),
        (vec![("csv.disable-quote-character", "true")], DataType::Utf8, "\"a,b\"", "\"a"),
        (vec![("csv.quote-character", "'")], DataType::Utf8, "'a,b',\"", "a,b"),
        (vec![("csv.field-delimiter", "\\t")], DataType::Utf8, "a,b\tc", "a,b"),
        (vec![], decimal.clone(), "1.5E2,x", "150.00"),
        (vec![], decimal, "0.005,x", "0.01"),
        (vec![], DataType::Int32, "2147483648,x", r#"column 'x': expected INT, found text "2147483648""#),
        (
            vec![],
            DataType::Timestamp(TimeUnit::Microsecond, None),
            "1969-12-31 23:59:59.9999999,x",
            "1969-12-31T23:59:59.999999",
        ),
    ] {
        let mut options = options;
        options.push(("format", "csv"));
        let schema: SchemaRef =
            Arc::new(Schema::new(vec![Field::new("x", data_type, true), Field::new("y", DataType::Utf8, true)]));
        assert_eq!(read_with(&options, &schema, record), expected, "{record} with {options:?}");
    }
}

#[test]
fn options_that_contradict_are_refused() {
    for (options, expected) in [
        (&[("json.ignore-parse-errors", "true"), ("format.on-error", "fail")][..], "contradict"),
        (&[("json.ignore-parse-errors", "true"), ("json.fail-on-missing-field", "true")], "contradict"),
        (
            &[("format", "csv"), ("csv.quote-character", "ab")],
            "'csv.quote-character' is 'ab', expected one ASCII character",
        ),
        (&[("format", "csv"), ("csv.quote-character", ",")], "are the same character"),
        (&[("format", "csv"), ("csv.array-element-delimiter", "")], "'csv.array-element-delimiter' is empty"),
    ] {
        let message = try_settings(options).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(settings(&[]).rejects.dead_letter_stream("bids").as_deref(), Some("bids_dead_letter"));
}
