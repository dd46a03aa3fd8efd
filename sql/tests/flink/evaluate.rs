//! Evaluates an expression with Coulee: plans a query over one row, and runs its operators.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_model::Timestamp;
use coulee_runtime::Batch;
use coulee_runtime::graph::{Graph, NodeKind, OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, through};
use coulee_runtime::table::Connectors;
use coulee_sql::{Effect, Session, SessionDefaults, parse_script};

use crate::connector::{Fake, FakeSink};
use crate::expected::{Form, Rows};
use crate::print::{type_text, value_text};

/// Why there is no value.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The statement is refused.
    Planning(String),
    /// The row fails.
    Row(String),
}

/// A type and a value as text.
pub type Result<T = (String, String)> = std::result::Result<T, Failure>;

/// A session with a table `one` of one row, and one `many` of the section's rows.
pub struct Evaluator {
    session: Session,
    one: RecordBatch,
    many: Option<RecordBatch>,
    operands: HashMap<String, Result<ArrayRef>>,
}

impl Evaluator {
    pub fn new() -> Self {
        let connectors = Connectors::default().with(Arc::new(Fake("fake"))).with(Arc::new(Fake("stream")));
        let query_sink: coulee_sql::QuerySink = Arc::new(|_, is_changelog| Arc::new(FakeSink::screen(is_changelog)));
        let defaults = SessionDefaults { job_name: "job".into(), parallelism: 1, query_sink: Some(query_sink) };
        let column: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        let one = RecordBatch::try_from_iter([("one", column)]).expect("a row");
        let mut evaluator = Evaluator {
            session: Session::new(connectors, defaults, Arc::default()),
            one,
            many: None,
            operands: HashMap::new(),
        };
        evaluator.execute("CREATE TABLE single (one INT) WITH ('connector' = 'fake')").expect("a table");
        evaluator
    }

    /// The rows that the next expressions are evaluated over.
    pub fn rows(&mut self, rows: Option<&Rows>) {
        self.many = rows.map(|rows| {
            let columns: Vec<(String, String)> = split(&rows.columns)
                .into_iter()
                .map(|column| column.trim().split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a type"))
                .collect();
            let mut batches = Vec::new();
            for row in &rows.rows {
                let items: Vec<String> = split(row)
                    .iter()
                    .zip(&columns)
                    .map(|(value, (name, data_type))| format!("CAST({value} AS {data_type}) AS {name}"))
                    .collect();
                let query = format!("SELECT {} FROM single", items.join(", "));
                let row = self.run(&query, "single", self.one.clone()).unwrap_or_else(|e| panic!("{query}: {e:?}"));
                // Of one row's literals, none may be null; of all rows', some are.
                let columns =
                    row.schema_ref().fields().iter().map(|field| field.name()).zip(row.columns().iter().cloned());
                let nullable = columns.map(|(name, column)| (name, column, true));
                batches.push(RecordBatch::try_from_iter_with_nullable(nullable).expect("a row"));
            }
            let all = arrow::compute::concat_batches(&batches[0].schema(), &batches).expect("rows");
            let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1; all.num_rows()]));
            let fields = all.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
            let named = fields.into_iter().zip(all.columns().iter().cloned()).chain([("rowtime".to_owned(), times)]);
            let batch = RecordBatch::try_from_iter(named).expect("rows with a time");
            self.declare("many", &batch, ", WATERMARK FOR rowtime AS rowtime");
            batch
        });
    }

    pub fn evaluate(&mut self, expression: &str, form: Form) -> Result {
        let (pieces, between) = operands(expression);
        let batch = if let Some(many) = self.many.clone() {
            let query = format!(
                "SELECT {expression} AS v FROM TABLE(TUMBLE(TABLE many, DESCRIPTOR(rowtime), INTERVAL '1' DAY))
                 GROUP BY window_start, window_end"
            );
            self.run(&query, "many", many)?
        } else if form == Form::Literal {
            let text = joined(&between, pieces.iter().map(String::as_str));
            self.run(&format!("SELECT {text} AS v FROM single"), "single", self.one.clone())?
        } else {
            let mut columns = Vec::new();
            for (index, piece) in pieces.iter().enumerate() {
                columns.push((format!("c{index}"), self.operand(piece)?));
            }
            let batch = RecordBatch::try_from_iter_with_nullable(
                columns.iter().map(|(name, column)| (name, column.clone(), true)),
            )
            .expect("a row");
            self.declare("t", &batch, "");
            let text = joined(&between, columns.iter().map(|(name, _)| name.as_str()));
            self.run(&format!("SELECT {text} AS v FROM t"), "t", batch)?
        };
        if batch.num_rows() == 0 {
            // A group whose result fails is left out, and reported beside the results.
            return Err(Failure::Row("the group is rejected".to_owned()));
        }
        assert_eq!(batch.num_rows(), 1, "{expression}");
        Ok((type_text(batch.column(0).data_type()), value_text(batch.column(0), 0)))
    }

    /// The value of an operand, which becomes a column.
    fn operand(&mut self, text: &str) -> Result<ArrayRef> {
        if let Some(known) = self.operands.get(text) {
            return known.clone();
        }
        let found = self
            .run(&format!("SELECT {text} AS v FROM single"), "single", self.one.clone())
            .map(|batch| batch.column(0).clone())
            .and_then(|column| match column.data_type() {
                DataType::Null => Err(Failure::Planning("a column of no type".into())),
                _ => Ok(column),
            });
        self.operands.insert(text.to_owned(), found.clone());
        found
    }

    fn declare(&mut self, name: &str, batch: &RecordBatch, more: &str) {
        let columns: Vec<String> = batch
            .schema()
            .fields()
            .iter()
            .map(|field| format!("`{}` {}", field.name(), type_text(field.data_type())))
            .collect();
        let create = format!("CREATE TABLE {name} ({}{more}) WITH ('connector' = 'fake')", columns.join(", "));
        self.execute(&format!("DROP TABLE IF EXISTS {name}")).expect("a statement");
        self.execute(&create).unwrap_or_else(|error| panic!("{create}: {error:?}"));
    }

    fn execute(&mut self, statement: &str) -> Result<Effect> {
        let refused = |error: coulee_sql::SqlError| Failure::Planning(error.message().to_owned());
        let statements = parse_script(statement, "x.sql").map_err(refused)?;
        self.session.execute(statements.first().expect("a statement")).map_err(refused)
    }

    /// The rows of a query over a table whose rows are `input`.
    fn run(&mut self, query: &str, table: &str, input: RecordBatch) -> Result<RecordBatch> {
        let Effect::Query(job, schema) = self.execute(query)? else { panic!("{query} is no query") };
        assert!(job.tables.iter().all(|read| read == table), "{query} reads {:?}", job.tables);
        let batches = operate(&job.graph, &input).map_err(|error| Failure::Row(first_line(&error.to_string())))?;
        let rows: Vec<RecordBatch> = batches.into_iter().map(Batch::into_rows).collect();
        Ok(arrow::compute::concat_batches(&schema, &rows).expect("rows of one schema"))
    }
}

/// Runs the operators of a graph that is a chain.
fn operate(graph: &Graph, input: &RecordBatch) -> coulee_runtime::Result<Vec<Batch>> {
    let mut batches = Vec::new();
    for node in &graph.nodes {
        match &node.kind {
            NodeKind::Source(source) => batches = vec![Batch::inserts(projected(input, &source.source.schema()))],
            NodeKind::Operator(factory) if is_calculation(factory.as_ref()) => {
                let (emitted, rejected) = through(factory, batches)?;
                if let Some(failure) = rejected.iter().flat_map(|rows| &rows.failures).next() {
                    return Err(coulee_runtime::Error::invalid(failure.reason.clone()));
                }
                batches = emitted;
            }
            NodeKind::Operator(factory) => {
                let dir = tempfile::tempdir().expect("a folder");
                let mut harness = Harness::new(factory.clone(), dir.path())?;
                for batch in batches.drain(..) {
                    harness.push(Input::Rows(batch))?;
                }
                harness.push(Input::Watermark(Timestamp::MAX))?;
                harness.end()?;
                batches = harness.take_batches(Port::MAIN);
            }
            NodeKind::Sink(_) => {}
        }
    }
    Ok(batches)
}

/// Whether an operator filters and projects only: it needs no store.
fn is_calculation(factory: &dyn OperatorFactory) -> bool {
    factory.describe().starts_with("Filter") || factory.describe().starts_with("Project")
}

/// The columns that a source was asked for.
fn projected(input: &RecordBatch, schema: &SchemaRef) -> RecordBatch {
    let columns = schema.fields().iter().map(|field| {
        let column = input.column_by_name(field.name()).expect("a column");
        // The entries of a map have other names in a value than in a declared type.
        arrow::compute::cast(column, field.data_type()).expect("the column's type")
    });
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(input.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect(), &options).expect("the rows")
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The operands in braces, and the pieces of text around them (one more).
pub fn operands(expression: &str) -> (Vec<String>, Vec<String>) {
    let (mut operands, mut between) = (Vec::new(), vec![String::new()]);
    let (mut quoted, mut open) = (false, None::<String>);
    for c in expression.chars() {
        quoted ^= c == '\'';
        match (c, &mut open) {
            ('{', None) if !quoted => open = Some(String::new()),
            ('}', Some(_)) if !quoted => {
                operands.push(open.take().expect("an open brace"));
                between.push(String::new());
            }
            (_, Some(operand)) => operand.push(c),
            (_, None) => between.last_mut().expect("a piece").push(c),
        }
    }
    (operands, between)
}

fn joined<'a>(between: &[String], operands: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for (piece, operand) in between.iter().zip(operands.map(Some).chain(std::iter::repeat(None))) {
        text.push_str(piece);
        text.push_str(operand.unwrap_or_default());
    }
    text
}

/// Splits at commas outside of quotes and brackets.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted) = (vec![String::new()], 0, false);
    for c in text.chars() {
        quoted ^= c == '\'';
        match c {
            '(' | '[' | '<' if !quoted => depth += 1,
            ')' | ']' | '>' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("a part").push(c);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).collect()
}
