//! What a token is.

use sqlparser::tokenizer::Token;

/// Whether a token is an unquoted word, whatever its case.
pub(crate) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}
