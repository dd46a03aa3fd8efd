//! Dates and times from text and numbers, and back.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Decimal128Type, Int64Type, TimeUnit};
use datafusion_common::{DataFusionError, Result, exec_err};

use super::call::{Call, Memo};
use super::definition::Kind::{Double, Moment as AMoment, Text, Whole};
use super::definition::{Function, Given, Nulls, Takes, gives, is_text};
use super::java_format::{self, Context};
use super::java_parse;
use super::java_pattern::{self, Item, Notation};
use super::moment::{Moment, moment_rows, moments};
use super::simple_date;
use super::zone::Zone;
use crate::types::{TIMESTAMP, timestamp_ltz};

const TIMESTAMP_FORM: &str = "yyyy-MM-dd HH:mm:ss";

/// What `TO_TIMESTAMP_LTZ` takes: the seconds of the years 0 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_167_219_200..=253_402_300_799;

pub(crate) static DATETIME: &[Function] = &[
    Function::new(
        "DATE_FORMAT",
        "DATE_FORMAT(timestamp, pattern)",
        "as text by a pattern: DATE_FORMAT(TIMESTAMP '2024-02-29 13:47:59', 'EEE HH:mm') = 'Thu 13:47'",
        Takes::Own(|types| match types {
            [time, pattern] if is_text(time) => Some(vec![DataType::Utf8, Text.convert(pattern)?]),
            [DataType::Date32, _] => None,
            [time, pattern] => Some(vec![AMoment.convert(time)?, Text.convert(pattern)?]),
            _ => None,
        }),
        gives::text,
        Nulls::Own,
        date_format,
    )
    .checked(|given| {
        let is_text = is_text(&given.first());
        pattern_at(given, 1, if is_text { Notation::Simple } else { Notation::Formatter })
    }),
    Function::new(
        "TO_TIMESTAMP",
        "TO_TIMESTAMP(text[, pattern])",
        "TIMESTAMP(3) from text; null if it does not fit: TO_TIMESTAMP('29/02/2024 13:05', 'dd/MM/yyyy HH:mm')",
        Takes::These(1, &[Text, Text]),
        |_| TIMESTAMP,
        Nulls::Own,
        |call| to_timestamp(call, None),
    )
    .checked(|given| pattern_at(given, 1, Notation::Formatter)),
    Function::new(
        "TO_TIMESTAMP_LTZ",
        "TO_TIMESTAMP_LTZ(number[, precision]) or TO_TIMESTAMP_LTZ(text[, pattern[, zone]])",
        "an instant from seconds (precision 0), milliseconds (3), microseconds (6) or nanoseconds (9) since 1970, or from text",
        Takes::Own(ltz_types),
        ltz_type,
        Nulls::Own,
        |call| if is_text(call.raw(0)?.data_type()) { ltz_of_text(call) } else { ltz_of_number(call) },
    ),
    Function::new(
        "TO_DATE",
        "TO_DATE(text[, pattern])",
        "a date from text; null if it does not fit: TO_DATE('2024-02-29')",
        Takes::These(1, &[Text, Text]),
        gives::date,
        Nulls::Own,
        to_date,
    )
    .checked(|given| pattern_at(given, 1, Notation::Simple)),
    Function::new(
        "FROM_UNIXTIME",
        "FROM_UNIXTIME(seconds[, pattern])",
        "seconds since 1970 as text in the session's time zone: FROM_UNIXTIME(44) = '1970-01-01 00:00:44'",
        Takes::These(1, &[Whole, Text]),
        gives::text,
        Nulls::Strict,
        from_unixtime,
    )
    .checked(|given| pattern_at(given, 1, Notation::Simple)),
    Function::new(
        "UNIX_TIMESTAMP",
        "UNIX_TIMESTAMP(text[, pattern])",
        "seconds since 1970 from text in the session's time zone; -9223372036854775808 if it does not fit",
        Takes::These(1, &[Text, Text]),
        gives::bigint,
        Nulls::Strict,
        unix_timestamp,
    )
    .checked(|given| pattern_at(given, 1, Notation::Simple)),
    Function::new(
        "CONVERT_TZ",
        "CONVERT_TZ(text, from, to)",
        "the time in another time zone: CONVERT_TZ('1970-01-01 00:00:00', 'UTC', 'America/Los_Angeles') = '1969-12-31 16:00:00'",
        Takes::These(3, &[Text, Text, Text]),
        gives::text,
        Nulls::Own,
        convert_tz,
    )
    .checked(|given| {
        let unknown = [1, 2].into_iter().filter_map(|index| given.text(index)).find(|name| Zone::named(name).is_none());
        unknown.map_or(Ok(()), |name| Err(unknown_zone(name)))
    }),
];

/// Whether a literal pattern is one.
fn pattern_at(given: &Given<'_>, index: usize, notation: Notation) -> std::result::Result<(), String> {
    given.text(index).map_or(Ok(()), |pattern| java_pattern::parse(pattern, notation).map(drop))
}

type Pattern = std::result::Result<Vec<Item>, String>;

fn compile(notation: Notation) -> fn(&str) -> Pattern {
    match notation {
        Notation::Formatter => |pattern| java_pattern::parse(pattern, Notation::Formatter),
        Notation::Simple => |pattern| java_pattern::parse(pattern, Notation::Simple),
    }
}

fn items<'p>(function: &str, pattern: &'p Pattern) -> Result<&'p [Item]> {
    match pattern {
        Ok(items) => Ok(items),
        Err(why) => exec_err!("{function}: {why}"),
    }
}

fn failed(function: &str) -> impl Fn(String) -> DataFusionError {
    move |why| DataFusionError::Execution(format!("{function}: {why}"))
}

fn date_format(call: &Call<'_>) -> Result<ArrayRef> {
    let patterns = call.texts(1)?;
    let failed = failed("DATE_FORMAT");
    let mut memo = Memo::new();
    if is_text(call.raw(0)?.data_type()) {
        let texts = call.texts(0)?;
        let form = java_pattern::parse(TIMESTAMP_FORM, Notation::Simple).map_err(&failed)?;
        let context = Context { notation: Notation::Simple, zone: Some(Zone::UTC) };
        return call.try_text_rows(|row, out| {
            let (Some(text), Some(pattern)) = (texts.get(row), patterns.get(row)) else { return Ok(None) };
            let pattern = memo.get(pattern, compile(Notation::Simple));
            let items = items("DATE_FORMAT", &pattern)?;
            let Some(moment) = simple_date::read(&form, text, Zone::UTC) else { return Ok(None) };
            java_format::write(out, items, moment, &context).map_err(&failed)?;
            Ok(Some(()))
        });
    }
    let moments = moments(call, 0)?;
    let context = Context { notation: Notation::Formatter, zone: None };
    call.try_text_rows(|row, out| {
        let (Some(moment), Some(pattern)) = (moments.get(row), patterns.get(row)) else { return Ok(None) };
        let pattern = memo.get(pattern, compile(Notation::Formatter));
        java_format::write(out, items("DATE_FORMAT", &pattern)?, moment, &context).map_err(&failed)?;
        Ok(Some(()))
    })
}

/// Text as a local time with milliseconds, or as an instant in a zone.
fn to_timestamp(call: &Call<'_>, zone: Option<&dyn Fn(usize) -> Result<Option<Zone>>>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    let patterns = if call.len() > 1 { Some(call.texts(1)?) } else { None };
    let mut memo = Memo::new();
    moment_rows(call, |row| {
        let Some(text) = texts.get(row) else { return Ok(None) };
        let moment = match &patterns {
            None => java_parse::read_default(text),
            Some(patterns) => {
                let Some(pattern) = patterns.get(row) else { return Ok(None) };
                let pattern = memo.get(pattern, compile(Notation::Formatter));
                let items = items("TO_TIMESTAMP", &pattern)?;
                java_parse::read(items, text).or_else(|| java_parse::read_fallback(text))
            }
        };
        let moment = moment.map(|moment| Moment { nanos: moment.nanos - moment.nanos % 1_000_000, ..moment });
        match zone {
            None => Ok(moment),
            Some(zone) => match (moment, zone(row)?) {
                (Some(moment), Some(zone)) => Ok(Some(moment.shifted(-zone.offset_of_local(moment.seconds)))),
                (None, Some(_)) => exec_err!("TO_TIMESTAMP_LTZ: '{text}' is no time that fits the pattern"),
                (_, None) => Ok(None),
            },
        }
    })
}

fn ltz_types(types: &[DataType]) -> Option<Vec<DataType>> {
    match types {
        [text, rest @ ..] if is_text(text) && rest.len() < 3 => {
            types.iter().map(|given| Text.convert(given)).collect::<Option<Vec<_>>>()
        }
        [number, precision @ ..] if precision.len() < 2 => {
            let number = match number {
                DataType::Float32 | DataType::Float64 => Double.convert(number)?,
                DataType::Decimal128(..) => number.clone(),
                number => Whole.convert(number)?,
            };
            let precision = precision.iter().map(|given| Whole.convert(given)).collect::<Option<Vec<_>>>()?;
            Some([vec![number], precision].concat())
        }
        _ => None,
    }
}

/// Microseconds and nanoseconds keep their digits.
fn ltz_type(given: &Given<'_>) -> DataType {
    let unit = match given.whole(1) {
        Some(6) => TimeUnit::Microsecond,
        Some(9) => TimeUnit::Nanosecond,
        _ => return timestamp_ltz(),
    };
    DataType::Timestamp(unit, Some("+00:00".into()))
}

fn ltz_of_text(call: &Call<'_>) -> Result<ArrayRef> {
    if call.len() < 3 {
        let zone = call.zone;
        return to_timestamp(call, Some(&|_| Ok(Some(zone))));
    }
    let zones = call.texts(2)?;
    to_timestamp(call, Some(&|row| zones.get(row).map(|name| zone_named("TO_TIMESTAMP_LTZ", name)).transpose()))
}

fn unknown_zone(name: &str) -> String {
    format!("unknown time zone '{name}', expected a name such as 'Europe/Berlin' or 'GMT+08:00'")
}

fn zone_named(function: &str, name: &str) -> Result<Zone> {
    match Zone::named(name) {
        Some(zone) => Ok(zone),
        None => {
            exec_err!("{function}: unknown time zone '{name}', expected a name such as 'Europe/Berlin' or 'GMT+08:00'")
        }
    }
}

fn ltz_of_number(call: &Call<'_>) -> Result<ArrayRef> {
    let precision = if call.len() > 1 { call.wholes(1)?.get(0) } else { Some(3) };
    let unit = match precision {
        Some(0) => TimeUnit::Second,
        Some(3) => TimeUnit::Millisecond,
        Some(6) => TimeUnit::Microsecond,
        Some(9) => TimeUnit::Nanosecond,
        _ => {
            return exec_err!(
                "TO_TIMESTAMP_LTZ: the precision is 0 (seconds), 3 (milliseconds), 6 (microseconds) or 9 (nanoseconds)"
            );
        }
    };
    let in_range = |moment: Moment| SECONDS.contains(&moment.seconds).then_some(moment);
    match call.raw(0)?.data_type() {
        DataType::Float64 => {
            let numbers = call.doubles(0)?;
            // Seconds keep the milliseconds behind their point.
            let (factor, unit) = if unit == TimeUnit::Second { (1000.0, TimeUnit::Millisecond) } else { (1.0, unit) };
            moment_rows(call, |row| {
                Ok(numbers.get(row).and_then(|number| in_range(Moment::of((number * factor) as i64, unit))))
            })
        }
        DataType::Decimal128(_, scale) => {
            let one = 10_i128.pow(u32::try_from(*scale).unwrap_or(0));
            let numbers = call.values::<Decimal128Type>(0)?;
            moment_rows(call, |row| {
                let whole = numbers.get(row).and_then(|number| i64::try_from(number / one).ok());
                Ok(whole.and_then(|whole| in_range(Moment::of(whole, unit))))
            })
        }
        _ => {
            let numbers = call.wholes(0)?;
            moment_rows(call, |row| Ok(numbers.get(row).and_then(|number| in_range(Moment::of(number, unit)))))
        }
    }
}

fn to_date(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    if call.len() == 1 {
        return moment_rows(call, |row| Ok(texts.get(row).and_then(date_of_text)));
    }
    let patterns = call.texts(1)?;
    let mut memo = Memo::new();
    moment_rows(call, |row| {
        let (Some(text), Some(pattern)) = (texts.get(row), patterns.get(row)) else { return Ok(None) };
        let pattern = memo.get(pattern, compile(Notation::Simple));
        Ok(simple_date::read(items("TO_DATE", &pattern)?, text, Zone::UTC))
    })
}

/// `year[-month[-day]]`, with blanks around the numbers; what follows a blank is ignored.
fn date_of_text(text: &str) -> Option<Moment> {
    let date = match text.find(' ') {
        Some(at) if at > 0 => &text[..at],
        _ => text,
    };
    let number = |part: Option<&str>| match part {
        None => Some(1),
        Some(part) => {
            let part = part.trim();
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { part.parse::<u32>().ok() } else { None }
        }
    };
    let mut parts = date.splitn(3, '-');
    let year = number(Some(parts.next()?))?;
    let (month, day) = (number(parts.next())?, number(parts.next())?);
    if year > 9999 {
        return None;
    }
    let date = chrono::NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    Some(Moment::of_days(super::moment::days_of(date)))
}

fn from_unixtime(call: &Call<'_>) -> Result<ArrayRef> {
    let seconds = call.wholes(0)?;
    let patterns = if call.len() > 1 { Some(call.texts(1)?) } else { None };
    let zone = call.zone;
    let context = Context { notation: Notation::Simple, zone: Some(zone) };
    let mut memo = Memo::new();
    call.try_text_rows(|row, out| {
        let pattern = patterns.as_ref().map_or(Some(TIMESTAMP_FORM), |patterns| patterns.get(row));
        let (Some(seconds), Some(pattern)) = (seconds.get(row), pattern) else { return Ok(None) };
        let pattern = memo.get(pattern, compile(Notation::Simple));
        let local = Moment { seconds, nanos: 0 }.shifted(zone.offset_at(seconds));
        java_format::write(out, items("FROM_UNIXTIME", &pattern)?, local, &context).map_err(failed("FROM_UNIXTIME"))?;
        Ok(Some(()))
    })
}

fn unix_timestamp(call: &Call<'_>) -> Result<ArrayRef> {
    let texts = call.texts(0)?;
    let patterns = if call.len() > 1 { Some(call.texts(1)?) } else { None };
    let zone = call.zone;
    let mut memo = Memo::new();
    call.try_rows_of::<Int64Type>(|row| {
        let pattern = patterns.as_ref().map_or(Some(TIMESTAMP_FORM), |patterns| patterns.get(row));
        let (Some(text), Some(pattern)) = (texts.get(row), pattern) else { return Ok(None) };
        let pattern = memo.get(pattern, compile(Notation::Simple));
        let found = simple_date::read(items("UNIX_TIMESTAMP", &pattern)?, text, zone);
        // Flink says so that a text does not fit, and cuts towards 1970.
        Ok(Some(found.map_or(i64::MIN, |moment| moment.millis() / 1000)))
    })
}

fn convert_tz(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, from, to) = (call.texts(0)?, call.texts(1)?, call.texts(2)?);
    let failed = failed("CONVERT_TZ");
    let form = java_pattern::parse(TIMESTAMP_FORM, Notation::Simple).map_err(&failed)?;
    let context = Context { notation: Notation::Simple, zone: None };
    call.try_text_rows(|row, out| {
        let (Some(text), Some(from), Some(to)) = (texts.get(row), from.get(row), to.get(row)) else { return Ok(None) };
        let (from, to) = (zone_named("CONVERT_TZ", from)?, zone_named("CONVERT_TZ", to)?);
        let Some(instant) = simple_date::read(&form, text, from) else { return Ok(None) };
        let local = instant.shifted(to.offset_at(instant.seconds));
        java_format::write(out, &form, local, &context).map_err(&failed)?;
        Ok(Some(()))
    })
}
