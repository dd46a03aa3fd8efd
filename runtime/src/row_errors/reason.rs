//! Why an expression failed on a row, in plain words, with SQL's names of types.

use arrow::error::ArrowError;
use datafusion_common::DataFusionError;

/// Arrow's names of types and SQL's, longer names first.
const TYPES: [(&str, &str); 14] = [
    ("LargeUtf8", "STRING"),
    ("Utf8View", "STRING"),
    ("Utf8", "STRING"),
    ("Boolean", "BOOLEAN"),
    ("Int16", "SMALLINT"),
    ("Int32", "INT"),
    ("Int64", "BIGINT"),
    ("Int8", "TINYINT"),
    ("Float32", "FLOAT"),
    ("Float64", "DOUBLE"),
    ("Date32", "DATE"),
    ("Decimal128(", "DECIMAL("),
    ("Timestamp(ms)", "TIMESTAMP(3)"),
    ("Binary", "BYTES"),
];

/// What an error of DataFusion or Arrow says of a row: one line, without the names of crates.
pub fn reason(error: &DataFusionError) -> String {
    let text = match error.find_root() {
        DataFusionError::ArrowError(cause, _) => of_arrow(cause),
        DataFusionError::Execution(text) => text.clone(),
        DataFusionError::External(cause) => cause.to_string(),
        DataFusionError::Internal(text) => format!("internal error: {text}"),
        other => other.strip_backtrace(),
    };
    let line = text.lines().next().unwrap_or_default();
    with_sql_types(line.strip_prefix("Execution error: ").unwrap_or(line))
}

fn of_arrow(error: &ArrowError) -> String {
    match error {
        ArrowError::DivideByZero => "division by zero".to_owned(),
        ArrowError::ArithmeticOverflow(text) => {
            format!("overflow: {}", text.strip_prefix("Overflow happened on: ").unwrap_or(text))
        }
        ArrowError::CastError(text) => of_cast(text),
        ArrowError::ParseError(text)
        | ArrowError::ComputeError(text)
        | ArrowError::InvalidArgumentError(text)
        | ArrowError::NotYetImplemented(text) => lower_first(text),
        ArrowError::ExternalError(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

/// `Cannot cast string 'x' to value of Int32 type` and `Can't cast value 300 to type Int8`.
fn of_cast(text: &str) -> String {
    let of_string = text.strip_prefix("Cannot cast string ").and_then(|rest| {
        let (value, to) = rest.rsplit_once(" to value of ")?;
        Some((value, to.strip_suffix(" type")?))
    });
    let of_value = || text.strip_prefix("Can't cast value ").and_then(|rest| rest.rsplit_once(" to type "));
    match of_string.or_else(of_value) {
        Some((value, to)) => format!("cannot cast {value} to {to}"),
        None => lower_first(text),
    }
}

fn lower_first(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// Replaces Arrow's names of types, outside of quoted values.
fn with_sql_types(text: &str) -> String {
    let parts = text.split('\'').enumerate().map(|(index, part)| {
        if index % 2 == 1 {
            return part.to_owned();
        }
        TYPES.iter().fold(part.to_owned(), |text, (arrow, sql)| replace_word(&text, arrow, sql))
    });
    parts.collect::<Vec<_>>().join("'")
}

/// Replaces `word` where no letter or digit stands right before or behind it.
fn replace_word(text: &str, word: &str, with: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let behind = &rest[at + word.len()..];
        let inside = |next: Option<char>| next.is_some_and(char::is_alphanumeric);
        let stands_alone =
            !inside(rest[..at].chars().next_back()) && (word.ends_with(['(', ')']) || !inside(behind.chars().next()));
        out.push_str(&rest[..at]);
        out.push_str(if stands_alone { with } else { word });
        rest = behind;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(error: ArrowError) -> String {
        reason(&DataFusionError::from(error).context("while projecting"))
    }

    #[test]
    fn reasons_are_plain_and_name_types_as_sql_does() {
        let cast = |text: &str| of(ArrowError::CastError(text.to_owned()));
        assert_eq!(cast("Cannot cast string 'Int32 x' to value of Int32 type"), "cannot cast 'Int32 x' to INT");
        assert_eq!(cast("Can't cast value 300 to type Int8"), "cannot cast 300 to TINYINT");
        assert_eq!(of(ArrowError::DivideByZero), "division by zero");
        let overflow = ArrowError::ArithmeticOverflow("Overflow happened on: 2147483647 + 1".to_owned());
        assert_eq!(of(overflow), "overflow: 2147483647 + 1");
        assert_eq!(reason(&DataFusionError::Execution("UInt8 is not Int8\nat x".to_owned())), "UInt8 is not TINYINT");
    }
}
