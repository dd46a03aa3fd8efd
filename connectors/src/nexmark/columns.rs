//! The columns of a table of events: checked against what there is, and made a batch at a time.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, StringArray, StructArray, TimestampMillisecondArray};
use arrow::array::{Int64Array, PrimitiveArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Fields, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_runtime::options::nearest;
use coulee_runtime::{Error, Result};

use super::event::{Events, Generator};
use super::fields::{DATE_TIME, Field, Values};
use super::kind::Kind;

/// How one column is made.
#[derive(Debug, Clone)]
enum Column {
    /// Flink's `event_type`: 0 person, 1 auction, 2 bid.
    EventType(DataType),
    /// A field of every event.
    Field(Field, DataType),
    /// The fields of one kind, null for the others.
    Row(Kind, Fields, Vec<Field>),
}

/// The columns of a table.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    schema: SchemaRef,
    columns: Vec<Column>,
}

impl Columns {
    /// Checks the columns of a table of `kind`, or of all kinds. Upper and lower case of a name do not matter; rows may
    /// leave fields out.
    pub(super) fn new(owner: &str, schema: &SchemaRef, kind: Option<Kind>) -> Result<Self> {
        let column = |field: &arrow::datatypes::FieldRef| {
            let column = match kind {
                None => column_of_all(field.name(), field.data_type()),
                Some(kind) => column_of(kind, "column", field.name(), field.data_type()),
            };
            column.map_err(|problem| Error::invalid(format!("{owner}: {problem}")))
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_>>()?;
        Ok(Columns { schema: Arc::clone(schema), columns })
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The rows of some events.
    pub(super) fn make(&self, generator: &Generator, events: &Events) -> Result<RecordBatch> {
        let columns = self.columns.iter().map(|column| column.make(generator, events)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(events.len()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?)
    }
}

fn column_of_all(name: &str, data_type: &DataType) -> Result<Column, String> {
    if name.eq_ignore_ascii_case("event_type") {
        return match data_type {
            DataType::Int32 | DataType::Int64 => Ok(Column::EventType(data_type.clone())),
            _ => Err(format!("column '{name}' is {data_type}, expected INT")),
        };
    }
    if name.eq_ignore_ascii_case(DATE_TIME.name) {
        return field_column("column", name, DATE_TIME, data_type);
    }
    let Some(kind) = Kind::ALL.into_iter().find(|kind| name.eq_ignore_ascii_case(kind.name())) else {
        let known = ["event_type", "person", "auction", "bid", "dateTime"];
        return Err(unknown(&format!("column '{name}'"), name, &known, &known.join(", ")));
    };
    let DataType::Struct(fields) = data_type else {
        return Err(format!("column '{name}' is {data_type}, expected ROW<{}>", listed(kind)));
    };
    let place = format!("field of column '{name}':");
    let made = fields.iter().map(|field| match column_of(kind, &place, field.name(), field.data_type())? {
        Column::Field(made, _) => Ok(made),
        Column::EventType(_) | Column::Row(..) => unreachable!("a kind has plain fields only"),
    });
    Ok(Column::Row(kind, fields.clone(), made.collect::<Result<_, String>>()?))
}

fn column_of(kind: Kind, place: &str, name: &str, data_type: &DataType) -> Result<Column, String> {
    match kind.fields().iter().find(|field| name.eq_ignore_ascii_case(field.name)) {
        Some(field) => field_column(place, name, *field, data_type),
        None => {
            let names: Vec<&str> = kind.fields().iter().map(|field| field.name).collect();
            Err(unknown(&format!("{place} '{name}'"), name, &names, &listed(kind)))
        }
    }
}

fn field_column(place: &str, name: &str, field: Field, data_type: &DataType) -> Result<Column, String> {
    let fits = match field.values {
        Values::Long(_) => *data_type == DataType::Int64,
        Values::Time(_) => matches!(data_type, DataType::Timestamp(..)),
        Values::Text(_) => matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
    };
    if fits {
        return Ok(Column::Field(field, data_type.clone()));
    }
    Err(format!("{place} '{name}' is {data_type}, expected {}", field.values.sql_type()))
}

fn unknown(what: &str, name: &str, known: &[&str], listed: &str) -> String {
    let hint = nearest(name, known).map(|near| format!("did you mean '{near}'? ")).unwrap_or_default();
    format!("nexmark has no {what}; {hint}there are {listed}")
}

fn listed(kind: Kind) -> String {
    let fields: Vec<String> = kind.fields().iter().map(|field| format!("{field:?}")).collect();
    fields.join(", ")
}

impl Column {
    fn make(&self, generator: &Generator, events: &Events) -> Result<ArrayRef> {
        match self {
            Column::EventType(as_type) => {
                let types = events.clone().map(|event| generator.kind(&event) as i32);
                cast(Arc::new(Int32Array::from_iter_values(types)), as_type)
            }
            Column::Field(field, as_type) => cast(field_of_every_event(*field, generator, events), as_type),
            Column::Row(kind, fields, made) => {
                let present: Vec<bool> = events.clone().map(|event| generator.kind(&event) == *kind).collect();
                let present = NullBuffer::from(present);
                let arrays = made.iter().zip(fields).map(|(field, declared)| {
                    cast(field_of_kind(*field, generator, events, &present), declared.data_type())
                });
                let arrays = arrays.collect::<Result<Vec<_>>>()?;
                if arrays.is_empty() {
                    return Ok(Arc::new(StructArray::new_empty_fields(events.len(), Some(present))));
                }
                Ok(Arc::new(StructArray::try_new(fields.clone(), arrays, Some(present))?))
            }
        }
    }
}

fn cast(array: ArrayRef, as_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == as_type { Ok(array) } else { Ok(arrow::compute::cast(&array, as_type)?) }
}

fn field_of_every_event(field: Field, generator: &Generator, events: &Events) -> ArrayRef {
    let mut numbers = Vec::new();
    let mut run = |make: fn(&Generator, Events, &mut Vec<i64>)| {
        numbers.reserve(events.len());
        make(generator, events.clone(), &mut numbers);
        std::mem::take(&mut numbers)
    };
    match field.values {
        Values::Long(make) => Arc::new(Int64Array::from(run(make))),
        Values::Time(make) => Arc::new(TimestampMillisecondArray::from(run(make))),
        Values::Text(make) => {
            let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(events.len() + 1));
            ends.push(0);
            for event in events.clone() {
                make(generator, &event, &mut bytes);
                ends.push(bytes.len() as i32);
            }
            text(bytes, ends, None)
        }
    }
}

/// As above, with nulls where the event is of another kind.
///
/// The fields of a null row are null themselves: whoever takes a field out of a row need not look at the row.
fn field_of_kind(field: Field, generator: &Generator, events: &Events, present: &NullBuffer) -> ArrayRef {
    let nulls = Some(present.clone());
    let numbers = |make: fn(&Generator, Events, &mut Vec<i64>)| {
        // Numbers are cheaper to make for every event than to leave out.
        let mut numbers = Vec::with_capacity(events.len());
        make(generator, events.clone(), &mut numbers);
        numbers
    };
    match field.values {
        Values::Long(make) => nullable::<arrow::datatypes::Int64Type>(numbers(make), nulls),
        Values::Time(make) => nullable::<arrow::datatypes::TimestampMillisecondType>(numbers(make), nulls),
        Values::Text(make) => {
            let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(events.len() + 1));
            ends.push(0);
            for (event, present) in events.clone().zip(present) {
                if present {
                    make(generator, &event, &mut bytes);
                }
                ends.push(bytes.len() as i32);
            }
            text(bytes, ends, nulls)
        }
    }
}

fn nullable<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls))
}

fn text(bytes: Vec<u8>, ends: Vec<i32>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(StringArray::new(OffsetBuffer::new(ends.into()), bytes.into(), nulls))
}

/// The columns that Flink's table has.
#[cfg(test)]
pub(super) fn full_schema(kind: Option<Kind>) -> SchemaRef {
    use arrow::datatypes::{Field as ArrowField, Schema, TimeUnit};
    let fields = |kind: Kind| -> Vec<ArrowField> {
        let of = |field: &Field| {
            let data_type = match field.values {
                Values::Long(_) => DataType::Int64,
                Values::Time(_) => DataType::Timestamp(TimeUnit::Millisecond, None),
                Values::Text(_) => DataType::Utf8,
            };
            ArrowField::new(field.name, data_type, true)
        };
        kind.fields().iter().map(of).collect()
    };
    Arc::new(Schema::new(match kind {
        Some(kind) => fields(kind),
        None => {
            let mut columns = vec![ArrowField::new("event_type", DataType::Int32, true)];
            columns.extend(Kind::ALL.map(|kind| ArrowField::new_struct(kind.name(), fields(kind), true)));
            columns.push(ArrowField::new("dateTime", DataType::Timestamp(TimeUnit::Millisecond, None), true));
            columns
        }
    }))
}
