//! Tables and views that outlive the script that made them: what a data folder's catalog holds, and which of a session's entries are those.
//!
//! A session takes a kept table or view over when a statement names it. A script that declares a name itself goes by its own declaration: it takes the
//! place of the kept one if the same script had declared that, and is the script's own otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::create_text::create_text;
use crate::error::SqlError;
use crate::script::parse_script;
use crate::statement::{Body, Relation, Statement};

/// What a kept table or view is declared by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Which of both it is.
    pub kind: Relation,
    /// `CREATE TABLE …` or `CREATE VIEW …`, one statement without `;`.
    pub text: String,
    /// The name of the script that declared it last.
    pub script: String,
    /// The file of that script.
    pub origin: String,
    /// Where the statement begins there, from 1.
    pub line: u64,
    /// The column (in characters) where it begins, from 1.
    pub column: u64,
}

impl Definition {
    /// Script, line and column: `job.sql:3:1`.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}:{}", self.origin, self.line, self.column)
    }

    /// Whether both declare the same, however they are written.
    pub(crate) fn says_the_same(&self, other: &Definition) -> bool {
        let meaning = |definition: &Definition| match definition.statement().ok()?.body {
            Body::CreateTable(create) => Some(create_text(&create)),
            Body::CreateView(create) => {
                let columns: Vec<&str> = create.columns.iter().map(|column| column.value.as_str()).collect();
                Some(format!("{} ({}) {}", create.name, columns.join(","), create.query))
            }
            _ => None,
        };
        self.text == other.text || meaning(self).is_some_and(|meaning_here| Some(meaning_here) == meaning(other))
    }

    /// The statement, at its place: faults in it are shown where it was written.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(crate) fn statement(&self) -> Result<Statement, SqlError> {
        let lines = "\n".repeat(self.line.saturating_sub(1) as usize);
        let blanks = " ".repeat(self.column.saturating_sub(1) as usize);
        let mut statements = parse_script(&format!("{lines}{blanks}{}", self.text), &self.origin)?;
        Ok(statements.remove(0))
    }
}

/// Kept tables and views by name.
pub type Definitions = BTreeMap<String, Definition>;

/// What a statement asks to be kept from now on, or no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogChange {
    /// This name stands for this.
    Keep(String, Definition),
    /// Nothing of this name is kept.
    Forget(String),
}

/// How a session's entry came to be the kept one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    TakenOver,
    DeclaredHere,
}

/// What a session knows of what is kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    definitions: Arc<Definitions>,
    /// The entries of the session that are the kept ones.
    entries: BTreeMap<String, Came>,
    /// What was taken over, replaced or forgotten so far: what the script needs to be run again.
    taken: Definitions,
    /// Why one could not be taken over, and what to do: a sentence.
    faults: BTreeMap<String, String>,
    changes: Vec<CatalogChange>,
}

impl Kept {
    pub fn new(definitions: Arc<Definitions>) -> Self {
        Kept { definitions, ..Kept::default() }
    }

    pub fn get(&self, name: &str) -> Option<&Definition> {
        self.definitions.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &Definition)> {
        self.definitions.iter()
    }

    /// Whether the session's entry is the kept one.
    pub fn holds(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether the session has the entry from what is kept: the script may declare the name itself.
    pub fn is_taken_over(&self, name: &str) -> bool {
        self.entries.get(name) == Some(&Came::TakenOver)
    }

    /// The session has taken a kept one over.
    pub fn take(&mut self, name: &str) {
        if let Some(definition) = self.definitions.get(name) {
            self.taken.insert(name.to_owned(), definition.clone());
            self.entries.insert(name.to_owned(), Came::TakenOver);
        }
    }

    /// The one that was to be taken over cannot be planned.
    pub fn cannot_take(&mut self, name: &str, why: String) {
        self.entries.remove(name);
        self.taken.remove(name);
        self.faults.insert(name.to_owned(), why);
    }

    /// Why a kept one cannot be used, and what to do: of the first one that is looked for.
    pub fn why_not(&self, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
        self.faults.iter().find(|(name, _)| is_wanted(name)).map(|(_, why)| why.clone())
    }

    /// The session's entry is its own from now on.
    pub fn part_with(&mut self, name: &str) {
        self.entries.remove(name);
    }

    /// Keeps what a statement has declared.
    pub fn keep(&mut self, name: &str, definition: Definition) {
        self.remember(name);
        self.entries.insert(name.to_owned(), Came::DeclaredHere);
        if self.get(name).is_some_and(|before| before.text == definition.text) {
            return;
        }
        Arc::make_mut(&mut self.definitions).insert(name.to_owned(), definition.clone());
        self.changes.push(CatalogChange::Keep(name.to_owned(), definition));
    }

    pub fn forget(&mut self, name: &str) {
        self.remember(name);
        self.entries.remove(name);
        if Arc::make_mut(&mut self.definitions).remove(name).is_some() {
            self.changes.push(CatalogChange::Forget(name.to_owned()));
        }
    }

    /// What a statement is about to replace or forget is there again when the script is run again.
    fn remember(&mut self, name: &str) {
        if self.entries.get(name) == Some(&Came::DeclaredHere) {
            return;
        }
        if let Some(before) = self.definitions.get(name) {
            self.taken.entry(name.to_owned()).or_insert_with(|| before.clone());
        }
    }

    /// What was taken over, replaced or forgotten since the session began.
    pub fn taken(&self) -> &Definitions {
        &self.taken
    }

    pub fn take_changes(&mut self) -> Vec<CatalogChange> {
        std::mem::take(&mut self.changes)
    }
}
