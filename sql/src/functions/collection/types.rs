//! The types that functions of arrays and maps take and give.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion_expr::type_coercion::binary::comparison_coercion;

use crate::functions::definition::Given;

pub(super) fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

pub(super) fn entry_fields(key: DataType, value: DataType) -> Fields {
    Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)])
}

pub(super) fn map_of(key: DataType, value: DataType) -> DataType {
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry_fields(key, value)), false)), false)
}

pub(super) fn key_value(entries: &FieldRef) -> Option<(DataType, DataType)> {
    match entries.data_type() {
        DataType::Struct(fields) if fields.len() == 2 => {
            Some((fields[0].data_type().clone(), fields[1].data_type().clone()))
        }
        _ => None,
    }
}

/// All values in one type.
pub(super) fn one_type(types: &[DataType]) -> Option<Vec<DataType>> {
    let (first, rest) = types.split_first()?;
    let common = rest.iter().try_fold(first.clone(), |common, next| {
        if common == *next { Some(common) } else { comparison_coercion(&common, next) }
    })?;
    Some(vec![common; types.len()])
}

/// A value in the type of an element, if it is of its kind.
pub(super) fn same_kind(element: &DataType, value: &DataType) -> Option<DataType> {
    one_type(&[element.clone(), value.clone()]).map(|_| element.clone())
}

pub(super) fn one_list(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::List(_)] => Some(types.to_vec()),
        _ => None,
    }
}

pub(super) fn two_lists(types: &[DataType]) -> Option<Vec<DataType>> {
    let items = types.iter().map(|given| match given {
        DataType::List(item) => Some(item.data_type().clone()),
        _ => None,
    });
    let items = one_type(&items.collect::<Option<Vec<_>>>()?)?;
    Some(items.into_iter().map(list_of).collect())
}

pub(super) fn list_and_element(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::List(item), value] => {
            let common = one_type(&[item.data_type().clone(), value.clone()])?;
            Some(vec![list_of(common[0].clone()), common[1].clone()])
        }
        _ => None,
    }
}

pub(super) fn one_map(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [DataType::Map(..)] => Some(types.to_vec()),
        _ => None,
    }
}

pub(super) fn element_type(given: &Given<'_>) -> DataType {
    match given.first() {
        DataType::List(item) => item.data_type().clone(),
        _ => DataType::Null,
    }
}

pub(super) fn map_part(given: &Given<'_>, of: fn((DataType, DataType)) -> DataType) -> DataType {
    match given.first() {
        DataType::Map(entries, _) => key_value(&entries).map_or(DataType::Null, |part| list_of(of(part))),
        _ => DataType::Null,
    }
}

/// A row of values of these types.
pub(super) fn row_of(types: &[DataType]) -> DataType {
    let field = |(index, data_type): (usize, &DataType)| Field::new(format!("EXPR${index}"), data_type.clone(), true);
    DataType::Struct(types.iter().enumerate().map(field).collect())
}
