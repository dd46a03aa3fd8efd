//! A journal file: a magic number, then frames, each with its length and its checksum. `docs/formats/log.md` has the bytes.
//!
//! A frame is appended, and synced when its writer asks for that. The whole file is replaced, atomically, when its
//! writer knows a shorter way to say the same. What a frame means is the writer's business.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{LogError, Result, is_disk_full};
use crate::files::storage::{self, SegmentFile, Storage, WriteFailure};
use crate::files::torn;

/// The length and the checksum before each body.
const FRAME_HEADER_BYTES: usize = 8;

/// A journal file that is open for appending.
pub(crate) struct JournalFile {
    path: PathBuf,
    storage: Arc<dyn Storage>,
    file: Box<dyn SegmentFile>,
    bytes: u64,
    /// Whether nothing may be appended any more: a write has failed, or has not come back.
    undetermined: bool,
}

impl JournalFile {
    /// Replaces the file, or makes it, with `content`: a magic number and frames.
    ///
    /// # Errors
    /// [`LogError::Io`], [`LogError::DiskFull`].
    pub(crate) fn create(path: &Path, storage: &Arc<dyn Storage>, content: &[u8]) -> Result<JournalFile> {
        storage::write_atomically(&**storage, path, content)?;
        let file = storage.open(path).map_err(|e| LogError::io("open", path, e))?;
        Ok(JournalFile {
            path: path.to_owned(),
            storage: Arc::clone(storage),
            file,
            bytes: content.len() as u64,
            undetermined: false,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The length of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds frames, and makes them and all before them durable if `sync` says so.
    ///
    /// # Errors
    /// What the system said. After [`WriteFailure::Undetermined`] nothing may be appended any more.
    pub(crate) fn append(&mut self, frames: &[u8], sync: bool) -> Result<(), WriteFailure<io::Error>> {
        // SUBTLE: after a failure, or a panic, frames may lie behind `bytes`. Writing over a part of them would leave the rest:
        // sound frames behind one that is not, which is what damage looks like.
        if std::mem::replace(&mut self.undetermined, true) {
            return Err(WriteFailure::Undetermined(io::Error::other("an earlier write to it has failed")));
        }
        if let Err(error) = self.file.write_all_at(frames, self.bytes) {
            // SUBTLE: cutting back is only sound before a sync was tried; what a failed sync leaves is unknown.
            let undone = is_disk_full(&error) && self.file.truncate(self.bytes).is_ok();
            self.undetermined = !undone;
            return Err(if undone { WriteFailure::NotWritten(error) } else { WriteFailure::Undetermined(error) });
        }
        if sync {
            self.file.sync().map_err(WriteFailure::Undetermined)?;
        }
        self.bytes += frames.len() as u64;
        self.undetermined = false;
        Ok(())
    }

    /// Replaces the content of the file. What was appended and synced before is durable whatever comes of this.
    ///
    /// # Errors
    /// When neither the new file nor the old one can be appended to any more.
    pub(crate) fn replace(&mut self, content: &[u8]) -> Result<()> {
        self.undetermined = true;
        match Self::create(&self.path, &self.storage, content) {
            Ok(replaced) => *self = replaced,
            Err(error) => {
                // SUBTLE: the draft may have taken the place of the file, but not durably. The file of that name is the one
                // to add to, and its name has to be made durable first.
                tracing::warn!(path = %self.path.display(), %error, "could not write a journal anew");
                self.file = self.storage.open(&self.path).map_err(|e| LogError::io("open", &self.path, e))?;
                let found = fs::metadata(&self.path).map_err(|e| LogError::io("look at", &self.path, e))?;
                self.bytes = found.len();
                storage::sync_folder(&*self.storage, self.path.parent().unwrap_or(&self.path))?;
                self.undetermined = false;
            }
        }
        Ok(())
    }
}

/// Puts the frame of a body at the end of `bytes`.
pub(crate) fn put_frame(body: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(body).to_be_bytes());
    bytes.extend_from_slice(body);
}

/// Visits what the frames of a file say, up to the first frame that a crash has torn. An absent file has none. A body
/// has up to `body_bytes_max` bytes.
///
/// # Errors
/// [`LogError::Corrupt`] when the file begins with another magic number, when `decode` does not know a sound body, and
/// when a sound frame follows one that is damaged, and not [torn](crate::files::torn). [`LogError::Io`].
pub(crate) fn read<T>(
    path: &Path,
    magic: [u8; 8],
    body_bytes_max: usize,
    decode: impl Fn(&[u8]) -> Option<T>,
    mut visit: impl FnMut(T),
) -> Result<()> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(LogError::io("read", path, error)),
    };
    let Some(mut rest) = bytes.strip_prefix(&magic) else {
        return Err(LogError::corrupt(path, 0, "it does not begin as a journal of this kind does"));
    };
    let frame = |bytes| take_frame(bytes, body_bytes_max);
    while !rest.is_empty() {
        let position = (bytes.len() - rest.len()) as u64;
        let Some((body, after)) = frame(rest) else {
            let is_sound = |at: &usize| frame(&rest[*at..]).is_some_and(|(body, _)| decode(body).is_some());
            // A frame begins with its length, which is not zero.
            let was_torn = |at: &usize| {
                let end = (torn::sector_end(position + *at as u64) - position) as usize;
                torn::has_unwritten_sector(&rest[..end.min(rest.len())], position, |first| first >= 4)
            };
            // Of a torn write a later record may be there and an earlier one not; then some of what is between them was never written.
            if (1..rest.len()).find(is_sound).is_some_and(|at| !was_torn(&at)) {
                return Err(LogError::corrupt(path, position, "a record is not what was written, but others follow"));
            }
            tracing::warn!(path = %path.display(), position, "cut off a torn write that was never answered");
            return Ok(());
        };
        visit(decode(body).ok_or_else(|| LogError::corrupt(path, position, "a record is malformed"))?);
        rest = after;
    }
    Ok(())
}

/// The body of the frame at the front, and what follows it; `None` when the frame is not whole and sound.
fn take_frame(bytes: &[u8], body_bytes_max: usize) -> Option<(&[u8], &[u8])> {
    let (front, rest) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>()?;
    let (length, crc) = front.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    if length == 0 || length > body_bytes_max {
        return None;
    }
    let (body, after) = rest.split_at_checked(length)?;
    (crc == crc32c::crc32c(body).to_be_bytes()).then_some((body, after))
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::files::storage::Disk;

    const MAGIC: [u8; 8] = *b"COULEE-T";

    /// A disk whose next sync of an appended file fails.
    #[derive(Debug, Default)]
    struct FailingSync(Arc<Mutex<bool>>);

    struct File(Box<dyn SegmentFile>, Arc<Mutex<bool>>);

    impl Storage for FailingSync {
        fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
            Ok(Box::new(File(Disk.open(path)?, Arc::clone(&self.0))))
        }
        fn create_folder(&self, path: &Path) -> io::Result<()> {
            Disk.create_folder(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            Disk.rename(from, to)
        }
        fn remove_file(&self, path: &Path) -> io::Result<()> {
            Disk.remove_file(path)
        }
        fn remove_folder(&self, path: &Path) -> io::Result<()> {
            Disk.remove_folder(path)
        }
        fn sync_folder(&self, path: &Path) -> io::Result<()> {
            Disk.sync_folder(path)
        }
    }

    impl SegmentFile for File {
        fn write_all_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
            self.0.write_all_at(bytes, position)
        }
        fn sync(&mut self) -> io::Result<()> {
            if std::mem::take(&mut *self.1.lock()) {
                Err(io::Error::other("the disk is on fire"))
            } else {
                self.0.sync()
            }
        }
        fn truncate(&mut self, bytes: u64) -> io::Result<()> {
            self.0.truncate(bytes)
        }
    }

    fn frame(body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_frame(body, &mut bytes);
        bytes
    }

    fn bodies(path: &Path) -> Result<Vec<Vec<u8>>> {
        let mut bodies = Vec::new();
        read(path, MAGIC, 100, |body| Some(body.to_vec()), |body| bodies.push(body))?;
        Ok(bodies)
    }

    #[test]
    fn nothing_is_written_over_what_a_failed_sync_has_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let failing = Arc::new(FailingSync::default());
        let storage: Arc<dyn Storage> = Arc::clone(&failing) as _;
        let mut file = JournalFile::create(&path, &storage, &MAGIC).expect("made");
        assert!(file.append(&frame(b"one"), true).is_ok());
        *failing.0.lock() = true;
        // Written, but perhaps not durable: two frames.
        let two = [frame(b"a longer one"), frame(b"three")].concat();
        assert!(matches!(file.append(&two, true), Err(WriteFailure::Undetermined(_))));
        // A shorter frame in its place would leave "three" behind a frame that is not sound.
        assert!(matches!(file.append(&frame(b"x"), true), Err(WriteFailure::Undetermined(_))));
        assert_eq!(bodies(&path).expect("sound"), [&b"one"[..], b"a longer one", b"three"]);
        file.replace(&[&MAGIC[..], &frame(b"anew")].concat()).expect("replaced");
        assert!(file.append(&frame(b"two"), false).is_ok());
        assert_eq!(bodies(&path).expect("sound"), [&b"anew"[..], b"two"]);
    }

    #[test]
    fn an_absent_file_says_nothing_and_another_kind_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        assert!(bodies(&path).expect("absent").is_empty());
        std::fs::write(&path, b"COULEEXXand more").expect("write");
        assert!(matches!(bodies(&path), Err(LogError::Corrupt { .. })));
    }
}
