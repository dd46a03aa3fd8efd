//! What a column is made of, read from the `fields.<name>.…` options and the column's type.

use std::str::FromStr;

use arrow::datatypes::{DataType, Schema};
use coulee_runtime::options::{Options, nearest, parse_span};
use coulee_runtime::{Error, Result};

use crate::random::mix;

/// The longest text.
const LENGTH_MAX: usize = 1 << 20;
/// What `fields.<name>.` can be followed by.
const SETTINGS: [&str; 8] = ["kind", "min", "max", "length", "max-past", "null-rate", "start", "end"];

/// How values are made, before they take the column's type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    /// Whole numbers, both ends included; for a decimal the unscaled ones.
    Integer { min: i64, max: i64 },
    /// Numbers with a fraction, the upper end excluded.
    Float { min: f64, max: f64 },
    /// True or false.
    Boolean,
    /// Texts or bytes of one length.
    Text { length: usize },
    /// Points in time, at most so many milliseconds before the row's own.
    Time { past_ms: u64 },
    /// `start`, `start + 1`, …, `end`; for a decimal without a fraction.
    Sequence { start: i64, end: i64 },
}

/// One column.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) values: Values,
    pub(super) data_type: DataType,
    /// How many of all values are null: 0 to 1.
    pub(super) null_rate: f64,
    /// Tells its random numbers from those of other columns.
    pub(super) key: u64,
}

impl Column {
    /// How many rows there can be.
    pub(super) fn rows(&self) -> Option<u64> {
        match self.values {
            Values::Sequence { start, end } => Some(end.abs_diff(start).saturating_add(1)),
            _ => None,
        }
    }

    /// The bytes of one text.
    pub(super) fn text_bytes(&self) -> usize {
        if let Values::Text { length } = self.values { length } else { 0 }
    }
}

/// The columns of a table.
///
/// # Errors
/// `Invalid`, naming the column or the option.
pub(super) fn columns(options: &Options, schema: &Schema) -> Result<Vec<Column>> {
    for (field, _) in options.with_prefix("fields.") {
        let unknown =
            |what: String| options.invalid(&format!("fields.{field}"), format_args!("option 'fields.{field}': {what}"));
        let Some((name, setting)) = field.rsplit_once('.') else {
            return Err(unknown(format!("expected 'fields.<name>.' and one of {}", SETTINGS.join(", "))));
        };
        if schema.field_with_name(name).is_err() {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(unknown(format!("there is no column '{name}'; there are {}", names.join(", "))));
        }
        if !SETTINGS.contains(&setting) {
            let near = nearest(setting, &SETTINGS).map(|near| format!("did you mean '{near}'? ")).unwrap_or_default();
            return Err(unknown(format!("{near}known are {}", SETTINGS.join(", "))));
        }
    }
    let seed = mix(options.count("datagen.seed").unwrap_or(0));
    let column = |(i, field): (usize, &arrow::datatypes::FieldRef)| {
        let settings = Settings { options, column: field.name() };
        Ok(Column {
            values: values(&settings, field.data_type())?,
            data_type: field.data_type().clone(),
            null_rate: settings.number("null-rate", 0.0, 0.0..=1.0)?,
            key: seed ^ mix(i as u64 + 1),
        })
    };
    schema.fields().iter().enumerate().map(column).collect()
}

/// The settings of one column.
struct Settings<'a> {
    options: &'a Options,
    column: &'a str,
}

impl Settings<'_> {
    fn text(&self, setting: &str) -> Option<&str> {
        let prefix = "fields.";
        let wanted = |key: &str| key.rsplit_once('.') == Some((self.column, setting));
        // The map is small, and this runs once per table.
        let (key, _) = self.options.with_prefix(prefix).find(|(key, _)| wanted(key))?;
        self.options.get(&format!("{prefix}{key}"))
    }

    fn wrong(&self, setting: &str, expected: impl std::fmt::Display) -> Error {
        let key = format!("fields.{}.{setting}", self.column);
        let message = match self.text(setting) {
            Some(found) => format!("option '{key}' is '{found}', expected {expected}"),
            None => format!("option '{key}' is missing, expected {expected}"),
        };
        self.options.invalid(&key, message)
    }

    fn number<T: FromStr + PartialOrd + std::fmt::Display>(
        &self,
        setting: &str,
        default: T,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T> {
        let Some(text) = self.text(setting) else { return Ok(default) };
        let number = text.trim().parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| self.wrong(setting, format!("a number from {} to {}", range.start(), range.end())))
    }

    fn range<T>(&self, least: T, most: T) -> Result<(T, T)>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let min = self.number("min", least, least..=most)?;
        let max = self.number("max", most, least..=most)?;
        if min > max {
            return Err(self.wrong("min", format!("at most 'fields.{}.max', which is {max}", self.column)));
        }
        Ok((min, max))
    }
}

fn values(settings: &Settings<'_>, data_type: &DataType) -> Result<Values> {
    match settings.text("kind").unwrap_or("random") {
        "random" => random(settings, data_type),
        "sequence" => sequence(settings, data_type),
        _ => Err(settings.wrong("kind", "'random' or 'sequence'")),
    }
}

fn random(settings: &Settings<'_>, data_type: &DataType) -> Result<Values> {
    let integer = |least: i64, most: i64| settings.range(least, most).map(|(min, max)| Values::Integer { min, max });
    match data_type {
        DataType::Boolean => Ok(Values::Boolean),
        DataType::Int8 => integer(i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => integer(i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => integer(i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => integer(i64::MIN, i64::MAX),
        DataType::Float32 => {
            let (min, max) = settings.range(f32::MIN, f32::MAX)?;
            Ok(Values::Float { min: min.into(), max: max.into() })
        }
        DataType::Float64 => settings.range(f64::MIN, f64::MAX).map(|(min, max)| Values::Float { min, max }),
        DataType::Decimal128(precision, scale) => {
            // 18 digits fit 64 bits; more would only add digits that nobody looks at.
            let most = 10_i64.pow(u32::from(*precision).min(18)) - 1;
            let unit = 10_f64.powi((*scale).into());
            let (min, max) = settings.range(-(most as f64) / unit, most as f64 / unit)?;
            let unscaled = |number: f64| ((number * unit).round() as i64).clamp(-most, most);
            Ok(Values::Integer { min: unscaled(min), max: unscaled(max) })
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary => {
            Ok(Values::Text { length: settings.number("length", 100, 0..=LENGTH_MAX)? })
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Time32(_) | DataType::Time64(_) => {
            let past = settings.text("max-past").map(|text| parse_span(text).ok_or(text)).transpose();
            let past = past.map_err(|_| settings.wrong("max-past", "a duration such as '10 s'"))?;
            Ok(Values::Time { past_ms: past.map_or(0, |past| past.as_millis() as u64).min(1 << 48) })
        }
        other => Err(unsupported(settings, other, "")),
    }
}

fn sequence(settings: &Settings<'_>, data_type: &DataType) -> Result<Values> {
    let most = match data_type {
        DataType::Int8 => i8::MAX.into(),
        DataType::Int16 => i16::MAX.into(),
        DataType::Int32 => i32::MAX.into(),
        DataType::Int64 | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => i64::MAX,
        // Up to here every whole number has its own value.
        DataType::Float32 => 1 << 24,
        DataType::Float64 => 1 << 53,
        DataType::Decimal128(precision, scale) => {
            10_i64.pow((i32::from(*precision) - i32::from(*scale)).clamp(0, 18) as u32) - 1
        }
        other => return Err(unsupported(settings, other, " in a sequence")),
    };
    for bound in ["start", "end"] {
        if settings.text(bound).is_none() {
            return Err(settings.wrong(bound, "a whole number: sequences have both ends"));
        }
    }
    let range = -most..=most;
    let (start, end) = (settings.number("start", 0, range.clone())?, settings.number("end", 0, range)?);
    if start > end {
        return Err(settings.wrong("start", format!("at most 'fields.{}.end', which is {end}", settings.column)));
    }
    Ok(Values::Sequence { start, end })
}

fn unsupported(settings: &Settings<'_>, data_type: &DataType, place: &str) -> Error {
    Error::invalid(format!(
        "{}: column '{}' is {data_type}, which datagen cannot make{place}; make its parts, and put them together in a view",
        settings.options.owner(),
        settings.column
    ))
}
