//! JSON values: reading, writing, and numbers with the digits that they were written with.

use std::fmt::Write as _;

/// How deep values may nest, so that a hostile document does not end the process.
const DEPTH_MAX: usize = 500;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// As Java's `BigInteger` or `BigDecimal` prints it.
    Number(String),
    Text(String),
    Array(Vec<Json>),
    /// In the document's order; each key once, with its last value.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads the value at the front of a text; what follows is ignored, as in Flink.
    pub fn read(text: &str) -> Option<Json> {
        let mut reader = Reader { bytes: text.as_bytes(), text, at: 0 };
        let value = reader.value(0)?;
        // A number ends where something else begins that is no part of a word.
        let ends = !matches!(value, Json::Number(_)) || reader.peek().is_none_or(|byte| !byte.is_ascii_alphanumeric());
        ends.then_some(value)
    }

    pub fn is_scalar(&self) -> bool {
        !matches!(self, Json::Array(_) | Json::Object(_))
    }

    /// Appends the value, with the keys of objects in order.
    pub fn write(&self, out: &mut String) {
        match self {
            Json::Null => out.push_str("null"),
            Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Json::Number(number) => out.push_str(number),
            Json::Text(text) => write_text(out, text),
            Json::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Json::Object(entries) => {
                let mut entries: Vec<&(String, Json)> = entries.iter().collect();
                // Java's order of texts: that of their UTF-16 units.
                entries.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
                out.push('{');
                for (index, (key, value)) in entries.into_iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    write_text(out, key);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// Sets a key of an object.
pub(super) fn put(entries: &mut Vec<(String, Json)>, key: String, value: Json) {
    match entries.iter_mut().find(|(known, _)| *known == key) {
        Some(known) => known.1 = value,
        None => entries.push((key, value)),
    }
}

/// Appends a text in quotes, with what must be escaped.
pub(super) fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            c if c < ' ' => {
                // Writing to a text cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A number as `BigDecimal.toString` prints it, from its digits and how many of them stand behind the point.
pub(super) fn decimal_text(negative: bool, digits: &str, scale: i64) -> String {
    let digits = digits.trim_start_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    let sign = if negative && digits != "0" { "-" } else { "" };
    let adjusted = digits.len() as i64 - 1 - scale;
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    if scale > 0 && adjusted >= -6 {
        let behind = usize::try_from(scale).unwrap_or(0);
        let padded = format!("{digits:0>width$}", width = behind + 1);
        let (whole, fraction) = padded.split_at(padded.len() - behind);
        return format!("{sign}{whole}.{fraction}");
    }
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    format!("{sign}{first}{point}{rest}E{adjusted:+}")
}

/// A DOUBLE as `BigDecimal.valueOf` prints it; nothing for what is no number.
pub(super) fn double_text(number: f64, shortest: &str) -> Option<String> {
    if !number.is_finite() {
        return None;
    }
    let (mantissa, exponent) = shortest.split_once('e')?;
    let exponent: i64 = exponent.parse().ok()?;
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mut digits = format!("{whole}{fraction}");
    let mut scale = fraction.len() as i64 - exponent;
    // Double.toString has one digit behind the point at least: of the number from 10^-3 to 10^7, else of the mantissa.
    let least = if (-3..7).contains(&exponent) { 1 } else { 1 - exponent };
    while scale < least {
        digits.push('0');
        scale += 1;
    }
    Some(decimal_text(negative, &digits, scale))
}

struct Reader<'a> {
    bytes: &'a [u8],
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(|byte| b" \t\r\n".contains(&byte)) {
            self.at += 1;
        }
    }

    /// Takes a byte, behind blanks.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_blanks();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => self.string().map(Json::Text),
            b'-' | b'0'..=b'9' => self.number(),
            _ => {
                let words = [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))];
                let rest = &self.text[self.at..];
                let (word, value) = words.into_iter().find(|(word, _)| rest.starts_with(word))?;
                self.at += word.len();
                self.peek().is_none_or(|byte| !byte.is_ascii_alphanumeric()).then_some(value)
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json> {
        self.at += 1;
        let mut entries = Vec::new();
        if self.take(b'}') {
            return Some(Json::Object(entries));
        }
        loop {
            self.skip_blanks();
            if self.peek() != Some(b'"') {
                return None;
            }
            let key = self.string()?;
            if !self.take(b':') {
                return None;
            }
            let value = self.value(depth + 1)?;
            put(&mut entries, key, value);
            if self.take(b'}') {
                return Some(Json::Object(entries));
            }
            if !self.take(b',') {
                return None;
            }
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json> {
        self.at += 1;
        let mut items = Vec::new();
        if self.take(b']') {
            return Some(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Some(Json::Array(items));
            }
            if !self.take(b',') {
                return None;
            }
        }
    }

    fn digits(&mut self) -> &str {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn number(&mut self) -> Option<Json> {
        let negative = self.peek() == Some(b'-');
        self.at += usize::from(negative);
        let mut digits = self.digits().to_owned();
        if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        let mut scale = 0;
        if self.peek() == Some(b'.') {
            self.at += 1;
            let fraction = self.digits();
            if fraction.is_empty() {
                return None;
            }
            scale = fraction.len() as i64;
            digits.push_str(fraction);
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            let start = self.at;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            if self.digits().is_empty() {
                return None;
            }
            let exponent: i64 = self.text[start..self.at].parse().ok()?;
            scale = i64::from(i32::try_from(scale - exponent).ok()?);
        }
        Some(Json::Number(decimal_text(negative, &digits, scale)))
    }

    fn string(&mut self) -> Option<String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            while self.peek().is_some_and(|byte| byte != b'"' && byte != b'\\' && byte >= b' ') {
                self.at += 1;
            }
            out.push_str(&self.text[start..self.at]);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(out);
                }
                b'\\' => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                _ => return None,
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        out.push(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = self.unit()?;
                let pair = char::decode_utf16([first]).next()?;
                match pair {
                    Ok(c) => c,
                    Err(_) if self.text[self.at..].starts_with("\\u") => {
                        let before = self.at;
                        self.at += 2;
                        let second = self.unit()?;
                        let mut decoded = char::decode_utf16([first, second]);
                        match decoded.next()? {
                            Ok(c) => c,
                            Err(_) => {
                                self.at = before;
                                '?'
                            }
                        }
                    }
                    Err(_) => '?',
                }
            }
            _ => return None,
        });
        Some(())
    }

    fn unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) { u16::from_str_radix(digits, 16).ok() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> Option<String> {
        let mut out = String::new();
        Json::read(text)?.write(&mut out);
        Some(out)
    }

    #[test]
    fn values_are_written_with_their_digits_and_keys_in_order() {
        assert_eq!(again(r#"{"b": 1.50, "a": [1e2, -0, null]}"#).as_deref(), Some(r#"{"a":[1E+2,0,null],"b":1.50}"#));
        assert_eq!(again("0.00001").as_deref(), Some("0.00001"));
        assert_eq!(again("0.0000001").as_deref(), Some("1E-7"));
        assert_eq!(again(r#""\u00e9\ud834\udd1e\n""#).as_deref(), Some("\"é𝄞\\n\""));
        assert_eq!(again(r#"{"a":1,"a":2}"#).as_deref(), Some(r#"{"a":2}"#));
    }

    #[test]
    fn what_is_no_json_is_not_read() {
        for text in ["", "nonsense", "01", "{a:1}", "[1,]", r#"{"a":1"#, "NaN", "1x", "\"a\nb\"", "truex", "."] {
            assert_eq!(again(text), None, "{text}");
        }
        assert_eq!(again(&"[".repeat(100_000)), None);
        assert_eq!(again("1 2").as_deref(), Some("1"));
    }

    #[test]
    fn doubles_are_javas_decimals() {
        let text = |number: f64| double_text(number, &format!("{number:e}"));
        assert_eq!(text(1.5).as_deref(), Some("1.5"));
        assert_eq!(text(100.0).as_deref(), Some("100.0"));
        assert_eq!(text(1e20).as_deref(), Some("1.0E+20"));
        assert_eq!(text(0.0).as_deref(), Some("0.0"));
        assert_eq!(text(f64::NAN), None);
    }
}
