//! Options of tables and jobs: what exists, what type and default it has, and reading them with errors that teach.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::{Error, OptionPart, Result, Subject};

/// What values an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    /// Any text.
    Text,
    /// A whole number, 0 or more.
    Count,
    /// A number with an optional fraction, above 0.
    Number,
    /// `0.1`: 0 to 1.
    Share,
    /// `true` or `false`.
    Switch,
    /// A span of time: `500 ms`, `10 s`, `5 min`, `1 h`, `2 d`.
    Span,
    /// A number of bytes: `1048576`, `64 kb`, `128 mb`, `1 gb` (powers of 1024).
    Bytes,
    /// One of a few words.
    Choice(&'static [&'static str]),
}

impl std::fmt::Display for OptionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OptionKind::Text => f.write_str("a text"),
            OptionKind::Count => f.write_str("a whole number of 0 or more"),
            OptionKind::Number => f.write_str("a number above 0"),
            OptionKind::Share => f.write_str("a number from 0 to 1"),
            OptionKind::Switch => f.write_str("'true' or 'false'"),
            OptionKind::Span => f.write_str("a duration such as '500 ms', '10 s', '5 min', '1 h' or '2 d'"),
            OptionKind::Bytes => f.write_str("a size such as '64 kb', '128 mb' or '1 gb'"),
            OptionKind::Choice(words) => {
                let quoted: Vec<String> = words.iter().map(|w| format!("'{w}'")).collect();
                write!(f, "one of {}", quoted.join(", "))
            }
        }
    }
}

/// One option: its documentation is made of these, and so is the check for unknown ones.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// The key, Flink's where Flink has it. A key that ends in `*` stands for all with that beginning.
    pub key: &'static str,
    /// What values it takes.
    pub kind: OptionKind,
    /// What holds when it is absent; `None` where absence is a meaning of its own.
    pub default: Option<&'static str>,
    /// One sentence for the reference.
    pub description: &'static str,
}

impl OptionSpec {
    /// An option.
    pub const fn new(
        key: &'static str,
        kind: OptionKind,
        default: Option<&'static str>,
        description: &'static str,
    ) -> Self {
        OptionSpec { key, kind, default, description }
    }

    fn covers(&self, key: &str) -> bool {
        self.key.strip_suffix('*').map_or(self.key == key, |start| key.starts_with(start))
    }
}

/// Options that were checked: every key is known and every value has its option's form.
#[derive(Debug, Clone)]
pub struct Options {
    owner: String,
    table: Option<String>,
    specs: Vec<OptionSpec>,
    values: BTreeMap<String, String>,
}

impl Options {
    /// Checks `values` against `specs`. `owner` begins every message: `table 'flights'`.
    ///
    /// # Errors
    /// `Invalid` for an unknown key (with the nearest known one) and for a value of the wrong form.
    pub fn new(
        owner: impl Into<String>,
        specs: impl IntoIterator<Item = OptionSpec>,
        values: &BTreeMap<String, String>,
    ) -> Result<Self> {
        Self::check(owner.into(), None, specs, values)
    }

    /// As [`new`](Self::new), for the options of a table, which errors are then about.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of_table(
        table: &str,
        specs: impl IntoIterator<Item = OptionSpec>,
        values: &BTreeMap<String, String>,
    ) -> Result<Self> {
        Self::check(format!("table '{table}'"), Some(table.to_owned()), specs, values)
    }

    fn check(
        owner: String,
        table: Option<String>,
        specs: impl IntoIterator<Item = OptionSpec>,
        values: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let options = Options { owner, table, specs: specs.into_iter().collect(), values: values.clone() };
        for (key, value) in values {
            let Some(spec) = options.specs.iter().find(|spec| spec.covers(key)) else {
                return Err(options.unknown(key));
            };
            fits(spec.kind, value).map_err(|()| options.wrong(key, spec.kind, value))?;
        }
        Ok(options)
    }

    fn unknown(&self, key: &str) -> Error {
        let known: Vec<&str> = self.specs.iter().map(|spec| spec.key).collect();
        let hint = match nearest(key, &known) {
            Some(near) => format!("did you mean '{near}'?"),
            None => {
                let mut known = known;
                known.sort_unstable();
                format!("known options: {}", known.join(", "))
            }
        };
        let subject = self.subject(key, OptionPart::Key);
        Error::invalid(format!("{}: unknown option '{key}'; {hint}", self.owner)).about(subject)
    }

    fn subject(&self, key: &str, part: OptionPart) -> Subject {
        Subject::Option { table: self.table.clone(), key: key.to_owned(), part }
    }

    /// An error about an option's value; `message` goes behind the owner.
    pub fn invalid(&self, key: &str, message: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{}: {message}", self.owner)).about(self.subject(key, OptionPart::Value))
    }

    fn wrong(&self, key: &str, kind: OptionKind, value: &str) -> Error {
        self.invalid(key, format_args!("option '{key}' is '{value}', expected {kind}"))
    }

    /// Who the options belong to, for messages.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The text of an option, or its default.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str).or_else(|| {
            let spec = self.specs.iter().find(|spec| spec.covers(key));
            spec.unwrap_or_else(|| panic!("the code asks for option '{key}', which it does not declare")).default
        })
    }

    /// Whether the option was given, rather than left to its default.
    pub fn is_given(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    /// All given options whose key begins with `prefix`, without it.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.values.iter().filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_str())))
    }

    /// The text of an option that must be there.
    ///
    /// # Errors
    /// `Invalid` when it is absent and has no default.
    pub fn require(&self, key: &str) -> Result<&str> {
        self.get(key).ok_or_else(|| {
            let spec = self.specs.iter().find(|spec| spec.covers(key));
            let (kind, what) = spec.map_or((OptionKind::Text, ""), |spec| (spec.kind, spec.description));
            let error = Error::invalid(format!("{}: option '{key}' is missing; expected {kind}: {what}", self.owner));
            match &self.table {
                Some(table) => error.about(Subject::Table(table.clone())),
                None => error,
            }
        })
    }

    /// A count.
    pub fn count(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(|value| value.trim().parse().ok())
    }

    /// A number above 0.
    pub fn number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(|value| value.trim().parse().ok())
    }

    /// A switch; absent means off.
    pub fn switch(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// A span of time.
    pub fn span(&self, key: &str) -> Option<Duration> {
        self.get(key).and_then(parse_span)
    }

    /// A number of bytes.
    pub fn bytes(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(parse_bytes)
    }
}

fn fits(kind: OptionKind, value: &str) -> Result<(), ()> {
    let fits = match kind {
        OptionKind::Text => true,
        OptionKind::Count => value.trim().parse::<u64>().is_ok(),
        OptionKind::Number => value.trim().parse::<f64>().is_ok_and(|n| n.is_finite() && n > 0.0),
        OptionKind::Share => value.trim().parse::<f64>().is_ok_and(|n| (0.0..=1.0).contains(&n)),
        OptionKind::Switch => value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"),
        OptionKind::Span => parse_span(value).is_some(),
        OptionKind::Bytes => parse_bytes(value).is_some(),
        OptionKind::Choice(words) => words.contains(&value),
    };
    if fits { Ok(()) } else { Err(()) }
}

/// Splits `10 min` into its number and its unit (lower case, may be empty).
fn number_and_unit(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number = text[..digits].parse().ok()?;
    Some((number, text[digits..].trim().to_ascii_lowercase()))
}

/// A span of time in Flink's notation: a whole number and a unit; milliseconds when the unit is absent.
pub fn parse_span(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let millis: u64 = match unit.as_str() {
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

/// A number of bytes in Flink's notation: units are powers of 1024.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let factor: u64 = match unit.as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kb" | "kib" | "kibibytes" => 1 << 10,
        "m" | "mb" | "mib" | "mebibytes" => 1 << 20,
        "g" | "gb" | "gib" | "gibibytes" => 1 << 30,
        "t" | "tb" | "tib" | "tebibytes" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// The candidate nearest to `word`, if it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let distance = |candidate: &str| edit_distance(&word.to_lowercase(), &candidate.to_lowercase());
    let best = candidates.iter().min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= (word.len().max(best.len()) / 3).max(1)).then_some(best)
}

/// Levenshtein's distance, by characters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: [OptionSpec; 3] = [
        OptionSpec::new("path", OptionKind::Text, None, "where the files are"),
        OptionSpec::new("sink.rolling-policy.rollover-interval", OptionKind::Span, Some("5 min"), "when to roll"),
        OptionSpec::new("format", OptionKind::Choice(&["json", "csv"]), Some("json"), "how records are written"),
    ];

    fn options(pairs: &[(&str, &str)]) -> Result<Options> {
        let values = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Options::new("table 't'", SPECS, &values)
    }

    #[test]
    fn errors_name_the_table_the_option_and_what_was_expected() {
        for (pairs, message) in [
            (("pth", "x"), "table 't': unknown option 'pth'; did you mean 'path'?"),
            (
                ("zzz", "x"),
                "table 't': unknown option 'zzz'; known options: format, path, sink.rolling-policy.rollover-interval",
            ),
            (("format", "xml"), "table 't': option 'format' is 'xml', expected one of 'json', 'csv'"),
            (
                ("sink.rolling-policy.rollover-interval", "soon"),
                "table 't': option 'sink.rolling-policy.rollover-interval' is 'soon', expected a duration such as '500 ms', '10 s', '5 min', '1 h' or '2 d'",
            ),
        ] {
            assert_eq!(options(&[pairs]).unwrap_err().to_string(), message);
        }
        let message = options(&[]).unwrap().require("path").unwrap_err().to_string();
        assert_eq!(message, "table 't': option 'path' is missing; expected a text: where the files are");
    }

    #[test]
    fn spans_and_sizes_use_flinks_units() {
        assert_eq!(parse_span("1 min"), Some(Duration::from_secs(60)));
        assert_eq!(parse_span("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_span("250"), Some(Duration::from_millis(250)));
        assert_eq!(parse_span("min"), None);
        assert_eq!(parse_bytes("128 MB"), Some(128 << 20));
        assert_eq!(parse_bytes("1x"), None);
        let options = options(&[("sink.rolling-policy.rollover-interval", "10 s")]).unwrap();
        assert_eq!(options.span("sink.rolling-policy.rollover-interval"), Some(Duration::from_secs(10)));
        assert_eq!(options.get("format"), Some("json"));
    }
}
