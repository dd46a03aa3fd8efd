//! What a comparison gave, and the two lists of what is not equal.

use std::fmt;

/// What comparing one expression in one form gave.
#[derive(Debug)]
pub enum Verdict {
    Equal,
    /// Flink gives a value, and planning refuses the expression.
    Refused {
        expression: String,
        error: String,
    },
    /// Another type or value, or an error of one side only.
    Different {
        expression: String,
        flink: String,
        ours: String,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Equal => write!(f, "equal"),
            Verdict::Refused { expression, error } => write!(f, "refused   {expression}   ({error})"),
            Verdict::Different { expression, flink, ours } => {
                write!(f, "different {expression}   flink: {flink}   coulee: {ours}")
            }
        }
    }
}

/// The entries of `refused.txt` or `differences.txt`: lines of patterns, where `*` stands for any text. A block of `#` lines is one reason.
#[derive(Debug)]
pub struct Entries {
    patterns: Vec<String>,
    pub reasons: usize,
}

impl Entries {
    pub fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(crate::expected::folder().join(name)).unwrap_or_else(|_| panic!("{name}"));
        let mut entries = Entries { patterns: Vec::new(), reasons: 0 };
        let mut in_reason = false;
        for line in text.lines() {
            if line.starts_with('#') && !in_reason {
                entries.reasons += 1;
            }
            in_reason = line.starts_with('#');
            if !in_reason && !line.trim().is_empty() {
                entries.patterns.push(line.trim().to_owned());
            }
        }
        // The first block says what the file is.
        entries.reasons = entries.reasons.saturating_sub(1);
        entries
    }

    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(String::as_str)
    }

    /// The entry that an expression (with ` (column)` behind it in that form) matches.
    pub fn matching(&self, expression: &str) -> Option<String> {
        self.patterns.iter().find(|pattern| matches(pattern, expression)).cloned()
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return text == pattern || text.strip_suffix(" (column)") == Some(pattern);
    };
    let Some(text) = text.strip_prefix(head) else { return false };
    rest.is_empty() || text.char_indices().any(|(at, _)| matches(rest, &text[at..]))
}
