//! `array[index]` and `map[key]`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use datafusion_common::{DFSchema, Result, exec_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion_expr::{Expr, ExprSchemable, GetFieldAccess, ScalarUDF, lit};

use super::COLLECTION;
use crate::functions::call::Call;
use crate::functions::definition::Scalar;
use crate::functions::zone::Zone;

pub(super) fn item(call: &Call<'_>) -> Result<ArrayRef> {
    let column = call.column(0)?;
    if let Some(map) = column.as_map_opt() {
        let keys = call.column(1)?;
        let converter = RowConverter::new(vec![SortField::new(keys.data_type().clone())])?;
        let (of_map, wanted) =
            (converter.convert_columns(&[Arc::clone(map.keys())])?, converter.convert_columns(&[keys])?);
        let index = |row: usize| {
            let mut range = map.value_offsets()[row] as usize..map.value_offsets()[row + 1] as usize;
            let found = range.find(|at| of_map.row(*at) == wanted.row(row));
            found.filter(|_| map.is_valid(row)).map(|at| at as u32)
        };
        return Ok(take(map.values(), &(0..call.rows).map(index).collect::<UInt32Array>(), None)?);
    }
    let Some(list) = column.as_list_opt::<i32>() else { return Ok(new_null_array(call.gives, call.rows)) };
    let indices = call.wholes(1)?;
    let mut places = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let (start, end) = (i64::from(list.value_offsets()[row]), i64::from(list.value_offsets()[row + 1]));
        let index = indices.get(row).filter(|_| list.is_valid(row));
        if let Some(index @ ..1) = index {
            return exec_err!("an array has no element {index}: positions count from 1");
        }
        places.push(index.map(|index| start + index - 1).filter(|at| *at < end).and_then(|at| u32::try_from(at).ok()));
    }
    Ok(take(list.values(), &UInt32Array::from(places), None)?)
}

/// Plans `array[index]` and `map[key]`.
#[derive(Debug)]
pub(crate) struct Access;

impl ExprPlanner for Access {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let of = access.expr.get_type(schema)?;
        let key = match (&access.field_access, of) {
            (GetFieldAccess::ListIndex { key }, DataType::List(_) | DataType::Map(..)) => key.as_ref().clone(),
            (GetFieldAccess::NamedStructField { name }, DataType::Map(..)) => lit(name.clone()),
            _ => return Ok(PlannerResult::Original(access)),
        };
        let Some(function) = COLLECTION.iter().find(|function| function.name == "ITEM []") else {
            return Ok(PlannerResult::Original(access));
        };
        let function = Arc::new(ScalarUDF::new_from_impl(Scalar::new(function, Zone::UTC)));
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![access.expr, key]))))
    }
}
