//! Numbers as written: `1` is INT, `3000000000` BIGINT, `1.50` DECIMAL(3, 2), `1e0` DOUBLE; and `TIMESTAMP '… 12:00:00.5'` and `TIME`, which have the
//! digits of their text.
//!
//! DataFusion takes whole numbers for BIGINT, which [`whole`] mends in the plan, and all others for DOUBLE, which [`spell_literals`] mends in the
//! parsed query: behind DataFusion's planner it can no longer be told whether `1.50` or `1.5e0` was written.

use std::ops::ControlFlow;

use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::Expr;
use sqlparser::ast::{self, CastKind, ExactNumberInfo, Value, VisitMut, visit_expressions_mut};

/// Writes numbers with a point or an exponent as casts of their text, and the digits of timestamps into their type.
///
/// # Errors
/// When a whole number is out of BIGINT's range.
pub(crate) fn spell_literals<T: VisitMut>(node: &mut T) -> Result<()> {
    let visited = visit_expressions_mut(node, |expr| {
        if let ast::Expr::TypedString(literal) = expr
            && let ast::DataType::Timestamp(digits @ None, _) | ast::DataType::Time(digits @ None, _) =
                &mut literal.data_type
            && let Value::SingleQuotedString(text) = &literal.value.value
        {
            let fraction = text.rsplit_once('.').map_or("", |(_, fraction)| fraction);
            *digits = u64::try_from(fraction.len()).ok();
        }
        let ast::Expr::Value(value) = expr else { return ControlFlow::Continue(()) };
        let Value::Number(text, _) = &value.value else { return ControlFlow::Continue(()) };
        if text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u64>().map_or(true, |number| number > LARGEST)
        {
            return ControlFlow::Break(text.clone());
        }
        if text.contains(['e', 'E']) && !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return ControlFlow::Break(text.clone());
        }
        if let Some(whole) = text.strip_suffix('.') {
            value.value = Value::Number(whole.to_owned(), false);
            return ControlFlow::Continue(());
        }
        if let Some(data_type) = spelled_type(text) {
            let text = Value::SingleQuotedString(text.clone());
            *expr = ast::Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(ast::Expr::Value(text.with_span(value.span))),
                data_type,
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    });
    match visited {
        ControlFlow::Break(number) => out_of_range(&number),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The largest number behind a minus.
const LARGEST: u64 = i64::MAX as u64 + 1;

fn out_of_range<T>(number: &str) -> Result<T> {
    plan_err!(
        "the number {number} is out of range\nwrite CAST('{number}' AS DECIMAL(38, 0)) if it has no more than 38 digits"
    )
}

/// The type of a number with a point or an exponent.
fn spelled_type(text: &str) -> Option<ast::DataType> {
    if text.contains(['e', 'E']) {
        return Some(ast::DataType::Double(ExactNumberInfo::None));
    }
    let (whole, fraction) = text.split_once('.')?;
    let (precision, scale) = (whole.len() + fraction.len(), fraction.len());
    let precision = u64::try_from(precision).ok()?;
    Some(ast::DataType::Decimal(ExactNumberInfo::PrecisionAndScale(precision, i64::try_from(scale).ok()?)))
}

/// A whole number as written, in the type that Flink gives it.
///
/// # Errors
/// When BIGINT does not hold it.
pub(crate) fn whole(literal: &ScalarValue) -> Result<Option<Expr>> {
    match literal {
        ScalarValue::Int64(Some(number)) => {
            Ok(i32::try_from(*number).ok().map(|number| Expr::Literal(ScalarValue::Int32(Some(number)), None)))
        }
        ScalarValue::UInt64(Some(number)) => out_of_range(&number.to_string()),
        _ => Ok(None),
    }
}
