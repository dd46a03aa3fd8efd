//! Columns of a file in the types of a table: what pandas, Spark, parquet-mr and others write for the same values.
//!
//! | in the table | in the file | what happens to a value |
//! | --- | --- | --- |
//! | TINYINT to BIGINT | any whole number, signed or not; FLOAT, DOUBLE, DECIMAL | must be whole and fit |
//! | FLOAT, DOUBLE | any number | rounded to the nearest; must not become infinite |
//! | DECIMAL(p, s) | any number | rounded half up, as from text; must fit |
//! | STRING | text of any layout, BINARY | must be UTF-8 |
//! | BYTES | BINARY of any layout, text | as it is |
//! | TIMESTAMP, TIMESTAMP_LTZ | any timestamp, INT96, DATE | finer digits dropped; without a zone it is UTC |
//! | DATE | DATE, a timestamp | must be midnight |
//! | TIME | any time of day | finer digits dropped |
//! | ARRAY, MAP, ROW | any list; a map, or a list of pairs; a struct, fields by name | each element as above; a field that is not there is null |
//!
//! A dictionary is read as what it holds, and a column without a type (all null) as null. A value that does not fit is a
//! [`Misfit`] of its row; types that never fit are refused when the file is opened.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, ListArray, MapArray, StructArray,
    new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Field, Fields, Float64Type, Int64Type, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use coulee_runtime::{Error, Result};

use crate::format::{parse_decimal, rescale_timestamp, sql_type};

/// Days of the years 0 to 9999.
const DAYS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;

/// A row with a value that does not fit its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The row.
    pub row: usize,
    /// What was expected and found.
    pub reason: String,
}

/// A column in the table's type. The values of misfits mean nothing: their rows are to be dropped.
#[derive(Debug)]
pub struct Adapted {
    /// As many values as there were.
    pub column: ArrayRef,
    /// The rows that do not fit, in any order.
    pub misfits: Vec<Misfit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Null,
    Boolean,
    Whole,
    Float,
    Decimal,
    Text,
    Bytes,
    Date,
    Time,
    Timestamp,
    List,
    Map,
    Struct,
    Other,
}

fn family(data_type: &DataType) -> Family {
    match data_type {
        DataType::Null => Family::Null,
        DataType::Boolean => Family::Boolean,
        whole if whole.is_integer() => Family::Whole,
        float if float.is_floating() => Family::Float,
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Family::Decimal
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Family::Text,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => Family::Bytes,
        DataType::Date32 | DataType::Date64 => Family::Date,
        DataType::Time32(_) | DataType::Time64(_) => Family::Time,
        DataType::Timestamp(..) => Family::Timestamp,
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => Family::List,
        DataType::Map(..) => Family::Map,
        DataType::Struct(_) => Family::Struct,
        _ => Family::Other,
    }
}

/// Whether values of one type may be values of another. Whether each is one is seen when it is read.
pub fn can_adapt(from: &DataType, to: &DataType) -> bool {
    if let DataType::Dictionary(_, values) = from {
        return can_adapt(values, to);
    }
    use Family::*;
    match (family(from), family(to)) {
        (Null, _) => true,
        (Whole | Float | Decimal, Whole | Float | Decimal) => true,
        (Text | Bytes, Text | Bytes) => true,
        (Date | Timestamp, Date | Timestamp) => true,
        (Boolean, Boolean) | (Time, Time) => true,
        (List, List) => match (item(from), item(to)) {
            (Some(from), Some(to)) => can_adapt(from.data_type(), to.data_type()),
            _ => false,
        },
        (Map | List, Map) => match (pair(from), pair(to)) {
            (Some([key, value]), Some([to_key, to_value])) => {
                can_adapt(key.data_type(), to_key.data_type()) && can_adapt(value.data_type(), to_value.data_type())
            }
            _ => false,
        },
        (Struct, Struct) => match (from, to) {
            (DataType::Struct(from), DataType::Struct(to)) => to.iter().all(|field| {
                matches!(find(from, field.name()), Ok(Some(index)) if can_adapt(from[index].data_type(), field.data_type()))
                    || matches!(find(from, field.name()), Ok(None) if field.is_nullable())
            }),
            _ => false,
        },
        _ => from == to,
    }
}

fn item(list: &DataType) -> Option<&Field> {
    match list {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

/// The key and the value of a map, or of a list of pairs, which some writers make of a map.
fn pair(map: &DataType) -> Option<[&Field; 2]> {
    let entries = match map {
        DataType::Map(entries, _) => entries.data_type(),
        list => item(list)?.data_type(),
    };
    match entries {
        DataType::Struct(fields) if fields.len() == 2 => Some([&fields[0], &fields[1]]),
        _ => None,
    }
}

/// Where a field of a name is: the one of that very name, else the only one that differs from it in case alone.
///
/// # Errors
/// When several differ in case alone.
pub fn find(fields: &Fields, name: &str) -> Result<Option<usize>, String> {
    if let Some(index) = fields.iter().position(|field| field.name() == name) {
        return Ok(Some(index));
    }
    let alike: Vec<usize> =
        (0..fields.len()).filter(|index| fields[*index].name().to_lowercase() == name.to_lowercase()).collect();
    match alike.as_slice() {
        [] => Ok(None),
        [index] => Ok(Some(*index)),
        several => {
            let names: Vec<&str> = several.iter().map(|index| fields[*index].name().as_str()).collect();
            Err(format!("column '{name}' may be any of {}", names.join(", ")))
        }
    }
}

/// The column in the type of a field of the table. The types must be ones that [`can_adapt`].
///
/// # Errors
/// `Internal` when Arrow refuses what these types make possible.
pub fn adapt(column: &ArrayRef, field: &Field) -> Result<Adapted> {
    let mut adapted = convert(column, field.data_type()).map_err(|error| {
        let (name, has, wants) = (field.name(), sql_type(column.data_type()), sql_type(field.data_type()));
        Error::internal(format!("column '{name}' is {has}, and does not become {wants}: {error}")).because(error)
    })?;
    if !field.is_nullable() {
        let nulls = (0..column.len()).filter(|row| column.is_null(*row));
        let wants = sql_type(field.data_type());
        adapted
            .misfits
            .extend(nulls.map(|row| Misfit { row, reason: format!("expected {wants} NOT NULL, found null") }));
        adapted.column = without_nulls(&adapted.column)?;
    }
    Ok(adapted)
}

fn convert(column: &ArrayRef, to: &DataType) -> Result<Adapted, ArrowError> {
    let from = column.data_type();
    if let DataType::Dictionary(_, values) = from {
        return convert(&cast(column, values)?, to);
    }
    let converted = match (family(from), family(to)) {
        (Family::Null, _) => new_null_array(to, column.len()),
        (_, Family::List) => return list(column, to),
        (_, Family::Map) => return map(column, to),
        (_, Family::Struct) => return structure(column, to),
        (_, Family::Timestamp) => timestamps(column, to)?,
        (_, Family::Date) => dates(column)?,
        _ if from == to => column.clone(),
        (Family::Float, Family::Whole) => {
            let whole = |value: f64| (value.fract() == 0.0 && value.abs() < 9.3e18).then_some(value);
            let numbers = cast(column, &DataType::Float64)?;
            let numbers: Float64Array = numbers.as_primitive::<Float64Type>().unary_opt(whole);
            lossy(&(Arc::new(numbers) as ArrayRef), to)?
        }
        (Family::Decimal, Family::Whole) => {
            let (decimals, scale) = decimals(column)?;
            let unit = 10i128.pow(scale);
            let whole = |value: i128| (value % unit == 0).then(|| i64::try_from(value / unit).ok()).flatten();
            let numbers: Int64Array = decimals.unary_opt::<_, Int64Type>(whole);
            lossy(&(Arc::new(numbers) as ArrayRef), to)?
        }
        (_, Family::Decimal) => to_decimals(column, to)?,
        (Family::Float, Family::Float) => {
            let narrowed = lossy(column, to)?;
            finite(column, narrowed)?
        }
        (Family::Bytes, Family::Text) => lossy(&cast(column, &DataType::Binary)?, to)?,
        (Family::Text, Family::Bytes) => lossy(&cast(column, &DataType::Utf8)?, to)?,
        _ => lossy(column, to)?,
    };
    let misfits = lost(column, &converted, to)?;
    Ok(Adapted { column: converted, misfits })
}

/// A cast that makes null of what does not fit.
fn lossy(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    cast_with_options(column, to, &CastOptions { safe: true, ..Default::default() })
}

/// The rows whose value became null.
fn lost(from: &ArrayRef, to: &ArrayRef, wanted: &DataType) -> Result<Vec<Misfit>, ArrowError> {
    if from.logical_null_count() == to.logical_null_count() {
        return Ok(Vec::new());
    }
    let options = FormatOptions::new().with_display_error(true);
    let values = ArrayFormatter::try_new(from.as_ref(), &options)?;
    let (has, wants) = (sql_type(from.data_type()), sql_type(wanted));
    let rows = (0..from.len()).filter(|row| from.is_valid(*row) && to.is_null(*row));
    Ok(rows.map(|row| Misfit { row, reason: format!("expected {wants}, found {has} {}", values.value(row)) }).collect())
}

/// Numbers that only became infinite are none.
fn finite(from: &ArrayRef, to: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let (wide, narrow) = (cast(from, &DataType::Float64)?, cast(&to, &DataType::Float64)?);
    let (wide, narrow) = (wide.as_primitive::<Float64Type>(), narrow.as_primitive::<Float64Type>());
    let fits = |row: usize| wide.is_null(row) || narrow.value(row).is_finite() || !wide.value(row).is_finite();
    if (0..wide.len()).all(fits) {
        return Ok(to);
    }
    let nulls: NullBuffer = (0..wide.len()).map(|row| wide.is_valid(row) && fits(row)).collect();
    let data = to.to_data().into_builder().nulls(Some(nulls)).build()?;
    Ok(arrow::array::make_array(data))
}

/// Decimals of any width as the widest that a table has, and how many digits are behind the point.
fn decimals(column: &ArrayRef) -> Result<(Decimal128Array, u32), ArrowError> {
    let scale = match column.data_type() {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => *scale,
        _ => 0,
    };
    let scale = scale.max(0);
    let wide = lossy(column, &DataType::Decimal128(38, scale))?;
    Ok((wide.as_primitive::<Decimal128Type>().clone(), scale as u32))
}

fn to_decimals(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let DataType::Decimal128(precision, scale) = to else { return lossy(column, to) };
    let limit = 10i128.pow(u32::from(*precision));
    let values: Decimal128Array = if column.data_type().is_floating() {
        let texts = cast(column, &DataType::Utf8)?;
        let parse = |text: &str| parse_decimal(text.as_bytes(), *precision, *scale);
        texts.as_string::<i32>().iter().map(|text| text.and_then(parse)).collect()
    } else {
        let (from, from_scale) = match column.data_type() {
            whole if whole.is_integer() => {
                (lossy(column, &DataType::Decimal128(38, 0))?.as_primitive::<Decimal128Type>().clone(), 0)
            }
            _ => decimals(column)?,
        };
        let shift = i32::from(*scale) - from_scale as i32;
        let factor = 10i128.pow(shift.unsigned_abs());
        from.unary_opt(|value| {
            let value = if shift >= 0 {
                value.checked_mul(factor)?
            } else {
                // Half up, away from zero.
                let rest = (value % factor).abs();
                value / factor + if rest >= factor - rest { value.signum() } else { 0 }
            };
            (value.abs() < limit).then_some(value)
        })
    };
    Ok(Arc::new(values.with_data_type(to.clone())))
}

/// A cast that only names numbers differently.
fn numbers(column: &ArrayRef) -> Result<Int64Array, ArrowError> {
    let numbers = match column.data_type() {
        DataType::Date32 | DataType::Time32(_) => cast(&cast(column, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(column, &DataType::Int64)?,
    };
    Ok(numbers.as_primitive::<Int64Type>().clone())
}

fn timestamps(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let DataType::Timestamp(unit, _) = to else { return lossy(column, to) };
    let values = numbers(column)?;
    let values: Int64Array = match column.data_type() {
        DataType::Timestamp(from, _) => values.unary_opt(|value| rescale_timestamp(value, *from, *unit)),
        DataType::Date32 => {
            values.unary_opt(|days| rescale_timestamp(days.checked_mul(86_400)?, TimeUnit::Second, *unit))
        }
        // Date64: milliseconds.
        _ => values.unary_opt(|value| rescale_timestamp(value, TimeUnit::Millisecond, *unit)),
    };
    Ok(arrow::array::make_array(values.into_data().into_builder().data_type(to.clone()).build()?))
}

fn dates(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let values = numbers(column)?;
    let per_day = match column.data_type() {
        DataType::Date32 => 1,
        DataType::Timestamp(TimeUnit::Second, _) => 86_400,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 86_400_000_000,
        DataType::Timestamp(TimeUnit::Nanosecond, _) => 86_400_000_000_000,
        _ => 86_400_000,
    };
    let day = |value: i64| {
        let days = value.div_euclid(per_day);
        (value % per_day == 0 && DAYS.contains(&days)).then_some(days as i32)
    };
    Ok(Arc::new(values.unary_opt::<_, arrow::datatypes::Date32Type>(day)))
}

/// Misfits of elements as misfits of the rows that they are in.
fn of_rows(misfits: Vec<Misfit>, offsets: &[i32], nulls: Option<&NullBuffer>) -> Vec<Misfit> {
    let row_of = |misfit: Misfit| {
        let element = misfit.row as i32;
        let row = offsets.partition_point(|offset| *offset <= element).checked_sub(1)?;
        let within = row + 1 < offsets.len() && nulls.is_none_or(|nulls| nulls.is_valid(row));
        within.then_some(Misfit { row, ..misfit })
    };
    misfits.into_iter().filter_map(row_of).collect()
}

/// Whatever is null in a column without nulls stands in a row that is dropped, or below a null.
fn without_nulls(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if column.null_count() == 0 {
        return Ok(column.clone());
    }
    Ok(arrow::array::make_array(column.to_data().into_builder().nulls(None).null_count(0).build()?))
}

/// An element's column in the table's type. Elements are only dropped with their rows, so none may be null where none can be.
fn element(column: &ArrayRef, field: &Field) -> Result<Adapted, ArrowError> {
    adapt(column, field).map_err(|error| ArrowError::ComputeError(error.to_string()))
}

fn list(column: &ArrayRef, to: &DataType) -> Result<Adapted, ArrowError> {
    let (Some(from), DataType::List(field)) = (item(column.data_type()), to) else {
        return Err(ArrowError::CastError("not a list".to_owned()));
    };
    let column = cast(column, &DataType::List(Arc::new(from.clone())))?;
    let list = column.as_list::<i32>();
    let items = element(list.values(), field)?;
    let misfits = of_rows(items.misfits, list.value_offsets(), list.nulls());
    let adapted = ListArray::try_new(field.clone(), list.offsets().clone(), items.column, list.nulls().cloned())?;
    Ok(Adapted { column: Arc::new(adapted), misfits })
}

fn map(column: &ArrayRef, to: &DataType) -> Result<Adapted, ArrowError> {
    let (Some([key, value]), DataType::Map(to_entries, sorted)) = (pair(to), to) else {
        return Err(ArrowError::CastError("not a map".to_owned()));
    };
    let (entries, offsets, nulls): (StructArray, OffsetBuffer<i32>, _) = match column.data_type() {
        DataType::Map(..) => {
            let map = column.as_map();
            (map.entries().clone(), map.offsets().clone(), map.nulls().cloned())
        }
        list => {
            let Some(from) = item(list) else { return Err(ArrowError::CastError("not a map".to_owned())) };
            let column = cast(column, &DataType::List(Arc::new(from.clone())))?;
            let list = column.as_list::<i32>();
            (list.values().as_struct().clone(), list.offsets().clone(), list.nulls().cloned())
        }
    };
    let (keys, values) = (element(entries.column(0), key)?, element(entries.column(1), value)?);
    let misfits = of_rows([keys.misfits, values.misfits].concat(), &offsets, nulls.as_ref());
    let DataType::Struct(fields) = to_entries.data_type() else {
        return Err(ArrowError::CastError("not a map".to_owned()));
    };
    let entries = StructArray::try_new(fields.clone(), vec![keys.column, values.column], None)?;
    let adapted = MapArray::try_new(to_entries.clone(), offsets, entries, nulls, *sorted)?;
    Ok(Adapted { column: Arc::new(adapted), misfits })
}

fn structure(column: &ArrayRef, to: &DataType) -> Result<Adapted, ArrowError> {
    let (DataType::Struct(from), DataType::Struct(fields)) = (column.data_type(), to) else {
        return Err(ArrowError::CastError("not a row".to_owned()));
    };
    let structure = column.as_struct();
    let (mut columns, mut misfits) = (Vec::with_capacity(fields.len()), Vec::new());
    for field in fields {
        let found = find(from, field.name()).map_err(ArrowError::CastError)?;
        let adapted = match found {
            Some(index) => element(structure.column(index), field)?,
            None => Adapted { column: new_null_array(field.data_type(), structure.len()), misfits: Vec::new() },
        };
        let counts = |misfit: &Misfit| structure.is_valid(misfit.row);
        misfits.extend(
            adapted
                .misfits
                .into_iter()
                .filter(counts)
                .map(|misfit| Misfit { reason: format!("field '{}': {}", field.name(), misfit.reason), ..misfit }),
        );
        columns.push(adapted.column);
    }
    let adapted =
        StructArray::try_new_with_length(fields.clone(), columns, structure.nulls().cloned(), structure.len())?;
    Ok(Adapted { column: Arc::new(adapted), misfits })
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BinaryArray, DictionaryArray, Float32Array, Int8Array, LargeListArray, StringArray, StringViewArray,
        TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
    };
    use arrow::datatypes::Int32Type;
    use arrow::record_batch::RecordBatch;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::data_type::{ByteArray, ByteArrayType, Int32Type as Int32};
    use parquet::file::writer::SerializedFileWriter;

    use super::*;

    /// The values as text, and a `!` in the place of a misfit.
    fn adapted(column: ArrayRef, to: DataType) -> Vec<String> {
        assert!(can_adapt(column.data_type(), &to), "{} to {to}", column.data_type());
        let adapted = adapt(&column, &Field::new("x", to.clone(), true)).unwrap();
        assert_eq!(*adapted.column.data_type(), to);
        let options = FormatOptions::new().with_null("NULL");
        let values = ArrayFormatter::try_new(adapted.column.as_ref(), &options).unwrap();
        let text = |row: usize| match adapted.misfits.iter().any(|misfit| misfit.row == row) {
            true => "!".to_owned(),
            false => values.value(row).to_string(),
        };
        (0..column.len()).map(text).collect()
    }

    #[test]
    fn numbers_fit_or_are_misfits() {
        let doubles: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(1.0), Some(1.5), Some(f64::NAN), Some(1e19), None]));
        assert_eq!(adapted(doubles.clone(), DataType::Int64), ["1", "!", "!", "!", "NULL"]);
        assert_eq!(adapted(doubles, DataType::Decimal128(4, 0)), ["1", "2", "!", "!", "NULL"]);
        let unsigned: ArrayRef = Arc::new(UInt64Array::from(vec![1, 300, u64::MAX]));
        assert_eq!(adapted(unsigned.clone(), DataType::Int8), ["1", "!", "!"]);
        assert_eq!(adapted(unsigned.clone(), DataType::Int64), ["1", "300", "!"]);
        assert_eq!(adapted(unsigned, DataType::Decimal128(20, 0)), ["1", "300", "18446744073709551615"]);
        let bytes: ArrayRef = Arc::new(Int8Array::from(vec![-1, 9]));
        assert_eq!(adapted(bytes, DataType::Decimal128(3, 2)), ["-1.00", "9.00"]);
        let wide: ArrayRef = Arc::new(Float64Array::from(vec![1e300, 0.1, f64::INFINITY]));
        assert_eq!(adapted(wide, DataType::Float32), ["!", "0.1", "inf"]);
        let narrow: ArrayRef = Arc::new(Float32Array::from(vec![0.1]));
        assert_eq!(adapted(narrow, DataType::Decimal128(9, 8)), ["0.10000000"]);
    }

    #[test]
    fn decimals_are_rounded_half_up_and_must_fit() {
        let decimals = Decimal128Array::from(vec![Some(2_345), Some(-2_345), Some(9_999_999), None]);
        let decimals: ArrayRef = Arc::new(decimals.with_precision_and_scale(10, 3).unwrap());
        assert_eq!(adapted(decimals.clone(), DataType::Decimal128(5, 2)), ["2.35", "-2.35", "!", "NULL"]);
        assert_eq!(adapted(decimals.clone(), DataType::Float64), ["2.345", "-2.345", "9999.999", "NULL"]);
        assert_eq!(adapted(decimals, DataType::Int32), ["!", "!", "!", "NULL"]);
        let whole = Decimal128Array::from(vec![1_200, -700]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(adapted(Arc::new(whole), DataType::Int32), ["12", "-7"]);
    }

    #[test]
    fn timestamps_keep_the_digits_of_the_table_and_are_in_its_range() {
        let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
        let micros: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-1, 1_999, i64::MAX]));
        assert_eq!(
            adapted(micros.clone(), millis.clone()),
            ["1969-12-31T23:59:59.999", "1970-01-01T00:00:00.001", "!"]
        );
        let nanos = DataType::Timestamp(TimeUnit::Nanosecond, Some("+00:00".into()));
        let far: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1, 253_402_214_400_000_000]));
        assert_eq!(adapted(far.clone(), nanos), ["1970-01-01T00:00:00.000001Z", "!"]);
        assert_eq!(adapted(far, DataType::Date32), ["!", "9999-12-31"]);
        let days: ArrayRef = Arc::new(arrow::array::Date32Array::from(vec![-1, i32::MAX]));
        assert_eq!(adapted(days.clone(), millis.clone()), ["1969-12-31T00:00:00", "!"]);
        assert_eq!(adapted(days, DataType::Date32), ["1969-12-31", "!"]);
        let zoned = TimestampNanosecondArray::from(vec![0]).with_timezone("Europe/Berlin");
        assert_eq!(adapted(Arc::new(zoned), millis), ["1970-01-01T00:00:00"]);
    }

    #[test]
    fn texts_and_bytes_of_any_layout() {
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some(&b"abc"[..]), Some(b"\xff"), None]));
        assert_eq!(adapted(bytes, DataType::Utf8), ["abc", "!", "NULL"]);
        let views: ArrayRef = Arc::new(StringViewArray::from(vec!["a text that is no inline view"]));
        assert_eq!(adapted(views, DataType::Utf8), ["a text that is no inline view"]);
        let coded: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("a")].into_iter().collect();
        assert_eq!(adapted(Arc::new(coded), DataType::Utf8), ["a", "NULL", "a"]);
        let nothing = new_null_array(&DataType::Null, 2);
        assert_eq!(adapted(nothing, DataType::Decimal128(5, 2)), ["NULL", "NULL"]);
        for (from, to) in [
            (DataType::Utf8, DataType::Int64),
            (DataType::Int64, DataType::Utf8),
            (DataType::Boolean, DataType::Int32),
            (DataType::Int64, DataType::Timestamp(TimeUnit::Millisecond, None)),
        ] {
            assert!(!can_adapt(&from, &to), "{from} to {to}");
        }
    }

    #[test]
    fn a_misfit_in_a_list_is_one_of_its_row() {
        let lists = vec![Some(vec![Some(1), Some(300)]), None, Some(vec![None, Some(2)]), Some(vec![])];
        let lists = LargeListArray::from_iter_primitive::<Int64Type, _, _>(lists);
        let to = |nullable| DataType::List(Arc::new(Field::new("item", DataType::Int8, nullable)));
        let lists: ArrayRef = Arc::new(lists);
        assert_eq!(adapted(lists.clone(), to(true)), ["!", "NULL", "[NULL, 2]", "[]"]);
        assert_eq!(adapted(lists.clone(), to(false)), ["!", "NULL", "!", "[]"]);
        assert_eq!(adapted(lists.slice(2, 2), to(true)), ["[NULL, 2]", "[]"]);
    }

    #[test]
    fn fields_are_found_by_name_and_may_be_missing() {
        let a: ArrayRef = Arc::new(Int64Array::from(vec![1, 300]));
        let b: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
        let row: ArrayRef = Arc::new(StructArray::from(vec![
            (Arc::new(Field::new("B", DataType::Utf8, true)), b),
            (Arc::new(Field::new("a", DataType::Int64, true)), a),
        ]));
        let to = Fields::from(vec![
            Field::new("a", DataType::Int8, true),
            Field::new("b", DataType::Utf8, true),
            Field::new("c", DataType::Int32, true),
        ]);
        let to = DataType::Struct(to);
        assert_eq!(adapted(row.clone(), to.clone()), ["{a: 1, b: x, c: NULL}", "!"]);
        let adapted = adapt(&row, &Field::new("x", to, true)).unwrap();
        assert_eq!(adapted.misfits[0].reason, "field 'a': expected TINYINT, found BIGINT 300");
        let twice = Fields::from(vec![Field::new("A", DataType::Int8, true), Field::new("a", DataType::Int8, true)]);
        assert_eq!(find(&twice, "a"), Ok(Some(1)));
        assert_eq!(find(&twice, "Á"), Ok(None));
        let cases = Fields::from(vec![Field::new("AB", DataType::Int8, true), Field::new("Ab", DataType::Int8, true)]);
        assert!(find(&cases, "ab").is_err());
    }

    /// One file with a list as Spark writes it with `spark.sql.parquet.writeLegacyFormat`, one as parquet-mr writes it for Avro,
    /// a map with the older annotation, and a repeated field without any: the layouts of the Parquet format's LogicalTypes.md.
    fn legacy_layouts() -> RecordBatch {
        let schema = "message m {
            optional group spark (LIST) { repeated group bag { optional int32 array_element; } }
            required group mr (LIST) { repeated int32 array; }
            optional group map (MAP_KEY_VALUE) { repeated group map { required binary key (UTF8); optional int32 value; } }
            repeated int32 bare;
        }";
        let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
        let mut bytes = Vec::new();
        let mut file = SerializedFileWriter::new(&mut bytes, schema, Arc::default()).unwrap();
        let mut group = file.next_row_group().unwrap();
        // Row 1: [1, null], [7, 8], {k: 5}, []; row 2: null, [], {}, [9].
        type Levels<'a> = (&'a [i32], &'a [i16], &'a [i16]);
        let columns: [Option<Levels<'_>>; 5] = [
            Some((&[1], &[3, 2, 0], &[0, 1, 0])),
            Some((&[7, 8], &[1, 1, 0], &[0, 1, 0])),
            None,
            Some((&[5], &[3, 1], &[0, 0])),
            Some((&[9], &[0, 1], &[0, 0])),
        ];
        for levels in columns {
            let mut column = group.next_column().unwrap().unwrap();
            match levels {
                Some((values, defined, repeated)) => {
                    column.typed::<Int32>().write_batch(values, Some(defined), Some(repeated)).unwrap();
                }
                None => {
                    let keys = [ByteArray::from("k")];
                    column.typed::<ByteArrayType>().write_batch(&keys, Some(&[2, 1]), Some(&[0, 0])).unwrap();
                }
            }
            column.close().unwrap();
        }
        group.close().unwrap();
        file.close().unwrap();
        let mut rows = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
        rows.next().unwrap().unwrap()
    }

    #[test]
    fn lists_and_maps_of_older_writers() {
        let rows = legacy_layouts();
        let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
        let entries = vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int64, true)];
        let entries = Field::new("entries", DataType::Struct(Fields::from(entries)), false);
        let map = DataType::Map(Arc::new(entries), false);
        let column = |name: &str| rows.column_by_name(name).unwrap().clone();
        assert_eq!(adapted(column("spark"), list.clone()), ["[1, NULL]", "NULL"]);
        assert_eq!(adapted(column("mr"), list.clone()), ["[7, 8]", "[]"]);
        assert_eq!(adapted(column("map"), map), ["{k: 5}", "{}"]);
        assert_eq!(adapted(column("bare"), list), ["[]", "[9]"]);
    }
}
