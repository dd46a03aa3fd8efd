//! Finds delimited records in a file: a line end within quotes does not end one.
//!
//! SUBTLE: a quote that was never meant to open a field would swallow the rows behind it. So a record of several lines is
//! believed only when its quotes fit: when a quoted field is never closed, or its closing quote is followed by something
//! else than a delimiter, the first line alone is malformed, and reading goes on with the second.

use super::split::Dialect;
use crate::format::framing::first_line;
use crate::format::{Frame, Framer};

/// The longest record of several lines. It bounds how far one stray quote is looked for its end.
const LINES_BYTES_MAX: usize = 4 << 20;

const NOT_CLOSED: &str = "a field begins with a quote that no other closes: double it within quotes, or set 'csv.disable-quote-character' = 'true'";
const BEHIND_QUOTE: &str = "a field begins with a quote, and the next quote, in a later line, is not the field's end: double it within quotes, or set 'csv.disable-quote-character' = 'true'";

#[derive(Debug)]
pub(super) struct CsvFramer {
    dialect: Dialect,
}

enum Scan {
    /// The record is complete at this offset: of a line end, or of the end of the bytes.
    End(usize),
    /// A quoted field is open.
    Open,
    /// Something stands behind a closing quote that is not in the first line.
    Behind,
}

impl CsvFramer {
    pub fn new(dialect: Dialect) -> Self {
        CsvFramer { dialect }
    }

    /// Follows the quotes of the record that begins the bytes.
    fn scan(&self, bytes: &[u8], quote: u8, first: usize) -> Scan {
        let Dialect { delimiter, escape, .. } = self.dialect;
        let mut at = 0;
        loop {
            // At the beginning of a field.
            if bytes.get(at) == Some(&quote) {
                at += 1;
                loop {
                    match bytes.get(at) {
                        None => return Scan::Open,
                        Some(byte) if Some(*byte) == escape && *byte != quote => at += 2,
                        Some(byte) if *byte == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
                        Some(byte) if *byte == quote => break,
                        Some(_) => at += 1,
                    }
                }
                at += 1;
                let fits = matches!(bytes.get(at), None | Some(b'\n' | b'\r')) || bytes.get(at) == Some(&delimiter);
                if !fits && at > first {
                    return Scan::Behind;
                }
            }
            loop {
                match bytes.get(at) {
                    None => return Scan::End(at),
                    Some(b'\n') => return Scan::End(at),
                    Some(byte) if *byte == delimiter => break,
                    Some(byte) if Some(*byte) == escape && !matches!(bytes.get(at + 1), None | Some(b'\n')) => at += 2,
                    Some(_) => at += 1,
                }
            }
            at += 1;
        }
    }
}

impl Framer for CsvFramer {
    fn next(&mut self, bytes: &[u8], last: bool) -> Frame {
        let Some((line, end)) = first_line(bytes, last) else { return Frame::Incomplete };
        if line == 0 || self.dialect.comments && bytes[0] == b'#' {
            return Frame::Nothing { end };
        }
        let first = Frame::Record { record: 0..line, end };
        let Some(quote) = self.dialect.quote.filter(|quote| memchr::memchr(*quote, &bytes[..line]).is_some()) else {
            return first;
        };
        let malformed = |reason| Frame::Malformed { record: 0..line, end, reason };
        let shown = bytes.len().min(LINES_BYTES_MAX.max(end));
        match self.scan(&bytes[..shown], quote, line) {
            Scan::Open if shown < bytes.len() || last => malformed(NOT_CLOSED),
            Scan::Open => Frame::Incomplete,
            Scan::Behind => malformed(BEHIND_QUOTE),
            Scan::End(at) if at < end => first,
            // Behind a closing quote at the end of what is there, another quote may follow.
            Scan::End(at) if at == bytes.len() && !last => Frame::Incomplete,
            Scan::End(at) if at == shown && shown < bytes.len() => malformed(NOT_CLOSED),
            Scan::End(at) => {
                let end = (at + 1).min(bytes.len());
                let mut record = at;
                while record > 0 && bytes[record - 1] == b'\r' {
                    record -= 1;
                }
                Frame::Record { record: 0..record, end }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::framing::tests::frames;

    fn records(text: &str) -> Vec<String> {
        let dialect = Dialect { delimiter: b',', quote: Some(b'"'), escape: None, comments: true };
        let all = frames(&mut CsvFramer::new(dialect), text.as_bytes(), text.len());
        for step in 1..12 {
            assert_eq!(frames(&mut CsvFramer::new(dialect), text.as_bytes(), step), all, "{step} bytes at a time");
        }
        all.into_iter().map(|record| record.split(": a field").next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn line_ends_within_quotes_belong_to_the_record() {
        assert_eq!(
            records("1,\"two\r\nlines\",x\r\n2,\"\"\"\n\"\"\"\n\n# no record, \"\n3,\"\"\n\"end\n\",4"),
            ["1,\"two\r\nlines\",x", "2,\"\"\"\n\"\"\"", "3,\"\"", "\"end\n\",4"]
        );
    }

    #[test]
    fn a_stray_quote_takes_no_other_line_with_it() {
        assert_eq!(records("1,Box 24\",10\n2,6\" nails,20\n3,x,30\n"), ["1,Box 24\",10", "2,6\" nails,20", "3,x,30"]);
        assert_eq!(records("1,\"Box 24,10\n2,Rope,20\n3,x,30"), ["!1,\"Box 24,10", "2,Rope,20", "3,x,30"]);
        assert_eq!(
            records("1,\"Box 24,10\n2,Rope,20\n3,\"quoted\",30\n4,\"open"),
            ["!1,\"Box 24,10", "2,Rope,20", "3,\"quoted\",30", "!4,\"open"]
        );
        // Within one line, what follows a closing quote is taken as it stands.
        assert_eq!(records("1,\"Box\" 24,10\n2,x,20\n"), ["1,\"Box\" 24,10", "2,x,20"]);
    }

    #[test]
    fn a_quote_is_not_looked_for_without_end() {
        let mut text = "1,\"open,2\n".to_owned();
        text.push_str(&"2,x,3\n".repeat(LINES_BYTES_MAX / 6 + 10));
        let mut framer = CsvFramer::new(Dialect { delimiter: b',', quote: Some(b'"'), escape: None, comments: false });
        let Frame::Malformed { record, .. } = framer.next(text.as_bytes(), false) else { panic!("not malformed") };
        assert_eq!(record, 0..9);
    }
}
