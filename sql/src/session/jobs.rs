//! Jobs: what an INSERT, a SELECT, an EXPLAIN makes a graph of.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use coulee_runtime::graph::Graph;
use coulee_runtime::table::TableSpec;
use datafusion_expr::LogicalPlan;
use sqlparser::ast::Query;
use sqlparser::tokenizer::Span;

use super::{Effect, PlannedJob, QuerySink, Session};
use crate::catalog::Table;
use crate::error::{Fault, Result};
use crate::explain::explain;
use crate::options_hint;
use crate::statement::{Body, Insert};
use crate::stream_plan::convert::Converter;
use crate::stream_plan::{ChangelogKind, StreamPlan};
use crate::translate::{JobContext, Target, Translator};

impl Session {
    /// What the next job is called.
    pub(super) fn job_name(&self) -> String {
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

    pub(super) fn insert(&mut self, inserts: &[Insert]) -> Result<Effect> {
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

    pub(super) fn query(&mut self, query: &Query) -> Result<Effect> {
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
    pub(super) fn analyze(&mut self, query: &Query) -> Result<Effect> {
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

    pub(super) fn explain(&self, body: &Body) -> Result<Effect> {
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
