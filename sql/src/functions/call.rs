//! A call of a function over a batch: typed access to its arguments, and loops that build its result.
//!
//! A constant argument is one value that every row reads; it is never expanded.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayAccessor, ArrayRef, ArrowPrimitiveType, AsArray, BinaryArray, BinaryBuilder, BooleanArray, PrimitiveArray,
    StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion_common::{Result, exec_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs};

use super::zone::Zone;

/// The arguments of one call.
pub(crate) struct Call<'a> {
    args: Vec<Argument>,
    /// How many values the result has.
    pub rows: usize,
    /// The type of the result.
    pub gives: &'a DataType,
    /// The session's time zone.
    pub zone: Zone,
}

struct Argument {
    values: ArrayRef,
    /// 1, or 0 for a constant.
    step: usize,
}

/// The values of one argument, by row.
#[derive(Clone, Copy)]
pub(crate) struct Values<A> {
    array: A,
    step: usize,
}

pub(crate) type Texts<'a> = Values<&'a StringArray>;
pub(crate) type Wholes<'a> = Values<&'a PrimitiveArray<Int64Type>>;

impl<A: ArrayAccessor> Values<A> {
    /// A row's value; nothing for null.
    #[inline]
    pub fn get(&self, row: usize) -> Option<A::Item> {
        let index = row * self.step;
        self.array.is_valid(index).then(|| self.array.value(index))
    }
}

impl<'a> Call<'a> {
    /// Over one row if all arguments are constant.
    pub fn new(args: &'a ScalarFunctionArgs, constant: bool, zone: Zone) -> Result<Self> {
        let argument = |argument: &ColumnarValue| -> Result<Argument> {
            Ok(match argument {
                ColumnarValue::Array(values) => Argument { values: Arc::clone(values), step: 1 },
                ColumnarValue::Scalar(value) => Argument { values: value.to_array()?, step: 0 },
            })
        };
        let columns = args.args.iter().map(argument).collect::<Result<_>>()?;
        let rows = if constant { 1 } else { args.number_rows };
        Ok(Call { args: columns, rows, gives: args.return_field.data_type(), zone })
    }

    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// The argument's values as they are: one value if it is constant, else one a row.
    pub fn raw(&self, index: usize) -> Result<&ArrayRef> {
        match self.args.get(index) {
            Some(argument) => Ok(&argument.values),
            None => exec_err!("argument {index} is missing"),
        }
    }

    /// Where a row's value stands in [`Call::raw`].
    #[inline]
    pub fn at(&self, index: usize, row: usize) -> usize {
        row * self.args[index].step
    }

    /// The argument with one value a row.
    pub fn column(&self, index: usize) -> Result<ArrayRef> {
        let values = self.raw(index)?;
        if self.args[index].step == 1 || self.rows == 1 {
            return Ok(Arc::clone(values));
        }
        let indices = arrow::array::UInt32Array::from(vec![0; self.rows]);
        Ok(arrow::compute::take(values.as_ref(), &indices, None)?)
    }

    pub fn texts(&self, index: usize) -> Result<Texts<'_>> {
        match self.raw(index)?.as_string_opt::<i32>() {
            Some(array) => Ok(Values { array, step: self.args[index].step }),
            None => exec_err!("argument {index} is no text"),
        }
    }

    pub fn bytes(&self, index: usize) -> Result<Values<&BinaryArray>> {
        match self.raw(index)?.as_binary_opt::<i32>() {
            Some(array) => Ok(Values { array, step: self.args[index].step }),
            None => exec_err!("argument {index} is no BYTES"),
        }
    }

    pub fn bools(&self, index: usize) -> Result<Values<&BooleanArray>> {
        match self.raw(index)?.as_boolean_opt() {
            Some(array) => Ok(Values { array, step: self.args[index].step }),
            None => exec_err!("argument {index} is no BOOLEAN"),
        }
    }

    pub fn values<T: ArrowPrimitiveType>(&self, index: usize) -> Result<Values<&PrimitiveArray<T>>> {
        match self.raw(index)?.as_primitive_opt::<T>() {
            Some(array) => Ok(Values { array, step: self.args[index].step }),
            None => exec_err!("argument {index} is no {}", T::DATA_TYPE),
        }
    }

    pub fn wholes(&self, index: usize) -> Result<Wholes<'_>> {
        self.values::<Int64Type>(index)
    }

    pub fn doubles(&self, index: usize) -> Result<Values<&PrimitiveArray<Float64Type>>> {
        self.values::<Float64Type>(index)
    }

    /// A text for each row, which `write` appends to an empty string; nothing for null.
    pub fn text_rows(&self, mut write: impl FnMut(usize, &mut String) -> Option<()>) -> Result<ArrayRef> {
        self.try_text_rows(|row, out| Ok(write(row, out)))
    }

    /// The same, where a row can fail.
    pub fn try_text_rows(&self, mut write: impl FnMut(usize, &mut String) -> Result<Option<()>>) -> Result<ArrayRef> {
        let mut builder = StringBuilder::with_capacity(self.rows, self.rows * 16);
        let mut text = String::new();
        for row in 0..self.rows {
            text.clear();
            match write(row, &mut text)? {
                Some(()) => builder.append_value(&text),
                None => builder.append_null(),
            }
        }
        Ok(Arc::new(builder.finish()))
    }

    /// A piece of an argument for each row, without a copy in between.
    pub fn slices<'b>(&self, mut slice: impl FnMut(usize) -> Option<&'b str>) -> Result<ArrayRef> {
        let mut builder = StringBuilder::with_capacity(self.rows, self.rows * 16);
        for row in 0..self.rows {
            builder.append_option(slice(row));
        }
        Ok(Arc::new(builder.finish()))
    }

    pub fn bytes_rows(&self, mut write: impl FnMut(usize, &mut Vec<u8>) -> Result<Option<()>>) -> Result<ArrayRef> {
        let mut builder = BinaryBuilder::with_capacity(self.rows, self.rows * 16);
        let mut bytes = Vec::new();
        for row in 0..self.rows {
            bytes.clear();
            match write(row, &mut bytes)? {
                Some(()) => builder.append_value(&bytes),
                None => builder.append_null(),
            }
        }
        Ok(Arc::new(builder.finish()))
    }

    pub fn bool_rows(&self, value: impl FnMut(usize) -> Option<bool>) -> Result<ArrayRef> {
        Ok(Arc::new((0..self.rows).map(value).collect::<BooleanArray>()))
    }

    pub fn rows_of<T: ArrowPrimitiveType>(
        &self,
        mut value: impl FnMut(usize) -> Option<T::Native>,
    ) -> Result<ArrayRef> {
        self.try_rows_of::<T>(|row| Ok(value(row)))
    }

    pub fn try_rows_of<T: ArrowPrimitiveType>(
        &self,
        value: impl FnMut(usize) -> Result<Option<T::Native>>,
    ) -> Result<ArrayRef> {
        let values = (0..self.rows).map(value).collect::<Result<PrimitiveArray<T>>>()?;
        Ok(Arc::new(values.with_data_type(self.gives.clone())))
    }
}

/// What texts were compiled to in this call: a constant pattern is compiled once a batch.
pub(crate) struct Memo<'a, T> {
    last: Option<(&'a str, Arc<T>)>,
    all: HashMap<&'a str, Arc<T>>,
}

impl<'a, T> Memo<'a, T> {
    pub fn new() -> Self {
        Memo { last: None, all: HashMap::new() }
    }

    pub fn get(&mut self, text: &'a str, make: impl FnOnce(&str) -> T) -> Arc<T> {
        if let Some((last, made)) = &self.last
            && *last == text
        {
            return Arc::clone(made);
        }
        let made = Arc::clone(self.all.entry(text).or_insert_with(|| Arc::new(make(text))));
        self.last = Some((text, Arc::clone(&made)));
        made
    }
}

/// Appends a number without leading zeros.
pub(crate) fn push_number(out: &mut String, number: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{number}");
}
