//! Where records begin and end in a file of text.
//!
//! A framer is shown the bytes that are buffered of a file's rest, and finds the first record in them. It looks at bytes
//! alone: reading, decompressing and counting lines is the caller's business.

use std::ops::Range;

/// What a framer found at the beginning of some bytes. Ends are offsets in those bytes, behind the line end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// More bytes are needed to tell. Never said of the file's last bytes.
    Incomplete,
    /// A record; the next one begins at `end` at the earliest.
    Record {
        /// The record, without its line end.
        record: Range<usize>,
        /// Behind the record.
        end: usize,
    },
    /// Blanks or comments.
    Nothing {
        /// Behind them.
        end: usize,
    },
    /// No record can be made of these bytes; reading goes on at `end`.
    Malformed {
        /// What cannot be a record.
        record: Range<usize>,
        /// Where to go on.
        end: usize,
        /// What was expected.
        reason: &'static str,
    },
}

/// Finds records, one after the other.
///
/// **Operations** `next` with the rest of the file, again and again; `resume` once before, when reading begins in the middle.
/// **Guarantees** asked of an implementation: what it finds depends on the bytes and on the position alone, not on how many
/// bytes it was shown; a frame ends at 1 or later; no byte is passed over but in the frames.
pub trait Framer: Send {
    /// Looks at `bytes`, which are not empty. `last` says that nothing follows them.
    fn next(&mut self, bytes: &[u8], last: bool) -> Frame;

    /// Whether `resume` needs the beginning of the file.
    fn needs_beginning(&self) -> bool {
        false
    }

    /// Reading goes on in the middle of a file: `beginning` are some of its first bytes, `rest` are bytes behind the position.
    fn resume(&mut self, beginning: &[u8], rest: &[u8]) {
        let _ = (beginning, rest);
    }
}

/// A record per line. An empty line is no record.
#[derive(Debug, Clone, Copy)]
pub struct LineFramer {
    /// Whether a line of spaces and tabs is no record, either.
    pub skips_white_space: bool,
}

impl Framer for LineFramer {
    #[inline]
    fn next(&mut self, bytes: &[u8], last: bool) -> Frame {
        let Some((line, end)) = first_line(bytes, last) else { return Frame::Incomplete };
        let blank = line == 0 || self.skips_white_space && is_blank(&bytes[..line]);
        if blank { Frame::Nothing { end } } else { Frame::Record { record: 0..line, end } }
    }
}

/// The length of the first line without its end, and with it. `None` when the line is not all there.
#[inline]
pub(super) fn first_line(bytes: &[u8], last: bool) -> Option<(usize, usize)> {
    let (mut line, end) = match memchr::memchr(b'\n', bytes) {
        Some(at) => (at, at + 1),
        None if last => (bytes.len(), bytes.len()),
        None => return None,
    };
    while line > 0 && bytes[line - 1] == b'\r' {
        line -= 1;
    }
    Some((line, end))
}

/// Whether there is only white space.
#[inline]
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// All that a framer finds in a text that is shown `step` bytes at a time: records as they are, malformed ones with a `!`.
    pub fn frames(framer: &mut dyn Framer, text: &[u8], step: usize) -> Vec<String> {
        let (mut at, mut shown, mut found) = (0, 0, Vec::new());
        loop {
            shown = shown.max(at);
            if at == text.len() {
                return found;
            }
            let (frame_of, end) = match framer.next(&text[at..shown], shown == text.len()) {
                _ if shown == at => (None, 0),
                Frame::Incomplete => (None, 0),
                Frame::Nothing { end } => (None, end),
                Frame::Record { record, end } => (Some(String::from_utf8_lossy(&text[at..][record]).into_owned()), end),
                Frame::Malformed { record, end, reason } => {
                    (Some(format!("!{}: {reason}", String::from_utf8_lossy(&text[at..][record]))), end)
                }
            };
            found.extend(frame_of);
            if end == 0 {
                assert!(shown < text.len(), "the framer wants more than there is");
                shown = (shown + step).min(text.len());
            }
            at += end;
        }
    }

    #[test]
    fn lines_are_records_and_blank_ones_are_not() {
        let text = b"a\r\n\r\n  \n b\n\nc";
        for step in 1..8 {
            assert_eq!(frames(&mut LineFramer { skips_white_space: true }, text, step), ["a", " b", "c"]);
            assert_eq!(frames(&mut LineFramer { skips_white_space: false }, text, step), ["a", "  ", " b", "c"]);
        }
    }
}
