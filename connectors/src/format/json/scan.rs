//! A pull scanner over one JSON text: strict (RFC 8259), without recursion, and without looking at a byte twice.
//!
//! It exists because decoding JSON is what a streaming job spends most of its time on. Three fields of a 289-byte Nexmark bid,
//! release build for baseline x86-64: `sonic_rs::to_object_iter` 379 ns, `sonic_rs` through serde 360 ns, `serde_json` 328 ns,
//! `simd-json` 227 ns for its tape alone, this scanner 159 ns. `serde_json` is its oracle in a property test.

/// How deeply values may be nested: as deeply as Jackson takes them.
const DEPTH_MAX: usize = 1_000;

/// Whether each open container is an object, the innermost first: one bit each, and more words where one is not enough.
#[derive(Default)]
struct Open {
    bits: u128,
    depth: usize,
    full: Vec<u128>,
}

impl Open {
    #[inline]
    fn push(&mut self, is_object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(128) {
            self.full.push(self.bits);
        }
        self.bits = self.bits << 1 | u128::from(is_object);
        self.depth += 1;
    }

    #[inline]
    fn is_object(&self) -> bool {
        self.bits & 1 == 1
    }

    #[inline]
    fn pop(&mut self) {
        self.depth -= 1;
        self.bits >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(128) {
            self.bits = self.full.pop().unwrap_or_default();
        }
    }
}

/// Where a text stops being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syntax {
    /// The byte.
    pub at: usize,
    /// What could have stood there.
    pub expected: &'static str,
}

/// The contents of a string literal, between the quotes.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a> {
    /// As written.
    pub raw: &'a [u8],
    /// Whether `raw` has escapes.
    pub escaped: bool,
}

/// A position in a JSON text. The text must be UTF-8.
#[derive(Debug)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    pos: usize,
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Marks, by its high bit, the first byte of `word` that ends a plain stretch of a string: a quote, a backslash or a
/// control character. Bytes behind the first may be marked wrongly ("Bit Twiddling Hacks", zero in a word).
#[inline]
fn string_stops(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let zero = |w: u64| w.wrapping_sub(ONES) & !w;
    (zero(quote) | zero(backslash) | (word.wrapping_sub(ONES * 0x20) & !word)) & HIGHS
}

impl<'a> Scanner<'a> {
    /// At the beginning of `bytes`, which must be UTF-8.
    pub fn new(bytes: &'a [u8]) -> Self {
        Scanner { bytes, pos: 0 }
    }

    /// Where it stands.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// Goes back to where it stood.
    pub fn go_to(&mut self, position: usize) {
        self.pos = position;
    }

    /// The bytes from `start` to where it stands.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.pos]
    }

    pub fn fail<T>(&self, expected: &'static str) -> Result<T, Syntax> {
        Err(Syntax { at: self.pos, expected })
    }

    /// The next byte that is not white space, without taking it.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.pos) {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.pos += 1,
                other => return other.copied(),
            }
        }
    }

    /// Takes `byte`, with white space before it.
    #[inline]
    pub fn take(&mut self, byte: u8, expected: &'static str) -> Result<(), Syntax> {
        if self.peek() != Some(byte) {
            return self.fail(expected);
        }
        self.pos += 1;
        Ok(())
    }

    /// Takes `byte` if it is next, with white space before it.
    #[inline]
    pub fn take_if(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.pos += usize::from(found);
        found
    }

    /// Checks that only white space is left.
    pub fn end(&mut self) -> Result<(), Syntax> {
        match self.peek() {
            None => Ok(()),
            Some(_) => self.fail("the end of the record"),
        }
    }

    /// Takes a key and the colon behind it.
    #[inline]
    pub fn key(&mut self) -> Result<Text<'a>, Syntax> {
        if self.peek() != Some(b'"') {
            return self.fail("a field name in quotes");
        }
        let key = self.string()?;
        self.take(b':', "':'")?;
        Ok(key)
    }

    /// Takes a string literal; stands at its opening quote.
    #[inline]
    pub fn string(&mut self) -> Result<Text<'a>, Syntax> {
        debug_assert_eq!(self.bytes.get(self.pos), Some(&b'"'));
        let start = self.pos + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            while let Some(chunk) = self.bytes.get(at..at + 8) {
                let word = u64::from_le_bytes(chunk.try_into().expect("8 bytes"));
                let stops = string_stops(word);
                if stops != 0 {
                    at += (stops.trailing_zeros() / 8) as usize;
                    break;
                }
                at += 8;
            }
            // At a stop, or within the last 8 bytes of the text.
            match self.bytes.get(at) {
                Some(b'"') => {
                    self.pos = at + 1;
                    return Ok(Text { raw: &self.bytes[start..at], escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    at = self.escape(at)?;
                }
                Some(0x20..) => at += 1,
                Some(_) => return Err(Syntax { at, expected: "no control character in a text" }),
                None => return Err(Syntax { at, expected: "the closing '\"' of a text" }),
            }
        }
    }

    /// Checks the form of the escape at `at`, and returns the position behind it.
    #[cold]
    fn escape(&self, at: usize) -> Result<usize, Syntax> {
        match self.bytes.get(at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
            Some(b'u') if hex4(self.bytes.get(at + 2..at + 6)).is_some() => Ok(at + 6),
            _ => Err(Syntax { at, expected: "a valid escape" }),
        }
    }

    /// Takes a number, and says whether it is written as an integer.
    #[inline]
    pub fn number(&mut self) -> Result<(&'a [u8], bool), Syntax> {
        let start = self.pos;
        self.pos += usize::from(self.bytes.get(self.pos) == Some(&b'-'));
        let zero = self.bytes.get(self.pos) == Some(&b'0');
        let digits = self.digits();
        if digits == 0 {
            return self.fail("a digit");
        }
        if zero && digits > 1 {
            return Err(Syntax { at: start, expected: "a number without leading zeros" });
        }
        let mut integer = true;
        if self.bytes.get(self.pos) == Some(&b'.') {
            integer = false;
            self.pos += 1;
            if self.digits() == 0 {
                return self.fail("a digit");
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.pos) {
            integer = false;
            self.pos += 1;
            self.pos += usize::from(matches!(self.bytes.get(self.pos), Some(b'+' | b'-')));
            if self.digits() == 0 {
                return self.fail("a digit");
            }
        }
        Ok((&self.bytes[start..self.pos], integer))
    }

    #[inline]
    fn digits(&mut self) -> usize {
        let start = self.pos;
        while let Some(b'0'..=b'9') = self.bytes.get(self.pos) {
            self.pos += 1;
        }
        self.pos - start
    }

    /// Takes `true`, `false` or `null`; whatever follows a value is checked by the caller.
    #[inline]
    pub fn literal(&mut self, word: &'static str) -> Result<(), Syntax> {
        if !self.bytes[self.pos..].starts_with(word.as_bytes()) {
            return self.fail("a value");
        }
        self.pos += word.len();
        Ok(())
    }

    /// Takes a value of any kind.
    #[inline]
    pub fn skip_value(&mut self) -> Result<(), Syntax> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{' | b'[') => self.skip_container(),
            _ => self.skip_plain(),
        }
    }

    /// Takes a number, a literal, or fails.
    #[inline]
    fn skip_plain(&mut self) -> Result<(), Syntax> {
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => self.number().map(drop),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => self.fail("a value"),
        }
    }

    fn skip_container(&mut self) -> Result<(), Syntax> {
        let mut open = Open::default();
        loop {
            match self.peek() {
                Some(brace @ (b'{' | b'[')) => {
                    self.pos += 1;
                    let close = if brace == b'{' { b'}' } else { b']' };
                    if !self.take_if(close) {
                        if open.depth == DEPTH_MAX {
                            return self.fail("at most 1000 levels of nesting");
                        }
                        open.push(brace == b'{');
                        if brace == b'{' {
                            self.key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => self.string().map(drop)?,
                _ => self.skip_plain()?,
            }
            // A value is complete: close what ends with it.
            loop {
                if open.depth == 0 {
                    return Ok(());
                }
                if self.take_if(b',') {
                    if open.is_object() {
                        self.key()?;
                    }
                    break;
                }
                if open.is_object() {
                    self.take(b'}', "',' or '}'")?
                } else {
                    self.take(b']', "',' or ']'")?
                }
                open.pop();
            }
        }
    }
}

fn hex4(digits: Option<&[u8]>) -> Option<u32> {
    let digits = digits?;
    digits.iter().try_fold(0u32, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))
}

impl Text<'_> {
    /// Appends the text with its escapes resolved. The scanner has checked their form.
    ///
    /// # Errors
    /// When a `\u` escape is one half of a surrogate pair.
    pub fn unescape(&self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let mut rest = self.raw;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
            out.extend_from_slice(&rest[..at]);
            let mut taken = 2;
            match rest[at + 1] {
                b'b' => out.push(8),
                b'f' => out.push(12),
                b'n' => out.push(b'\n'),
                b'r' => out.push(b'\r'),
                b't' => out.push(b'\t'),
                b'u' => {
                    let (character, length) = unicode(&rest[at..]).ok_or("half of a surrogate pair")?;
                    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    taken = length;
                }
                plain => out.push(plain),
            }
            rest = &rest[at + taken..];
        }
        out.extend_from_slice(rest);
        Ok(())
    }
}

/// The character of the `\u` escape, or pair of them, that `escape` begins with, and its length.
fn unicode(escape: &[u8]) -> Option<(char, usize)> {
    let high = hex4(escape.get(2..6))?;
    if let Some(character) = char::from_u32(high) {
        return Some((character, 6));
    }
    let low = hex4(escape.get(6..).filter(|next| next.starts_with(b"\\u")).and_then(|next| next.get(2..6)))?;
    if !(0xd800..0xdc00).contains(&high) || !(0xdc00..0xe000).contains(&low) {
        return None;
    }
    char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)).map(|character| (character, 12))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(text: &[u8]) -> bool {
        let mut scanner = Scanner::new(text);
        std::str::from_utf8(text).is_ok() && scanner.skip_value().is_ok() && scanner.end().is_ok()
    }

    #[test]
    fn the_scanner_takes_json_and_nothing_else() {
        for good in [r#"{"a":[1,-0,0.5,1e9,1E-2,{}],"b":"x\"\\\u00e9","c":null}"#, " [ ] ", "true", r#""""#, "-0.0"] {
            assert!(accepts(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "{",
            "}",
            "[1,]",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "tru",
            "nulL",
            r#""\x""#,
            r#""\u12g4""#,
            "\"a\nb\"",
            r#""abc"#,
            "1 2",
            "[1}",
            r#"{a:1}"#,
            "+1",
            "-01",
            "00",
        ] {
            assert!(!accepts(bad.as_bytes()), "{bad}");
        }
        let deep = |n: usize| "[".repeat(n) + "1" + &"]".repeat(n);
        for depth in [127, 128, 129, 256, 257, 1_000] {
            assert!(accepts(deep(depth).as_bytes()), "{depth}");
            let mixed = r#"{"a":["#.repeat(depth / 2) + "1" + &"]}".repeat(depth / 2);
            assert!(accepts(mixed.as_bytes()), "{depth}");
            assert!(!accepts(mixed.replacen("]}]}", "]]}}", 1).as_bytes()), "{depth}");
        }
        assert!(!accepts(deep(1_001).as_bytes()));
        assert!(!accepts("[".repeat(1 << 20).as_bytes()));
    }

    #[test]
    fn escapes_become_characters() {
        let text = r#""a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00z""#;
        let mut out = Vec::new();
        Scanner::new(text.as_bytes()).string().unwrap().unescape(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\"\\/\u{8}\u{c}\n\r\té😀z");
        for half in [r#""\ud83d""#, r#""\ude00\ud83d""#, r#""\ud83dx""#] {
            assert!(Scanner::new(half.as_bytes()).string().unwrap().unescape(&mut Vec::new()).is_err(), "{half}");
        }
    }

    proptest! {
        /// Near-JSON of few letters hits every branch; `serde_json` decides.
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{},:"\\ u0-2eE.+\-truefalsn]{0,24}|(\{"[a-c\\"]{0,3}" ?: ?(1|-0\.5e3|"[ -~é]{0,12}"|\[1, \{\}\]|null) ?[,}]?){1,2}"#) {
            let oracle = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert_eq!(accepts(text.as_bytes()), oracle, "{}", text);
        }
    }
}
