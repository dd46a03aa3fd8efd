//! What a session takes over from what is kept, and what it adds to that.

use std::sync::Arc;

use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_expr::LogicalPlan;
use sqlparser::ast::Ident;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::Session;
use crate::catalog::{Entry, View};
use crate::error::{Fault, Result};
use crate::kept::Definition;
use crate::options_hint;
use crate::statement::{Body, Relation, Statement};

impl Session {
    /// Takes over the kept tables and views whose names are among the words of a statement, whatever stands there: they are planned where they are used.
    pub(super) fn take_over(&mut self, statement: &Statement) {
        self.catalog.others = self.kept.iter().map(|(name, _)| name.clone()).collect();
        let declared = match &statement.body {
            Body::Drop { .. } => return,
            Body::CreateTable(create) if !create.if_not_exists => Some(create.name.value.as_str()),
            Body::CreateView(create) if !create.if_not_exists => Some(create.name.value.as_str()),
            _ => None,
        };
        self.take_over_named(&statement.tokens, declared);
    }

    fn take_over_named(&mut self, words: &[TokenWithSpan], except: Option<&str>) {
        for word in words {
            let Token::Word(word) = &word.token else { continue };
            let name = options_hint::base(&word.value);
            if Some(name) == except || self.catalog.get(name).is_some() || self.kept.holds(name) {
                continue;
            }
            let Some(definition) = self.kept.get(name).cloned() else { continue };
            self.kept.take(name);
            if let Err(why) = self.declare(&definition) {
                let kind = definition.kind.word();
                let anew = format!("DROP {} {name}, and declare it anew", kind.to_uppercase());
                // Found before the fault that it may be the cause of.
                let (message, help) = match self.own_in(&definition).first() {
                    Some(own) => (
                        format!("this script declares '{own}' otherwise"),
                        format!("give its own '{own}' another name"),
                    ),
                    None => (why.message, anew),
                };
                let place = definition.place();
                let said = format!("the {kind} that {place} has declared cannot be used: {message}; {help}");
                self.kept.cannot_take(name, said);
            }
        }
    }

    /// Runs a kept definition.
    fn declare(&mut self, definition: &Definition) -> Result<()> {
        let statement = definition.statement().map_err(|error| Fault::new(error.to_string()))?;
        let (name, entry) = match &statement.body {
            Body::CreateTable(create) => {
                let (table, _) = self.defined(create, &statement)?;
                (&create.name, Entry::Table(Arc::new(table)))
            }
            Body::CreateView(create) => {
                self.infer_files(&statement)?;
                self.take_over_named(&statement.tokens, None);
                self.vary(&statement)?;
                let view = self.planned_view(create)?;
                if self.own_in(definition).iter().any(|own| reads(&view, own)) {
                    return Err(Fault::new("it reads another table than it was made for"));
                }
                (&create.name, Entry::View(Arc::new(view)))
            }
            _ => return Err(Fault::new("it is no CREATE TABLE and no CREATE VIEW")),
        };
        self.catalog.insert(name.value.clone(), entry);
        Ok(())
    }

    /// The kept tables and views that a kept view may read, and that the script has declared itself: the view was meant for others.
    fn own_in(&self, definition: &Definition) -> Vec<String> {
        let statement = definition.statement().ok().filter(|_| definition.kind == Relation::View);
        let is_own =
            |name: &str| self.catalog.get(name).is_some() && !self.kept.holds(name) && self.kept.get(name).is_some();
        let words = statement.iter().flat_map(|statement| statement.tokens.iter());
        let names = words.filter_map(|token| match &token.token {
            Token::Word(word) => Some(options_hint::base(&word.value)),
            _ => None,
        });
        names.filter(|name| is_own(name)).map(str::to_owned).collect()
    }

    /// Keeps what a statement has declared, unless it is for its script alone, or another script has declared the name otherwise.
    pub(super) fn keep(&mut self, name: &Ident, is_temporary: bool, replaces: bool, statement: &Statement) {
        let name = name.value.as_str();
        self.kept.part_with(name);
        let Ok(definition) = self.definition(name, statement) else { return };
        if is_temporary {
            return;
        }
        if let Some(kept) = self.kept.get(name)
            && kept.script != definition.script
            && !replaces
            && !kept.says_the_same(&definition)
        {
            self.notes.push(format!(
                "{0} '{name}' is kept as {1} declares it; this script alone goes by its own declaration. Write CREATE TEMPORARY {2} to mean that, or DROP {2} {name} first to have this one kept",
                definition.kind.word(),
                kept.place(),
                definition.kind.word().to_uppercase(),
            ));
            return;
        }
        self.kept.keep(name, definition);
    }

    /// What an entry is declared by.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn definition(&self, name: &str, statement: &Statement) -> Result<Definition> {
        let entry = self.catalog.find(name)?;
        let text = match entry {
            Entry::Table(table) => &table.create.text,
            Entry::View(view) => &view.text,
        };
        Ok(Definition {
            kind: entry.kind(),
            text: text.clone(),
            script: self.defaults.job_name.clone(),
            origin: statement.source.origin.clone(),
            line: statement.line(),
            column: statement.column(),
        })
    }

    /// A fault about a name that could not be taken over says why.
    pub(super) fn with_why(&self, fault: Fault) -> Fault {
        match self.kept.why_not(|name| fault.message.contains(&format!("'{name}'"))) {
            Some(why) => fault.help(why),
            None => fault,
        }
    }
}

/// Whether a view reads a table of this name.
fn reads(view: &View, table: &str) -> bool {
    let mut found = false;
    // The closure never fails.
    let _ = view.plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::TableScan(scan) if options_hint::base(scan.table_name.table()) == table);
        Ok(TreeNodeRecursion::Continue)
    });
    found
}
