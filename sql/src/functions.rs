//! The functions that SQL may call: DataFusion's, and Flink's where DataFusion has none of the name or another one.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::{DatePart, cast, date_part};
use arrow::datatypes::{DataType, Int64Type, TimestampMillisecondType};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion_expr::{
    AggregateUDF, ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::types::{TIMESTAMP, timestamp_ltz};

/// The milliseconds of the years 0 to 9999.
const MILLIS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// DataFusion would put the time of planning into a plan that runs for months.
pub(crate) const NOT_CONSTANT: &[&str] = &["now", "current_timestamp", "current_date", "current_time", "today"];

/// The scalar functions, by lower-case name.
pub(crate) fn scalars() -> HashMap<String, Arc<ScalarUDF>> {
    let mut functions = HashMap::new();
    for function in datafusion_functions::all_default_functions() {
        for name in function.aliases().iter().map(String::as_str).chain([function.name()]) {
            if !NOT_CONSTANT.contains(&name) {
                functions.insert(name.to_lowercase(), function.clone());
            }
        }
    }
    for (name, does) in OWN {
        functions.insert((*name).to_owned(), Arc::new(ScalarUDF::new_from_impl(Own::new(name, *does))));
    }
    functions
}

/// The aggregates, by lower-case name.
pub(crate) fn aggregates() -> HashMap<String, Arc<AggregateUDF>> {
    let mut functions = HashMap::new();
    for function in datafusion_functions_aggregate::all_default_aggregate_functions() {
        for name in function.aliases().iter().map(String::as_str).chain([function.name()]) {
            functions.insert(name.to_lowercase(), function.clone());
        }
    }
    functions
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Does {
    /// `TO_TIMESTAMP('2020-10-10 12:00:00')`: text in ISO form to a timestamp; null for what is none.
    ToTimestamp,
    /// `TO_TIMESTAMP_LTZ(number, 0 | 3)`: seconds or milliseconds since 1970.
    ToTimestampLtz,
    /// `DATE_FORMAT(ts, 'yyyy-MM-dd')`.
    DateFormat,
    /// `HOUR(ts)` and its like, as BIGINT. Held as a number because `DatePart` has no hash.
    Part(u8),
}

const OWN: &[(&str, Does)] = &[
    ("to_timestamp", Does::ToTimestamp),
    ("to_timestamp_ltz", Does::ToTimestampLtz),
    ("date_format", Does::DateFormat),
    ("year", Does::Part(0)),
    ("quarter", Does::Part(1)),
    ("month", Does::Part(2)),
    ("week", Does::Part(3)),
    ("dayofyear", Does::Part(4)),
    ("dayofmonth", Does::Part(5)),
    ("hour", Does::Part(6)),
    ("minute", Does::Part(7)),
    ("second", Does::Part(8)),
];

const PARTS: [DatePart; 9] = [
    DatePart::Year,
    DatePart::Quarter,
    DatePart::Month,
    DatePart::WeekISO,
    DatePart::DayOfYear,
    DatePart::Day,
    DatePart::Hour,
    DatePart::Minute,
    DatePart::Second,
];

/// A function of Flink's.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Own {
    name: &'static str,
    does: Does,
    signature: Signature,
}

impl Own {
    fn new(name: &'static str, does: Does) -> Self {
        Own { name, does, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Own {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::Null);
        match (self.does, types) {
            (Does::ToTimestamp, [text]) if is_text(text) => Ok(vec![DataType::Utf8]),
            (Does::ToTimestamp, [text, _]) if is_text(text) => {
                plan_err!(
                    "'TO_TIMESTAMP' with a format comes in a later version\nbring the text into the form '2020-10-10 12:00:00' first"
                )
            }
            (Does::ToTimestampLtz, [number]) if number.is_integer() => Ok(vec![DataType::Int64]),
            (Does::ToTimestampLtz, [number, precision]) if number.is_integer() && precision.is_integer() => {
                Ok(vec![DataType::Int64; 2])
            }
            (Does::DateFormat, [time, format]) if time.is_temporal() && is_text(format) => {
                Ok(vec![TIMESTAMP, DataType::Utf8])
            }
            (Does::Part(_), [DataType::Date32]) => Ok(vec![DataType::Date32]),
            (Does::Part(_), [time]) if time.is_temporal() => Ok(vec![TIMESTAMP]),
            _ => {
                let given: Vec<String> = types.iter().map(crate::types::type_name).collect();
                let (name, usage) = (self.name.to_uppercase(), self.usage());
                plan_err!("function '{name}' does not take ({})\nwrite {usage}", given.join(", "))
            }
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.does {
            Does::ToTimestamp => TIMESTAMP,
            Does::ToTimestampLtz => timestamp_ltz(),
            Does::DateFormat => DataType::Utf8,
            Does::Part(_) => DataType::Int64,
        })
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let format = match (self.does, args.get(1)) {
            (Does::DateFormat, Some(Expr::Literal(ScalarValue::Utf8(Some(format)), _))) => strftime(format)?,
            (Does::DateFormat, _) => return plan_err!("the pattern of 'DATE_FORMAT' is a text, not a column"),
            _ => return Ok(ExprSimplifyResult::Original(args)),
        };
        let call = datafusion_functions::datetime::to_char();
        let time = args.into_iter().next().unwrap_or_default();
        Ok(ExprSimplifyResult::Simplified(call.call(vec![time, Expr::Literal(ScalarValue::Utf8(Some(format)), None)])))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let first = args.args[0].to_array(args.number_rows)?;
        let result: ArrayRef = match self.does {
            Does::ToTimestamp => cast(&first, &TIMESTAMP)?,
            Does::ToTimestampLtz => {
                let factor = match args.args.get(1) {
                    Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(0)))) => 1_000,
                    Some(ColumnarValue::Scalar(ScalarValue::Int64(Some(3)))) | None => 1,
                    _ => return plan_err!("the precision of 'TO_TIMESTAMP_LTZ' is 0 (seconds) or 3 (milliseconds)"),
                };
                let numbers = first.as_primitive::<Int64Type>();
                // As in Flink, null outside the years that a timestamp has.
                let time = |number: i64| number.checked_mul(factor).filter(|millis| MILLIS.contains(millis));
                let times = numbers.unary_opt::<_, TimestampMillisecondType>(time);
                Arc::new(times.with_timezone("+00:00"))
            }
            Does::DateFormat => return plan_err!("the pattern of 'DATE_FORMAT' is a text, not a column"),
            Does::Part(index) => cast(&date_part(&first, PARTS[usize::from(index)])?, &DataType::Int64)?,
        };
        Ok(ColumnarValue::Array(result))
    }
}

impl Own {
    fn usage(&self) -> &'static str {
        match self.does {
            Does::ToTimestamp => "TO_TIMESTAMP(text)",
            Does::ToTimestampLtz => "TO_TIMESTAMP_LTZ(number, 3), with 0 for seconds and 3 for milliseconds",
            Does::DateFormat => "DATE_FORMAT(timestamp, 'yyyy-MM-dd HH:mm:ss')",
            Does::Part(_) => "it with a timestamp or a date",
        }
    }
}

/// Java's pattern of a date in C's notation.
fn strftime(pattern: &str) -> Result<String> {
    const WORDS: &[(&str, &str)] = &[
        ("yyyy", "%Y"),
        ("yy", "%y"),
        ("MM", "%m"),
        ("dd", "%d"),
        ("HH", "%H"),
        ("mm", "%M"),
        ("ss", "%S"),
        ("SSS", "%3f"),
        ("'T'", "T"),
    ];
    let (mut rest, mut out) = (pattern, String::new());
    while let Some(next) = rest.chars().next() {
        if let Some((word, c)) = WORDS.iter().find(|(word, _)| rest.starts_with(word)) {
            out.push_str(c);
            rest = &rest[word.len()..];
        } else if next.is_ascii_alphabetic() || next == '\'' {
            return plan_err!(
                "'DATE_FORMAT' does not know '{next}' in '{pattern}'\nit knows yyyy, yy, MM, dd, HH, mm, ss, SSS and 'T'"
            );
        } else {
            out.push_str(if next == '%' { "%%" } else { &rest[..next.len_utf8()] });
            rest = &rest[next.len_utf8()..];
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_translated_or_refused() {
        assert_eq!(strftime("yyyy-MM-dd'T'HH:mm:ss.SSS").unwrap(), "%Y-%m-%dT%H:%M:%S.%3f");
        assert_eq!(strftime("100%").unwrap(), "100%%");
        assert!(strftime("EEE").is_err());
    }
}
