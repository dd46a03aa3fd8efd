//! Prints types and values as the expected files have them, and compares.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
};
use arrow::temporal_conversions::{date32_to_datetime, time32ms_to_time};

/// A type in Flink's notation.
pub fn type_text(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "STRING".into(),
        DataType::Binary => "BYTES".into(),
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Date32 => "DATE".into(),
        DataType::Time32(_) => "TIME".into(),
        DataType::Timestamp(unit, zone) => {
            format!("TIMESTAMP{}({})", if zone.is_some() { "_LTZ" } else { "" }, digits(*unit))
        }
        DataType::List(item) => format!("ARRAY<{}>", type_text(item.data_type())),
        DataType::Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("{} {}", field.name(), type_text(field.data_type()))).collect();
            format!("ROW<{}>", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                format!("MAP<{}, {}>", type_text(fields[0].data_type()), type_text(fields[1].data_type()))
            }
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

fn digits(unit: TimeUnit) -> usize {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// The value of a row.
pub fn value_text(array: &dyn Array, row: usize) -> String {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return "NULL".into();
    }
    match array.data_type() {
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::Binary => {
            let hex: String = array.as_binary::<i32>().value(row).iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{hex}'")
        }
        DataType::Boolean => array.as_boolean().value(row).to_string(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float32 => format!("{:?}", array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value_as_string(row),
        DataType::Date32 => {
            let days = array.as_primitive::<arrow::datatypes::Date32Type>().value(row);
            date32_to_datetime(days).map_or("?".into(), |time| time.format("%Y-%m-%d").to_string())
        }
        DataType::Time32(TimeUnit::Millisecond) => {
            let millis = array.as_primitive::<arrow::datatypes::Time32MillisecondType>().value(row);
            time32ms_to_time(millis).map_or("?".into(), |time| time.format("%H:%M:%S%.f").to_string())
        }
        DataType::Timestamp(unit, zone) => {
            let nanos = arrow::compute::cast(&array.slice(row, 1), &DataType::Int64);
            let number = nanos.expect("a number").as_primitive::<Int64Type>().value(0);
            format!("{}{}", instant(number, *unit), if zone.is_some() { "Z" } else { "" })
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            let items: Vec<String> = (0..items.len()).map(|item| value_text(&items, item)).collect();
            format!("[{}]", items.join(", "))
        }
        DataType::Struct(_) => {
            let columns = array.as_struct().columns();
            let items: Vec<String> = columns.iter().map(|column| value_text(column, row)).collect();
            format!("({})", items.join(", "))
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0), entries.column(1));
            let mut items: Vec<String> = (0..entries.len())
                .map(|item| format!("{}: {}", value_text(keys, item), value_text(values, item)))
                .collect();
            items.sort();
            format!("{{{}}}", items.join(", "))
        }
        other => format!("a value of {other}"),
    }
}

fn instant(number: i64, unit: TimeUnit) -> String {
    let per_second = 10_i64.pow(digits(unit) as u32);
    let (seconds, fraction) = (number.div_euclid(per_second), number.rem_euclid(per_second));
    let days = i32::try_from(seconds.div_euclid(86_400)).expect("a day");
    let date = date32_to_datetime(days).map_or("?".into(), |time| time.format("%Y-%m-%d").to_string());
    let second = seconds.rem_euclid(86_400);
    let time = format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60);
    match digits(unit) {
        0 => format!("{date} {time}"),
        digits => format!("{date} {time}.{fraction:0digits$}"),
    }
}

fn text(text: &str) -> String {
    let mut out = String::from("'");
    for unit in text.encode_utf16() {
        match char::from_u32(u32::from(unit)) {
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(c) if c >= ' ' && c != '\u{7f}' && c != '\u{feff}' => out.push(c),
            _ => out.push_str(&format!("\\u{unit:04x}")),
        }
    }
    out.push('\'');
    out
}

/// Whether types and values are the same: timestamps are held with 3, 6 or 9 digits, and floating numbers are compared as numbers.
pub fn same(flink_type: &str, flink: &str, our_type: &str, ours: &str) -> bool {
    if held(flink_type) != our_type {
        return false;
    }
    match our_type {
        "DOUBLE" => same_double(flink.parse::<f64>().ok(), ours.parse::<f64>().ok()),
        "FLOAT" => {
            let number = |text: &str| text.parse::<f32>().ok().map(f64::from);
            same_double(number(flink), number(ours))
        }
        _ if our_type.starts_with("TIMESTAMP(") || our_type.starts_with("TIMESTAMP_LTZ(") => {
            without_zeros(flink) == without_zeros(ours)
        }
        _ => flink == ours,
    }
}

fn same_double(flink: Option<f64>, ours: Option<f64>) -> bool {
    match (flink, ours) {
        (Some(flink), Some(ours)) => flink.to_bits() == ours.to_bits() || (flink.is_nan() && ours.is_nan()),
        (None, None) => true,
        _ => false,
    }
}

fn without_zeros(timestamp: &str) -> String {
    let (body, zone) = timestamp.strip_suffix('Z').map_or((timestamp, ""), |body| (body, "Z"));
    let body = if body.contains('.') { body.trim_end_matches('0').trim_end_matches('.') } else { body };
    format!("{body}{zone}")
}

/// A type of Flink's with the digits that timestamps are held with.
fn held(flink_type: &str) -> String {
    let mut held = flink_type.to_owned();
    for (digits, to) in [("0", "3"), ("1", "3"), ("2", "3"), ("4", "6"), ("5", "6"), ("7", "9"), ("8", "9")] {
        for name in ["TIMESTAMP", "TIMESTAMP_LTZ"] {
            held = held.replace(&format!("{name}({digits})"), &format!("{name}({to})"));
        }
    }
    held
}
