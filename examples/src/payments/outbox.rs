//! A sink of one's own: a file of CSV lines for each checkpoint and subtask, exactly once.
//!
//! Exactly once takes two steps. At `prepare` a writer makes its rows safe, under a name that nobody reads (`.prepared`), and hands the name over to be
//! committed; it goes into the checkpoint. Once the checkpoint is durable, the committer gives the file its name. A process that dies in between leaves that to
//! `recover`, which also removes what no checkpoint knows: its rows will be written again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::csv::WriterBuilder;
use coulee_model::{CheckpointId, SubtaskIndex};
use coulee_runtime::connector::{Bytes, Prepared, Sink, SinkCommitter, SinkContext, SinkWriter, async_trait};
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

impl Outbox {
    /// Gives the files their names.
    fn commit_all(&self, names: &[Bytes]) -> Result<()> {
        let unknown = |_| Error::corrupt("the name of a prepared file is not text");
        names.iter().try_for_each(|name| commit(&self.folder, std::str::from_utf8(name).map_err(unknown)?))
    }
}

#[async_trait]
impl Sink for Outbox {
    fn describe(&self) -> String {
        format!("CSV files in {}", self.folder.display())
    }

    async fn recover(&self, _: &SinkContext, _: &[Bytes], committables: &[Bytes]) -> Result<()> {
        let refuse = |cause| Error::io(self.folder.display(), cause);
        std::fs::create_dir_all(&self.folder).map_err(refuse)?;
        self.commit_all(committables)?;
        for entry in std::fs::read_dir(&self.folder).map_err(refuse)? {
            let path = entry.map_err(refuse)?.path();
            if path.to_string_lossy().ends_with(PREPARED) {
                std::fs::remove_file(&path).map_err(refuse)?;
            }
        }
        Ok(())
    }

    async fn committer(&self, _: &SinkContext) -> Result<Box<dyn SinkCommitter>> {
        Ok(Box::new(self.clone()))
    }

    async fn open(
        &self,
        _: &SinkContext,
        subtask: SubtaskIndex,
        _: &[Bytes],
        _: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Writer { folder: self.folder.clone(), subtask, lines: Vec::new() }))
    }
}

struct Writer {
    folder: PathBuf,
    subtask: SubtaskIndex,
    /// Since the last `prepare`.
    lines: Vec<u8>,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        WriterBuilder::new().with_header(false).build(&mut self.lines).write(batch.rows())?;
        Ok(())
    }

    async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Prepared> {
        if self.lines.is_empty() {
            return Ok(Prepared::default());
        }
        // No other writer, of this attempt or another, has prepared this checkpoint and lived to see it committed.
        let name = format!("{:08}-{}.csv", checkpoint.0, self.subtask);
        let path = self.folder.join(format!("{name}{PREPARED}"));
        write_synced(&path, &self.lines).map_err(|cause| Error::io(path.display(), cause))?;
        self.lines.clear();
        Ok(Prepared { state: Bytes::new(), committables: vec![name.into()] })
    }
}

#[async_trait]
impl SinkCommitter for Outbox {
    async fn commit(&mut self, _: CheckpointId, committables: Vec<Bytes>) -> Result<()> {
        self.commit_all(&committables)
    }
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
