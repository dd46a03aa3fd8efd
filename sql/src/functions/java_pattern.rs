//! Patterns of dates and times in Java's notation, cut into fields and literal text.
//!
//! Java has two notations that look alike: `DateTimeFormatter` (`DATE_FORMAT` and `TO_TIMESTAMP` of timestamps) and the older `SimpleDateFormat`
//! (functions that take or give text: `FROM_UNIXTIME`, `UNIX_TIMESTAMP`, `TO_DATE`, `CONVERT_TZ`).

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Literal(String),
    /// A letter, and how often it stands there.
    Field(char, usize),
    /// The next field is filled up with blanks to this width.
    Pad(usize),
    /// `[`: what follows up to `]` may be absent.
    OptionalStart,
    OptionalEnd,
}

/// Which of the two notations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notation {
    Formatter,
    Simple,
}

/// Letters of `DateTimeFormatter` that are understood, each with the counts it may have.
const FORMATTER: &[(char, &[usize])] = &[
    ('G', &[1, 2, 3, 4, 5]),
    ('u', &[]),
    ('y', &[]),
    ('Y', &[]),
    ('Q', &[1, 2, 3, 4, 5]),
    ('q', &[1, 2, 3, 4, 5]),
    ('M', &[1, 2, 3, 4, 5]),
    ('L', &[1, 2, 3, 4, 5]),
    ('w', &[1, 2]),
    ('W', &[1]),
    ('d', &[1, 2]),
    ('D', &[1, 2, 3]),
    ('F', &[1]),
    ('E', &[1, 2, 3, 4, 5]),
    ('e', &[1, 2, 3, 4, 5]),
    ('c', &[1, 3, 4, 5]),
    ('a', &[1]),
    ('h', &[1, 2]),
    ('H', &[1, 2]),
    ('k', &[1, 2]),
    ('K', &[1, 2]),
    ('m', &[1, 2]),
    ('s', &[1, 2]),
    ('S', &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ('A', &[]),
    ('n', &[]),
    ('N', &[]),
    ('X', &[1, 2, 3, 4, 5]),
    ('x', &[1, 2, 3, 4, 5]),
    ('Z', &[1, 2, 3, 4, 5]),
];

/// Letters of `SimpleDateFormat`; `X` at most three times.
const SIMPLE: &str = "GyYMLwWDdFEuaHkKhmsSzZX";

/// Cuts a pattern.
///
/// # Errors
/// What is wrong with it: an unknown letter, a quote without its end, a reserved character.
pub(crate) fn parse(pattern: &str, notation: Notation) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut rest = pattern.chars().peekable();
    let mut optional = 0_usize;
    while let Some(c) = rest.next() {
        match c {
            '\'' => push_literal(&mut items, &quoted(&mut rest, pattern)?),
            c if c.is_ascii_alphabetic() => {
                let mut count = 1;
                while rest.next_if_eq(&c).is_some() {
                    count += 1;
                }
                items.push(field(c, count, pattern, notation)?);
            }
            '[' if notation == Notation::Formatter => {
                optional += 1;
                items.push(Item::OptionalStart);
            }
            ']' if notation == Notation::Formatter => {
                optional = optional.checked_sub(1).ok_or_else(|| format!("']' without '[' in '{pattern}'"))?;
                items.push(Item::OptionalEnd);
            }
            '{' | '}' | '#' if notation == Notation::Formatter => {
                return Err(format!("'{c}' is reserved in '{pattern}': put it in quotes ('')"));
            }
            c => push_literal(&mut items, c.encode_utf8(&mut [0; 4])),
        }
    }
    let ends_with_pad = matches!(items.last(), Some(Item::Pad(_)));
    let pads_text =
        items.windows(2).any(|pair| matches!(pair, [Item::Pad(_), next] if !matches!(next, Item::Field(..))));
    if ends_with_pad || pads_text {
        return Err(format!("'p' has no field behind it in '{pattern}'"));
    }
    items.extend(std::iter::repeat_n(Item::OptionalEnd, optional));
    Ok(items)
}

fn push_literal(items: &mut Vec<Item>, text: &str) {
    match items.last_mut() {
        Some(Item::Literal(last)) => last.push_str(text),
        _ => items.push(Item::Literal(text.to_owned())),
    }
}

/// The text up to the next quote; two quotes are one.
fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, pattern: &str) -> Result<String, String> {
    if rest.next_if_eq(&'\'').is_some() {
        return Ok("'".to_owned());
    }
    let mut text = String::new();
    while let Some(c) = rest.next() {
        if c != '\'' {
            text.push(c);
        } else if rest.next_if_eq(&'\'').is_some() {
            text.push('\'');
        } else {
            return Ok(text);
        }
    }
    Err(format!("a quote has no end in '{pattern}'"))
}

fn field(letter: char, count: usize, pattern: &str, notation: Notation) -> Result<Item, String> {
    let known = match notation {
        Notation::Formatter if letter == 'p' => return Ok(Item::Pad(count)),
        Notation::Formatter => FORMATTER.iter().find(|(known, _)| *known == letter).map(|(_, counts)| *counts),
        Notation::Simple if letter == 'X' => Some([1, 2, 3].as_slice()),
        Notation::Simple => SIMPLE.contains(letter).then_some([].as_slice()),
    };
    match known {
        Some(counts) if counts.is_empty() || counts.contains(&count) => Ok(Item::Field(letter, count)),
        Some(_) => Err(format!("'{letter}' stands {count} times in '{pattern}'")),
        None => Err(format!("unknown letter '{letter}' in '{pattern}': put text in quotes ('')")),
    }
}

pub(crate) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// From Monday on.
pub(crate) const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_cut_into_fields_and_text() {
        let items = parse("yyyy-MM'T'''", Notation::Formatter);
        let expected =
            [Item::Field('y', 4), Item::Literal("-".into()), Item::Field('M', 2), Item::Literal("T'".into())];
        assert_eq!(items, Ok(expected.to_vec()));
        assert_eq!(parse("", Notation::Simple), Ok(Vec::new()));
        for wrong in ["b", "'open", "{", "#", "p", "MMMMMM", "]"] {
            assert!(parse(wrong, Notation::Formatter).is_err(), "{wrong}");
        }
        assert!(parse("Q", Notation::Simple).is_err());
        assert!(parse("#{}[]", Notation::Simple).is_ok());
    }
}
