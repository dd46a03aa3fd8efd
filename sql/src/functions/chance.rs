//! Values of chance: another one at each call, also for the same row after a restart.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array};
use datafusion_common::{Result, exec_err};
use rand::{Rng, RngCore};

use super::call::Call;
use super::definition::Kind::Whole;
use super::definition::{Function, Nulls, Takes, Varies, gives};

pub(crate) static CHANCE: &[Function] = &[
    Function::new(
        "UUID",
        "UUID()",
        "a random UUID (version 4) as text",
        Takes::These(0, &[]),
        gives::text,
        Nulls::Never,
        |call| {
            let mut generator = generator();
            call.text_rows(|_, out| {
                let mut bytes = [0; 16];
                generator.fill_bytes(&mut bytes);
                out.push_str(uuid::Builder::from_random_bytes(bytes).as_uuid().hyphenated().encode_lower(&mut [0; 36]));
                Some(())
            })
        },
    )
    .varying(Varies::ByChance),
    Function::new(
        "RAND",
        "RAND()",
        "a random DOUBLE from 0 to below 1",
        Takes::These(0, &[]),
        gives::double,
        Nulls::Never,
        |call| {
            let mut generator = generator();
            Ok(Arc::new(Float64Array::from_iter_values((0..call.rows).map(|_| generator.random::<f64>()))))
        },
    )
    .varying(Varies::ByChance),
    Function::new(
        "RAND_INTEGER",
        "RAND_INTEGER(bound)",
        "a random INT from 0 to below the bound",
        Takes::These(1, &[Whole]),
        gives::int,
        Nulls::Strict,
        rand_integer,
    )
    .varying(Varies::ByChance),
];

#[expect(clippy::disallowed_methods, reason = "chance is what these functions are for")]
fn generator() -> rand::rngs::ThreadRng {
    rand::rng()
}

fn rand_integer(call: &Call<'_>) -> Result<ArrayRef> {
    let (bounds, mut generator) = (call.wholes(0)?, generator());
    let mut draw = |row: usize| match bounds.get(row).map(|bound| (bound, i32::try_from(bound))) {
        None => Ok(None),
        Some((_, Ok(bound))) if bound > 0 => Ok(Some(generator.random_range(0..bound))),
        Some((bound, _)) => exec_err!("RAND_INTEGER: the bound is {bound}, expected 1 to {}", i32::MAX),
    };
    Ok(Arc::new((0..call.rows).map(&mut draw).collect::<Result<Int32Array>>()?))
}
