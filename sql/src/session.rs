//! A session: what statements have set and created, and what the next one does.

mod given;
mod jobs;
mod relations;
mod take_over;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use coulee_model::OperatorId;
use coulee_runtime::connector::Sink;
use coulee_runtime::graph::Graph;
use coulee_runtime::table::Connectors;
use sqlparser::ast::Ident;
use sqlparser::tokenizer::Span;

use crate::catalog::{Catalog, Declaration, Entry};
use crate::error::{Fault, Result, SqlError};
use crate::files;
use crate::kept::{CatalogChange, Definitions, Kept};
use crate::planner::{Functions, Planner};
use crate::settings::{JobOptions, Settings};
use crate::show::{describe, named_like, text_table};
use crate::spans;
use crate::stack::with_large_stack;
use crate::statement::{Body, Relation, Show, Statement};
use crate::words::{CATALOG, DATABASE};

/// Makes the sink that the rows of a `SELECT` go to: their columns, and whether they are a changelog.
pub type QuerySink = Arc<dyn Fn(SchemaRef, bool) -> Arc<dyn Sink> + Send + Sync>;

/// What a session starts from.
#[derive(Clone)]
pub struct SessionDefaults {
    /// The name of the first job that does not get one by `SET 'pipeline.name'`; further ones are `<name>-2`, `<name>-3`.
    pub job_name: String,
    /// Subtasks per operator, unless `SET 'parallelism.default'` says otherwise.
    pub parallelism: u32,
    /// Where the rows of a `SELECT` go; `None` refuses `SELECT`.
    pub query_sink: Option<QuerySink>,
}

impl fmt::Debug for SessionDefaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionDefaults")
            .field("job_name", &self.job_name)
            .field("parallelism", &self.parallelism)
            .finish_non_exhaustive()
    }
}

/// A job that is planned and not started.
#[derive(Debug)]
pub struct PlannedJob {
    /// What its state is filed under.
    pub name: String,
    /// What it does.
    pub graph: Graph,
    /// How it runs.
    pub settings: JobOptions,
    /// The tables that it reads and writes: sources first, each once.
    pub tables: Vec<String>,
    /// Of each of them, where it is declared: script, line and column (both from 1), `job.sql:3:1`.
    pub declared: BTreeMap<String, String>,
    /// Of each node of the graph, the place of the statement that it belongs to.
    places: Vec<Span>,
    /// The statement that the job was planned from.
    statement: Option<Statement>,
}

impl PlannedJob {
    /// An error about a node of the graph, or about the job, at the statement that it belongs to.
    pub fn error_at(&self, node: Option<OperatorId>, message: &str, help: &str) -> Option<SqlError> {
        let place = node.and_then(|node| self.places.get(node.0 as usize)).copied();
        let fault = Fault::new(message).help(help).or_at(place.or(self.places.first().copied()));
        self.statement.as_ref().map(|statement| statement.error(fault))
    }
}

/// What a statement did, or asks its caller to do.
#[derive(Debug)]
pub enum Effect {
    /// It is done; a sentence says what.
    Done(String),
    /// Run this job.
    Insert(PlannedJob),
    /// Run this job, whose rows go to the query sink with this schema.
    Query(PlannedJob, SchemaRef),
    /// Run this job to its end, and show this plan with what its operators did.
    Analyze(PlannedJob, String),
    /// Show this text.
    Explain(String),
    /// Show these rows.
    Table(RecordBatch),
}

/// Settings, tables and views, as the statements so far made them.
#[derive(Debug)]
pub struct Session {
    connectors: Connectors,
    defaults: SessionDefaults,
    settings: Settings,
    catalog: Catalog,
    kept: Kept,
    functions: Functions,
    /// Jobs named after the script so far.
    unnamed_jobs: u32,
    /// The databases that statements have created: other names of the one that there is.
    databases: BTreeSet<String>,
    /// What the last statement leaves to be said beside its effect.
    notes: Vec<String>,
}

impl Session {
    /// A session without tables of its own, which takes over those that are kept.
    pub fn new(connectors: Connectors, defaults: SessionDefaults, kept: Arc<Definitions>) -> Self {
        Session {
            kept: Kept::new(kept),
            connectors,
            defaults,
            settings: Settings::default(),
            catalog: Catalog::default(),
            functions: Functions::new(None),
            unnamed_jobs: 0,
            databases: BTreeSet::new(),
            notes: Vec::new(),
        }
    }

    /// What was set so far.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the last statement leaves to be said beside its effect: a setting that has no effect here, a clause that nothing enforces. Whole sentences;
    /// none after an error.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// What the last statement changes of what is kept; none after an error.
    pub fn take_catalog_changes(&mut self) -> Vec<CatalogChange> {
        self.kept.take_changes()
    }

    /// The kept tables and views that the session has taken over so far: those that its jobs need to be planned again.
    pub fn taken_over(&self) -> &Definitions {
        self.kept.taken()
    }

    /// Executes one statement. Jobs are planned, not run. Connectors are called on a thread that has no asynchronous runtime.
    ///
    /// # Errors
    /// What is wrong with the statement, and where. The session is as before then.
    pub fn execute(&mut self, statement: &Statement) -> Result<Effect, SqlError> {
        self.notes.clear();
        self.kept.take_changes();
        let done = with_large_stack(|| self.run(statement));
        let mut effect = done.map_err(|fault| {
            self.notes.clear();
            self.kept.take_changes();
            self.locate(self.with_why(fault), statement)
        })?;
        if let Effect::Insert(job) | Effect::Query(job, _) = &mut effect {
            job.statement = Some(statement.clone());
        }
        Ok(effect)
    }

    /// Finds what a fault is about in the statement, or in the `CREATE TABLE` of the table that it is about.
    fn locate(&self, fault: Fault, statement: &Statement) -> SqlError {
        for place in &fault.places {
            if let Some(span) = spans::find(place, &statement.tokens) {
                return statement.error(fault.at(span));
            }
            let declared = spans::declared_by(place).and_then(|table| self.catalog.declaration(table));
            if let Some(Declaration { source, words }) = declared
                && let Some(span) = spans::find(place, words)
            {
                return fault.at(span).in_source(source, words);
            }
        }
        statement.error(fault)
    }

    fn run(&mut self, statement: &Statement) -> Result<Effect> {
        self.infer_files(statement)?;
        self.take_over(statement);
        self.vary(statement)?;
        match &statement.body {
            Body::CreateTable(create) => self.create_table(create, statement),
            Body::CreateView(create) => self.create_view(create, statement),
            Body::AlterTable(alter) => self.alter_table(alter, statement),
            Body::AlterView(alter) => self.alter_view(alter, statement),
            Body::Drop { what, is_temporary, name, if_exists } => {
                self.drop_relation(*what, *is_temporary, name, *if_exists)
            }
            Body::Set(None) => self.show_settings(),
            Body::Set(Some((key, value))) => self.set(key, value),
            Body::Reset(key) => {
                let span = key.as_ref().map(|key| key.span);
                self.settings.reset(key.as_ref().map(|key| key.value.as_str())).map_err(|fault| fault.or_at(span))?;
                self.functions = Functions::new(self.settings.zone());
                Ok(Effect::Done(key.as_ref().map_or("settings reset".into(), |key| format!("'{}' reset", key.value))))
            }
            Body::Show(show, pattern) => Ok(Effect::Table(named_like(self.show(*show)?, pattern.as_ref())?)),
            Body::ShowColumns(table, pattern) => {
                let entry = self.catalog.find(&table.value).map_err(|fault| fault.at(table.span))?;
                Ok(Effect::Table(named_like(describe(entry)?, pattern.as_ref())?))
            }
            Body::ShowCreate(what, name) => self.show_create(*what, name),
            Body::Describe(name) => {
                let entry = self.catalog.find(&name.value).map_err(|fault| fault.at(name.span))?;
                Ok(Effect::Table(describe(entry)?))
            }
            Body::DescribeFile(path) => match self.catalog.file(&files::key(&path.value)) {
                Some(file) => Ok(Effect::Explain(format!("{};", file.ddl))),
                None => Err(Fault::new(format!("'{}' has no columns", path.value)).at(path.span)),
            },
            Body::Explain(body) => self.explain(body),
            Body::Analyze(query) => self.analyze(query),
            Body::Insert(insert) => self.insert(std::slice::from_ref(insert)),
            Body::StatementSet(inserts) => self.insert(inserts),
            Body::Query(query) => self.query(query),
            Body::CreateDatabase(name) => {
                self.databases.insert(name.value.clone());
                self.notes.push(format!(
                    "CREATE DATABASE has no effect: there is one database, and tables that are created after it go there; write their names without '{}.'",
                    name.value
                ));
                Ok(Effect::Done("nothing to do".into()))
            }
            Body::UseDatabase(name) if name.value == DATABASE || self.databases.contains(&name.value) => {
                Ok(Effect::Done("nothing to do".into()))
            }
            Body::UseDatabase(name) => Err(Fault::new(format!("unknown database '{}'", name.value))
                .at(name.span)
                .help(format!("there is one database, '{DATABASE}': leave the statement out"))),
            Body::Noted(note) => {
                self.notes.extend((!note.is_empty()).then(|| note.clone()));
                Ok(Effect::Done("nothing to do".into()))
            }
        }
    }

    fn planner(&self) -> Planner<'_> {
        Planner { catalog: &self.catalog, functions: &self.functions }
    }

    fn set(&mut self, key: &Ident, value: &Ident) -> Result<Effect> {
        let known = crate::settings::SETTINGS.iter().any(|spec| spec.key == key.value);
        let span = if known { value.span } else { key.span };
        let why = self.settings.set(&key.value, &value.value).map_err(|error| Fault::from(error).at(span))?;
        self.functions = Functions::new(self.settings.zone());
        self.notes.extend(why.map(|why| format!("'{}' = '{}' has no effect: {why}", key.value, value.value)));
        Ok(Effect::Done(format!("'{}' is '{}'", key.value, value.value)))
    }

    fn show_settings(&self) -> Result<Effect> {
        let rows: Vec<Vec<String>> =
            self.settings.iter().map(|(key, value)| vec![key.to_owned(), value.to_owned()]).collect();
        Ok(Effect::Table(text_table(&["key", "value"], &rows)?))
    }

    /// Names, and what belongs to them.
    fn show(&self, show: Show) -> Result<RecordBatch> {
        let (names, rows): (&[&str], Vec<Vec<String>>) = match show {
            Show::Tables => (&["table name"], self.relations().into_keys().map(|name| vec![name]).collect()),
            Show::Views => {
                let views = self.relations().into_iter().filter(|(_, kind)| *kind == Relation::View);
                (&["view name"], views.map(|(name, _)| vec![name]).collect())
            }
            Show::Catalogs => (&["catalog name"], vec![vec![CATALOG.to_owned()]]),
            Show::Databases => (&["database name"], vec![vec![DATABASE.to_owned()]]),
            Show::Jars => (&["jars"], Vec::new()),
            Show::Modules => (&["module name"], vec![vec!["core".to_owned()]]),
            Show::Functions => {
                let functions = self.functions.list();
                let row = |(name, kind): (&str, &str)| {
                    let (usage, about) = crate::functions::described(name).unwrap_or_default();
                    [name, kind, usage, about].map(str::to_owned).to_vec()
                };
                (&["function name", "kind", "usage", "description"], functions.into_iter().map(row).collect())
            }
        };
        text_table(names, &rows)
    }

    fn show_create(&self, what: Relation, name: &Ident) -> Result<Effect> {
        let entry = self.catalog.find(&name.value).map_err(|fault| fault.at(name.span))?;
        if entry.kind() != what {
            let is = entry.kind().word();
            let help = format!("write SHOW CREATE {}", is.to_uppercase());
            return Err(Fault::new(format!("'{}' is a {is}", name.value)).at(name.span).help(help));
        }
        let text = match entry {
            Entry::Table(table) => &table.create.text,
            Entry::View(view) => &view.text,
        };
        Ok(Effect::Table(text_table(&["result"], &[vec![text.clone()]])?))
    }
}
