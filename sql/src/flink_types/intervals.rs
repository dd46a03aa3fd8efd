//! `INTERVAL '1 02:03' DAY TO MINUTE`: Flink's intervals, spelled for DataFusion, which knows one unit only.

use std::ops::ControlFlow;

use sqlparser::ast::{self, DateTimeField, Spanned, Value, VisitMut, visit_expressions_mut};

const SECOND_MILLIS: i64 = 1000;
const MINUTE_MILLIS: i64 = 60 * SECOND_MILLIS;
const HOUR_MILLIS: i64 = 60 * MINUTE_MILLIS;
const DAY_MILLIS: i64 = 24 * HOUR_MILLIS;

/// The units that an interval may span, from the coarsest.
const SPANNED: [DateTimeField; 6] = [
    DateTimeField::Year,
    DateTimeField::Month,
    DateTimeField::Day,
    DateTimeField::Hour,
    DateTimeField::Minute,
    DateTimeField::Second,
];

/// Writes intervals as months, days and seconds. What is no interval of Flink's stays as it is, for the planner to refuse.
pub(crate) fn spell_intervals<T: VisitMut>(node: &mut T) {
    // Nothing breaks the visit off.
    let _: ControlFlow<()> = visit_expressions_mut(node, |expr| {
        if let ast::Expr::Interval(interval) = expr
            && let Some(text) = spelled(interval)
        {
            let span = interval.value.span();
            *interval.value = ast::Expr::Value(Value::SingleQuotedString(text).with_span(span));
            interval.leading_field = None;
            interval.leading_precision = None;
            interval.last_field = None;
            interval.fractional_seconds_precision = None;
        }
        ControlFlow::Continue(())
    });
}

fn spelled(interval: &ast::Interval) -> Option<String> {
    let leading = interval.leading_field.as_ref()?;
    let (is_negative, text) = value(&interval.value)?;
    let units = units(leading, interval.last_field.as_ref())?;
    let (months, millis) = amounts(text.trim(), &units)?;
    let sign = if is_negative { -1 } else { 1 };
    let (months, millis) = (months * sign, millis * sign);
    let (days, rest) = (millis / DAY_MILLIS, millis % DAY_MILLIS);
    Some(format!("{months} months {days} days {rest} milliseconds"))
}

/// The text of an interval, and whether a minus stands in front of it.
fn value(expr: &ast::Expr) -> Option<(bool, &str)> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some((false, text)),
            _ => None,
        },
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr } => {
            value(expr).map(|(is_negative, text)| (!is_negative, text))
        }
        ast::Expr::UnaryOp { op: ast::UnaryOperator::Plus, expr } => value(expr),
        _ => None,
    }
}

/// The units from the leading to the last one.
fn units(leading: &DateTimeField, last: Option<&DateTimeField>) -> Option<Vec<DateTimeField>> {
    let Some(last) = last else { return Some(vec![leading.clone()]) };
    let at = |unit: &DateTimeField| SPANNED.iter().position(|known| known == unit);
    let (from, to) = (at(leading)?, at(last)?);
    // Months and days do not mix.
    (from < to && (to < 2 || from >= 2)).then(|| SPANNED[from..=to].to_vec())
}

/// Months and milliseconds of a text with a number for each unit.
fn amounts(text: &str, units: &[DateTimeField]) -> Option<(i64, i64)> {
    let (sign, text) = match text.as_bytes().first()? {
        b'-' => (-1, text[1..].trim_start()),
        b'+' => (1, text[1..].trim_start()),
        _ => (1, text),
    };
    let numbers: Vec<&str> = text.split(['-', ' ', ':']).collect();
    if numbers.len() != units.len() {
        return None;
    }
    let (mut months, mut millis) = (0_i64, 0_i64);
    for (number, unit) in numbers.into_iter().zip(units) {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if !whole.bytes().all(|byte| byte.is_ascii_digit()) || (!fraction.is_empty() && *unit != DateTimeField::Second)
        {
            return None;
        }
        let amount: i64 = whole.parse().ok()?;
        let (in_months, in_millis) = match unit {
            DateTimeField::Year | DateTimeField::Years => (12, 0),
            DateTimeField::Quarter => (3, 0),
            DateTimeField::Month | DateTimeField::Months => (1, 0),
            DateTimeField::Week(None) | DateTimeField::Weeks => (0, 7 * DAY_MILLIS),
            DateTimeField::Day | DateTimeField::Days => (0, DAY_MILLIS),
            DateTimeField::Hour | DateTimeField::Hours => (0, HOUR_MILLIS),
            DateTimeField::Minute | DateTimeField::Minutes => (0, MINUTE_MILLIS),
            DateTimeField::Second | DateTimeField::Seconds => (0, SECOND_MILLIS),
            _ => return None,
        };
        months = months.checked_add(amount.checked_mul(in_months)?)?;
        millis = millis.checked_add(amount.checked_mul(in_millis)?)?;
        if !fraction.is_empty() {
            let three: String = fraction.chars().chain("000".chars()).take(3).collect();
            millis = millis.checked_add(three.parse().ok()?)?;
        }
    }
    Some((months * sign, millis * sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_has_its_number() {
        use DateTimeField::{Day, Hour, Minute, Month, Second, Year};
        assert_eq!(amounts("1-2", &[Year, Month]), Some((14, 0)));
        assert_eq!(amounts("-1-2", &[Year, Month]), Some((-14, 0)));
        assert_eq!(amounts("1 02:03:04.5", &[Day, Hour, Minute, Second]), Some((0, 93_784_500)));
        assert_eq!(amounts("1.5", &[Second]), Some((0, 1500)));
        assert_eq!(amounts("1.5", &[Minute]), None);
        assert_eq!(amounts("1", &[Day, Hour]), None);
        assert_eq!(units(&Year, Some(&Day)), None);
        assert_eq!(units(&Hour, Some(&Second)), Some(vec![Hour, Minute, Second]));
    }
}
