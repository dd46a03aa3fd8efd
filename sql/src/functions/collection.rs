//! Arrays and maps: making, reading, searching, changing.

mod access;
mod elements;
mod maps;
mod types;

use std::sync::Arc;

use arrow::array::StructArray;
use arrow::datatypes::DataType;

use datafusion_common::{Result, exec_err};

use super::definition::Kind::{Any, Bool, Text, Whole};
use super::definition::{Function, Nulls, Takes, gives};
pub(crate) use access::Access;
use access::item;
use elements::{array, cardinality, combined, contains, distinct, element, join, picked, position, slice, sort};
use maps::{map, map_from_arrays, map_list, map_union};
use types::{
    element_type, entry_fields, key_value, list_and_element, list_of, map_of, map_part, one_list, one_map, one_type,
    row_of, same_kind, two_lists,
};

pub(crate) static COLLECTION: &[Function] = &[
    Function::new(
        "ARRAY []",
        "ARRAY[value, …]",
        "an array: ARRAY[1, 2]",
        Takes::Own(one_type),
        |given| list_of(given.first()),
        Nulls::Never,
        array,
    ),
    Function::new(
        "ROW",
        "ROW(value, …)",
        "a row, whose fields are EXPR$0, EXPR$1, …: ROW(1, 'a')",
        Takes::Many(&[Any, Any]),
        |given| row_of(given.types),
        Nulls::Never,
        |call| {
            let columns = (0..call.len()).map(|index| call.column(index)).collect::<Result<Vec<_>>>()?;
            let DataType::Struct(fields) = call.gives else { return exec_err!("a row has type {}", call.gives) };
            Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None)?))
        },
    ),
    Function::new(
        "MAP []",
        "MAP[key, value, …]",
        "a map: MAP['a', 1]",
        Takes::Own(|types| {
            let of = |first: usize| one_type(&types.iter().skip(first).step_by(2).cloned().collect::<Vec<_>>());
            let (keys, values) = (of(0)?, of(1)?);
            (keys.len() == values.len())
                .then(|| keys.into_iter().zip(values).flat_map(|(key, value)| [key, value]).collect())
        }),
        |given| map_of(given.first(), given.last()),
        Nulls::Never,
        map,
    ),
    Function::new(
        "ITEM []",
        "array[index] or map[key]",
        "an element, from 1, or a key's value; null if there is none",
        Takes::Own(|types| match types {
            [list @ DataType::List(_), index] => Some(vec![list.clone(), Whole.convert(index)?]),
            [map @ DataType::Map(entries, _), key] => Some(vec![map.clone(), same_kind(&key_value(entries)?.0, key)?]),
            _ => None,
        }),
        |given| match given.first() {
            DataType::List(item) => item.data_type().clone(),
            DataType::Map(entries, _) => key_value(&entries).map_or(DataType::Null, |(_, value)| value),
            _ => DataType::Null,
        },
        Nulls::Own,
        item,
    ),
    Function::new(
        "CARDINALITY",
        "CARDINALITY(array | map)",
        "the number of elements: CARDINALITY(ARRAY[1, 2]) = 2",
        Takes::Own(|types| match types {
            [given @ (DataType::List(_) | DataType::Map(..))] => Some(vec![given.clone()]),
            _ => None,
        }),
        gives::int,
        Nulls::Strict,
        cardinality,
    ),
    Function::new(
        "ELEMENT",
        "ELEMENT(array)",
        "the only element; null of an empty array: ELEMENT(ARRAY[5]) = 5",
        Takes::Own(one_list),
        element_type,
        Nulls::Own,
        element,
    ),
    Function::new(
        "ARRAY_CONTAINS",
        "ARRAY_CONTAINS(array, value)",
        "whether a value (or null) is in an array: ARRAY_CONTAINS(ARRAY[1, 2], 2)",
        Takes::Own(list_and_element),
        gives::boolean,
        Nulls::Own,
        contains,
    ),
    Function::new(
        "ARRAY_POSITION",
        "ARRAY_POSITION(array, value)",
        "where a value is first, from 1; 0 if nowhere: ARRAY_POSITION(ARRAY[3, 1], 1) = 2",
        Takes::Own(list_and_element),
        gives::int,
        Nulls::Strict,
        position,
    ),
    Function::new(
        "ARRAY_REMOVE",
        "ARRAY_REMOVE(array, value)",
        "without a value: ARRAY_REMOVE(ARRAY[1, 2, 1], 1) = ARRAY[2]",
        Takes::Own(list_and_element),
        gives::same,
        Nulls::Own,
        |call| combined(call, |lists| lists[0].iter().filter(|item| **item != lists[1][0]).copied().collect()),
    ),
    Function::new(
        "ARRAY_DISTINCT",
        "ARRAY_DISTINCT(array)",
        "each value once: ARRAY_DISTINCT(ARRAY[1, 2, 1]) = ARRAY[1, 2]",
        Takes::Own(one_list),
        gives::same,
        Nulls::Strict,
        |call| combined(call, |lists| distinct(lists[0].clone())),
    ),
    Function::new(
        "ARRAY_UNION",
        "ARRAY_UNION(array, array)",
        "the values of both, each once: ARRAY_UNION(ARRAY[1, 2], ARRAY[2, 3]) = ARRAY[1, 2, 3]",
        Takes::Own(two_lists),
        gives::same,
        Nulls::Strict,
        |call| combined(call, |lists| distinct(lists.concat())),
    ),
    Function::new(
        "ARRAY_INTERSECT",
        "ARRAY_INTERSECT(array, array)",
        "the values that are in both, each once",
        Takes::Own(two_lists),
        gives::same,
        Nulls::Strict,
        |call| {
            combined(call, |lists| distinct(lists[0].iter().filter(|item| lists[1].contains(item)).copied().collect()))
        },
    ),
    Function::new(
        "ARRAY_EXCEPT",
        "ARRAY_EXCEPT(array, array)",
        "the values that are in the first only, each once",
        Takes::Own(two_lists),
        gives::same,
        Nulls::Strict,
        |call| {
            combined(call, |lists| distinct(lists[0].iter().filter(|item| !lists[1].contains(item)).copied().collect()))
        },
    ),
    Function::new(
        "ARRAY_CONCAT",
        "ARRAY_CONCAT(array, …)",
        "one after the other: ARRAY_CONCAT(ARRAY[1], ARRAY[2]) = ARRAY[1, 2]",
        Takes::Own(two_lists),
        gives::same,
        Nulls::Strict,
        |call| combined(call, |lists| lists.concat()),
    ),
    Function::new(
        "ARRAY_REVERSE",
        "ARRAY_REVERSE(array)",
        "backwards: ARRAY_REVERSE(ARRAY[1, 2]) = ARRAY[2, 1]",
        Takes::Own(one_list),
        gives::same,
        Nulls::Strict,
        |call| combined(call, |lists| lists[0].iter().rev().copied().collect()),
    ),
    Function::new(
        "ARRAY_APPEND",
        "ARRAY_APPEND(array, value)",
        "with a value behind: ARRAY_APPEND(ARRAY[1], 2) = ARRAY[1, 2]",
        Takes::Own(list_and_element),
        gives::same,
        Nulls::Own,
        |call| combined(call, |lists| lists.concat()),
    ),
    Function::new(
        "ARRAY_PREPEND",
        "ARRAY_PREPEND(array, value)",
        "with a value in front: ARRAY_PREPEND(ARRAY[1], 2) = ARRAY[2, 1]",
        Takes::Own(list_and_element),
        gives::same,
        Nulls::Own,
        |call| combined(call, |lists| [lists[1].clone(), lists[0].clone()].concat()),
    ),
    Function::new(
        "ARRAY_SORT",
        "ARRAY_SORT(array[, ascending[, null first]])",
        "in order; null is the least unless said otherwise: ARRAY_SORT(ARRAY[3, 1, 2]) = ARRAY[1, 2, 3]",
        Takes::Own(|types| match types {
            [list @ DataType::List(_), rest @ ..] if rest.len() < 3 => {
                let rest = rest.iter().map(|given| Bool.convert(given)).collect::<Option<Vec<_>>>()?;
                Some([vec![list.clone()], rest].concat())
            }
            _ => None,
        }),
        gives::same,
        Nulls::Strict,
        sort,
    ),
    Function::new(
        "ARRAY_SLICE",
        "ARRAY_SLICE(array, from[, to])",
        "the elements of two positions and between; negative ones count from the end: ARRAY_SLICE(ARRAY[1, 2, 3], 2) = ARRAY[2, 3]",
        Takes::Own(|types| match types {
            [list @ DataType::List(_), rest @ ..] if (1..3).contains(&rest.len()) => {
                let rest = rest.iter().map(|given| Whole.convert(given)).collect::<Option<Vec<_>>>()?;
                Some([vec![list.clone()], rest].concat())
            }
            _ => None,
        }),
        gives::same,
        Nulls::Strict,
        slice,
    ),
    Function::new(
        "ARRAY_MAX",
        "ARRAY_MAX(array)",
        "the greatest element, null aside: ARRAY_MAX(ARRAY[1, 3, 2]) = 3",
        Takes::Own(one_list),
        element_type,
        Nulls::Own,
        |call| picked(call, |items| items.iter().filter(|item| !item.is_null).max_by(|a, b| a.key.cmp(&b.key))),
    ),
    Function::new(
        "ARRAY_MIN",
        "ARRAY_MIN(array)",
        "the least element, null aside: ARRAY_MIN(ARRAY[1, 3, 2]) = 1",
        Takes::Own(one_list),
        element_type,
        Nulls::Own,
        |call| picked(call, |items| items.iter().filter(|item| !item.is_null).min_by(|a, b| a.key.cmp(&b.key))),
    ),
    Function::new(
        "ARRAY_JOIN",
        "ARRAY_JOIN(array, separator[, null text])",
        "texts with a separator between; null is left out or replaced: ARRAY_JOIN(ARRAY['a', 'b'], ',') = 'a,b'",
        Takes::Own(|types| match types {
            [DataType::List(item), rest @ ..] if (1..3).contains(&rest.len()) => {
                let rest = rest.iter().map(|given| Text.convert(given)).collect::<Option<Vec<_>>>()?;
                Some([vec![list_of(Text.convert(item.data_type())?)], rest].concat())
            }
            _ => None,
        }),
        gives::text,
        Nulls::Strict,
        join,
    ),
    Function::new(
        "MAP_KEYS",
        "MAP_KEYS(map)",
        "the keys: MAP_KEYS(MAP['a', 1]) = ARRAY['a']",
        Takes::Own(one_map),
        |given| map_part(given, |(key, _)| key),
        Nulls::Strict,
        |call| map_list(call, |map| Arc::clone(map.keys())),
    ),
    Function::new(
        "MAP_VALUES",
        "MAP_VALUES(map)",
        "the values: MAP_VALUES(MAP['a', 1]) = ARRAY[1]",
        Takes::Own(one_map),
        |given| map_part(given, |(_, value)| value),
        Nulls::Strict,
        |call| map_list(call, |map| Arc::clone(map.values())),
    ),
    Function::new(
        "MAP_ENTRIES",
        "MAP_ENTRIES(map)",
        "the entries as rows of key and value",
        Takes::Own(one_map),
        |given| map_part(given, |(key, value)| DataType::Struct(entry_fields(key, value))),
        Nulls::Strict,
        |call| {
            map_list(call, |map| {
                let (keys, values) = (map.keys(), map.values());
                let fields = entry_fields(keys.data_type().clone(), values.data_type().clone());
                Arc::new(StructArray::new(fields, vec![Arc::clone(keys), Arc::clone(values)], None))
            })
        },
    ),
    Function::new(
        "MAP_FROM_ARRAYS",
        "MAP_FROM_ARRAYS(keys, values)",
        "a map of two arrays of one length: MAP_FROM_ARRAYS(ARRAY['a'], ARRAY[1])",
        Takes::Own(|types| match types {
            [keys @ DataType::List(_), values @ DataType::List(_)] => Some(vec![keys.clone(), values.clone()]),
            _ => None,
        }),
        |given| {
            let item = |list: DataType| match list {
                DataType::List(item) => item.data_type().clone(),
                other => other,
            };
            map_of(item(given.first()), item(given.last()))
        },
        Nulls::Strict,
        map_from_arrays,
    ),
    Function::new(
        "MAP_UNION",
        "MAP_UNION(map, …)",
        "the entries of all; a later one wins: MAP_UNION(MAP['a', 1], MAP['a', 2])",
        Takes::Own(|types| {
            let first = types.first().filter(|given| matches!(given, DataType::Map(..)))?;
            types.iter().map(|given| (given == first).then(|| given.clone())).collect()
        }),
        gives::same,
        Nulls::Strict,
        map_union,
    ),
];
