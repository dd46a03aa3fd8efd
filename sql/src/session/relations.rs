//! Tables and views: what creates, alters, drops and lists them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use datafusion_common::Column;
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{Ident, Query};
use sqlparser::tokenizer::TokenWithSpan;

use super::{Effect, Session};
use crate::alter_table::altered;
use crate::catalog::{Declaration, Entry, Table, View};
use crate::create_text::{create_text, create_view_text};
use crate::define::define;
use crate::error::{Fault, Result};
use crate::faults::fault;
use crate::like::merged;
use crate::script::parse_script;
use crate::statement::{
    AlterTable, AlterView, Body, ColumnDef, ColumnDefKind, CreateTable, CreateView, Insert, Relation, Statement,
};

impl Session {
    pub(super) fn create_table(&mut self, create: &CreateTable, statement: &Statement) -> Result<Effect> {
        let name = &create.name.value;
        let exists = self.exists(&create.name, create.if_not_exists, false)?;
        let is_new = exists.is_none();
        if is_new {
            let (table, notes) = self.defined(&self.completed(create)?, statement)?;
            self.notes.extend(notes);
            self.catalog.insert(name.clone(), Entry::Table(Arc::new(table)));
        }
        let effect = match &create.query {
            Some(query) => self.fill(create, query, &statement.tokens)?,
            None => exists.unwrap_or_else(|| Effect::Done(format!("table '{name}' created"))),
        };
        if is_new {
            self.keep(&create.name, create.is_temporary, false, statement);
        }
        Ok(effect)
    }

    pub(super) fn defined(&self, create: &CreateTable, statement: &Statement) -> Result<(Table, Vec<String>)> {
        let declaration = Declaration { source: statement.source.clone(), words: statement.tokens.clone() };
        define(create, declaration, &self.planner(), &self.connectors, &self.job_name())
    }

    /// The statement with what it takes from another table or from a query.
    fn completed(&self, create: &CreateTable) -> Result<CreateTable> {
        let mut completed = match (&create.like, &create.query) {
            (Some(like), _) => match self.catalog.find(&like.base.value).map_err(|fault| fault.at(like.base.span))? {
                Entry::Table(base) => merged(create, like, &base.create)?,
                Entry::View(_) => {
                    let message = format!("'{}' is a view, and LIKE takes over what a table declares", like.base.value);
                    return Err(Fault::new(message)
                        .at(like.base.span)
                        .help("write CREATE TABLE … AS SELECT … FROM the view"));
                }
            },
            (None, Some(query)) => {
                let plan = self.planner().query(query)?;
                check_names(&plan, Relation::Table, &create.name)?;
                let mut of_query = create.clone();
                of_query.columns.extend(plan.schema().fields().iter().map(|field| ColumnDef {
                    name: Ident { value: field.name().clone(), ..create.name.clone() },
                    comment: None,
                    kind: ColumnDefKind::Physical {
                        data_type: field.data_type().clone(),
                        nullable: field.is_nullable(),
                    },
                }));
                of_query
            }
            (None, None) => return Ok(create.clone()),
        };
        completed.text = create_text(&completed);
        Ok(completed)
    }

    /// Writes the rows of the query of `CREATE TABLE … AS` into the table, which is gone again if they cannot be.
    fn fill(&mut self, create: &CreateTable, query: &Query, tokens: &Arc<Vec<TokenWithSpan>>) -> Result<Effect> {
        let (table, query) = (create.name.clone(), Box::new(query.clone()));
        let insert = Insert { table, columns: Vec::new(), query, tokens: tokens.clone() };
        let effect = self.insert(std::slice::from_ref(&insert));
        if effect.is_err() {
            self.catalog.remove(&create.name.value);
        }
        effect
    }

    pub(super) fn alter_table(&mut self, alter: &AlterTable, statement: &Statement) -> Result<Effect> {
        let name = &alter.name.value;
        let before = match self.catalog.get(name) {
            None if alter.if_exists => return Ok(Effect::Done(format!("there is no table '{name}'"))),
            None => return Err(self.catalog.unknown(name).at(alter.name.span)),
            Some(Entry::View(_)) => return Err(Fault::new(format!("'{name}' is a view")).at(alter.name.span)),
            Some(Entry::Table(table)) => table.clone(),
        };
        let takes = |key: &str| before.connector.options().iter().any(|option| option.key == key);
        let mut create = altered(&before.create, alter, takes)?;
        if create.name.value != *name {
            self.check_free(&create.name)?;
        }
        create.text = create_text(&create);
        let (table, notes) = self.defined(&create, statement)?;
        self.notes.extend(notes);
        self.catalog.remove(name);
        self.catalog.insert(create.name.value.clone(), Entry::Table(Arc::new(table)));
        if self.kept.holds(name) {
            if create.name.value != *name {
                self.kept.forget(name);
            }
            self.kept.keep(&create.name.value, self.definition(&create.name.value, statement)?);
        }
        Ok(Effect::Done(format!("table '{name}' altered")))
    }

    pub(super) fn create_view(&mut self, create: &CreateView, statement: &Statement) -> Result<Effect> {
        let name = &create.name.value;
        if let Some(done) = self.exists(&create.name, create.if_not_exists, create.or_replace)? {
            return Ok(done);
        }
        let view = self.planned_view(create)?;
        self.catalog.insert(name.clone(), Entry::View(Arc::new(view)));
        self.keep(&create.name, create.is_temporary, create.or_replace, statement);
        Ok(Effect::Done(format!("view '{name}' created")))
    }

    pub(super) fn alter_view(&mut self, alter: &AlterView, statement: &Statement) -> Result<Effect> {
        let (AlterView::RenameTo { name, .. } | AlterView::As(CreateView { name, .. })) = alter;
        match self.relations().get(&name.value) {
            Some(Relation::View) => {}
            Some(Relation::Table) => return Err(Fault::new(format!("'{}' is a table", name.value)).at(name.span)),
            None => return Err(self.catalog.unknown(&name.value).at(name.span)),
        }
        // One that is kept and cannot be planned any more is no entry: it is altered by giving it another query.
        let is_kept = self.kept.holds(&name.value) || self.catalog.get(&name.value).is_none();
        let (view, now) = match alter {
            AlterView::As(create) => (Arc::new(self.planned_view(create)?), name),
            AlterView::RenameTo { to, .. } => {
                self.check_free(to)?;
                let Entry::View(view) = self.catalog.find(&name.value)? else {
                    return Err(Fault::new(format!("'{}' is a table", name.value)).at(name.span));
                };
                let text = renamed(&view.text, to)?;
                (Arc::new(View { plan: view.plan.clone(), text }), to)
            }
        };
        self.catalog.remove(&name.value);
        self.catalog.insert(now.value.clone(), Entry::View(view));
        if is_kept {
            if now.value != name.value {
                self.kept.forget(&name.value);
            }
            self.kept.keep(&now.value, self.definition(&now.value, statement)?);
        }
        Ok(Effect::Done(format!("view '{}' altered", name.value)))
    }

    pub(super) fn planned_view(&self, create: &CreateView) -> Result<View> {
        let plan = self.planner().query(&create.query)?;
        let plan = with_names(plan, &create.columns, &create.name)?;
        check_names(&plan, Relation::View, &create.name)?;
        Ok(View { plan, text: create.text.clone() })
    }

    /// Refuses a new name that stands for something already, in this script or among what is kept.
    fn check_free(&self, name: &Ident) -> Result<()> {
        match self.relations().get(&name.value) {
            None => Ok(()),
            Some(taken) => Err(Fault::new(format!("{} '{}' exists already", taken.word(), name.value))
                .at(name.span)
                .help("choose another name, or DROP it first")),
        }
    }

    /// What to answer when the name is taken.
    fn exists(&self, name: &Ident, if_not_exists: bool, or_replace: bool) -> Result<Option<Effect>> {
        match self.catalog.get(&name.value) {
            None => Ok(None),
            Some(Entry::View(_)) if or_replace => Ok(None),
            // The script goes by its own declaration.
            Some(_) if self.kept.is_taken_over(&name.value) && !if_not_exists => Ok(None),
            Some(entry) if if_not_exists => {
                Ok(Some(Effect::Done(format!("{} '{}' exists already", entry.kind().word(), name.value))))
            }
            Some(entry) => {
                let message = format!("{} '{}' exists already", entry.kind().word(), name.value);
                Err(Fault::new(message).at(name.span).help("DROP it first, or write IF NOT EXISTS"))
            }
        }
    }

    pub(super) fn drop_relation(
        &mut self,
        what: Relation,
        is_temporary: bool,
        name: &Ident,
        if_exists: bool,
    ) -> Result<Effect> {
        let own = self.catalog.get(&name.value).filter(|_| !self.kept.holds(&name.value)).map(Entry::kind);
        // Not taken over for that: what cannot be planned any more can be dropped.
        let kept = self.kept.get(&name.value).map(|kept| kept.kind).filter(|_| !is_temporary);
        match own.or(kept) {
            None if if_exists => Ok(Effect::Done(format!("there is no {} '{}'", what.word(), name.value))),
            None => Err(self.catalog.unknown(&name.value).at(name.span)),
            Some(is) if is != what => {
                let message = format!("'{}' is a {}", name.value, is.word());
                Err(Fault::new(message).at(name.span).help(format!("write DROP {}", is.word().to_uppercase())))
            }
            Some(_) => {
                self.catalog.remove(&name.value);
                if own.is_none() {
                    self.kept.forget(&name.value);
                }
                Ok(Effect::Done(format!("{} '{}' dropped", what.word(), name.value)))
            }
        }
    }

    /// The tables and views that a statement can name.
    pub(super) fn relations(&self) -> BTreeMap<String, Relation> {
        let kept = self.kept.iter().map(|(name, kept)| (name.clone(), kept.kind));
        kept.chain(self.catalog.iter().map(|(name, entry)| (name.to_owned(), entry.kind()))).collect()
    }
}

/// Whether the columns of a query can be those of a table or a view.
fn check_names(plan: &LogicalPlan, what: Relation, name: &Ident) -> Result<()> {
    let mut names = HashSet::new();
    match plan.schema().fields().iter().find(|field| !names.insert(field.name())) {
        None => Ok(()),
        Some(field) => {
            let message = format!("{} '{}' has the column '{}' twice", what.word(), name.value, field.name());
            let help = match what {
                Relation::Table => "name one of them with AS",
                Relation::View => "name one of them with AS, or all of them: CREATE VIEW v (a, b, …) AS SELECT …",
            };
            Err(Fault::new(message).at(name.span).help(help))
        }
    }
}

/// The statement of a view with another name.
fn renamed(text: &str, to: &Ident) -> Result<String> {
    let parsed = parse_script(text, "view").map_err(|error| Fault::new(error.to_string()))?;
    match parsed.into_iter().next() {
        Some(Statement { body: Body::CreateView(view), .. }) => Ok(create_view_text(&view, to)),
        _ => Err(Fault::new("it is no CREATE VIEW")),
    }
}

/// The plan of a view with the names of its column list.
fn with_names(plan: LogicalPlan, names: &[Ident], view: &Ident) -> Result<LogicalPlan> {
    if names.is_empty() {
        return Ok(plan);
    }
    let columns: Vec<Column> = plan.schema().columns();
    if columns.len() != names.len() {
        let message =
            format!("view '{}' names {} columns, and its query gives {}", view.value, names.len(), columns.len());
        return Err(Fault::new(message).at(view.span));
    }
    let renamed = columns.into_iter().zip(names).map(|(column, name)| Expr::Column(column).alias(&name.value));
    LogicalPlanBuilder::new(plan).project(renamed).and_then(LogicalPlanBuilder::build).map_err(|error| fault(&error))
}
