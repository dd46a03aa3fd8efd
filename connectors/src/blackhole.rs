//! `'connector' = 'blackhole'`: counts rows and drops them, for benchmarks and for trying queries out.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::{CheckpointId, SubtaskIndex};
use coulee_runtime::connector::{Prepared, Sink, SinkContext, SinkWriter, Source};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::options::OptionSpec;
use coulee_runtime::table::{Connector, TableSpec};
use coulee_runtime::{Batch, Error, Result};

/// `'connector' = 'blackhole'`. It has no options.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlackholeConnector;

impl Connector for BlackholeConnector {
    fn name(&self) -> &'static str {
        "blackhole"
    }

    fn options(&self) -> Vec<OptionSpec> {
        Vec::new()
    }

    fn source(&self, table: &TableSpec, _projection: &[usize]) -> Result<Arc<dyn Source>> {
        Err(Error::invalid(format!("table '{}': 'blackhole' keeps nothing and cannot be read", table.name)))
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>> {
        table.options(self.options())?;
        Ok(Arc::new(Blackhole))
    }
}

#[derive(Debug)]
struct Blackhole;

#[async_trait]
impl Sink for Blackhole {
    fn describe(&self) -> String {
        "blackhole".to_owned()
    }

    fn refuses_changelog(&self) -> Option<&'static str> {
        None
    }

    async fn recover(&self, _context: &SinkContext, _states: &[Bytes], _committables: &[Bytes]) -> Result<()> {
        Ok(())
    }

    async fn open(
        &self,
        _context: &SinkContext,
        _subtask: SubtaskIndex,
        _states: &[Bytes],
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer { metrics }))
    }
}

struct Writer {
    metrics: Arc<SubtaskMetrics>,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        self.metrics.add_delivered_rows(batch.len() as u64);
        Ok(())
    }

    async fn prepare(&mut self, _checkpoint: CheckpointId) -> Result<Prepared> {
        Ok(Prepared::default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::Int64Array;
    use arrow::record_batch::RecordBatch;
    use coulee_model::{JobName, ManualClock, OperatorId, Timestamp};

    use super::*;

    #[tokio::test]
    async fn rows_are_counted() {
        let rows = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2, 3])) as _)]).expect("rows");
        let table = TableSpec {
            name: "hole".to_owned(),
            schema: rows.schema(),
            metadata_columns: BTreeMap::new(),
            primary_key: Vec::new(),
            partitioned_by: Vec::new(),
            options: BTreeMap::new(),
            created_by: "test".to_owned(),
        };
        let context = SinkContext {
            job: JobName::new("j").expect("a name"),
            incarnation: "0123456789ab".to_owned(),
            uid: "sink".to_owned(),
            spool: "/nonexistent".into(),
            clock: Arc::new(ManualClock::new(Timestamp(0))),
        };
        let metrics = Arc::new(SubtaskMetrics::new(OperatorId(0), SubtaskIndex(0)));
        let sink = BlackholeConnector.sink(&table).expect("a sink");
        let mut writer = sink.open(&context, SubtaskIndex(0), &[], Arc::clone(&metrics)).await.expect("a writer");
        writer.write(Batch::inserts(rows)).await.expect("written");
        assert_eq!(metrics.figures().delivered_rows(), 3);
        assert!(BlackholeConnector.source(&table, &[]).unwrap_err().to_string().contains("cannot be read"));
    }
}
