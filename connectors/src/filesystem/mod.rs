//! `'connector' = 'filesystem'`: files of lines or Parquet, on a local disk or in an object store.
//!
//! Reading is bounded unless the path is watched: [`FilesystemSource`] lists the files when the job begins, and each is a split, which later starts of the job find
//! again by its identity and its content ([`find`]). Writing is exactly once, by
//! spooling locally and delivering whole objects: see [`FilesystemSink`] and `docs/formats/spool.md`.

mod adapt;
mod columnar;
mod commit;
mod deliver;
mod find;
mod infer;
mod lines;
mod listing;
mod location;
mod mark;
mod partition;
mod paths;
mod peek;
mod pipe;
mod plan;
mod position;
mod roll;
mod settings;
mod sink;
mod source;
mod spool;
mod state;
mod watch;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use coulee_runtime::Result;
use coulee_runtime::connector::{Sink, Source};
use coulee_runtime::options::{OptionSpec, Options};
use coulee_runtime::table::{Connector, InferredTable, TableSpec};

pub use location::{Location, object_store};
pub use sink::FilesystemSink;
pub use source::FilesystemSource;
pub use writer::OPEN_FILES;

use crate::DeadLetters;
use peek::Peeked;
use settings::{FileFormat, SinkSettings, option_specs};

/// Makes sources and sinks of files.
#[derive(Debug)]
pub struct FilesystemConnector {
    base: PathBuf,
    dead_letters: Option<Arc<dyn DeadLetters>>,
    peeked: Peeked,
}

impl FilesystemConnector {
    /// Relative paths begin at `base`. `dead_letters` keeps records that cannot become rows; without it they are counted only.
    pub fn new(base: impl Into<PathBuf>, dead_letters: Option<Arc<dyn DeadLetters>>) -> Self {
        FilesystemConnector { base: base.into(), dead_letters, peeked: Peeked::default() }
    }

    fn parts(&self, table: &TableSpec) -> Result<(Options, Location)> {
        let options = table.options(self.options())?;
        let location = Location::new(&options, &self.base)?;
        Ok((options, location))
    }
}

impl Connector for FilesystemConnector {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn options(&self) -> Vec<OptionSpec> {
        option_specs()
    }

    fn check_source(&self, table: &TableSpec) -> Result<()> {
        let (options, location) = self.parts(table)?;
        match location {
            Location::Local(path) => {
                listing::check_local(&path).map_err(|error| options.invalid("path", &error).because(error))
            }
            Location::Object { .. } => Ok(()),
        }
    }

    fn infer(&self, path: &str) -> Result<Option<InferredTable>> {
        infer::infer(&self.base, path, &self.peeked).map(Some)
    }

    fn takes_partitions(&self) -> bool {
        true
    }

    fn source(&self, table: &TableSpec, projection: &[usize]) -> Result<Arc<dyn Source>> {
        let (options, location) = self.parts(table)?;
        let source = FilesystemSource::new(location, table, &options, projection)?;
        Ok(Arc::new(source.after(&self.peeked)))
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>> {
        let (options, location) = self.parts(table)?;
        Ok(Arc::new(FilesystemSink::new(location, table, &options)?))
    }

    fn create(&self, table: &TableSpec) -> Result<()> {
        let (options, _) = self.parts(table)?;
        SinkSettings::new(&options)?;
        partition::split_columns(table).map(drop)
    }

    fn rejected_sink(&self, table: &TableSpec) -> Result<Option<Arc<dyn Sink>>> {
        let options = table.options(self.options())?;
        let Some(dead_letters) = &self.dead_letters else { return Ok(None) };
        let stream = FileFormat::new(&options)?.rejects().dead_letter_stream(&table.name);
        stream.map(|stream| dead_letters.sink(table, &stream)).transpose()
    }
}
