//! A sink of one's own: a file of CSV lines for each checkpoint and subtask, exactly once.
//!
//! Exactly once takes two steps. At `prepare` the rows are made safe, under a name that nobody reads (`.prepared`), and the name goes into
//! the checkpoint. Once the checkpoint is durable, `commit` gives the file its name. A process that dies in between leaves that to `recover`,
//! which also removes what no checkpoint knows: its rows will be written again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::csv::WriterBuilder;
use coulee_model::{CheckpointId, SubtaskIndex};
use coulee_runtime::connector::{Bytes, Sink, SinkContext, SinkWriter, async_trait};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::{Batch, Error, Result};

const PREPARED: &str = ".prepared";

/// Writes into a folder, which is made if it is absent and belongs to this sink alone.
#[derive(Debug, Clone)]
pub struct Outbox {
    folder: PathBuf,
}

impl Outbox {
    /// A sink into `folder`.
    pub fn new(folder: &Path) -> Self {
        Outbox { folder: folder.to_owned() }
    }
}

#[async_trait]
impl Sink for Outbox {
    fn describe(&self) -> String {
        format!("CSV files in {}", self.folder.display())
    }

    async fn recover(&self, _: &SinkContext, states: &[Bytes]) -> Result<()> {
        let refuse = |cause| Error::io(self.folder.display(), cause);
        std::fs::create_dir_all(&self.folder).map_err(refuse)?;
        let mut listed = BTreeSet::new();
        for state in states {
            listed.extend(decode(state)?);
        }
        for name in &listed {
            commit(&self.folder, name)?;
        }
        for entry in std::fs::read_dir(&self.folder).map_err(refuse)? {
            let path = entry.map_err(refuse)?.path();
            if path.to_string_lossy().ends_with(PREPARED) {
                std::fs::remove_file(&path).map_err(refuse)?;
            }
        }
        Ok(())
    }

    async fn open(
        &self,
        _: &SinkContext,
        subtask: SubtaskIndex,
        _: &[Bytes],
        _: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        // What the states of former writers list, `recover` has committed.
        Ok(Box::new(Writer { folder: self.folder.clone(), subtask, lines: Vec::new(), prepared: Vec::new() }))
    }
}

struct Writer {
    folder: PathBuf,
    subtask: SubtaskIndex,
    /// Since the last `prepare`.
    lines: Vec<u8>,
    /// Files whose checkpoint is not known to be durable.
    prepared: Vec<(CheckpointId, String)>,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        WriterBuilder::new().with_header(false).build(&mut self.lines).write(batch.rows())?;
        Ok(())
    }

    async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Bytes> {
        if !self.lines.is_empty() {
            // No other writer, of this attempt or another, has prepared this checkpoint and lived to commit it.
            let name = format!("{:08}-{}.csv", checkpoint.0, self.subtask);
            let path = self.folder.join(format!("{name}{PREPARED}"));
            write_synced(&path, &self.lines).map_err(|cause| Error::io(path.display(), cause))?;
            self.lines.clear();
            self.prepared.push((checkpoint, name));
        }
        let names: Vec<&str> = self.prepared.iter().map(|(_, name)| name.as_str()).collect();
        Ok(names.join("\n").into())
    }

    async fn commit(&mut self, checkpoint: CheckpointId) -> Result<()> {
        for (_, name) in self.prepared.extract_if(.., |(of, _)| *of <= checkpoint) {
            commit(&self.folder, &name)?;
        }
        Ok(())
    }
}

/// The names in a writer's state, one per line.
fn decode(state: &[u8]) -> Result<Vec<String>> {
    let text = std::str::from_utf8(state).map_err(|_| Error::corrupt("the state of an outbox is not text"))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Gives a prepared file its name. One that has it already was committed before.
fn commit(folder: &Path, name: &str) -> Result<()> {
    let (from, to) = (folder.join(format!("{name}{PREPARED}")), folder.join(name));
    match std::fs::rename(&from, &to) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound && to.exists() => Ok(()),
        Err(cause) => Err(Error::io(to.display(), cause)),
        Ok(()) => sync_folder(folder).map_err(|cause| Error::io(folder.display(), cause)),
    }
}

/// Writes a file that survives a power cut, its name included.
fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}
