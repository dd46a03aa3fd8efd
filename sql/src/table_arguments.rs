//! Tables as arguments of table functions, `TUMBLE(TABLE t, …)` and `SESSION(TABLE t PARTITION BY key, …)`, spelled for sqlparser, which knows no `TABLE` among arguments.

use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::tokens::is_word;
use crate::words::PARTITIONED;

/// Leaves `TABLE` out: `TUMBLE(t, …)` has one meaning, as a function of a relation cannot take a column there. `t PARTITION BY a, b` becomes a call of
/// [`PARTITIONED`] with the table and the columns.
pub(crate) fn spelled(tokens: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
    let mut kept: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        if let (Some(table), Some(end)) = (table_before(&kept, tokens, index), partition_end(tokens, index)) {
            let span = kept[table].span;
            let name = Word { value: PARTITIONED.to_owned(), quote_style: Some('`'), keyword: Keyword::NoKeyword };
            let call = [Token::Word(name), Token::LParen].map(|token| TokenWithSpan { token, span });
            kept.splice(table..table, call);
            kept.push(TokenWithSpan { token: Token::Comma, span: token.span });
            kept.extend(tokens[index + 2..end].iter().cloned());
            kept.push(TokenWithSpan { token: Token::RParen, span: token.span });
            index = end;
            continue;
        }
        let after = index.checked_sub(1).map(|before| &tokens[before].token);
        let names = tokens.get(index + 1).is_some_and(|next| matches!(&next.token, Token::Word(_)));
        if !(is_word(&token.token, "TABLE") && after.is_some_and(is_before_argument) && names) {
            kept.push(token.clone());
        }
        index += 1;
    }
    kept
}

fn is_before_argument(token: &Token) -> bool {
    matches!(token, Token::LParen | Token::RArrow | Token::Comma)
}

/// Where the name of a table begins that stands as an argument right before the word at `index`.
fn table_before(kept: &[TokenWithSpan], tokens: &[TokenWithSpan], index: usize) -> Option<usize> {
    if !is_word(&tokens[index].token, "PARTITION") {
        return None;
    }
    let is_name = |token: &TokenWithSpan| matches!(token.token, Token::Word(_) | Token::Period);
    let name = kept.iter().rev().take_while(|token| is_name(token)).count();
    let start = kept.len() - name;
    let before = start.checked_sub(1).map(|before| &kept[before].token);
    (name > 0 && before.is_some_and(is_before_argument)).then_some(start)
}

/// Where the columns of `PARTITION BY a, b, DESCRIPTOR(…)` end, if the words at `index` are such: at the comma behind them.
fn partition_end(tokens: &[TokenWithSpan], index: usize) -> Option<usize> {
    let is_at = |index: usize, word: &str| tokens.get(index).is_some_and(|token| is_word(&token.token, word));
    if !is_at(index + 1, "BY") {
        return None;
    }
    let is_part = |token: &TokenWithSpan| matches!(token.token, Token::Word(_) | Token::Period | Token::Comma);
    let columns = tokens[index + 2..].iter().take_while(|token| is_part(token)).count();
    let ends = |at: &usize| tokens[*at].token == Token::Comma && is_named_or(tokens, at + 1, "DESCRIPTOR", "TIMECOL");
    (index + 2..index + 2 + columns).find(ends)
}

fn is_named_or(tokens: &[TokenWithSpan], index: usize, one: &str, other: &str) -> bool {
    tokens.get(index).is_some_and(|token| is_word(&token.token, one) || is_word(&token.token, other))
}
