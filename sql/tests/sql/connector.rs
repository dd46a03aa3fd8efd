//! A connector that does nothing but say what it was asked for.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::SubtaskIndex;
use coulee_runtime::connector::{
    Enumeration, KnownSplits, Sink, SinkContext, SinkWriter, Source, SourceContext, SourceReader, SplitStart,
};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::options::{OptionKind, OptionSpec};
use coulee_runtime::table::{Connector, TableSpec};
use coulee_runtime::{Error, Result};

#[derive(Debug)]
pub struct Fake(pub &'static str);

impl Connector for Fake {
    fn name(&self) -> &'static str {
        self.0
    }

    fn options(&self) -> Vec<OptionSpec> {
        if self.0 == "bare" {
            return Vec::new();
        }
        vec![
            OptionSpec::new("format", OptionKind::Choice(&["json", "csv"]), Some("json"), "how records are written"),
            OptionSpec::new("key.fields", OptionKind::Text, None, "the key"),
            OptionSpec::new("shards", OptionKind::Count, None, "how many shards"),
            OptionSpec::new("changes", OptionKind::Switch, None, "whether rows are also updated and deleted"),
            OptionSpec::new("bounded", OptionKind::Switch, None, "whether its rows end"),
            OptionSpec::new("path", OptionKind::Text, None, "what is never there"),
            OptionSpec::new("rejected", OptionKind::Text, None, "where rejected records go"),
        ]
    }

    fn check_source(&self, table: &TableSpec) -> Result<()> {
        let options = table.options(self.options())?;
        match table.options.get("path") {
            Some(path) => Err(options.invalid("path", format_args!("cannot read {path}"))),
            None => Ok(()),
        }
    }

    fn takes_partitions(&self) -> bool {
        self.0 != "bare"
    }

    fn source(&self, table: &TableSpec, projection: &[usize]) -> Result<Arc<dyn Source>> {
        let schema = Arc::new(table.schema.project(projection)?);
        Ok(Arc::new(FakeSource { schema, is_changelog: is(table, "changes"), is_bounded: is(table, "bounded") }))
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(FakeSink { name: table.name.clone(), takes_changelog: is(table, "changes") }))
    }

    fn rejected_sink(&self, table: &TableSpec) -> Result<Option<Arc<dyn Sink>>> {
        Ok(table.options.get("rejected").map(|name| Arc::new(FakeSink::appending(name)) as _))
    }
}

fn is(table: &TableSpec, option: &str) -> bool {
    table.options.get(option).is_some_and(|value| value == "true")
}

#[derive(Debug)]
struct FakeSource {
    schema: SchemaRef,
    is_changelog: bool,
    is_bounded: bool,
}

#[async_trait]
impl Source for FakeSource {
    fn describe(&self) -> String {
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        format!("Read {}", names.join(", "))
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn is_bounded(&self) -> bool {
        self.is_bounded
    }

    fn is_changelog(&self) -> bool {
        self.is_changelog
    }

    async fn enumerate(&self, _: KnownSplits) -> Result<Enumeration> {
        Ok(Vec::new().into())
    }

    async fn open(&self, _: Vec<SplitStart>, _: SourceContext) -> Result<Box<dyn SourceReader>> {
        Err(Error::internal("a fake source does not open"))
    }
}

#[derive(Debug)]
pub struct FakeSink {
    name: String,
    takes_changelog: bool,
}

impl FakeSink {
    pub fn appending(name: &str) -> Self {
        FakeSink { name: name.to_owned(), takes_changelog: false }
    }

    /// Where the rows of a SELECT go.
    pub fn screen(takes_changelog: bool) -> Self {
        FakeSink { name: "screen".to_owned(), takes_changelog }
    }
}

#[async_trait]
impl Sink for FakeSink {
    fn describe(&self) -> String {
        format!("Write {}", self.name)
    }

    fn refuses_changelog(&self) -> Option<&'static str> {
        if self.takes_changelog { None } else { Some("a fake appends") }
    }

    async fn recover(&self, _: &SinkContext, _: &[Bytes], _: &[Bytes]) -> Result<()> {
        Ok(())
    }

    async fn open(
        &self,
        _: &SinkContext,
        _: SubtaskIndex,
        _: &[Bytes],
        _: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        Err(Error::internal("a fake sink does not open"))
    }
}
