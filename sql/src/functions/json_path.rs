//! Paths into JSON: `[lax | strict] $.name`, `['name']`, `[0]`, `[-1]`, `[0, 2]`, `[1:3]`, `[*]`, `.*`, `..name`, `.length()`.
//!
//! As in Flink, a path without a mode is strict: what is not there is an error. Filters (`[?(…)]`) are not supported.

use super::json::Json;

/// A compiled path.
#[derive(Debug, PartialEq)]
pub(super) struct Path {
    pub is_lax: bool,
    steps: Vec<Step>,
}

#[derive(Debug, PartialEq)]
enum Step {
    Name(String),
    /// Indices; several give an array.
    Indices(Vec<i64>),
    Slice(Option<i64>, Option<i64>),
    All,
    /// The value itself and all within it.
    Deep,
    Length,
}

impl Step {
    /// Whether it gives one value at most.
    fn is_definite(&self) -> bool {
        match self {
            Step::Name(_) | Step::Length => true,
            Step::Indices(indices) => indices.len() == 1,
            Step::Slice(..) | Step::All | Step::Deep => false,
        }
    }
}

impl Path {
    /// # Errors
    /// What is wrong with the path, or not supported.
    pub fn new(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let mode = |word: &str| {
            let start = trimmed.get(..word.len()).filter(|start| start.eq_ignore_ascii_case(word))?;
            trimmed[start.len()..].strip_prefix(char::is_whitespace).map(str::trim).filter(|rest| !rest.is_empty())
        };
        let (is_lax, spec) = match (mode("lax"), mode("strict")) {
            (Some(spec), _) => (true, spec),
            (_, Some(spec)) => (false, spec),
            _ => (false, trimmed),
        };
        let mut rest = match spec.strip_prefix('$') {
            Some(rest) => rest.to_owned(),
            None if spec.is_empty() => return Err(format!("the path '{text}' is empty")),
            None => format!(".{spec}"),
        };
        let mut steps = Vec::new();
        while !rest.is_empty() {
            rest = step(&rest, &mut steps)
                .ok_or_else(|| format!("the path '{text}' is invalid or not supported"))?
                .to_owned();
        }
        Ok(Path { is_lax, steps })
    }

    /// The value that the path leads to: null in lax mode if there is none.
    ///
    /// # Errors
    /// In strict mode, what is not there.
    pub fn find(&self, root: &Json) -> Result<Option<Json>, String> {
        let mut values = vec![root.clone()];
        let mut definite = true;
        for step in &self.steps {
            let mut next = Vec::new();
            for value in &values {
                let found = next.len();
                if !take(step, value, &mut next) || (definite && step.is_definite() && next.len() == found) {
                    if definite && self.is_lax {
                        return Ok(None);
                    }
                    if definite {
                        return Err(format!("nothing is at {step:?}"));
                    }
                }
            }
            definite &= step.is_definite();
            values = next;
        }
        Ok(if definite { values.pop() } else { Some(Json::Array(values)) })
    }
}

/// Reads a step at the front of a path and gives the rest.
fn step<'p>(path: &'p str, steps: &mut Vec<Step>) -> Option<&'p str> {
    if let Some(rest) = path.strip_prefix("..") {
        steps.push(Step::Deep);
        return if rest.starts_with('[') { Some(rest) } else { name(rest, steps) };
    }
    if let Some(rest) = path.strip_prefix('.') {
        return if rest.starts_with('[') { bracket(rest, steps) } else { name(rest, steps) };
    }
    bracket(path, steps)
}

fn name<'p>(path: &'p str, steps: &mut Vec<Step>) -> Option<&'p str> {
    let end = path.find(['.', '[']).unwrap_or(path.len());
    let (name, rest) = path.split_at(end);
    steps.push(match name {
        "" => return None,
        "*" => Step::All,
        "length()" => Step::Length,
        name if name.contains(['(', ' ', ')']) => return None,
        name => Step::Name(name.to_owned()),
    });
    Some(rest)
}

fn bracket<'p>(path: &'p str, steps: &mut Vec<Step>) -> Option<&'p str> {
    let inner = path.strip_prefix('[')?.trim_start();
    if let Some(quote) = inner.chars().next().filter(|c| matches!(c, '\'' | '"')) {
        let mut name = String::new();
        let mut rest = inner[1..].chars();
        loop {
            match rest.next()? {
                '\\' => name.push(rest.next()?),
                c if c == quote => break,
                c => name.push(c),
            }
        }
        steps.push(Step::Name(name));
        return rest.as_str().trim_start().strip_prefix(']');
    }
    let (inner, rest) = inner.split_once(']')?;
    let number = |text: &str| text.trim().parse::<i64>().ok();
    steps.push(match inner.trim() {
        "*" => Step::All,
        inner => match inner.split_once(':') {
            Some((from, to)) => {
                let bound = |text: &str| if text.trim().is_empty() { Some(None) } else { number(text).map(Some) };
                Step::Slice(bound(from)?, bound(to)?)
            }
            None => Step::Indices(inner.split(',').map(number).collect::<Option<Vec<_>>>()?),
        },
    });
    Some(rest)
}

/// Adds what a step finds in a value; false if the value is none that the step could look into.
fn take(step: &Step, value: &Json, found: &mut Vec<Json>) -> bool {
    match (step, value) {
        (Step::Name(name), Json::Object(entries)) => {
            found.extend(entries.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()));
        }
        (Step::Indices(indices), Json::Array(items)) => {
            let at = |index: &i64| usize::try_from(if *index < 0 { index + items.len() as i64 } else { *index }).ok();
            found.extend(indices.iter().filter_map(|index| items.get(at(index)?)).cloned());
        }
        (Step::Slice(from, to), Json::Array(items)) => {
            let length = items.len() as i64;
            let at = |bound: i64| (if bound < 0 { bound + length } else { bound }).clamp(0, length) as usize;
            let (from, to) = (at(from.unwrap_or(0)), at(to.unwrap_or(length)));
            found.extend(items.get(from..to).unwrap_or_default().iter().cloned());
        }
        (Step::All, Json::Array(items)) => found.extend(items.iter().cloned()),
        (Step::All, Json::Object(entries)) => found.extend(entries.iter().map(|(_, value)| value.clone())),
        (Step::All, _) => {}
        (Step::Deep, value) => deep(value, found),
        (Step::Length, Json::Array(items)) => found.push(Json::Number(items.len().to_string())),
        (Step::Length, Json::Object(entries)) => found.push(Json::Number(entries.len().to_string())),
        _ => return false,
    }
    true
}

fn deep(value: &Json, found: &mut Vec<Json>) {
    found.push(value.clone());
    match value {
        Json::Array(items) => items.iter().for_each(|item| deep(item, found)),
        Json::Object(entries) => entries.iter().for_each(|(_, value)| deep(value, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(document: &str, path: &str) -> Result<Option<String>, String> {
        let found = Path::new(path)?.find(&Json::read(document).unwrap())?;
        Ok(found.map(|value| {
            let mut out = String::new();
            value.write(&mut out);
            out
        }))
    }

    #[test]
    fn paths_lead_to_values() {
        let document = r#"{"a": {"b": [1, 2, {"c": "x"}]}, "k y": 3}"#;
        let expected = [
            ("$.a.b[0]", "1"),
            ("$.a['b'][-1].c", "\"x\""),
            ("$.['k y']", "3"),
            ("$.a.b[0:2]", "[1,2]"),
            ("$.a.b[0,1]", "[1,2]"),
            ("$..c", "[\"x\"]"),
            ("$.a.b[*].c", "[\"x\"]"),
            ("lax $.a.b.length()", "3"),
            ("a.b[1]", "2"),
        ];
        for (path, value) in expected {
            assert_eq!(found(document, path), Ok(Some(value.to_owned())), "{path}");
        }
    }

    #[test]
    fn what_is_not_there_is_null_when_lax_and_an_error_when_strict() {
        let document = r#"{"a": [1], "t": true}"#;
        for path in ["$.x", "$.a[5]", "$.t[0]", "$.a.b"] {
            assert_eq!(found(document, &format!("LAX {path}")), Ok(None), "{path}");
            assert!(found(document, path).is_err(), "{path}");
        }
        for path in ["", "$.", "$.a.", "$.a[?(@.b)]", "$[", "$.a b"] {
            assert!(Path::new(path).is_err(), "{path}");
        }
    }
}
