//! What a file is known by when a job comes back to it: its identity on the disk or in the store, and a sample of its content.
//!
//! A path alone does not do: log rotation renames and compresses files and makes new ones of the same name.

use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::lines::decompressed;
use super::settings::LineCompression;

/// How many bytes a sample has at most.
const SAMPLE_BYTES: usize = 4 << 10;

/// More than the grain of file times on any file system in use: FAT has two seconds.
const CLOCK_GRAIN: Duration = Duration::from_secs(2);

/// Which bytes of a file are its sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampling {
    /// The first decompressed ones: files of lines are only appended to.
    Head,
    /// The last ones: a Parquet file's footer knows all that is in it.
    Tail,
}

/// What a file is known by. Of an object, `device`, `inode` and the sample are 0 and `etag` is there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMark {
    /// Where it was seen last: an absolute path, or a URL.
    pub path: String,
    /// The device that holds it.
    #[serde(default)]
    pub device: u64,
    /// Its number there.
    #[serde(default)]
    pub inode: u64,
    /// Its length in bytes, compressed or not.
    pub size: u64,
    /// When it was modified, in nanoseconds since 1970; 0 when that was a moment ago.
    #[serde(default)]
    pub modified_ns: i64,
    /// How many bytes the sample has.
    #[serde(default)]
    pub sample_bytes: u32,
    /// The CRC-32C of the sample.
    #[serde(default)]
    pub sample_crc32c: u32,
    /// The store's name for this content, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl FileMark {
    /// The mark of an open local file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_file(path: &str, file: &File, compression: LineCompression, sampling: Sampling) -> std::io::Result<Self> {
        let meta = file.metadata()?;
        let sample = sample(file, &meta, compression, sampling)?;
        Ok(FileMark {
            path: path.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.len(),
            modified_ns: if is_settled(&meta) { modified_ns(&meta) } else { 0 },
            sample_bytes: sample.len() as u32,
            sample_crc32c: crc32c::crc32c(&sample),
            etag: None,
        })
    }

    /// The mark of an object.
    pub fn of_object(url: &str, meta: &ObjectMeta) -> Self {
        FileMark {
            path: url.to_owned(),
            size: meta.size,
            modified_ns: meta.last_modified.timestamp_nanos_opt().unwrap_or_default(),
            etag: meta.e_tag.clone(),
            ..FileMark::default()
        }
    }

    /// Whether it is the file itself, whatever has become of its content.
    pub fn is_file(&self, meta: &Metadata) -> bool {
        (self.device, self.inode) == (meta.dev(), meta.ino())
    }

    /// Whether it is the file itself, and nobody has written to it since.
    pub fn is_untouched(&self, meta: &Metadata) -> bool {
        self.is_file(meta) && self.size == meta.len() && self.modified_ns == modified_ns(meta)
    }

    /// Whether an object has the same content.
    pub fn is_object(&self, other: &FileMark) -> bool {
        match (&self.etag, &other.etag) {
            (Some(before), Some(now)) => before == now,
            _ => (self.size, self.modified_ns) == (other.size, other.modified_ns),
        }
    }

    /// Whether the sample is long enough to tell files apart by it alone.
    pub fn is_telling(&self) -> bool {
        self.sample_bytes as usize == SAMPLE_BYTES
    }

    /// Whether a file's sample begins with this one's. An empty sample says nothing.
    pub fn matches(&self, sample: &[u8]) -> bool {
        let length = self.sample_bytes as usize;
        length > 0 && sample.get(..length).is_some_and(|same| crc32c::crc32c(same) == self.sample_crc32c)
    }
}

/// SUBTLE: the time of a modification has the grain of the kernel's clock tick. Of a file that was modified a moment ago it does not tell
/// whether it was modified again.
fn is_settled(meta: &Metadata) -> bool {
    meta.modified().is_ok_and(|modified| modified.elapsed().is_ok_and(|elapsed| elapsed >= CLOCK_GRAIN))
}

fn modified_ns(meta: &Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
}

/// The sample of a local file. What cannot be decompressed has an empty one: reading it will say why.
///
/// # Errors
/// When the file cannot be read.
pub fn sample(
    file: &File,
    meta: &Metadata,
    compression: LineCompression,
    sampling: Sampling,
) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(SAMPLE_BYTES);
    match sampling {
        Sampling::Tail => {
            bytes.resize(SAMPLE_BYTES.min(meta.len() as usize), 0);
            let from = meta.len() - bytes.len() as u64;
            file.read_exact_at(&mut bytes, from)?;
        }
        Sampling::Head => {
            let raw = std::io::BufReader::new(At { file, offset: 0 });
            let read = decompressed(raw, compression)
                .and_then(|reader| reader.take(SAMPLE_BYTES as u64).read_to_end(&mut bytes));
            if let Err(cause) = read {
                if compression == LineCompression::None {
                    return Err(cause);
                }
                bytes.clear();
            }
        }
    }
    Ok(bytes)
}

/// How a file is compressed, by its first bytes.
///
/// # Errors
/// When the file cannot be read.
pub fn sniff(file: &File) -> std::io::Result<LineCompression> {
    let mut first = [0; 4];
    let read = file.read_at(&mut first, 0)?;
    Ok(match &first[..read] {
        [0x1f, 0x8b, ..] => LineCompression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => LineCompression::Zstd,
        _ => LineCompression::None,
    })
}

/// Reads a file from an offset on, without moving the file's own position.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(out, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
