//! A session: what statements have set and created, and what the next one does.

mod take_over;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_model::OperatorId;
use coulee_runtime::connector::Sink;
use coulee_runtime::graph::Graph;
use coulee_runtime::table::{Connectors, TableSpec};
use datafusion_common::Column;
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use sqlparser::ast::{Ident, Query};
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};

use crate::alter_table::altered;
use crate::catalog::{Catalog, Declaration, Entry, FileTable, Table, View};
use crate::create_text::{create_text, create_view_text};
use crate::define::define;
use crate::error::{Fault, Result, SqlError};
use crate::explain::explain;
use crate::faults::fault;
use crate::files;
use crate::hint;
use crate::kept::{CatalogChange, Definitions, Kept};
use crate::like::merged;
use crate::options_hint;
use crate::planner::{Functions, Planner};
use crate::script::parse_script;
use crate::settings::{JobOptions, Settings};
use crate::show::{describe, named_like, text_table};
use crate::spans;
use crate::stack::with_large_stack;
use crate::statement::{
    AlterTable, AlterView, Body, ColumnDef, ColumnDefKind, CreateTable, CreateView, Insert, Relation, Show, Statement,
    TableChange,
};
use crate::stream_plan::convert::Converter;
use crate::stream_plan::{ChangelogKind, StreamPlan};
use crate::translate::{JobContext, Target, Translator};
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

    fn create_table(&mut self, create: &CreateTable, statement: &Statement) -> Result<Effect> {
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

    fn defined(&self, create: &CreateTable, statement: &Statement) -> Result<(Table, Vec<String>)> {
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

    fn alter_table(&mut self, alter: &AlterTable, statement: &Statement) -> Result<Effect> {
        let name = &alter.name.value;
        let before = match self.catalog.get(name) {
            None if alter.if_exists => return Ok(Effect::Done(format!("there is no table '{name}'"))),
            None => return Err(self.catalog.unknown(name).at(alter.name.span)),
            Some(Entry::View(_)) => return Err(Fault::new(format!("'{name}' is a view")).at(alter.name.span)),
            Some(Entry::Table(table)) => table.clone(),
        };
        let takes = |key: &str| before.connector.options().iter().any(|option| option.key == key);
        let mut create = altered(&before.create, alter, takes)?;
        if let Some(taken) = self.catalog.get(&create.name.value).filter(|_| create.name.value != *name) {
            let message = format!("{} '{}' exists already", relation(taken).word(), create.name.value);
            return Err(Fault::new(message).at(create.name.span).help("choose another name, or DROP it first"));
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

    /// Makes the tables whose options a statement gives by a hint, and says which hints do nothing. A table is looked at for each statement, as it may have been altered.
    fn vary(&mut self, statement: &Statement) -> Result<()> {
        for token in statement.tokens.iter() {
            self.notes.extend(options_hint::hint_text(&token.token).and_then(hint::without_effect));
            let Token::Word(word) = &token.token else { continue };
            let Some((name, options)) = options_hint::split(&word.value, token.span)? else { continue };
            let before = self.catalog.table(name).map_err(|fault| fault.at(token.span))?.clone();
            let name = Ident { value: name.to_owned(), quote_style: None, span: token.span };
            let alter = AlterTable { name, if_exists: false, change: TableChange::Set(options) };
            let (table, notes) = self.defined(&altered(&before.create, &alter, |_| false)?, statement)?;
            self.notes.extend(notes);
            self.catalog.insert_variant(word.value.clone(), Arc::new(table));
        }
        Ok(())
    }

    /// Declares the tables of the files that a statement names.
    fn infer_files(&mut self, statement: &Statement) -> Result<()> {
        for path in files::named(&statement.body) {
            // sqlparser forgets where a name in single quotes stands.
            let is_path = |token: &&TokenWithSpan| token.token == Token::SingleQuotedString(path.value.clone());
            let place = statement.tokens.iter().find(is_path).map(|token| token.span);
            self.infer(&path, &statement.body).map_err(|fault| fault.or_at(place))?;
        }
        Ok(())
    }

    /// Declares the table of a file that a statement names. A file is looked at for each statement, as it may have changed, but for a pipe.
    fn infer(&mut self, path: &Ident, body: &Body) -> Result<()> {
        let (name, key) = (path.value.as_str(), files::key(&path.value));
        let before = self.catalog.file(&key);
        if before.is_some_and(|file| file.is_pipe) {
            return Ok(());
        }
        let (connector, inferred) = self.connectors.infer(name).map_err(|error| Fault::from(error).at(path.span))?;
        self.notes.extend(inferred.notes.iter().cloned());
        let ddl = files::ddl(&files::table_name(name), connector, &inferred);
        let is_known = before.is_some_and(|file| file.ddl == ddl);
        if !is_known && !matches!(body, Body::DescribeFile(_)) {
            self.notes.push(files::summary(name, &inferred));
        }
        let is_pipe = inferred.is_pipe;
        let statement = files::ddl(name, connector, &files::with_dead_letters(name, inferred));
        let parsed = parse_script(&statement, name).map_err(|error| Fault::new(error.to_string()))?;
        let Some(Statement { source, tokens, body: Body::CreateTable(create) }) = parsed.into_iter().next() else {
            return Err(Fault::new(format!("'{name}': the columns cannot be declared")));
        };
        let declaration = Declaration { source, words: tokens };
        let (table, _) = define(&create, declaration, &self.planner(), &self.connectors, &self.job_name())?;
        self.catalog.insert_file(key, FileTable { table: Arc::new(table), ddl, is_pipe });
        Ok(())
    }

    fn create_view(&mut self, create: &CreateView, statement: &Statement) -> Result<Effect> {
        let name = &create.name.value;
        if let Some(done) = self.exists(&create.name, create.if_not_exists, create.or_replace)? {
            return Ok(done);
        }
        let view = self.planned_view(create)?;
        self.catalog.insert(name.clone(), Entry::View(Arc::new(view)));
        self.keep(&create.name, create.is_temporary, create.or_replace, statement);
        Ok(Effect::Done(format!("view '{name}' created")))
    }

    fn alter_view(&mut self, alter: &AlterView, statement: &Statement) -> Result<Effect> {
        let (AlterView::RenameTo { name, .. } | AlterView::As(CreateView { name, .. })) = alter;
        match self.relations().get(&name.value) {
            Some(Relation::View) => {}
            Some(Relation::Table) => return Err(Fault::new(format!("'{}' is a table", name.value)).at(name.span)),
            None => return Err(self.catalog.unknown(&name.value).at(name.span)),
        }
        let holds = self.kept.holds(&name.value);
        let (view, now) = match alter {
            AlterView::As(create) => (Arc::new(self.planned_view(create)?), name),
            AlterView::RenameTo { to, .. } => {
                self.exists(to, false, false)?;
                let Entry::View(view) = self.catalog.find(&name.value)? else {
                    return Err(Fault::new(format!("'{}' is a table", name.value)).at(name.span));
                };
                let text = renamed(&view.text, to)?;
                (Arc::new(View { plan: view.plan.clone(), text }), to)
            }
        };
        self.catalog.remove(&name.value);
        self.catalog.insert(now.value.clone(), Entry::View(view));
        if holds {
            if now.value != name.value {
                self.kept.forget(&name.value);
            }
            self.kept.keep(&now.value, self.definition(&now.value, statement)?);
        }
        Ok(Effect::Done(format!("view '{}' altered", name.value)))
    }

    fn planned_view(&self, create: &CreateView) -> Result<View> {
        let plan = self.planner().query(&create.query)?;
        let plan = with_names(plan, &create.columns, &create.name)?;
        check_names(&plan, Relation::View, &create.name)?;
        Ok(View { plan, text: create.text.clone() })
    }

    /// What to answer when the name is taken.
    fn exists(&self, name: &Ident, if_not_exists: bool, or_replace: bool) -> Result<Option<Effect>> {
        match self.catalog.get(&name.value) {
            None => Ok(None),
            Some(Entry::View(_)) if or_replace => Ok(None),
            // The script goes by its own declaration.
            Some(_) if self.kept.is_taken_over(&name.value) && !if_not_exists => Ok(None),
            Some(entry) if if_not_exists => {
                Ok(Some(Effect::Done(format!("{} '{}' exists already", relation(entry).word(), name.value))))
            }
            Some(entry) => {
                let message = format!("{} '{}' exists already", relation(entry).word(), name.value);
                Err(Fault::new(message).at(name.span).help("DROP it first, or write IF NOT EXISTS"))
            }
        }
    }

    fn drop_relation(&mut self, what: Relation, is_temporary: bool, name: &Ident, if_exists: bool) -> Result<Effect> {
        let own = self.catalog.get(&name.value).filter(|_| !self.kept.holds(&name.value)).map(relation);
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

    /// The tables and views that a statement can name.
    fn relations(&self) -> BTreeMap<String, Relation> {
        let kept = self.kept.iter().map(|(name, kept)| (name.clone(), kept.kind));
        kept.chain(self.catalog.iter().map(|(name, entry)| (name.to_owned(), relation(entry)))).collect()
    }

    fn show_create(&self, what: Relation, name: &Ident) -> Result<Effect> {
        let entry = self.catalog.find(&name.value).map_err(|fault| fault.at(name.span))?;
        if relation(entry) != what {
            let is = relation(entry).word();
            let help = format!("write SHOW CREATE {}", is.to_uppercase());
            return Err(Fault::new(format!("'{}' is a {is}", name.value)).at(name.span).help(help));
        }
        let text = match entry {
            Entry::Table(table) => &table.create.text,
            Entry::View(view) => &view.text,
        };
        Ok(Effect::Table(text_table(&["result"], &[vec![text.clone()]])?))
    }

    /// What the next job is called.
    fn job_name(&self) -> String {
        match (self.settings.get("pipeline.name"), self.unnamed_jobs) {
            (Some(name), _) => name.to_owned(),
            (None, 0) => self.defaults.job_name.clone(),
            (None, before) => format!("{}-{}", self.defaults.job_name, before + 1),
        }
    }

    fn job_context(&self, creates: bool) -> Result<JobContext<'_>> {
        Ok(JobContext {
            connectors: &self.connectors,
            parallelism: self.settings.job(self.defaults.parallelism)?.parallelism,
            idle_timeout: self.settings.idle_timeout(),
            state_ttl_millis: self.settings.state_ttl_millis(),
            late_rows: self.settings.get("late-rows.stream").map(str::to_owned),
            job: self.job_name(),
            creates,
        })
    }

    fn planned(&mut self, graph: Graph, tables: Vec<String>, places: Vec<Span>) -> Result<PlannedJob> {
        graph.check()?;
        let settings = self.settings.job(self.defaults.parallelism)?;
        let name = self.job_name();
        if self.settings.get("pipeline.name").is_none() {
            self.unnamed_jobs += 1;
        }
        let declared =
            tables.iter().filter_map(|table| Some((table.clone(), self.catalog.declaration(table)?.place())));
        let declared = declared.collect();
        Ok(PlannedJob { name, graph, settings, tables, declared, places, statement: None })
    }

    fn insert(&mut self, inserts: &[Insert]) -> Result<Effect> {
        let context = self.job_context(true)?;
        let mut translator = Translator::new(&context);
        self.translate_inserts(inserts, &mut translator)?;
        translator.finish()?;
        let Translator { graph, tables, places, .. } = translator;
        Ok(Effect::Insert(self.planned(graph, tables, places)?))
    }

    fn translate_inserts(&self, inserts: &[Insert], translator: &mut Translator<'_>) -> Result<()> {
        let mut planned = Vec::with_capacity(inserts.len());
        for insert in inserts {
            let done = self.plan_insert(insert).map_err(|fault| fault.within(&insert.tokens))?;
            translator.scans.collect(&done.1);
            planned.push((insert, done));
        }
        let converter = Converter { inputs_end: translator.scans.end()?, keeps_upserts: false };
        for (insert, (table, plan)) in planned {
            let plan = converter.convert(&plan);
            let done = plan.and_then(|plan| self.translate_insert(insert, &table, plan, converter, translator));
            done.map_err(|fault| fault.within(&insert.tokens))?;
        }
        for insert in inserts {
            translator.touch(options_hint::base(&insert.table.value));
        }
        Ok(())
    }

    /// The table that an INSERT writes, and the plan of the rows that it writes there.
    fn plan_insert(&self, insert: &Insert) -> Result<(Arc<Table>, LogicalPlan)> {
        let at = |fault: Fault| fault.or_at(Some(insert.table.span));
        let table = self.catalog.table(&insert.table.value).map_err(at)?;
        let query = self.planner().query(&insert.query)?;
        let shaped = crate::insert::shaped(insert, table, query, &table.sink_spec().schema)?;
        Ok((table.clone(), self.planner().optimize(shaped)?))
    }

    /// Adds one INSERT to a graph.
    fn translate_insert(
        &self,
        insert: &Insert,
        table: &Table,
        plan: StreamPlan,
        converter: Converter,
        translator: &mut Translator<'_>,
    ) -> Result<()> {
        let at = |fault: Fault| fault.or_at(Some(insert.table.span));
        let mut spec = table.sink_spec();
        spec.created_by.clone_from(&translator.context.job);
        let sink = table.connector.sink(&spec).map_err(|error| at(error.into()))?;
        let parallelism = translator.count(table, "sink.parallelism").map_err(at)?;
        let rejects = sink.may_reject();
        let is_table = converter.inputs_end && self.settings.gives_final_rows(sink.refuses_changelog().is_none());
        let plan = if is_table { plan.only_final_rows() } else { plan };
        let key = if sink.is_upsert() { table.key_of(&spec.schema).map_err(at)? } else { Vec::new() };
        let plan = if sink.is_upsert() { plan.upserts(&key, parallelism) } else { plan };
        let target = Target { table: table.name(), schema: spec.schema.clone(), parallelism, sink, key };
        let node = plan.insert(translator, target, insert.table.span)?;
        if rejects {
            translator.row_errors(node, &table.connector, &spec);
        }
        // After each, so that the error points at the one that is wrong.
        translator.graph.check_changelogs().map_err(|error| at(error.into()))
    }

    fn query(&mut self, query: &Query) -> Result<Effect> {
        let Some(query_sink) = self.defaults.query_sink.clone() else {
            return Err(Fault::new("there is nowhere to show the rows of a SELECT here")
                .help("write INSERT INTO table SELECT …"));
        };
        let context = self.job_context(true)?;
        let mut translator = Translator::new(&context);
        let schema = self.translate_query(query, &query_sink, &mut translator)?;
        translator.finish()?;
        let Translator { graph, tables, places, .. } = translator;
        Ok(Effect::Query(self.planned(graph, tables, places)?, schema))
    }

    fn translate_query(
        &self,
        query: &Query,
        query_sink: &QuerySink,
        translator: &mut Translator<'_>,
    ) -> Result<SchemaRef> {
        let plan = self.planner().optimize(self.planner().query(query)?)?;
        let schema = distinct_names(plan.schema().inner());
        translator.scans.collect(&plan);
        let inputs_end = translator.scans.end()?;
        let plan = Converter { inputs_end, keeps_upserts: false }.convert(&plan)?;
        let plan = if inputs_end { plan.only_final_rows() } else { plan };
        let sink = query_sink(schema.clone(), plan.changes != ChangelogKind::InsertOnly);
        let target = Target { table: "query", schema: schema.clone(), parallelism: 1, sink, key: Vec::new() };
        plan.insert(translator, target, Span::empty())?;
        Ok(schema)
    }

    /// A query that can be run to its end, with its rows going nowhere.
    fn analyze(&mut self, query: &Query) -> Result<Effect> {
        let nowhere = self.connectors.get("blackhole")?.sink(&TableSpec {
            name: "query".to_owned(),
            schema: Arc::new(Schema::empty()),
            metadata_columns: BTreeMap::new(),
            primary_key: Vec::new(),
            partitioned_by: Vec::new(),
            options: BTreeMap::new(),
            created_by: self.defaults.job_name.clone(),
        })?;
        let discard: QuerySink = Arc::new(move |_, _| nowhere.clone());
        let context = self.job_context(true)?;
        let mut translator = Translator::new(&context);
        self.translate_query(query, &discard, &mut translator)?;
        if !translator.scans.end()? {
            return Err(Fault::new("EXPLAIN ANALYZE runs a query to its end, and an input of this one has none")
                .or_clause(&["ANALYZE"])
                .help("write it as an INSERT, and see what it does with `coulee job show NAME`"));
        }
        translator.finish()?;
        let text = explain(&translator.plans, &translator.graph, &translator.event_times);
        let Translator { graph, tables, places, .. } = translator;
        Ok(Effect::Analyze(self.planned(graph, tables, places)?, text))
    }

    fn explain(&self, body: &Body) -> Result<Effect> {
        let context = self.job_context(false)?;
        let mut translator = Translator::new(&context);
        match body {
            Body::Insert(insert) => self.translate_inserts(std::slice::from_ref(insert), &mut translator)?,
            Body::StatementSet(inserts) => self.translate_inserts(inserts, &mut translator)?,
            Body::Query(query) => {
                let Some(query_sink) = &self.defaults.query_sink else {
                    return Err(
                        Fault::new("there is nowhere to show the rows of a SELECT here").help("EXPLAIN an INSERT INTO")
                    );
                };
                self.translate_query(query, query_sink, &mut translator)?;
            }
            _ => return Err(Fault::new("EXPLAIN takes a query or INSERT INTO")),
        }
        translator.finish()?;
        translator.graph.check()?;
        Ok(Effect::Explain(explain(&translator.plans, &translator.graph, &translator.event_times)))
    }
}

fn relation(entry: &Entry) -> Relation {
    match entry {
        Entry::Table(_) => Relation::Table,
        Entry::View(_) => Relation::View,
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

/// The columns of a query's result, told apart: `SELECT a.x, b.x` gives `x` and `x:2`.
fn distinct_names(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<arrow::datatypes::Field> = Vec::with_capacity(schema.fields().len());
    let mut names: HashSet<String> = HashSet::new();
    for field in schema.fields() {
        let mut name = field.name().clone();
        let mut number = 2;
        while !names.insert(name.clone()) {
            name = format!("{}:{number}", field.name());
            number += 1;
        }
        fields.push(field.as_ref().clone().with_name(name));
    }
    Arc::new(Schema::new(fields))
}
