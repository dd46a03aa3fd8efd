//! The formats against tables of good and bad records, and against other decoders.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;

use super::*;

pub(super) fn try_settings(pairs: &[(&str, &str)]) -> Result<FormatSettings> {
    let values = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let specs = [format_option()].into_iter().chain(option_specs());
    FormatSettings::new(&Options::new("table 't'", specs, &values)?)
}

pub(super) fn settings(pairs: &[(&str, &str)]) -> FormatSettings {
    try_settings(pairs).unwrap()
}

/// Decodes a record of data alone: how many rows it gave, or why it was refused.
pub(super) fn decode(decoder: &mut dyn RecordDecoder, record: &[u8]) -> Result<usize, String> {
    decoder.decode(&Record::of(record)).map_err(|reject| reject.reason)
}

pub(super) fn one(data_type: DataType) -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("x", data_type, true)]))
}

/// The value of a one-column record as text, or why it was refused.
fn read(format: &str, schema: &SchemaRef, record: &str) -> String {
    read_with(&[("format", format)], schema, record)
}

/// The values of the first column of a record as text, or why it was refused.
pub(super) fn read_with(options: &[(&str, &str)], schema: &SchemaRef, record: &str) -> String {
    let mut decoder = decoder(&settings(options), schema, &[0]).unwrap();
    if let Err(reason) = decode(decoder.as_mut(), record.as_bytes()) {
        assert_eq!(decoder.flush().unwrap().len(), 0, "{record}");
        return reason;
    }
    let rows = decoder.flush().unwrap().into_rows();
    let options = FormatOptions::new().with_null("NULL");
    let values = ArrayFormatter::try_new(rows.column(0), &options).unwrap();
    (0..rows.num_rows()).map(|row| values.value(row).to_string()).collect::<Vec<_>>().join(" | ")
}

#[test]
fn json_values_become_values_of_the_columns_type() {
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int32, true)));
    let row = DataType::Struct(Fields::from(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("b", DataType::Utf8, true),
    ]));
    for (data_type, value, expected) in [
        (DataType::Int64, "12", "12"),
        (DataType::Int64, "\"12\"", "12"),
        (DataType::Int64, "12.0", "12"),
        (DataType::Int64, "-9223372036854775808", "-9223372036854775808"),
        (DataType::Int64, "1.5", "field 'x': expected BIGINT, found number 1.5"),
        (DataType::Int64, "9223372036854775808", "field 'x': expected BIGINT, found number 9223372036854775808"),
        (DataType::Int64, "\"abc\"", "field 'x': expected BIGINT, found text \"abc\""),
        (DataType::Int64, "{\"a\":[1]}", "field 'x': expected BIGINT, found an object"),
        (DataType::Int64, "true", "field 'x': expected BIGINT, found true"),
        (DataType::Int64, "null", "NULL"),
        (DataType::Int8, "128", "field 'x': expected TINYINT, found number 128"),
        (DataType::Float64, "3", "3.0"),
        (DataType::Float64, "\"1e-3\"", "0.001"),
        (DataType::Boolean, "true", "true"),
        (DataType::Boolean, "\"FALSE\"", "false"),
        (DataType::Boolean, "1", "field 'x': expected BOOLEAN, found number 1"),
        (DataType::Utf8, r#""a\u00e9\n""#, "aé\n"),
        (DataType::Utf8, "1.50", "1.50"),
        (DataType::Utf8, "{ \"a\": [1] }", "{ \"a\": [1] }"),
        (DataType::Binary, "\"aGk=\"", "6869"),
        (DataType::Binary, "\"!\"", "field 'x': expected BYTES as base64, found text !"),
        (DataType::Decimal128(6, 2), "-12.34", "-12.34"),
        (DataType::Decimal128(4, 2), "123.45", "field 'x': expected DECIMAL(4, 2), found number 123.45"),
        (DataType::Date32, "\"2013-01-31\"", "2013-01-31"),
        (DataType::Time32(TimeUnit::Millisecond), "\"10:17:00.5\"", "10:17:00.500"),
        (timestamp.clone(), "\"2013-01-01 10:17:00\"", "2013-01-01T10:17:00"),
        (timestamp.clone(), "\"2013-01-01T11:17:00.250+01:00\"", "2013-01-01T10:17:00.250"),
        (timestamp.clone(), "1357035420000", "2013-01-01T10:17:00"),
        (
            timestamp.clone(),
            "\"noon\"",
            "field 'x': expected TIMESTAMP(3) from 0000-01-01 to 9999-12-31, found text \"noon\"",
        ),
        (list.clone(), "[1,null,3]", "[1, NULL, 3]"),
        (list, "[1,\"x\"]", "field 'x': expected INT, found text \"x\""),
        (row.clone(), r#"{"b":"y","a":1,"b":"z"}"#, "{a: 1, b: z}"),
        (row.clone(), "null", "NULL"),
        (row.clone(), r#"{"a":"y"}"#, "field 'x.a': expected BIGINT, found text \"y\""),
        (row, "3", "field 'x': expected ROW<a BIGINT, b STRING>, found number 3"),
    ] {
        let found = read("json", &one(data_type.clone()), &format!("{{\"y\":[{{}}],\"x\":{value}}}"));
        let expected = if expected == "NULL" { "NULL".to_owned() } else { expected.to_owned() };
        assert_eq!(found, expected, "{data_type} from {value}");
    }
}

#[test]
fn a_json_record_is_one_complete_object() {
    let schema = one(DataType::Int64);
    for (record, expected) in [
        (r#" {"x" : 1 } "#, "1"),
        (r#"{"x":1,"x":2}"#, "2"),
        (r#"{"\u0078":7}"#, "7"),
        ("{}", "NULL"),
        (r#"{"x":1}}"#, "not a JSON object: expected the end of the record at byte 7, found '}'"),
        (r#"{"x":1"#, "not a JSON object: expected ',' or '}' at byte 6, found the end"),
        (r#"{"x":1,"y":"abc"#, "not a JSON object: expected the closing '\"' of a text at byte 15, found the end"),
        (r#"{"x":}"#, "not a JSON object: expected a value at byte 5, found '}'"),
        ("\u{feff}{\"x\":1}", "1"),
        ("[1]", "not a JSON object: expected a JSON object at byte 1, found '1'"),
        (" [ {\"x\":1} , {},{\"x\":3}] ", "1 | NULL | 3"),
        ("[]", ""),
        (r#"[{"x":1},{"x":"a"}]"#, "field 'x': expected BIGINT, found text \"a\""),
        (r#"[{"x":1}"#, "not a JSON object: expected ',' or ']' at byte 8, found the end"),
        ("", "not a JSON object: expected a JSON object at byte 0, found the end"),
        ("x=1", "not a JSON object: expected a JSON object at byte 0, found 'x'"),
    ] {
        assert_eq!(read("json", &schema, record), expected, "{record}");
    }
    let mut decoder = decoder(&settings(&[]), &schema, &[0]).unwrap();
    assert_eq!(decode(decoder.as_mut(), b"{\"x\":\xff}").unwrap_err(), "not UTF-8 at byte 5");
}

#[test]
fn a_missing_field_is_null_where_the_column_allows_it() {
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Int64, false)]));
    let reason = |options: &[(&str, &str)], record: &str| {
        let mut decoder = decoder(&settings(options), &schema, &[0, 1]).unwrap();
        decode(decoder.as_mut(), record.as_bytes())
    };
    assert_eq!(reason(&[], r#"{"b":1}"#), Ok(1));
    assert_eq!(reason(&[], r#"{"a":1}"#), Err("field 'b' is missing".to_owned()));
    assert_eq!(reason(&[], r#"{"b":null}"#), Err("field 'b': expected BIGINT NOT NULL, found null".to_owned()));
    let strict = [("json.fail-on-missing-field", "true")];
    assert_eq!(reason(&strict, r#"{"b":1}"#), Err("field 'a' is missing".to_owned()));
}

#[test]
fn a_rejected_record_leaves_nothing_behind() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("t", DataType::Utf8, true),
        Field::new("l", DataType::List(Arc::new(Field::new("item", DataType::Int64, true))), true),
    ]));
    let mut decoder = decoder(&settings(&[]), &schema, &[0, 1, 2]).unwrap();
    let good = r#"{"a":1,"t":"x","l":[1,2]}"#;
    for record in [good, r#"{"a":null,"t":"lost","l":[3,4"#, r#"{"l":[9],"t":"lost","a":"no"}"#, good] {
        decode(decoder.as_mut(), record.as_bytes()).ok();
    }
    let rows = decoder.flush().unwrap().into_rows();
    assert_eq!(rows.num_rows(), 2);
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[1, 1]);
    assert_eq!(rows.column(0).null_count(), 0);
    assert_eq!(rows.column(1).as_string::<i32>().value_data(), b"xx");
    assert_eq!(rows.column(2).as_list::<i32>().values().len(), 4);
}

#[test]
fn csv_is_read_by_position_or_by_header() {
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("t", DataType::Utf8, true)]));
    let settings = settings(&[("format", "csv"), ("csv.null-literal", "NA")]);
    let mut decoder = decoder(&settings, &schema, &[0, 1]).unwrap();
    for (record, expected) in [
        ("1,a", Ok(1)),
        (",\"x,\"\"y\"\"\nz\"", Ok(1)),
        ("NA,NA", Ok(1)),
        ("1", Err("expected 2 fields, found 1".to_owned())),
        ("1,a,", Err("expected 2 fields, found 3".to_owned())),
        ("1.5,a", Err("column 'n': expected BIGINT, found text \"1.5\"".to_owned())),
        ("1,\"a", Err("a quoted field is not closed".to_owned())),
    ] {
        assert_eq!(decode(decoder.as_mut(), record.as_bytes()), expected, "{record}");
    }
    let rows = decoder.flush().unwrap().into_rows();
    assert_eq!(rows.column(0).null_count(), 2);
    assert_eq!(rows.column(1).as_string::<i32>().value(1), "x,\"y\"\nz");
    let encoded = encoder(&settings, &schema).unwrap().encode(&Batch::inserts(rows.clone())).unwrap();
    let lines: Vec<_> = encoded.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    assert_eq!(lines, ["1,a", "NA,\"x,\"\"y\"\"\nz\"", "NA,NA"]);

    let mut swapped = super::decoder(&settings, &schema, &[1]).unwrap();
    swapped.header(b"t,other,n").unwrap();
    decode(swapped.as_mut(), b"text,?,7").unwrap();
    assert_eq!(swapped.flush().unwrap().rows().column(0).as_string::<i32>().value(0), "text");
    let message = swapped.header(b"a,b").unwrap_err().to_string();
    assert_eq!(
        message,
        "the header has no column 't'; it has: a, b. If the file has no header, set 'csv.header' = 'false'"
    );
}

#[test]
fn raw_is_the_record() {
    assert_eq!(read("raw", &one(DataType::Utf8), "any thing"), "any thing");
    let error = decoder(&settings(&[("format", "raw")]), &one(DataType::Int64), &[0]).err().unwrap().to_string();
    assert_eq!(error, "format 'raw' takes one column of type STRING or BYTES, found (x BIGINT)");
}

#[test]
fn json_is_written_in_flinks_forms() {
    let schema: SchemaRef = Arc::new(Schema::new(vec![
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("utc", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        Field::new("bytes", DataType::Binary, true),
        Field::new("price", DataType::Decimal128(6, 2), true),
        Field::new("name", DataType::Utf8, true),
    ]));
    let record = r#"{"at":"2013-01-01 10:17:00.000","utc":"2013-01-01 10:17:00.250Z","bytes":"aGk=","price":12.30,"name":"a\"b"}"#;
    let mut decoder = decoder(&settings(&[]), &schema, &[0, 1, 2, 3, 4]).unwrap();
    decode(decoder.as_mut(), record.as_bytes()).unwrap();
    decode(decoder.as_mut(), b"{}").unwrap();
    let rows = decoder.flush().unwrap().into_rows();
    let write = |options: &[(&str, &str)], row: usize| {
        let encoded = encoder(&settings(options), &schema).unwrap().encode(&Batch::inserts(rows.clone())).unwrap();
        assert_eq!(encoded.len(), 2);
        String::from_utf8(encoded.row(row).to_vec()).unwrap()
    };
    assert_eq!(write(&[], 0), record);
    assert_eq!(write(&[], 1), r#"{"at":null,"utc":null,"bytes":null,"price":null,"name":null}"#);
    assert_eq!(write(&[("json.encode.ignore-null-fields", "true")], 1), "{}");
    let iso = write(&[("json.timestamp-format.standard", "ISO-8601")], 0);
    assert!(iso.contains(r#""utc":"2013-01-01T10:17:00.250Z""#), "{iso}");
}

prop_compose! {
    fn record()(
        a in prop::option::of(any::<i64>()),
        b in prop::option::of("[ -~é\\n\"\\\\]{0,20}"),
        c in prop::option::of(any::<bool>()),
        d in prop::option::of(prop::collection::vec(any::<i32>(), 0..4)),
        f in prop::option::of(-1e9f64..1e9),
        noise in "[a-z]{1,3}",
        order in any::<bool>(),
    ) -> serde_json::Value {
        let mut object = serde_json::Map::new();
        if order { object.insert(format!("z{noise}"), serde_json::json!({"deep": [noise, 1, {"x": null}]})); }
        if let Some(a) = a { object.insert("a".into(), a.into()); }
        object.insert("b".into(), b.clone().into());
        if let Some(c) = c { object.insert("c".into(), c.into()); }
        object.insert("s".into(), serde_json::json!({"f": f, "b": b}));
        if let Some(d) = d { object.insert("d".into(), d.into()); }
        serde_json::Value::Object(object)
    }
}

proptest! {
    /// Arrow's reader decides what the rows are.
    #[test]
    fn json_agrees_with_arrow(records in prop::collection::vec(record(), 1..20), pretty in any::<bool>()) {
        let nested = Fields::from(vec![Field::new("f", DataType::Float64, true), Field::new("b", DataType::Utf8, true)]);
        let schema: SchemaRef = Arc::new(Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("b", DataType::Utf8, true),
            Field::new("c", DataType::Boolean, true),
            Field::new("d", DataType::List(Arc::new(Field::new("item", DataType::Int32, true))), true),
            Field::new("s", DataType::Struct(nested), true),
        ]));
        let text = |value| if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let mut ours = decoder(&settings(&[]), &schema, &[0, 1, 2, 3, 4]).unwrap();
        let mut arrows = arrow::json::ReaderBuilder::new(schema.clone()).build_decoder().unwrap();
        for record in &records {
            let text = text(record).unwrap();
            decode(ours.as_mut(), text.as_bytes()).unwrap();
            arrows.decode(text.as_bytes()).unwrap();
        }
        let rows = ours.flush().unwrap().into_rows();
        prop_assert_eq!(&rows, &arrows.flush().unwrap().unwrap());

        // What is written is read back.
        let encoded = encoder(&settings(&[]), &schema).unwrap().encode(&Batch::inserts(rows.clone())).unwrap();
        for record in encoded.iter() {
            decode(ours.as_mut(), record).unwrap();
        }
        prop_assert_eq!(ours.flush().unwrap().into_rows(), rows);
    }

    /// Any cut of a record is refused and leaves the decoder as it was.
    #[test]
    fn a_cut_record_is_refused(record in record(), cut in 0.0f64..1.0) {
        let text = record.to_string();
        let schema = one(DataType::Utf8);
        let mut decoder = decoder(&settings(&[]), &schema, &[0]).unwrap();
        let end = (text.len() as f64 * cut) as usize;
        prop_assert!(decode(decoder.as_mut(), &text.as_bytes()[..end]).is_err());
        prop_assert_eq!(decoder.len(), 0);
    }
}
