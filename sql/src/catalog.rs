//! The tables and views of a session, and how DataFusion's planner sees them.
//!
//! A scan in a plan reads physical columns only. Computed columns stand in a projection above it, so that the optimizer prunes and merges them as it does
//! everything else.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use coulee_runtime::options::{Options, nearest};
use coulee_runtime::table::{Connector, TableSpec};
use datafusion_common::{Column, TableReference};
use datafusion_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource};
use sqlparser::tokenizer::{Location, TokenWithSpan};

use crate::error::{Fault, Result, Source};
use crate::statement::{CreateTable, Relation};

/// A table, resolved.
#[derive(Debug)]
pub(crate) struct Table {
    pub columns: Vec<TableColumn>,
    pub event_time: Option<TableEventTime>,
    /// The options that every table has.
    pub common: Options,
    /// What the connector sees: physical and metadata columns.
    pub spec: TableSpec,
    /// Indexes into `spec.schema` of columns that are only read (`VIRTUAL`).
    pub read_only: Vec<usize>,
    pub connector: Arc<dyn Connector>,
    /// What made it, with what was taken over from another table or a query.
    pub create: CreateTable,
    pub declaration: Declaration,
}

/// Where a table is declared: the script and the statement's words.
#[derive(Debug)]
pub(crate) struct Declaration {
    pub source: Arc<Source>,
    pub words: Arc<Vec<TokenWithSpan>>,
}

impl Declaration {
    /// Script, line and column (both from 1): `job.sql:3:1`.
    pub fn place(&self) -> String {
        let start = self.words.first().map_or(Location::new(1, 1), |word| word.span.start);
        format!("{}:{}:{}", self.source.origin, start.line, start.column)
    }
}

/// A column as the query sees it.
#[derive(Debug)]
pub(crate) struct TableColumn {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    /// For `DESCRIBE`: `METADATA FROM 'key'`, `AS …`.
    pub extras: String,
    /// Over the physical columns; `None` for a column of its own.
    pub computed: Option<Expr>,
}

#[derive(Debug)]
pub(crate) struct TableEventTime {
    /// Its name among the columns.
    pub column: String,
    /// What it is over the physical columns: a column, or what computes it.
    pub value: Expr,
    /// What a row lets the watermark be, over the physical columns.
    pub watermark: Expr,
    /// The watermark as written.
    pub text: String,
}

impl Table {
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The columns of the primary key among those that its sink takes.
    ///
    /// # Errors
    /// When one is only read.
    pub fn key_of(&self, sink: &SchemaRef) -> Result<Vec<usize>> {
        let index = |column: &String| {
            let missing = || Fault::new(format!("column '{column}' of the primary key is VIRTUAL, and is not written"));
            sink.index_of(column).map_err(|_| missing())
        };
        self.spec.primary_key.iter().map(index).collect()
    }

    /// The schema of the rows that its sink takes, and what the connector is told of the table.
    pub fn sink_spec(&self) -> TableSpec {
        let mut spec = self.spec.clone();
        let schema = &self.spec.schema;
        let kept = (0..schema.fields().len()).filter(|index| !self.read_only.contains(index));
        let fields: Vec<_> = kept.map(|index| schema.fields()[index].clone()).collect();
        spec.schema = Arc::new(arrow::datatypes::Schema::new(fields));
        for &index in &self.read_only {
            spec.metadata_columns.remove(schema.field(index).name());
        }
        spec
    }
}

/// A view: a plan that is put in wherever it is named.
#[derive(Debug)]
pub(crate) struct View {
    pub plan: LogicalPlan,
    pub text: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Table(Arc<Table>),
    View(Arc<View>),
}

impl Entry {
    pub fn kind(&self) -> Relation {
        match self {
            Entry::Table(_) => Relation::Table,
            Entry::View(_) => Relation::View,
        }
    }
}

/// The table of files that nobody has declared.
#[derive(Debug)]
pub(crate) struct FileTable {
    pub table: Arc<Table>,
    /// The statement that would declare it.
    pub ddl: String,
    /// Whether it can be read once only.
    pub is_pipe: bool,
}

/// Tables and views by name. Names are case-sensitive, as in Flink.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    entries: BTreeMap<String, Entry>,
    /// Tables of files that queries name by their paths, by `files::key`.
    files: BTreeMap<String, FileTable>,
    /// Tables with options that statements give them, by the name that has them (`options_hint`).
    variants: BTreeMap<String, Entry>,
    /// Names that stand for something as soon as a statement has them.
    pub others: BTreeSet<String>,
}

impl Catalog {
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name).or_else(|| self.variants.get(name))
    }

    /// As `get`, or an error with the nearest name.
    pub fn find(&self, name: &str) -> Result<&Entry> {
        self.get(name).ok_or_else(|| self.unknown(name))
    }

    pub fn table(&self, name: &str) -> Result<&Arc<Table>> {
        match self.find(name)? {
            Entry::Table(table) => Ok(table),
            Entry::View(_) => Err(Fault::new(format!("'{name}' is a view, which cannot be written to"))),
        }
    }

    pub fn declaration(&self, table: &str) -> Option<&Declaration> {
        match self.get(table)? {
            Entry::Table(table) => Some(&table.declaration),
            Entry::View(_) => None,
        }
    }

    pub fn unknown(&self, name: &str) -> Fault {
        let names: BTreeSet<&str> = self.entries.keys().chain(&self.others).map(String::as_str).collect();
        let names = Vec::from_iter(names);
        let fault = Fault::new(format!("unknown table '{name}'"));
        match nearest(name, &names) {
            Some(near) => fault.help(format!("did you mean '{near}'?")),
            None if names.is_empty() => fault.help("there are no tables yet: write CREATE TABLE first"),
            None => fault.help(format!("tables: {}", names.join(", "))),
        }
    }

    pub fn file(&self, key: &str) -> Option<&FileTable> {
        self.files.get(key)
    }

    pub fn insert_file(&mut self, key: String, file: FileTable) {
        self.files.insert(key, file);
    }

    pub fn insert(&mut self, name: String, entry: Entry) {
        self.entries.insert(name, entry);
    }

    pub fn insert_variant(&mut self, name: String, table: Arc<Table>) {
        self.variants.insert(name, Entry::Table(table));
    }

    pub fn remove(&mut self, name: &str) {
        self.entries.remove(name);
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// What a name stands for in a query.
    pub fn source(&self, name: &str) -> Result<Arc<dyn TableSource>> {
        if let Some(file) = self.files.get(name) {
            return table_source(&file.table);
        }
        match self.find(name)? {
            Entry::Table(table) => table_source(table),
            Entry::View(view) => Ok(Arc::new(Planned::new(view.plan.clone()))),
        }
    }
}

fn table_source(table: &Arc<Table>) -> Result<Arc<dyn TableSource>> {
    let scan = Arc::new(ScanSource(table.clone()));
    if table.columns.iter().all(|column| column.computed.is_none()) {
        return Ok(scan);
    }
    let name = TableReference::bare(table.name());
    let columns = table.columns.iter().map(|column| match &column.computed {
        Some(expr) => expr.clone().alias(&column.name),
        None => Expr::Column(Column::new(Some(name.clone()), &column.name)),
    });
    let plan = LogicalPlanBuilder::scan(name.clone(), scan, None)
        .and_then(|scan| scan.project(columns))
        .and_then(LogicalPlanBuilder::build)
        .map_err(|error| crate::faults::fault(&error))?;
    Ok(Arc::new(Planned::new(plan)))
}

/// A scan of a table's physical columns: what the translation turns into a source.
#[derive(Debug)]
pub(crate) struct ScanSource(pub Arc<Table>);

impl TableSource for ScanSource {
    fn schema(&self) -> SchemaRef {
        self.0.spec.schema.clone()
    }
}

/// Something that is replaced by a plan.
#[derive(Debug)]
struct Planned {
    schema: SchemaRef,
    plan: LogicalPlan,
}

impl Planned {
    fn new(plan: LogicalPlan) -> Self {
        Planned { schema: plan.schema().inner().clone(), plan }
    }
}

impl TableSource for Planned {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn get_logical_plan(&self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}
