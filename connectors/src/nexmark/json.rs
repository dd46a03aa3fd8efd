//! Events as lines of JSON, as Flink's nexmark writes them to Kafka.

use std::io::Write;

use coulee_model::Timestamp;

use super::event::{Event, Generator};
use super::fields::Values;
use super::kind::Kind;

impl Generator {
    /// Appends an event as one JSON object, without a newline:
    /// `{"event_type":2,"person":null,"auction":null,"bid":{"auction":…,"dateTime":"2015-07-15 00:00:00.000",…}}`.
    ///
    /// The values are those of the columns, timestamps in SQL's notation. About 274 bytes on average.
    pub fn json_line(&self, event_number: u64, out: &mut Vec<u8>) {
        let event = self.event(event_number);
        let kind = self.kind(&event);
        out.extend_from_slice(br#"{"event_type":"#);
        out.push(b'0' + kind as u8);
        for column in Kind::ALL {
            out.extend_from_slice(b",\"");
            out.extend_from_slice(column.name().as_bytes());
            out.extend_from_slice(b"\":");
            match column == kind {
                true => self.json_object(kind, event, out),
                false => out.extend_from_slice(b"null"),
            }
        }
        out.push(b'}');
    }

    fn json_object(&self, kind: Kind, event: Event, out: &mut Vec<u8>) {
        let mut number = Vec::with_capacity(1);
        let mut value = |make: fn(&Generator, _, &mut Vec<i64>)| {
            number.clear();
            make(self, self.events(None, event.number, 1, 1), &mut number);
            number[0]
        };
        let mut separator = b'{';
        for field in kind.fields() {
            out.push(separator);
            separator = b',';
            out.push(b'"');
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b"\":");
            let written = match field.values {
                Values::Long(make) => write!(out, "{}", value(make)),
                Values::Time(make) => write!(out, "\"{}\"", Timestamp(value(make))),
                // No text has a character that JSON would want escaped.
                Values::Text(make) => {
                    out.push(b'"');
                    make(self, &event, out);
                    out.push(b'"');
                    Ok(())
                }
            };
            written.expect("memory takes every write");
        }
        out.push(b'}');
    }
}
