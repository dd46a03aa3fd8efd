//! Splits a record into fields.
//!
//! A quote opens a quoted field only at the field's beginning. What follows a closing quote within a field is taken as it
//! stands, as Python's `csv` and Excel do: `"Box" 24` is `Box 24`.

/// The characters with a meaning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialect {
    /// Between fields.
    pub delimiter: u8,
    /// Around quoted fields; `None` when quotes have no meaning.
    pub quote: Option<u8>,
    /// Makes the next character ordinary.
    pub escape: Option<u8>,
    /// Whether lines that begin with `#` are passed over.
    pub comments: bool,
}

/// The fields of one record, in buffers that are kept.
#[derive(Debug)]
pub(super) struct Splitter {
    dialect: Dialect,
    bytes: Vec<u8>,
    /// Where each field ends in `bytes`.
    ends: Vec<usize>,
}

/// Why a record cannot be split.
pub(super) const UNCLOSED: &str = "a quoted field is not closed";

impl Splitter {
    pub fn new(dialect: Dialect) -> Self {
        Splitter { dialect, bytes: Vec::new(), ends: Vec::new() }
    }

    /// How many fields the record has.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// A field without its quotes.
    pub fn field(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    /// Splits a record.
    ///
    /// # Errors
    /// When a quoted field is still open at the end.
    pub fn split(&mut self, record: &[u8]) -> Result<(), &'static str> {
        self.bytes.clear();
        self.ends.clear();
        let mut at = 0;
        loop {
            if record.get(at).is_some_and(|byte| Some(*byte) == self.dialect.quote) {
                at = self.quoted(record, at + 1)?;
            }
            at = self.plain(record, at);
            self.ends.push(self.bytes.len());
            if at == record.len() {
                return Ok(());
            }
            at += 1;
        }
    }

    /// Takes the rest of a field to the delimiter or the end, and returns where that is.
    fn plain(&mut self, record: &[u8], mut at: usize) -> usize {
        let Dialect { delimiter, escape, .. } = self.dialect;
        loop {
            let rest = &record[at..];
            let stop = match escape {
                Some(escape) => memchr::memchr2(delimiter, escape, rest),
                None => memchr::memchr(delimiter, rest),
            };
            let Some(stop) = stop else {
                self.bytes.extend_from_slice(rest);
                return record.len();
            };
            self.bytes.extend_from_slice(&rest[..stop]);
            at += stop;
            if record[at] == delimiter {
                return at;
            }
            at = self.escaped(record, at);
        }
    }

    /// Takes the inside of a quoted field, and returns where its closing quote is over.
    fn quoted(&mut self, record: &[u8], mut at: usize) -> Result<usize, &'static str> {
        let Some(quote) = self.dialect.quote else { return Ok(at) };
        loop {
            let rest = &record[at..];
            let stop = match self.dialect.escape {
                Some(escape) => memchr::memchr2(quote, escape, rest),
                None => memchr::memchr(quote, rest),
            };
            let stop = stop.ok_or(UNCLOSED)?;
            self.bytes.extend_from_slice(&rest[..stop]);
            at += stop;
            if record[at] != quote {
                at = self.escaped(record, at);
            } else if record.get(at + 1) == Some(&quote) {
                self.bytes.push(quote);
                at += 2;
            } else {
                return Ok(at + 1);
            }
        }
    }

    /// Takes the character behind the escape at `at`, and returns where it is over. An escape at the end is ordinary.
    fn escaped(&mut self, record: &[u8], at: usize) -> usize {
        let character = record.get(at + 1).or_else(|| record.get(at));
        self.bytes.extend(character);
        (at + 2).min(record.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Dialect = Dialect { delimiter: b',', quote: Some(b'"'), escape: None, comments: false };

    fn split(dialect: Dialect, record: &str) -> Vec<String> {
        let mut splitter = Splitter::new(dialect);
        match splitter.split(record.as_bytes()) {
            Ok(()) => (0..splitter.len()).map(|i| String::from_utf8(splitter.field(i).to_vec()).unwrap()).collect(),
            Err(reason) => vec![format!("!{reason}")],
        }
    }

    /// Expected by Python's `csv.reader`.
    #[test]
    fn quotes_open_a_field_only_at_its_beginning() {
        for (record, expected) in [
            ("1,Box Jump 24\",10", &["1", "Box Jump 24\"", "10"][..]),
            ("4,\"A \"\"quoted\"\" one\",40", &["4", "A \"quoted\" one", "40"]),
            ("8,5' 11\" tall,80", &["8", "5' 11\" tall", "80"]),
            ("\"two\nlines\",7", &["two\nlines", "7"]),
            ("\"a\"b\",c", &["ab\"", "c"]),
            (" \"a\",b", &[" \"a\"", "b"]),
            (",,", &["", "", ""]),
            ("\"\",\"\"\"\"", &["", "\""]),
            ("", &[""]),
            ("ü,\"日,本\"", &["ü", "日,本"]),
            ("1,\"open,2", &["!a quoted field is not closed"]),
        ] {
            assert_eq!(split(PLAIN, record), expected, "{record}");
        }
        let escape = Dialect { escape: Some(b'\\'), ..PLAIN };
        for (record, expected) in [
            (r#""a\"b",c"#, &["a\"b", "c"][..]),
            (r"a\,b,c\\", &["a,b", "c\\"]),
            (r"a\", &["a\\"]),
            (r#""a\"#, &["!a quoted field is not closed"]),
        ] {
            assert_eq!(split(escape, record), expected, "{record}");
        }
        assert_eq!(split(Dialect { quote: None, delimiter: b'|', ..PLAIN }, "\"a|b\"|"), ["\"a", "b\"", ""]);
    }
}
