//! A function of one's own with event-time timers: what each sensor said without a longer pause.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use coulee_model::Timestamp;
use coulee_runtime::keyed::{Due, KeyContext, KeyedFunction};
use coulee_runtime::row::Row;
use coulee_runtime::{Error, Result};
use datafusion_common::ScalarValue;
use serde::{Deserialize, Serialize};

/// Two records of a sensor that are this far apart, or nearer, are of one session.
pub const GAP_MS: i64 = 100;

/// Emits a row for every session of a key, once the watermark says that nothing can join it.
#[derive(Debug, Default)]
pub struct Sessions;

/// The sessions of a sensor that are not over, in no order, at least `GAP_MS` apart.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Open {
    sensor: String,
    sessions: Vec<Session>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Session {
    first_ms: i64,
    last_ms: i64,
    records: i64,
    total: i64,
}

/// The columns: sensor, first and last event time in milliseconds, records, sum of their values.
pub fn schema() -> SchemaRef {
    let mut fields = vec![Field::new("sensor", DataType::Utf8, true)];
    fields.extend(["first_ms", "last_ms", "records", "total"].map(|name| Field::new(name, DataType::Int64, true)));
    Arc::new(Schema::new(fields))
}

impl KeyedFunction for Sessions {
    type State = Open;

    fn process(&mut self, row: Row<'_>, open: &mut Open, context: &mut KeyContext<'_>) -> Result<()> {
        let (Some(sensor), Some(at), Some(value)) = (row.text("sensor")?, row.timestamp("at")?, row.integer("value")?)
        else {
            return Err(Error::invalid("a record without sensor, time or value"));
        };
        if at <= context.watermark() {
            return Err(Error::internal(format!("{at} is late: the watermark is at {}", context.watermark())));
        }
        sensor.clone_into(&mut open.sensor);
        let mut session = Session { first_ms: at.millis(), last_ms: at.millis(), records: 1, total: value };
        // A record may join two sessions into one.
        open.sessions.retain(|other| {
            let apart = other.last_ms + GAP_MS < session.first_ms || session.last_ms + GAP_MS < other.first_ms;
            if !apart {
                session.first_ms = session.first_ms.min(other.first_ms);
                session.last_ms = session.last_ms.max(other.last_ms);
                session.records += other.records;
                session.total += other.total;
            }
            apart
        });
        context.event_timer(Timestamp(session.last_ms + GAP_MS));
        open.sessions.push(session);
        Ok(())
    }

    fn timer(&mut self, due: Due, open: &mut Open, context: &mut KeyContext<'_>) -> Result<()> {
        let Due::Event(_) = due else { return Ok(()) };
        let watermark = context.watermark().millis();
        let is_over = |session: &mut Session| session.last_ms.saturating_add(GAP_MS) <= watermark;
        for session in open.sessions.extract_if(.., is_over) {
            let numbers = [session.first_ms, session.last_ms, session.records, session.total];
            let numbers = numbers.map(|number| ScalarValue::Int64(Some(number)));
            context.emit(std::iter::once(ScalarValue::Utf8(Some(open.sensor.clone()))).chain(numbers))?;
        }
        Ok(())
    }
}
