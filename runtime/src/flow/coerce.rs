//! Types of expressions made to fit each other, as SQL would make them.

use datafusion_common::DFSchema;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion_expr::type_coercion::functions::{UDFCoercionExt, fields_with_udf};
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable};

use crate::Result;

/// Gives both sides of every comparison and calculation a common type, and functions the types that they take, as SQL would.
pub(super) fn coerced(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let common = |expr: Expr| match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (from, to) = (left.get_type(schema)?, right.get_type(schema)?);
            let (to_left, to_right) = BinaryTypeCoercer::new(&from, &op, &to).get_input_types()?;
            let (left, right) = (left.cast_to(&to_left, schema)?, right.cast_to(&to_right, schema)?);
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))))
        }
        Expr::ScalarFunction(mut call) => {
            call.args = coerced_arguments(call.args, schema, call.func.as_ref())?;
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        Expr::AggregateFunction(mut call) => {
            call.params.args = coerced_arguments(call.params.args, schema, call.func.as_ref())?;
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    };
    Ok(expr.transform_up(common)?.data)
}

fn coerced_arguments(
    arguments: Vec<Expr>,
    schema: &DFSchema,
    function: &impl UDFCoercionExt,
) -> datafusion_common::Result<Vec<Expr>> {
    let field = |argument: &Expr| argument.to_field(schema).map(|(_, field)| field);
    let fields = arguments.iter().map(field).collect::<datafusion_common::Result<Vec<_>>>()?;
    let types = fields_with_udf(&fields, function)?;
    arguments.into_iter().zip(types).map(|(argument, to)| argument.cast_to(to.data_type(), schema)).collect()
}
