//! A source of one's own: the CSV files of a folder, without a header, as they are when the job first reads them.
//!
//! Each file is a split, and a position in it is a number of bytes. That is all that exactly once asks of a source: a position that can be
//! kept, and the same rows when it is read again from there.

use std::path::{Path, PathBuf};

use arrow::csv::ReaderBuilder;
use arrow::datatypes::SchemaRef;
use coulee_runtime::connector::{
    Bytes, Enumeration, KnownSplits, Source, SourceContext, SourceEvent, SourceReader, SplitId, SplitStart, async_trait,
};
use coulee_runtime::{Error, Result};

/// The files of a folder whose name ends in `.csv`, with these columns in this order.
#[derive(Debug, Clone)]
pub struct CsvFolder {
    folder: PathBuf,
    schema: SchemaRef,
}

impl CsvFolder {
    /// The files of `folder`, which are read once the job runs.
    pub fn new(folder: &Path, schema: SchemaRef) -> Self {
        CsvFolder { folder: folder.to_owned(), schema }
    }
}

#[async_trait]
impl Source for CsvFolder {
    fn describe(&self) -> String {
        format!("CSV files of {}", self.folder.display())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn is_bounded(&self) -> bool {
        true
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        let refuse = |cause| Error::io(format!("cannot list {}", self.folder.display()), cause);
        let mut names = Vec::new();
        let mut entries = tokio::fs::read_dir(&self.folder).await.map_err(refuse)?;
        while let Some(entry) = entries.next_entry().await.map_err(refuse)? {
            names.extend(entry.file_name().into_string().ok().filter(|name| name.ends_with(".csv")));
        }
        names.sort();
        Ok(known.of(names.into_iter().map(SplitId), &self.describe())?.into())
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let mut files = Vec::new();
        for start in splits {
            let path = self.folder.join(&start.id.0);
            let text =
                tokio::fs::read(&path).await.map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
            let at = match start.position {
                None => 0,
                Some(position) => u64::from_be_bytes(
                    position.as_ref().try_into().map_err(|_| Error::corrupt("a position in a file has not 8 bytes"))?,
                ),
            };
            files.push(OpenFile { id: start.id, text: text.into(), at: at as usize, ended: false });
        }
        Ok(Box::new(Reader { files, schema: self.schema.clone(), lines_max: context.batch_rows, turn: 0 }))
    }
}

/// A file, in memory as a whole, and how far it has been read.
struct OpenFile {
    id: SplitId,
    text: Bytes,
    at: usize,
    ended: bool,
}

impl OpenFile {
    /// The next lines, at most so many.
    fn take(&mut self, lines_max: usize) -> Bytes {
        let rest = self.text.slice(self.at..);
        let lines = rest.split_inclusive(|byte| *byte == b'\n').take(lines_max);
        let length: usize = lines.map(<[u8]>::len).sum();
        let taken = rest.slice(..length);
        self.at += taken.len();
        taken
    }
}

struct Reader {
    files: Vec<OpenFile>,
    schema: SchemaRef,
    lines_max: usize,
    turn: usize,
}

#[async_trait]
impl SourceReader for Reader {
    /// Reads the files in turn. Does not wait anywhere, so a call that is dropped has done nothing or everything.
    async fn next(&mut self) -> Result<SourceEvent> {
        let count = self.files.len();
        let live = (0..count).map(|step| (self.turn + step) % count).find(|split| !self.files[*split].ended);
        // Not reached: nobody asks once every split has ended.
        let Some(split) = live else { return std::future::pending().await };
        self.turn = split + 1;
        let file = &mut self.files[split];
        let lines = file.take(self.lines_max);
        if lines.is_empty() {
            file.ended = true;
            return Ok(SourceEvent::Ended { split });
        }
        let mut rows = ReaderBuilder::new(self.schema.clone()).with_batch_size(self.lines_max).build(&lines[..])?;
        let rows = rows.next().ok_or_else(|| Error::invalid(format!("{}: lines without rows", file.id.0)))??;
        Ok(SourceEvent::Rows { split, rows, rejected: None })
    }

    fn position(&self, split: usize) -> Bytes {
        Bytes::copy_from_slice(&(self.files[split].at as u64).to_be_bytes())
    }
}
