//! A row as a JSON object, for dead letters: a person reads it, and it must never fail.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;

/// A row of a batch: its columns by name, in their order.
pub(super) fn row_json(rows: &RecordBatch, row: usize) -> String {
    let fields = rows.schema();
    let members: Vec<String> = fields
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| format!("{}:{}", Value::from(field.name().as_str()), value(column.as_ref(), row)))
        .collect();
    format!("{{{}}}", members.join(","))
}

fn value(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        // NaN and the infinities have no number in JSON: they are texts.
        DataType::Float32 if column.as_primitive::<Float32Type>().value(row).is_finite() => {
            column.as_primitive::<Float32Type>().value(row).into()
        }
        DataType::Float64 if column.as_primitive::<Float64Type>().value(row).is_finite() => {
            column.as_primitive::<Float64Type>().value(row).into()
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            (0..items.len()).map(|item| value(items.as_ref(), item)).collect()
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns();
            let members = fields.iter().zip(columns).map(|(field, of)| (field.name().clone(), value(of.as_ref(), row)));
            Value::Object(members.collect())
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let members = (0..entries.len()).map(|i| (text(keys.as_ref(), i), value(values.as_ref(), i)));
            Value::Object(members.collect())
        }
        _ => text(column, row).into(),
    }
}

fn text(column: &dyn Array, row: usize) -> String {
    let options = FormatOptions::new()
        .with_display_error(true)
        .with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.3f"))
        .with_timestamp_tz_format(Some("%Y-%m-%d %H:%M:%S%.3fZ"));
    match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) => formatter.value(row).to_string(),
        Err(error) => format!("<{error}>"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, Int32Array, StringArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn every_value_has_a_form() {
        let columns: [(&str, ArrayRef); 5] = [
            ("z", Arc::new(Int32Array::from(vec![Some(1), None]))),
            ("a\"b", Arc::new(StringArray::from(vec!["x\n", "ü"]))),
            ("f", Arc::new(Float64Array::from(vec![0.5, f64::NAN]))),
            ("t", Arc::new(TimestampMillisecondArray::from(vec![0, 1]))),
            ("far", Arc::new(TimestampMillisecondArray::from(vec![i64::MAX, i64::MIN]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let shown: Vec<Value> = (0..2).map(|row| serde_json::from_str(&row_json(&rows, row)).unwrap()).collect();
        assert_eq!(shown[0]["z"], 1);
        assert_eq!(shown[0]["a\"b"], "x\n");
        assert_eq!(shown[0]["t"], "1970-01-01 00:00:00.000");
        assert_eq!(shown[1]["f"], "NaN");
        assert!(shown[1]["far"].is_string());
    }
}
