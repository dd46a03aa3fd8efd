//! One column while records are appended to it: typed buffers that can also give back what a failed record left behind.
//!
//! Arrow's own builders cannot be cut back, and a record may turn out to be malformed in its last byte; so the buffers are
//! plain vectors, which become Arrow arrays without a copy.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, ListArray, MapArray, PrimitiveArray, StringArray,
    StructArray, Time32MillisecondArray, Time32SecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimeUnit,
};
use arrow::error::ArrowError;
use coulee_runtime::{Error, Result};

use super::decode::Fields;

/// What a column does with a field that is not there or does not parse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leniency {
    /// A record without the field is refused. Otherwise the column is null.
    pub fail_on_missing: bool,
    /// A value that does not fit is null, where the column allows it. Otherwise the record is refused.
    pub ignore_parse_errors: bool,
}

/// Whether each value is there. The vector stays empty until the first null: most columns never have one.
#[derive(Debug, Default)]
struct Validity {
    len: usize,
    bits: Vec<bool>,
}

impl Validity {
    fn push(&mut self, valid: bool) {
        if !valid && self.bits.is_empty() {
            self.bits.resize(self.len, true);
        }
        self.len += 1;
        if !valid || !self.bits.is_empty() {
            self.bits.push(valid);
        }
    }

    fn truncate(&mut self, len: usize) {
        self.len = len;
        self.bits.truncate(len);
    }

    fn take(&mut self) -> Option<NullBuffer> {
        self.len = 0;
        // Column 0 rows long with nulls cut back: `bits` may be all true, which `NullBuffer` then says.
        let bits = std::mem::take(&mut self.bits);
        (!bits.is_empty()).then(|| NullBuffer::from(bits)).filter(|nulls| nulls.null_count() > 0)
    }
}

/// Values of one length each, behind one another.
#[derive(Debug)]
pub struct Varied<T> {
    pub offsets: Vec<i32>,
    pub values: T,
}

impl<T> Varied<T> {
    fn new(values: T) -> Self {
        Varied { offsets: vec![0], values }
    }

    fn last(&self) -> usize {
        *self.offsets.last().expect("never empty") as usize
    }

    fn take_offsets(&mut self) -> OffsetBuffer<i32> {
        let room = self.offsets.len();
        let mut fresh = Vec::with_capacity(room);
        fresh.push(0);
        OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(&mut self.offsets, fresh)))
    }
}

/// The buffers, by type.
#[derive(Debug)]
pub enum Values {
    Boolean(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal(Vec<i128>, u8, i8),
    Utf8(Varied<Vec<u8>>),
    Binary(Varied<Vec<u8>>),
    Date(Vec<i32>),
    Time(Vec<i64>, TimeUnit),
    Timestamp(Vec<i64>, TimeUnit),
    List(Varied<Box<Column>>, FieldRef),
    Map(Varied<Box<Column>>, Box<Column>, FieldRef),
    Struct(Fields),
}

/// A column of a record, or a part of a nested one.
#[derive(Debug)]
pub struct Column {
    pub data_type: DataType,
    pub nullable: bool,
    pub values: Values,
    pub ignore_parse_errors: bool,
    validity: Validity,
}

impl Column {
    /// An empty column for a field.
    ///
    /// # Errors
    /// `Invalid` when the type cannot be read from JSON.
    pub fn new(field: &Field, leniency: Leniency) -> Result<Self> {
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(Vec::new()),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) => Values::Decimal(Vec::new(), *precision, *scale),
            DataType::Utf8 => Values::Utf8(Varied::new(Vec::new())),
            DataType::Binary => Values::Binary(Varied::new(Vec::new())),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Time32(unit) | DataType::Time64(unit) => Values::Time(Vec::new(), *unit),
            DataType::Timestamp(unit, _) => Values::Timestamp(Vec::new(), *unit),
            DataType::List(item) => {
                let items = Column::new(item, leniency)?;
                Values::List(Varied::new(Box::new(items)), item.clone())
            }
            DataType::Map(entries, _) => Self::map(entries, leniency)?,
            DataType::Struct(fields) => Values::Struct(Fields::new(fields, leniency)?),
            other => {
                let name = field.name();
                return Err(Error::invalid(format!(
                    "column '{name}' has type {other}, which cannot be read from JSON"
                )));
            }
        };
        let validity = Validity::default();
        Ok(Column {
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
            values,
            ignore_parse_errors: leniency.ignore_parse_errors,
            validity,
        })
    }

    fn map(entries: &FieldRef, leniency: Leniency) -> Result<Values> {
        match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 && *pair[0].data_type() == DataType::Utf8 => {
                let keys = Box::new(Column::new(&pair[0], leniency)?);
                let values = Box::new(Column::new(&pair[1], leniency)?);
                Ok(Values::Map(Varied::new(keys), values, entries.clone()))
            }
            _ => Err(Error::invalid("a JSON object has texts as keys: expected MAP<STRING, ...>")),
        }
    }

    /// How many values it has.
    #[inline]
    pub fn len(&self) -> usize {
        self.validity.len
    }

    /// Counts a value whose data is already in the buffers.
    #[inline]
    pub fn mark_valid(&mut self) {
        self.validity.push(true);
    }

    /// Appends a null; of a column that has none, a value that stands for nothing below a null parent.
    pub fn push_null(&mut self) {
        match &mut self.values {
            Values::Boolean(values) => values.push(false),
            Values::Int8(values) => values.push(0),
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Time(values, _) | Values::Timestamp(values, _) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Decimal(values, ..) => values.push(0),
            Values::Utf8(varied) | Values::Binary(varied) => varied.offsets.push(varied.last() as i32),
            Values::List(varied, _) | Values::Map(varied, ..) => varied.offsets.push(varied.last() as i32),
            Values::Struct(fields) => fields.columns_mut().for_each(Column::push_null),
        }
        self.validity.push(!self.nullable);
    }

    /// Cuts back to `len` whole values, and drops what a failed value left in the buffers.
    pub fn truncate(&mut self, len: usize) {
        match &mut self.values {
            Values::Boolean(values) => values.truncate(len),
            Values::Int8(values) => values.truncate(len),
            Values::Int16(values) => values.truncate(len),
            Values::Int32(values) | Values::Date(values) => values.truncate(len),
            Values::Int64(values) | Values::Time(values, _) | Values::Timestamp(values, _) => values.truncate(len),
            Values::Float32(values) => values.truncate(len),
            Values::Float64(values) => values.truncate(len),
            Values::Decimal(values, ..) => values.truncate(len),
            Values::Utf8(varied) | Values::Binary(varied) => {
                varied.offsets.truncate(len + 1);
                varied.values.truncate(varied.last());
            }
            Values::List(varied, _) => {
                varied.offsets.truncate(len + 1);
                varied.values.truncate(varied.last());
            }
            Values::Map(varied, values, _) => {
                varied.offsets.truncate(len + 1);
                varied.values.truncate(varied.last());
                values.truncate(varied.last());
            }
            Values::Struct(fields) => fields.columns_mut().for_each(|column| column.truncate(len)),
        }
        self.validity.truncate(len);
    }

    /// The values as an array; empties the column.
    ///
    /// # Errors
    /// When Arrow refuses the buffers: a fault of the decoder.
    pub fn take(&mut self) -> Result<ArrayRef, ArrowError> {
        let len = self.len();
        let nulls = self.validity.take();
        Ok(match &mut self.values {
            Values::Boolean(values) => {
                let bits = BooleanBuffer::from(std::mem::take(values));
                Arc::new(BooleanArray::new(bits, nulls))
            }
            Values::Int8(values) => primitive::<Int8Type>(values, nulls),
            Values::Int16(values) => primitive::<Int16Type>(values, nulls),
            Values::Int32(values) => primitive::<Int32Type>(values, nulls),
            Values::Int64(values) => primitive::<Int64Type>(values, nulls),
            Values::Float32(values) => primitive::<Float32Type>(values, nulls),
            Values::Float64(values) => primitive::<Float64Type>(values, nulls),
            Values::Date(values) => primitive::<Date32Type>(values, nulls),
            Values::Decimal(values, precision, scale) => {
                let array = Decimal128Array::try_new(fresh(values).into(), nulls)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Values::Utf8(varied) => {
                let offsets = varied.take_offsets();
                Arc::new(StringArray::try_new(offsets, Buffer::from_vec(fresh(&mut varied.values)), nulls)?)
            }
            Values::Binary(varied) => {
                let offsets = varied.take_offsets();
                Arc::new(BinaryArray::try_new(offsets, Buffer::from_vec(fresh(&mut varied.values)), nulls)?)
            }
            Values::Time(values, unit) => times(values, *unit, nulls)?,
            Values::Timestamp(values, _) => {
                // The numbers are right; only the unit and the zone are to be named.
                let numbers = primitive::<Int64Type>(values, nulls);
                let data = numbers.to_data().into_builder().data_type(self.data_type.clone()).build()?;
                arrow::array::make_array(data)
            }
            Values::List(varied, item) => {
                let offsets = varied.take_offsets();
                Arc::new(ListArray::try_new(item.clone(), offsets, varied.values.take()?, nulls)?)
            }
            Values::Map(varied, values, entries) => {
                let offsets = varied.take_offsets();
                let pair = vec![varied.values.take()?, values.take()?];
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(ArrowError::SchemaError("a map has pairs".to_owned()));
                };
                let pairs = StructArray::try_new(fields.clone(), pair, None)?;
                Arc::new(MapArray::try_new(entries.clone(), offsets, pairs, nulls, false)?)
            }
            Values::Struct(fields) => {
                let DataType::Struct(of) = &self.data_type else {
                    return Err(ArrowError::SchemaError("a struct has fields".to_owned()));
                };
                let columns = fields.columns_mut().map(Column::take).collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new_with_length(of.clone(), columns, nulls, len)?)
            }
        })
    }
}

/// The vector, leaving an empty one with room for as much again.
fn fresh<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = values.len();
    std::mem::replace(values, Vec::with_capacity(room))
}

fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef
where
    ScalarBuffer<T::Native>: From<Vec<T::Native>>,
{
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(fresh(values)), nulls))
}

fn times(values: &mut Vec<i64>, unit: TimeUnit, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let narrow = |values: &mut Vec<i64>| ScalarBuffer::from_iter(fresh(values).into_iter().map(|v| v as i32));
    Ok(match unit {
        // A day has fewer seconds and milliseconds than an i32 has numbers.
        TimeUnit::Second => Arc::new(Time32SecondArray::try_new(narrow(values), nulls)?),
        TimeUnit::Millisecond => Arc::new(Time32MillisecondArray::try_new(narrow(values), nulls)?),
        TimeUnit::Microsecond => primitive::<arrow::datatypes::Time64MicrosecondType>(values, nulls),
        TimeUnit::Nanosecond => primitive::<arrow::datatypes::Time64NanosecondType>(values, nulls),
    })
}
