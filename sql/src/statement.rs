//! What a script says, parsed but not resolved: no name is looked up here.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};
use sqlparser::ast::{Expr, Ident, Query};
use sqlparser::tokenizer::{Span, TokenWithSpan};

use crate::error::{Fault, Source, SqlError};

/// One statement of a script, with its place in it.
#[derive(Debug, Clone)]
pub struct Statement {
    pub(crate) source: Arc<Source>,
    /// The words, without blanks and comments; never empty.
    pub(crate) tokens: Arc<Vec<TokenWithSpan>>,
    pub(crate) body: Body,
}

impl Statement {
    /// The text as written, without the semicolon.
    pub fn text(&self) -> &str {
        self.source.slice(self.span())
    }

    /// The line on which it begins, from 1.
    pub fn line(&self) -> u64 {
        self.start().start.line
    }

    /// The column (in characters) at which it begins, from 1.
    pub fn column(&self) -> u64 {
        self.start().start.column
    }

    /// Whether the statements behind it see what it did: a table, a view, a setting.
    pub fn defines(&self) -> bool {
        match &self.body {
            Body::CreateTable(_)
            | Body::CreateView(_)
            | Body::Drop { .. }
            | Body::AlterTable(_)
            | Body::AlterView(_)
            | Body::Set(Some(_))
            | Body::Reset(_)
            | Body::CreateDatabase(_) => true,
            Body::Set(None)
            | Body::Show(..)
            | Body::ShowColumns(..)
            | Body::ShowCreate(..)
            | Body::Describe(_)
            | Body::DescribeFile(_)
            | Body::Explain(_)
            | Body::Analyze(_)
            | Body::Insert(_)
            | Body::StatementSet(_)
            | Body::Query(_)
            | Body::UseDatabase(_)
            | Body::Noted(_) => false,
        }
    }

    fn start(&self) -> Span {
        self.tokens.first().map_or(Span::empty(), |token| token.span)
    }

    fn span(&self) -> Span {
        self.tokens.last().map_or(Span::empty(), |last| Span::new(self.start().start, last.span.end))
    }

    pub(crate) fn error(&self, fault: Fault) -> SqlError {
        fault.in_source(&self.source, &self.tokens)
    }
}

/// The kinds of statements.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    CreateTable(Box<CreateTable>),
    CreateView(CreateView),
    Drop {
        what: Relation,
        is_temporary: bool,
        name: Ident,
        if_exists: bool,
    },
    AlterTable(AlterTable),
    AlterView(AlterView),
    Set(Option<(Ident, Ident)>),
    Reset(Option<Ident>),
    Show(Show, Option<NamePattern>),
    /// `SHOW COLUMNS FROM t`.
    ShowColumns(Ident, Option<NamePattern>),
    ShowCreate(Relation, Ident),
    Describe(Ident),
    /// `DESCRIBE 'path'`.
    DescribeFile(Ident),
    Explain(Box<Body>),
    /// Runs a query to its end, and shows what it did.
    Analyze(Box<Query>),
    Insert(Insert),
    StatementSet(Vec<Insert>),
    Query(Box<Query>),
    CreateDatabase(Ident),
    UseDatabase(Ident),
    /// A statement that does nothing here; the sentence says why, and is empty where there is nothing to say.
    Noted(String),
}

/// A table or a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// A table.
    Table,
    /// A view.
    View,
}

impl Relation {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Relation::Table => "table",
            Relation::View => "view",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    Tables,
    Views,
    Functions,
    Catalogs,
    Databases,
    Jars,
    Modules,
}

#[derive(Debug, Clone)]
pub(crate) struct CreateTable {
    pub name: Ident,
    /// Whether it ends with its script.
    pub is_temporary: bool,
    pub if_not_exists: bool,
    pub comment: Option<String>,
    pub columns: Vec<ColumnDef>,
    pub watermark: Option<WatermarkDef>,
    pub primary_key: Vec<Ident>,
    pub partitioned_by: Vec<Ident>,
    pub distribution: Option<Distribution>,
    /// Keys and values as written; both spans are known.
    pub options: Vec<(Ident, Ident)>,
    /// `LIKE`: what it takes over from another table.
    pub like: Option<Like>,
    /// `AS`: the query that gives its columns and rows.
    pub query: Option<Box<Query>>,
    /// The statement as written, for `SHOW CREATE TABLE`.
    pub text: String,
}

impl CreateTable {
    /// A declaration that has a name alone.
    pub fn empty(name: Ident) -> Self {
        CreateTable {
            name,
            is_temporary: false,
            if_not_exists: false,
            comment: None,
            columns: Vec::new(),
            watermark: None,
            primary_key: Vec::new(),
            partitioned_by: Vec::new(),
            distribution: None,
            options: Vec::new(),
            like: None,
            query: None,
            text: String::new(),
        }
    }
}

/// `ALTER TABLE t …`.
#[derive(Debug, Clone)]
pub(crate) struct AlterTable {
    pub name: Ident,
    pub if_exists: bool,
    pub change: TableChange,
}

/// What stands in the brackets of a declaration, with where its columns go.
#[derive(Debug, Clone)]
pub(crate) struct Elements {
    /// A declaration that has nothing else.
    pub given: CreateTable,
    /// Of columns that say it: in front of all others, or behind which one.
    pub places: Vec<(Ident, Option<Ident>)>,
}

/// `ALTER VIEW v …`.
#[derive(Debug, Clone)]
pub(crate) enum AlterView {
    RenameTo {
        name: Ident,
        to: Ident,
    },
    /// `AS query`: the view with another query.
    As(CreateView),
}

/// Names as `LIKE` has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern {
    pub pattern: String,
    pub is_negated: bool,
    /// `ILIKE`.
    pub ignores_case: bool,
}

/// What is changed of a table's declaration.
#[derive(Debug, Clone)]
pub(crate) enum TableChange {
    /// Options and their values.
    Set(Vec<(Ident, Ident)>),
    /// Options that have their defaults again.
    Reset(Vec<Ident>),
    RenameTo(Ident),
    RenameColumn(Ident, Ident),
    /// Columns, a watermark and a primary key that come to those there are.
    Add(Box<Elements>),
    /// The same, in the place of those there are.
    Modify(Box<Elements>),
    DropColumns(Vec<Ident>),
    DropWatermark,
    DropPrimaryKey,
}

/// `LIKE base (INCLUDING OPTIONS, …)`.
#[derive(Debug, Clone)]
pub(crate) struct Like {
    pub base: Ident,
    /// What happens to each kind of clauses, for all kinds.
    pub rules: BTreeMap<LikeKind, LikeRule>,
}

/// A kind of clauses of a table that `LIKE` may take over. Columns of the table's own always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LikeKind {
    Constraints,
    Distribution,
    Generated,
    Metadata,
    Options,
    Partitions,
    Watermarks,
}

/// What happens to a kind of clauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LikeRule {
    /// They are taken over; what both tables say is an error.
    Including,
    /// They are not taken over.
    Excluding,
    /// They are taken over; what both tables say is said by the new one.
    Overwriting,
}

#[derive(Debug, Clone)]
pub(crate) struct ColumnDef {
    pub name: Ident,
    pub comment: Option<String>,
    pub kind: ColumnDefKind,
}

#[derive(Debug, Clone)]
pub(crate) enum ColumnDefKind {
    Physical { data_type: DataType, nullable: bool },
    Metadata { data_type: DataType, nullable: bool, key: Option<String>, is_virtual: bool },
    Computed(Box<Expr>),
}

#[derive(Debug, Clone)]
pub(crate) struct WatermarkDef {
    pub column: Ident,
    pub expr: Expr,
    /// The expression as written.
    pub text: String,
    pub span: Span,
}

/// `DISTRIBUTED BY HASH(c) INTO 4 BUCKETS`.
#[derive(Debug, Clone)]
pub(crate) struct Distribution {
    pub columns: Vec<Ident>,
    pub buckets: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct CreateView {
    pub name: Ident,
    /// Whether it ends with its script.
    pub is_temporary: bool,
    pub if_not_exists: bool,
    pub or_replace: bool,
    pub columns: Vec<Ident>,
    pub query: Box<Query>,
    /// The query as written.
    pub query_text: String,
    /// The statement as written.
    pub text: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Insert {
    pub table: Ident,
    pub columns: Vec<Ident>,
    pub query: Box<Query>,
    /// The words of this statement alone: within a statement set, faults are looked for here.
    pub tokens: Arc<Vec<TokenWithSpan>>,
}
