//! Rejected records, kept in a stream: `{"stage":"decode","origin":"flights/0@42","reason":"…","raw":"…"}`.
//!
//! `raw` is the record, or the row as JSON, if it is UTF-8; otherwise `raw_base64` has its bytes. `expression` is there when
//! one failed.

use arrow::array::{Array, AsArray};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use coulee_runtime::{Batch, Error, Result};

use crate::format::{EncodedRows, RecordEncoder};

/// The JSON of a rejected record.
#[derive(serde::Serialize)]
struct Letter<'a> {
    stage: &'a str,
    origin: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expression: Option<&'a str>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw_base64: Option<String>,
}

/// Encodes rows of the runtime's schema of rejected records.
pub(super) struct RejectedEncoder;

impl RecordEncoder for RejectedEncoder {
    fn encode(&mut self, rows: &Batch) -> Result<EncodedRows> {
        let rows = rows.rows();
        let text = |column: usize| rows.column(column).as_string::<i32>();
        let (origins, reasons, raws) = (text(0), text(1), rows.column(2).as_binary::<i32>());
        let (stages, expressions) = (text(3), text(4));
        let mut encoded = EncodedRows::with_capacity(rows.num_rows());
        for row in 0..rows.num_rows() {
            let raw = std::str::from_utf8(raws.value(row)).ok();
            let raw_base64 = raw.is_none().then(|| STANDARD.encode(raws.value(row)));
            let letter = Letter {
                stage: stages.value(row),
                origin: origins.value(row),
                expression: expressions.is_valid(row).then(|| expressions.value(row)),
                reason: reasons.value(row),
                raw,
                raw_base64,
            };
            serde_json::to_writer(&mut encoded.bytes, &letter)
                .map_err(|cause| Error::internal(format!("a rejected record has no JSON form: {cause}")))?;
            encoded.offsets.push(encoded.bytes.len());
        }
        Ok(encoded)
    }
}
