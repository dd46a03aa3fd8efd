//! Rows of two sides with a key, an event time and a value: what joins in event time are tried on.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use coulee_runtime::join::{JoinSide, Retention};
use datafusion_physical_expr::expressions::Column;

/// Key, time, value.
pub type Row = (Option<i64>, Option<i64>, i64);

pub const LEFT: [&str; 3] = ["k", "t", "v"];
pub const RIGHT: [&str; 3] = ["j", "u", "w"];

pub fn fields(names: [&str; 3]) -> Vec<Field> {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    vec![
        Field::new(names[0], DataType::Int64, true),
        Field::new(names[1], time, true),
        Field::new(names[2], DataType::Int64, true),
    ]
}

pub fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

/// A side whose rows are kept for so many milliseconds of event time.
pub fn side(names: [&str; 3], millis: i64) -> JoinSide {
    JoinSide {
        schema: schema(fields(names)),
        keys: vec![Arc::new(Column::new(names[0], 0))],
        appends: true,
        ttl_millis: None,
        retention: Some(Retention { time: Arc::new(Column::new(names[1], 1)), millis }),
    }
}

pub fn columns(names: [&str; 3], rows: impl Iterator<Item = Row> + Clone) -> RecordBatch {
    let keys: Int64Array = rows.clone().map(|row| row.0).collect();
    let times: TimestampMillisecondArray = rows.clone().map(|row| row.1).collect();
    let values: Int64Array = rows.map(|row| Some(row.2)).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(times), Arc::new(values)];
    RecordBatch::try_new(schema(fields(names)), columns).unwrap()
}
