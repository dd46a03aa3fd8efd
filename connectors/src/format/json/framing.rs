//! Finds JSON records in a file: one per line, or the elements of an array that begins the file.
//!
//! The array may be written over any number of lines. What stands where a ',' or the closing ']' should be ends it: the
//! line is malformed, and the lines behind it are records of their own.

use crate::format::framing::{first_line, is_blank};
use crate::format::{Frame, Framer};

const EXPECTED_NEXT: &str = "expected ',' or ']' behind an element of the array that begins the file";
const EXPECTED_VALUE: &str = "expected an element of the array that begins the file";
const NOT_CLOSED: &str = "the file ends within the array that begins it";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum At {
    /// The beginning of the file.
    #[default]
    Beginning,
    /// A line.
    Line,
    /// In the array, before an element. The first may be missing.
    Element { first: bool },
    /// In the array, behind an element.
    Next,
}

#[derive(Debug, Default)]
pub struct JsonFramer {
    at: At,
}

impl JsonFramer {
    fn line(&mut self, bytes: &[u8], last: bool, malformed: Option<&'static str>) -> Frame {
        let Some((line, end)) = first_line(bytes, last) else { return Frame::Incomplete };
        self.at = At::Line;
        match malformed {
            _ if is_blank(&bytes[..line]) => Frame::Nothing { end },
            None => Frame::Record { record: 0..line, end },
            Some(reason) => {
                let start = bytes[..line].iter().take_while(|byte| is_blank(&[**byte])).count();
                Frame::Malformed { record: start..line, end, reason }
            }
        }
    }

    fn element(&mut self, bytes: &[u8], start: usize, last: bool) -> Frame {
        match value_end(&bytes[start..], last) {
            Value::Incomplete => Frame::Incomplete,
            Value::Wrong => self.line(bytes, last, Some(EXPECTED_VALUE)),
            Value::End(length) => {
                self.at = At::Next;
                Frame::Record { record: start..start + length, end: start + length }
            }
        }
    }
}

impl Framer for JsonFramer {
    fn next(&mut self, bytes: &[u8], last: bool) -> Frame {
        if self.at == At::Line {
            return self.line(bytes, last, None);
        }
        let Some(start) = bytes.iter().position(|byte| !is_blank(&[*byte])) else {
            if last && self.at != At::Beginning {
                self.at = At::Line;
                return Frame::Malformed { record: 0..0, end: bytes.len(), reason: NOT_CLOSED };
            }
            return Frame::Nothing { end: bytes.len() };
        };
        match (self.at, bytes[start]) {
            (At::Beginning, b'[') => {
                self.at = At::Element { first: true };
                Frame::Nothing { end: start + 1 }
            }
            (At::Beginning | At::Line, _) => self.line(bytes, last, None),
            (At::Next | At::Element { first: true }, b']') => {
                self.at = At::Line;
                Frame::Nothing { end: start + 1 }
            }
            (At::Next, b',') => {
                self.at = At::Element { first: false };
                Frame::Nothing { end: start + 1 }
            }
            (At::Next, _) => self.line(bytes, last, Some(EXPECTED_NEXT)),
            (At::Element { .. }, _) => self.element(bytes, start, last),
        }
    }

    fn needs_beginning(&self) -> bool {
        true
    }

    fn resume(&mut self, beginning: &[u8], rest: &[u8]) {
        let first = |bytes: &[u8]| bytes.iter().copied().find(|byte| !is_blank(&[*byte]));
        let beginning = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning);
        // Positions are behind an element or behind a line, and no record begins with these.
        let in_array = first(beginning) == Some(b'[') && matches!(first(rest), Some(b',' | b']'));
        self.at = if in_array { At::Next } else { At::Line };
    }
}

enum Value {
    Incomplete,
    /// Its length.
    End(usize),
    Wrong,
}

/// Where the value that begins the bytes is over, by its brackets and quotes; whether it is right is the decoder's business.
fn value_end(bytes: &[u8], last: bool) -> Value {
    let (mut depth, mut at) = (0usize, 0);
    loop {
        let Some(byte) = bytes.get(at) else {
            return if !last { Value::Incomplete } else { Value::Wrong };
        };
        match byte {
            b'"' => match text_end(bytes, at) {
                Some(Some(end)) => at = end,
                Some(None) => return Value::Wrong,
                None if last => return Value::Wrong,
                None => return Value::Incomplete,
            },
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' => {
                let Some(outer) = depth.checked_sub(1) else { return Value::Wrong };
                depth = outer;
                at += 1;
            }
            _ if depth > 0 => {
                at += 1;
                continue;
            }
            _ => {
                // A number or a word: to whatever cannot be in one.
                let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}' | b'"') || is_blank(&[*byte]);
                return match bytes[at..].iter().position(ends) {
                    Some(0) => Value::Wrong,
                    Some(length) => Value::End(at + length),
                    None if last => Value::Wrong,
                    None => Value::Incomplete,
                };
            }
        }
        if depth == 0 {
            return Value::End(at);
        }
    }
}

/// Behind the closing quote of the text that opens at `at`: `Some(None)` when a line ends before it, `None` when it is not there.
fn text_end(bytes: &[u8], at: usize) -> Option<Option<usize>> {
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(Some(at + 1)),
            b'\\' => at += 2,
            b'\n' => return Some(None),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::framing::tests::frames;

    fn records(text: &str) -> Vec<String> {
        let all = frames(&mut JsonFramer::default(), text.as_bytes(), text.len());
        for step in 1..12 {
            assert_eq!(frames(&mut JsonFramer::default(), text.as_bytes(), step), all, "{step} bytes at a time");
        }
        all
    }

    #[test]
    fn the_elements_of_an_array_are_records() {
        let object = "{\n  \"a\": [1, \"]\\\"}\"]\n }";
        assert_eq!(records(&format!("\n [\n {object} , 2,\"x\"\n]\n")), [object, "2", "\"x\""]);
        assert_eq!(records("[]"), [""; 0]);
        assert_eq!(records("[{},{}]\n{\"b\":1}\n[3]\n"), ["{}", "{}", "{\"b\":1}", "[3]"]);
    }

    #[test]
    fn a_damaged_array_leaves_the_other_lines_alone() {
        let expected = |record: &str, reason: &str| format!("!{record}: {reason}");
        assert_eq!(
            records("[1 2\n{\"a\":3}\n"),
            ["1".to_owned(), expected("2", EXPECTED_NEXT), "{\"a\":3}".to_owned()]
        );
        assert_eq!(
            records("[{\"a\":\"cut\n{\"a\":3}"),
            [expected("{\"a\":\"cut", EXPECTED_VALUE), "{\"a\":3}".to_owned()]
        );
        assert_eq!(records("[{},\n"), ["{}".to_owned(), expected("", NOT_CLOSED)]);
        assert_eq!(records("[{}"), ["{}"]);
    }

    #[test]
    fn reading_goes_on_in_the_array_or_behind_it() {
        let text = "[{},\n{}\n,{}]\n{\"b\":1}";
        let whole = frames(&mut JsonFramer::default(), text.as_bytes(), 100);
        for (position, rest) in [(3, 3), (7, 2), (11, 1), (13, 1)] {
            let mut framer = JsonFramer::default();
            framer.resume(text.as_bytes(), &text.as_bytes()[position..]);
            assert_eq!(
                frames(&mut framer, &text.as_bytes()[position..], 100),
                whole[whole.len() - rest..],
                "{position}"
            );
        }
    }
}
