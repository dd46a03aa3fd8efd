//! `CREATE TABLE … LIKE base (INCLUDING …)`: what a table takes over from another one. The rules are Flink's (`MergeTableLikeUtil`).

use std::collections::BTreeMap;

use sqlparser::ast::Ident;
use sqlparser::tokenizer::{Span, Token};

use crate::error::{Fault, Result};
use crate::statement::{ColumnDefKind, CreateTable, Like, LikeKind, LikeRule};
use crate::words::{Words, table_name};

const KINDS: [(&str, LikeKind); 7] = [
    ("CONSTRAINTS", LikeKind::Constraints),
    ("DISTRIBUTION", LikeKind::Distribution),
    ("GENERATED", LikeKind::Generated),
    ("METADATA", LikeKind::Metadata),
    ("OPTIONS", LikeKind::Options),
    ("PARTITIONS", LikeKind::Partitions),
    ("WATERMARKS", LikeKind::Watermarks),
];

/// What stands behind `LIKE`.
pub(crate) fn parse(words: &mut Words<'_>) -> Result<Like> {
    let base = table_name(words)?;
    let mut rules: BTreeMap<LikeKind, LikeRule> = KINDS.iter().map(|(_, kind)| (*kind, LikeRule::Including)).collect();
    rules.insert(LikeKind::Options, LikeRule::Overwriting);
    let (mut of_all, mut own) = (None, Vec::new());
    if words.accept_token(&Token::LParen) {
        while words.peek() != Token::RParen {
            let rule = rule(words)?;
            let place = words.peek_span();
            let kind = kind(words)?;
            if rule == LikeRule::Overwriting && !kind.is_some_and(may_be_overwritten) {
                let message = "OVERWRITING takes GENERATED, METADATA, OPTIONS or WATERMARKS";
                return Err(Fault::new(message).at(place).help("write INCLUDING or EXCLUDING"));
            }
            match kind {
                None => of_all = Some(rule),
                Some(kind) => own.push((kind, rule)),
            }
            words.accept_token(&Token::Comma);
        }
        words.expect(&Token::RParen)?;
    }
    // ALL is what is said of the kinds that are not named.
    if let Some(rule) = of_all {
        rules.values_mut().for_each(|known| *known = rule);
    }
    rules.extend(own);
    Ok(Like { base, rules })
}

fn rule(words: &mut Words<'_>) -> Result<LikeRule> {
    let rules = [
        ("INCLUDING", LikeRule::Including),
        ("EXCLUDING", LikeRule::Excluding),
        ("OVERWRITING", LikeRule::Overwriting),
    ];
    let found = rules.into_iter().find(|(word, _)| words.accept(word));
    found.map(|(_, rule)| rule).ok_or_else(|| words.unexpected("INCLUDING, EXCLUDING or OVERWRITING"))
}

/// Whether there may be a clause of the kind in both tables.
fn may_be_overwritten(kind: LikeKind) -> bool {
    matches!(kind, LikeKind::Generated | LikeKind::Metadata | LikeKind::Options | LikeKind::Watermarks)
}

/// A kind of clauses; `None` is `ALL`.
fn kind(words: &mut Words<'_>) -> Result<Option<LikeKind>> {
    if words.accept("ALL") {
        return Ok(None);
    }
    let found = KINDS.into_iter().find(|(word, _)| words.accept(word));
    let names = "ALL, CONSTRAINTS, DISTRIBUTION, GENERATED, METADATA, OPTIONS, PARTITIONS or WATERMARKS";
    found.map(|(_, kind)| Some(kind)).ok_or_else(|| words.unexpected(names))
}

/// The statement with what it takes over from the one of its base: the base's columns come first.
///
/// # Errors
/// What both say, where one of them must say it.
pub(crate) fn merged(create: &CreateTable, like: &Like, base: &CreateTable) -> Result<CreateTable> {
    let span = like.base.span;
    let rule = |kind: LikeKind| like.rules.get(&kind).copied().unwrap_or(LikeRule::Including);
    let twice = |what: String| {
        let help = "leave it out, or write LIKE base (EXCLUDING …) or (OVERWRITING …) with the kind of the clause";
        Fault::new(format!("table '{}' has {what} already", like.base.value)).at(span).help(help)
    };
    let mut table = create.clone();
    table.like = None;
    let mut columns = Vec::with_capacity(base.columns.len() + create.columns.len());
    for column in &base.columns {
        let kind = match column.kind {
            ColumnDefKind::Physical { .. } => None,
            ColumnDefKind::Metadata { .. } => Some(LikeKind::Metadata),
            ColumnDefKind::Computed(_) => Some(LikeKind::Generated),
        };
        let rule = kind.map_or(LikeRule::Including, rule);
        let is_given = create.columns.iter().any(|own| own.name.value == column.name.value);
        match (rule, is_given) {
            (LikeRule::Excluding, _) | (LikeRule::Overwriting, true) => {}
            (LikeRule::Including, true) => return Err(twice(format!("a column '{}'", column.name.value))),
            (_, false) => {
                let mut column = column.clone();
                column.name.span = span;
                columns.push(column);
            }
        }
    }
    columns.append(&mut table.columns);
    table.columns = columns;
    let takes = |kind: LikeKind, base_has: bool, own_has: bool, what: &str| match (rule(kind), base_has, own_has) {
        (LikeRule::Including, true, true) => Err(twice(what.to_owned())),
        (LikeRule::Including | LikeRule::Overwriting, true, false) => Ok(true),
        _ => Ok(false),
    };
    if takes(LikeKind::Watermarks, base.watermark.is_some(), table.watermark.is_some(), "a WATERMARK")? {
        table.watermark = base.watermark.clone().map(|mut watermark| {
            (watermark.column.span, watermark.span) = (span, span);
            watermark
        });
    }
    let has = |names: &[Ident]| !names.is_empty();
    if takes(LikeKind::Constraints, has(&base.primary_key), has(&table.primary_key), "a PRIMARY KEY")? {
        table.primary_key = moved(&base.primary_key, span);
    }
    if takes(LikeKind::Partitions, has(&base.partitioned_by), has(&table.partitioned_by), "PARTITIONED BY")? {
        table.partitioned_by = moved(&base.partitioned_by, span);
    }
    if takes(LikeKind::Distribution, base.distribution.is_some(), table.distribution.is_some(), "DISTRIBUTED BY")? {
        table.distribution = base.distribution.clone().map(|mut distribution| {
            distribution.columns = moved(&distribution.columns, span);
            distribution
        });
    }
    for (key, value) in &base.options {
        let is_given = create.options.iter().any(|(own, _)| own.value == key.value);
        match (rule(LikeKind::Options), is_given) {
            (LikeRule::Excluding, _) | (LikeRule::Overwriting, true) => {}
            (LikeRule::Including, true) => return Err(twice(format!("the option '{}'", key.value))),
            (_, false) => {
                let at_base = |name: &Ident| Ident { span, ..name.clone() };
                table.options.push((at_base(key), at_base(value)));
            }
        }
    }
    Ok(table)
}

/// The names as if they stood where the base is named: a fault about one points there.
fn moved(names: &[Ident], span: Span) -> Vec<Ident> {
    names.iter().map(|name| Ident { span, ..name.clone() }).collect()
}
