//! Java's regular expressions, translated to those of the `fancy-regex` crate.
//!
//! Both have Perl's syntax. What differs is written out: `\d`, `\w` and `\s` are ASCII in Java; `.` and `$` know five line terminators; `\h`, `\v`, `\R`,
//! `\Q…\E`, `\p{Upper}` and their like; octal escapes. Not translated: `\G`, `\X`, comments mode, and flags other than `i`, `m`, `s`, `u`, `U`.

use fancy_regex::{Captures, Regex};

/// A compiled expression.
pub(crate) struct JavaRegex {
    /// `$` and `\Z` are the very end here: right for a text that does not end with a line terminator.
    plain: Regex,
    /// `$` and `\Z` are in front of a last line terminator too. Only if the expression has one of them.
    with_terminator: Option<Regex>,
}

impl JavaRegex {
    /// Nothing if the expression is invalid (or beyond what is translated).
    pub fn new(pattern: &str) -> Option<Self> {
        let (plain, has_end) = translate(pattern, r"\z")?;
        let with_terminator = if has_end {
            let (exact, _) = translate(pattern, r"(?=(?:\r\n|[\n\r\x{85}\x{2028}\x{2029}])?\z)")?;
            Some(Regex::new(&exact).ok()?)
        } else {
            None
        };
        Some(JavaRegex { plain: Regex::new(&plain).ok()?, with_terminator })
    }

    fn for_text(&self, text: &str) -> &Regex {
        match &self.with_terminator {
            Some(exact) if text.ends_with(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']) => exact,
            _ => &self.plain,
        }
    }

    /// The number of groups, without the whole match.
    pub fn groups(&self) -> usize {
        self.plain.captures_len().saturating_sub(1)
    }

    /// Whether it matches somewhere.
    pub fn is_match(&self, text: &str) -> bool {
        self.for_text(text).is_match(text).unwrap_or(false)
    }

    /// Where the first match at or behind a byte is.
    pub fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let found = self.for_text(text).find_from_pos(text, from).ok()??;
        Some((found.start(), found.end()))
    }

    /// The groups of the first match at or behind a byte.
    pub fn captures<'t>(&self, text: &'t str, from: usize) -> Option<Captures<'t>> {
        self.for_text(text).captures_from_pos(text, from).ok()?
    }
}

/// The places of all matches, one after the other as `Matcher.find` gives them: an empty one may follow another at its end.
pub(crate) fn all<'a>(regex: &'a JavaRegex, text: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let (start, end) = regex.find(text, next?)?;
        next = following(text, start, end);
        Some((start, end))
    })
}

/// Where the search goes on behind a match; nothing at the end of the text.
pub(crate) fn following(text: &str, start: usize, end: usize) -> Option<usize> {
    if start < end {
        return Some(end);
    }
    text[end..].chars().next().map(|c| end + c.len_utf8())
}

const DIGIT: &str = "0-9";
const WORD: &str = "a-zA-Z0-9_";
const SPACE: &str = r" \t\n\x0B\f\r";
const HORIZONTAL: &str = r" \t\x{A0}\x{1680}\x{180e}\x{2000}-\x{200a}\x{202f}\x{205f}\x{3000}";
const VERTICAL: &str = r"\n\x0B\f\r\x{85}\x{2028}\x{2029}";
const TERMINATORS: &str = r"\n\r\x{85}\x{2028}\x{2029}";

/// Java's names of ASCII classes.
const CLASSES: &[(&str, &str)] = &[
    ("Lower", "a-z"),
    ("Upper", "A-Z"),
    ("ASCII", r"\x00-\x7F"),
    ("Alpha", "a-zA-Z"),
    ("Digit", "0-9"),
    ("Alnum", "a-zA-Z0-9"),
    ("Punct", r"!-/:-@\[-`{-~"),
    ("Graph", "!-~"),
    ("Print", " -~"),
    ("Blank", r" \t"),
    ("Cntrl", r"\x00-\x1F\x7F"),
    ("XDigit", "0-9a-fA-F"),
    ("Space", SPACE),
];

struct Translator<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    out: String,
    /// What `$` and `\Z` are.
    end: &'static str,
    has_end: bool,
    /// Flags of this group and those around it: whether `.` matches all, whether `$` matches at lines.
    flags: Vec<Flags>,
}

#[derive(Clone, Copy, Default)]
struct Flags {
    dot_all: bool,
    multiline: bool,
}

/// The expression in the other notation, and whether it has a `$` or `\Z`.
fn translate(pattern: &str, end: &'static str) -> Option<(String, bool)> {
    let out = String::with_capacity(pattern.len() + 8);
    let mut translator =
        Translator { rest: pattern.chars().peekable(), out, end, has_end: false, flags: vec![Flags::default()] };
    while let Some(c) = translator.rest.next() {
        translator.item(c)?;
    }
    Some((translator.out, translator.has_end))
}

impl Translator<'_> {
    fn flags(&self) -> Flags {
        self.flags.last().copied().unwrap_or_default()
    }

    fn item(&mut self, c: char) -> Option<()> {
        match c {
            '\\' => self.escape()?,
            '[' => self.class()?,
            '(' => self.group()?,
            ')' => {
                if self.flags.len() > 1 {
                    self.flags.pop();
                }
                self.out.push(')');
            }
            '.' if self.flags().dot_all => self.out.push_str("(?s:.)"),
            '.' => self.class_of(true, TERMINATORS),
            '$' if self.flags().multiline => self.out.push_str("(?m:$)"),
            '$' => self.push_end(),
            '^' if self.flags().multiline => self.out.push_str("(?m:^)"),
            '^' => self.out.push_str(r"\A"),
            c => self.out.push(c),
        }
        Some(())
    }

    fn push_end(&mut self) {
        self.has_end = true;
        self.out.push_str(self.end);
    }

    fn class_of(&mut self, negated: bool, members: &str) {
        self.out.push_str(if negated { "[^" } else { "[" });
        self.out.push_str(members);
        self.out.push(']');
    }

    fn escape(&mut self) -> Option<()> {
        let c = self.rest.next()?;
        match c {
            'd' | 'w' | 's' | 'h' | 'v' | 'D' | 'W' | 'S' | 'H' | 'V' => {
                let members = members(c.to_ascii_lowercase())?;
                self.class_of(c.is_ascii_uppercase(), members);
            }
            'R' => self.out.push_str(r"(?:\r\n|[\n\x0B\f\r\x{85}\x{2028}\x{2029}])"),
            'Z' => self.push_end(),
            'A' | 'z' | 'b' | 'B' => self.out.extend(['\\', c]),
            'Q' => self.quoted(),
            'k' => {
                self.out.push_str("\\k");
                let name: String = self.rest.by_ref().take_while(|c| *c != '>').collect();
                self.out.push_str(&name);
                self.out.push('>');
            }
            '1'..='9' => {
                self.out.extend(['\\', c]);
                // The next digit belongs to the number only if there are so many groups; a single digit is what people write.
                if self.rest.peek().is_some_and(char::is_ascii_digit) {
                    self.out.push_str("(?:)");
                }
            }
            'p' | 'P' => {
                let class = self.property(c == 'P')?;
                self.out.push_str(&class);
            }
            c => {
                let literal = self.character(c)?;
                push_literal(&mut self.out, literal);
            }
        }
        Some(())
    }

    /// The text up to `\E` as it is.
    fn quoted(&mut self) {
        while let Some(c) = self.rest.next() {
            if c == '\\' && self.rest.peek() == Some(&'E') {
                self.rest.next();
                return;
            }
            push_literal(&mut self.out, c);
        }
    }

    /// The one character that an escape stands for.
    fn character(&mut self, c: char) -> Option<char> {
        let code = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        match c {
            't' => Some('\t'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            'f' => Some('\x0c'),
            'a' => Some('\x07'),
            'e' => Some('\x1b'),
            'c' => char::from_u32(u32::from(self.rest.next()?) ^ 64),
            '0' => {
                let mut digits = String::new();
                while digits.len() < 3 && self.rest.peek().is_some_and(|c| ('0'..='7').contains(c)) {
                    digits.extend(self.rest.next());
                }
                code(&digits, 8)
            }
            'x' if self.rest.peek() == Some(&'{') => {
                self.rest.next();
                let digits: String = self.rest.by_ref().take_while(|c| *c != '}').collect();
                code(&digits, 16)
            }
            'x' => {
                let digits: String = self.rest.by_ref().take(2).collect();
                code(&digits, 16)
            }
            'u' => {
                let digits: String = self.rest.by_ref().take(4).collect();
                code(&digits, 16)
            }
            c if c.is_ascii_alphanumeric() => None,
            c => Some(c),
        }
    }

    /// `\p{…}` or `\pL`, as a class.
    fn property(&mut self, negated: bool) -> Option<String> {
        let name: String = match self.rest.next()? {
            '{' => self.rest.by_ref().take_while(|c| *c != '}').collect(),
            c => c.to_string(),
        };
        let not = if negated { "^" } else { "" };
        if let Some((_, members)) = CLASSES.iter().find(|(known, _)| *known == name) {
            return Some(format!("[{not}{members}]"));
        }
        let property = match name.as_str() {
            "javaLowerCase" => "Lowercase",
            "javaUpperCase" => "Uppercase",
            "javaWhitespace" => "White_Space",
            "javaLetter" => "L",
            "javaDigit" => "Nd",
            "javaLetterOrDigit" => return Some(format!(r"[{not}\p{{L}}\p{{Nd}}]")),
            "IsDigit" => "Nd",
            "IsPunctuation" => "P",
            "IsControl" => "Cc",
            name => name.strip_prefix("Is").or(name.strip_prefix("general_category=")).unwrap_or(name),
        };
        Some(format!(r"[{not}\p{{{property}}}]"))
    }

    /// A class in brackets, with those within it.
    fn class(&mut self) -> Option<()> {
        self.out.push('[');
        if self.rest.peek() == Some(&'^') {
            self.rest.next();
            self.out.push('^');
        }
        let mut first = true;
        loop {
            match self.rest.next()? {
                ']' if !first => {
                    self.out.push(']');
                    return Some(());
                }
                '[' => self.class()?,
                '&' if self.rest.peek() == Some(&'&') => {
                    self.rest.next();
                    self.out.push_str("&&");
                }
                '\\' => self.class_escape()?,
                '-' => self.out.push('-'),
                // Alone behind a bracket it would begin a POSIX class, which Java does not have.
                ':' => self.out.push_str(":-:"),
                c => push_literal(&mut self.out, c),
            }
            first = false;
        }
    }

    fn class_escape(&mut self) -> Option<()> {
        let c = self.rest.next()?;
        match c {
            'd' | 'w' | 's' | 'h' | 'v' => self.out.push_str(members(c)?),
            'D' | 'W' | 'S' | 'H' | 'V' => self.class_of(true, members(c.to_ascii_lowercase())?),
            'Q' => self.quoted(),
            'p' | 'P' => {
                let class = self.property(c == 'P')?;
                self.out.push_str(&class);
            }
            c => {
                let literal = self.character(c)?;
                push_literal(&mut self.out, literal);
            }
        }
        Some(())
    }

    /// `(`, with what makes a group special.
    fn group(&mut self) -> Option<()> {
        let mut flags = self.flags();
        self.out.push('(');
        if self.rest.peek() != Some(&'?') {
            self.flags.push(flags);
            return Some(());
        }
        self.rest.next();
        self.out.push('?');
        let mut negated = false;
        loop {
            let c = self.rest.next()?;
            match c {
                'i' | 'm' | 's' | 'u' | 'U' | '-' => {
                    negated |= c == '-';
                    flags.dot_all = if c == 's' { !negated } else { flags.dot_all };
                    flags.multiline = if c == 'm' { !negated } else { flags.multiline };
                    // Java's `u` and `U` ask for Unicode, which the other engine has anyway.
                    if !matches!(c, 'u' | 'U') {
                        self.out.push(c);
                    }
                }
                ')' => {
                    // Flags up to the end of the group around.
                    self.out.push(')');
                    if self.out.ends_with("(?)") {
                        self.out.truncate(self.out.len() - 3);
                    }
                    if let Some(around) = self.flags.last_mut() {
                        *around = flags;
                    }
                    return Some(());
                }
                ':' | '=' | '!' | '>' => {
                    self.out.push(c);
                    break;
                }
                '<' => {
                    self.out.push('<');
                    if let Some(c) = self.rest.peek().copied().filter(|c| matches!(c, '=' | '!')) {
                        self.rest.next();
                        self.out.push(c);
                    } else {
                        let name: String = self.rest.by_ref().take_while(|c| *c != '>').collect();
                        self.out.push_str(&name);
                        self.out.push('>');
                    }
                    break;
                }
                _ => return None,
            }
        }
        self.flags.push(flags);
        Some(())
    }
}

fn members(class: char) -> Option<&'static str> {
    Some(match class {
        'd' => DIGIT,
        'w' => WORD,
        's' => SPACE,
        'h' => HORIZONTAL,
        'v' => VERTICAL,
        _ => return None,
    })
}

/// A character that stands for itself, within a class or not.
fn push_literal(out: &mut String, c: char) {
    if c.is_ascii() && !c.is_ascii_alphanumeric() {
        out.push_str(&format!(r"\x{:02X}", u32::from(c)));
    } else {
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str, pattern: &str) -> String {
        let regex = JavaRegex::new(pattern).unwrap_or_else(|| panic!("{pattern}"));
        let mut out = String::new();
        let mut end = 0;
        for (start, stop) in all(&regex, text) {
            out.push_str(&text[end..start]);
            out.push('x');
            end = stop;
        }
        out.push_str(&text[end..]);
        out
    }

    #[test]
    fn classes_are_those_of_java() {
        assert_eq!(replaced("a1é٣_", r"\w"), "xxé٣x");
        assert_eq!(replaced("a b\u{a0}c", r"\s"), "axb\u{a0}c");
        assert_eq!(replaced("aB1", r"\p{Upper}|\p{Digit}"), "axx");
        assert_eq!(replaced("abc", "[a-c&&[^b]]"), "xbx");
        assert_eq!(replaced("a-b_c", r"[\w-]"), "xxxxx");
        assert_eq!(replaced("x1y:", "[[:digit:]]"), "x1yx");
        assert_eq!(replaced("a]b", r"[\]]"), "axb");
    }

    #[test]
    fn ends_and_dots_know_line_terminators() {
        assert_eq!(replaced("a\n", "$"), "ax\nx");
        assert_eq!(replaced("a", "$"), "ax");
        assert_eq!(replaced("a\rb", "a.b"), "a\rb");
        assert_eq!(replaced("a\nb", "(?s)a.b"), "x");
        assert_eq!(replaced("a\nb", "(?m)^"), "xa\nxb");
    }

    #[test]
    fn groups_look_around_and_refer_back() {
        assert_eq!(replaced("foobar foobaz", "foo(?=bar)"), "xbar foobaz");
        assert_eq!(replaced("aa bc", r"(\w)\1"), "x bc");
        assert_eq!(replaced("aaa", "a*"), "xx");
        assert_eq!(replaced("a.b", r"\Q.\E"), "axb");
        assert_eq!(replaced("aaa", "a++"), "x");
    }

    #[test]
    fn what_java_refuses_is_refused() {
        for pattern in ["(", "[a", "*", r"\y", "a)"] {
            assert!(JavaRegex::new(pattern).is_none(), "{pattern}");
        }
    }
}
