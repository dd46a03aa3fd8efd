//! Debezium's change events in JSON: each record is a change of a row, as change data capture of a database writes it.
//!
//! ```text
//! {"before": null,  "after": {…}, "op": "c"}     +I     "r" (a row of the snapshot at the beginning) is the same
//! {"before": {…},   "after": {…}, "op": "u"}     -U +U
//! {"before": {…},   "after": null, "op": "d"}    -D     the tombstone behind it says nothing new
//! ```
//!
//! Written are, as Flink does, `c` for a row that comes or replaces another, and `d` for one that goes or is replaced.

use std::sync::Arc;

use arrow::array::Int8Array;
use arrow::datatypes::SchemaRef;
use coulee_runtime::options::{OptionKind, OptionSpec, Options};
use coulee_runtime::{Batch, Error, Result, RowKind};

use super::json::{JsonDecoder, JsonEncoder, JsonFramer, Leniency, forms, members, quoted};
use super::{EncodedRows, Format, Framer, Record, RecordDecoder, RecordEncoder, Reject};

/// `'format' = 'debezium-json'`.
#[derive(Debug)]
pub struct DebeziumJson;

const SCHEMA_INCLUDE: &str = "debezium-json.schema-include";
const IGNORE_PARSE_ERRORS: &str = "debezium-json.ignore-parse-errors";
const TIMESTAMPS: &str = "debezium-json.timestamp-format.standard";
const PLAIN_DECIMALS: &str = "debezium-json.encode.decimal-as-plain-number";
const IGNORE_NULLS: &str = "debezium-json.encode.ignore-null-fields";

const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        SCHEMA_INCLUDE,
        OptionKind::Switch,
        Some("false"),
        "Whether records have a 'schema' and a 'payload' around the change, as Kafka Connect writes them with 'value.converter.schemas.enable'. Such records are read, not written.",
    ),
    OptionSpec::new(
        IGNORE_PARSE_ERRORS,
        OptionKind::Switch,
        Some("false"),
        "Whether a field that does not parse is null and the row stays, as in Flink. What is no change event is dropped and counted.",
    ),
    OptionSpec::new(
        TIMESTAMPS,
        OptionKind::Choice(&["SQL", "ISO-8601"]),
        Some("SQL"),
        "How timestamps are written: '2013-01-01 10:17:00.000' or '2013-01-01T10:17:00.000'. Both are read.",
    ),
    OptionSpec::new(
        PLAIN_DECIMALS,
        OptionKind::Switch,
        Some("false"),
        "Whether decimals are never written with an exponent. Otherwise 0.00000002 is written as 2E-8, as in Flink.",
    ),
    OptionSpec::new(
        IGNORE_NULLS,
        OptionKind::Switch,
        Some("false"),
        "Whether fields that are null are left out when writing.",
    ),
];

impl Format for DebeziumJson {
    fn name(&self) -> &'static str {
        "debezium-json"
    }

    fn options(&self) -> &'static [OptionSpec] {
        OPTIONS
    }

    fn extension(&self) -> &'static str {
        "json"
    }

    fn is_changelog(&self) -> bool {
        true
    }

    fn framer(&self, _: &Options) -> Result<Box<dyn Framer>> {
        Ok(Box::new(JsonFramer::default()))
    }

    fn decoder(&self, options: &Options, columns: &SchemaRef, projection: &[usize]) -> Result<Box<dyn RecordDecoder>> {
        let leniency = Leniency { fail_on_missing: false, ignore_parse_errors: options.switch(IGNORE_PARSE_ERRORS) };
        Ok(Box::new(DebeziumDecoder {
            rows: JsonDecoder::new(Arc::new(columns.project(projection)?), leniency)?,
            kinds: Vec::new(),
            has_schema: options.switch(SCHEMA_INCLUDE),
            both: Vec::new(),
        }))
    }

    fn encoder(&self, options: &Options, schema: &SchemaRef) -> Result<Box<dyn RecordEncoder>> {
        if options.switch(SCHEMA_INCLUDE) {
            return Err(options.invalid(
                SCHEMA_INCLUDE,
                format_args!(
                    "'{SCHEMA_INCLUDE}' = 'true' is for tables that are read; leave it out of one that is written"
                ),
            ));
        }
        let forms = forms(options.get(TIMESTAMPS), options.switch(PLAIN_DECIMALS));
        Ok(Box::new(DebeziumEncoder(JsonEncoder::new(schema, forms, options.switch(IGNORE_NULLS))?)))
    }
}

struct DebeziumDecoder {
    rows: JsonDecoder,
    /// Of each row since the last `flush`.
    kinds: Vec<i8>,
    has_schema: bool,
    /// Both rows of an update as an array, which is decoded whole or not at all.
    both: Vec<u8>,
}

impl DebeziumDecoder {
    fn payload<'a>(&self, value: &'a [u8]) -> Result<&'a [u8], Reject> {
        if !self.has_schema {
            return Ok(value);
        }
        let [payload] = members(value, ["payload"])?;
        payload.ok_or_else(|| {
            Reject::new(format!(
                "no change event: it has no 'payload', which '{SCHEMA_INCLUDE}' = 'true' says that it has"
            ))
        })
    }

    fn append(&mut self, row: &[u8], kinds: &[RowKind]) -> Result<usize, Reject> {
        let rows = self.rows.decode(&Record::of(row))?;
        // A row is one object: `check_object` has seen to it.
        self.kinds.extend(kinds.iter().map(|kind| *kind as i8));
        Ok(rows)
    }
}

/// The row that a change event has under a name.
fn row<'a>(found: Option<&'a [u8]>, name: &str, op: &str) -> Result<&'a [u8], Reject> {
    match found {
        Some(object) if object.first() == Some(&b'{') => Ok(object),
        Some(other) => {
            Err(Reject::new(format!("field '{name}': expected the row as an object, found {}", quoted(other))))
        }
        None if name == "before" => Err(Reject::new(format!(
            "field 'before' is null, and \"op\": \"{op}\" needs the row before the change: let the database log it (PostgreSQL: ALTER TABLE … REPLICA IDENTITY FULL)"
        ))),
        None => Err(Reject::new(format!("field '{name}' is null, and \"op\": \"{op}\" needs the row"))),
    }
}

impl RecordDecoder for DebeziumDecoder {
    fn decode(&mut self, record: &Record<'_>) -> Result<usize, Reject> {
        let Some(value) = record.value else { return Ok(0) };
        let [before, after, op, payload] = members(self.payload(value)?, ["before", "after", "op", "payload"])?;
        match op {
            Some(b"\"c\"") => self.append(row(after, "after", "c")?, &[RowKind::Insert]),
            Some(b"\"r\"") => self.append(row(after, "after", "r")?, &[RowKind::Insert]),
            Some(b"\"u\"") => {
                let mut both = std::mem::take(&mut self.both);
                both.clear();
                both.push(b'[');
                both.extend_from_slice(row(before, "before", "u")?);
                both.push(b',');
                both.extend_from_slice(row(after, "after", "u")?);
                both.push(b']');
                let appended = self.append(&both, &[RowKind::UpdateBefore, RowKind::UpdateAfter]);
                self.both = both;
                appended
            }
            Some(b"\"d\"") => self.append(row(before, "before", "d")?, &[RowKind::Delete]),
            None if payload.is_some() => Err(Reject::new(format!(
                "no change event: it has a 'payload' around it, which '{SCHEMA_INCLUDE}' = 'true' reads"
            ))),
            None => Err(Reject::new("no change event: it has no 'op'")),
            Some(other) => {
                Err(Reject::new(format!("field 'op': expected \"c\", \"r\", \"u\" or \"d\", found {}", quoted(other))))
            }
        }
    }

    fn len(&self) -> usize {
        self.rows.len()
    }

    fn flush(&mut self) -> Result<Batch> {
        let kinds = Int8Array::from(std::mem::take(&mut self.kinds));
        let rows = self.rows.flush()?.into_rows();
        if rows.num_rows() != kinds.len() {
            return Err(Error::internal(format!(
                "{} rows of change events have {} kinds",
                rows.num_rows(),
                kinds.len()
            )));
        }
        Ok(Batch::changes(rows, kinds))
    }
}

struct DebeziumEncoder(JsonEncoder);

impl RecordEncoder for DebeziumEncoder {
    fn encode(&mut self, rows: &Batch) -> Result<EncodedRows> {
        let objects = self.0.encode(rows)?;
        let mut encoded = EncodedRows::with_capacity(rows.len());
        for (index, object) in objects.iter().enumerate() {
            let (before, after, op): (&[u8], &[u8], _) = match rows.kind(index).is_retraction() {
                true => (object, b"null", b'd'),
                false => (b"null", object, b'c'),
            };
            let bytes = &mut encoded.bytes;
            bytes.extend_from_slice(b"{\"before\":");
            bytes.extend_from_slice(before);
            bytes.extend_from_slice(b",\"after\":");
            bytes.extend_from_slice(after);
            bytes.extend_from_slice(b",\"op\":\"");
            bytes.push(op);
            bytes.extend_from_slice(b"\"}");
            encoded.offsets.push(encoded.bytes.len());
        }
        Ok(encoded)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::record_batch::RecordBatch;

    use super::*;
    use crate::format::{FormatSettings, decoder, encoder, format_option, option_specs};

    fn settings(options: &[(&str, &str)]) -> FormatSettings {
        let given = options.iter().chain(&[("format", "debezium-json")]);
        let given: BTreeMap<String, String> =
            given.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let specs = option_specs().into_iter().chain([format_option()]);
        FormatSettings::new(&Options::of_table("t", specs, &given).unwrap()).unwrap()
    }

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)]))
    }

    fn read(options: &[(&str, &str)], records: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut decoder = decoder(&settings(options), &schema(), &[0, 1]).unwrap();
        let decoded = records.iter().map(|record| decoder.decode(&Record::of(record.as_bytes())));
        let rejects = decoded.filter_map(|decoded| decoded.err().map(|reject| reject.reason)).collect();
        let batch = decoder.flush().unwrap();
        let (ids, names) = (batch.rows().column(0).clone(), batch.rows().column(1).clone());
        let text =
            |column: &arrow::array::ArrayRef, row| arrow::util::display::array_value_to_string(column, row).unwrap();
        let row = |row| format!("{} {} {}", batch.kind(row).symbol(), text(&ids, row), text(&names, row));
        ((0..batch.len()).map(row).collect(), rejects)
    }

    /// Events as the connector for PostgreSQL writes them, with `source` and `ts_ms`.
    #[test]
    fn changes_are_read() {
        let source = r#""source":{"version":"2.7.0.Final","connector":"postgresql","db":"shop"},"ts_ms":1700000000000"#;
        let records = [
            format!(r#"{{"before":null,"after":{{"id":1,"name":"a"}},{source},"op":"r"}}"#),
            format!(r#"{{"before":null,"after":{{"id":2,"name":null}},{source},"op":"c"}}"#),
            format!(r#"{{"op":"u",{source},"before":{{"id":1,"name":"a"}},"after":{{"id":1,"name":"b","new":true}}}}"#),
            format!(r#"{{"before":{{"id":2,"name":null}},"after":null,{source},"op":"d"}}"#),
        ];
        let (rows, rejects) = read(&[], &records.each_ref().map(String::as_str));
        assert_eq!(rejects, Vec::<String>::new());
        assert_eq!(rows, ["+I 1 a", "+I 2 ", "-U 1 a", "+U 1 b", "-D 2 "]);
        let wrapped = format!(r#"{{"schema":{{"type":"struct"}},"payload":{}}}"#, records[2]);
        assert_eq!(read(&[(SCHEMA_INCLUDE, "true")], &[&wrapped]).0, ["-U 1 a", "+U 1 b"]);
        assert!(read(&[], &[&wrapped]).1[0].contains("'debezium-json.schema-include' = 'true'"));
    }

    #[test]
    fn an_event_is_read_whole_or_not_at_all() {
        let (rows, rejects) = read(
            &[],
            &[
                r#"{"before":{"id":1},"after":{"id":"x"},"op":"u"}"#,
                r#"{"before":null,"after":{"id":1},"op":"u"}"#,
                r#"{"before":null,"after":[{"id":1},{"id":2}],"op":"c"}"#,
                r#"{"before":null,"after":{"id":1},"op":"t"}"#,
                r#"{"id":1}"#,
                "nonsense",
                r#"{"before":null,"after":{"id":7},"op":"c"}"#,
            ],
        );
        assert_eq!(rows, ["+I 7 "]);
        let expected = [
            "field 'id': expected BIGINT",
            "REPLICA IDENTITY FULL",
            "expected the row as an object",
            "found \"t\"",
            "no 'op'",
            "not a JSON object",
        ];
        assert_eq!(rejects.len(), expected.len());
        for (reject, expected) in rejects.iter().zip(expected) {
            assert!(reject.contains(expected), "{reject}");
        }
    }

    #[test]
    fn changes_are_written_as_flink_writes_them() {
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![1, 1, 1])),
            Arc::new(StringArray::from(vec![Some("a"), Some("a"), None])),
        ];
        let rows = RecordBatch::try_new(schema(), columns).unwrap();
        let kinds = [RowKind::Insert, RowKind::UpdateBefore, RowKind::UpdateAfter].map(|kind| kind as i8);
        let batch = Batch::changes(rows, Int8Array::from(kinds.to_vec()));
        let encoded = encoder(&settings(&[]), &schema()).unwrap().encode(&batch).unwrap();
        let texts: Vec<&str> = encoded.iter().map(|record| std::str::from_utf8(record).unwrap()).collect();
        assert_eq!(
            texts,
            [
                r#"{"before":null,"after":{"id":1,"name":"a"},"op":"c"}"#,
                r#"{"before":{"id":1,"name":"a"},"after":null,"op":"d"}"#,
                r#"{"before":null,"after":{"id":1,"name":null},"op":"c"}"#,
            ]
        );
        assert_eq!(read(&[], &texts).0, ["+I 1 a", "-D 1 a", "+I 1 "]);
    }
}
