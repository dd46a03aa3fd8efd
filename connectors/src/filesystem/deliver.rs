//! Makes a finished file visible under its key, once: the last step of a checkpoint, and the first of a recovery.
//!
//! **Operations** `deliver` makes one file visible. `check` says early whether that will be possible.
//! **Guarantees** The object appears whole or not at all, and never replaces another. Delivering again is harmless: the same
//! object under the key counts as delivered. A different object under the key is `Fenced`: somebody else has written
//! with this job's identity.
//! **Non-guarantees** An object above [`PUT_BYTES_MAX`] goes to an object store in parts, which cannot be made
//! conditional everywhere: between the look and the end of the upload another writer could put one there.
//! **Failure** `Unavailable` when the store does not answer: whether the object is there is then unknown, and delivering
//! again finds out.

use std::fs::File;
use std::io::{ErrorKind as Io, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use coulee_model::ErrorKind;
use coulee_runtime::{Error, Result};
use object_store::path::Path as Key;
use object_store::{
    Attribute, Attributes, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, WriteMultipart,
};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::location::{Location, store_error};
use super::roll::sync_folder;
use super::state::ReadyFile;

/// The largest object that is put in one request.
const PUT_BYTES_MAX: u64 = 256 << 20;

/// How much of a file is read at a time.
const READ_BYTES: usize = 8 << 20;

/// The metadata key of an object's checksum.
const CRC_ATTRIBUTE: &str = "coulee-crc32c";

/// Checks that objects can be put at `target`: a local folder is created, an object store asked for anything.
///
/// # Errors
/// `Invalid`, naming the place, when it is no folder or cannot be written.
pub async fn check(target: &Location, incarnation: &str) -> Result<()> {
    match target {
        Location::Local(root) => {
            let (root, probe) = (root.clone(), root.join(format!(".coulee-{incarnation}.tmp")));
            blocking(move || {
                let refuse = |cause| Error::io(format!("cannot write to {}", root.display()), cause);
                if root.exists() && !root.is_dir() {
                    let place = root.display();
                    return Err(Error::invalid(format!("cannot write to {place}: it is a file, expected a folder")));
                }
                create_folders(&root).map_err(|error| error.at("cannot create the table's folder"))?;
                File::create(&probe).map_err(refuse)?;
                std::fs::remove_file(&probe).map_err(refuse)
            })
            .await
        }
        Location::Object { store, key, .. } => {
            let probe = Key::from(format!("{key}/.coulee-{incarnation}.tmp"));
            match store.head(&probe).await {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(store_error(&format!("cannot write to {}", target.display()), error)),
            }
        }
    }
}

/// Makes `ready` visible. `file` is the finished file; it may be gone when the object is already there.
///
/// # Errors
/// `Fenced` when another object is there, `Corrupt` when neither file nor object is there.
pub async fn deliver(target: &Location, file: PathBuf, ready: &ReadyFile) -> Result<()> {
    fail::fail_point!("filesystem.put.before", |_| Err(injected("filesystem.put.before")));
    deliver_once(target, file, ready).await?;
    fail::fail_point!("filesystem.put.after", |_| Err(injected("filesystem.put.after")));
    Ok(())
}

/// The error of a point that was told to fail.
pub fn injected(point: &str) -> Error {
    Error::unavailable(format!("failed on purpose at '{point}'"))
}

async fn deliver_once(target: &Location, file: PathBuf, ready: &ReadyFile) -> Result<()> {
    match target {
        Location::Local(root) => {
            let (root, ready) = (root.clone(), ready.clone());
            blocking(move || deliver_locally(&root, &file, &ready)).await
        }
        Location::Object { store, key, .. } => {
            let key = format!("{key}/{}", ready.key);
            let key = Key::parse(key.trim_start_matches('/'))
                .map_err(|error| Error::invalid(format!("{key} is not a key: {error}")).because(error))?;
            put(store.as_ref(), &key, file, ready).await
        }
    }
}

/// Runs what blocks where it may.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::internal(format!("a blocking task failed: {error}"))),
    }
}

fn gone(place: &str, ready: &ReadyFile) -> Error {
    Error::corrupt(format!(
        "the last checkpoint has {} rows for {place}, but neither that nor the spool file {} is there: restore one of them",
        ready.rows, ready.file
    ))
}

fn fenced(place: &str, ready: &ReadyFile, found: &str) -> Error {
    let (bytes, crc) = (ready.bytes, ready.crc32c);
    Error::new(
        ErrorKind::Fenced,
        format!(
            "{place} already exists with {found}, expected {bytes} bytes with CRC-32C {crc:08x}: another job writes with this job's identity"
        ),
    )
}

fn deliver_locally(root: &Path, file: &Path, ready: &ReadyFile) -> Result<()> {
    let target = root.join(&ready.key);
    let place = target.display().to_string();
    let refuse = |cause| Error::io(format!("cannot write {place}"), cause);
    if !file.exists() {
        return if target.exists() { compare(&target, ready) } else { Err(gone(&place, ready)) };
    }
    let folder = target.parent().unwrap_or(root);
    create_folders(folder)?;
    match std::fs::hard_link(file, &target) {
        Ok(()) => {}
        Err(cause) if cause.kind() == Io::AlreadyExists => compare(&target, ready)?,
        // Another file system, or one without links: copy, then give the whole copy its name.
        Err(_) => copy(file, &target, ready).map_err(refuse)?.map_or(Ok(()), |()| compare(&target, ready))?,
    }
    sync_folder(folder)
}

/// Copies by way of a hidden file beside the target. `Some` when the target was already there.
fn copy(file: &Path, target: &Path, ready: &ReadyFile) -> std::io::Result<Option<()>> {
    // The name is the key's own, so that a second try after a crash replaces and removes it.
    let hidden = target.with_file_name(format!(".{}.tmp", ready.key.rsplit('/').next().unwrap_or("part")));
    std::fs::copy(file, &hidden)?;
    File::open(&hidden)?.sync_all()?;
    let moved = match renameat_with(CWD, &hidden, CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(None),
        // A file system that cannot rename without replacing may still link.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => std::fs::hard_link(&hidden, target),
        Err(cause) => Err(cause.into()),
    };
    std::fs::remove_file(&hidden)?;
    match moved {
        Ok(()) => Ok(None),
        Err(cause) if cause.kind() == Io::AlreadyExists => Ok(Some(())),
        Err(cause) => Err(cause),
    }
}

/// Creates a folder and those above it, and makes their names durable.
pub fn create_folders(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_folders(parent)?;
    }
    match std::fs::create_dir(folder) {
        Ok(()) => sync_folder(parent.unwrap_or(Path::new("."))),
        Err(cause) if cause.kind() == Io::AlreadyExists && folder.is_dir() => Ok(()),
        Err(cause) => Err(Error::io(format!("cannot create the folder {}", folder.display()), cause)),
    }
}

fn compare(target: &Path, ready: &ReadyFile) -> Result<()> {
    let place = target.display().to_string();
    let mut chunk = vec![0; READ_BYTES.min(ready.bytes as usize + 1)];
    let (mut bytes, mut crc) = (0u64, 0);
    let mut sum = || -> std::io::Result<()> {
        let mut file = File::open(target)?;
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(()),
                read => {
                    crc = crc32c::crc32c_append(crc, &chunk[..read]);
                    bytes += read as u64;
                }
            }
        }
    };
    sum().map_err(|cause| Error::io(format!("cannot read {place}"), cause))?;
    if (bytes, crc) == (ready.bytes, ready.crc32c) {
        return Ok(());
    }
    Err(fenced(&place, ready, &format!("{bytes} bytes and CRC-32C {crc:08x}")))
}

async fn put(store: &dyn ObjectStore, key: &Key, file: PathBuf, ready: &ReadyFile) -> Result<()> {
    let refuse = |error| store_error(&format!("cannot put {key}"), error);
    if !file.exists() {
        return if same_object(store, key, ready).await? { Ok(()) } else { Err(gone(key.as_ref(), ready)) };
    }
    let attribute = Attribute::Metadata(CRC_ATTRIBUTE.into());
    let attributes = Attributes::from_iter([(attribute, format!("{:08x}", ready.crc32c))]);
    if ready.bytes > PUT_BYTES_MAX {
        if same_object(store, key, ready).await? {
            return Ok(());
        }
        let options = PutMultipartOptions { attributes, ..Default::default() };
        let upload = store.put_multipart_opts(key, options).await.map_err(refuse)?;
        return put_parts(WriteMultipart::new_with_chunk_size(upload, READ_BYTES), file).await?.map_err(refuse);
    }
    let path = file.clone();
    let payload = blocking(move || {
        read_chunks(&path).map_err(|cause| Error::io(format!("cannot read {}", path.display()), cause))
    });
    let options = PutOptions { mode: PutMode::Create, attributes, ..Default::default() };
    match store.put_opts(key, payload.await?, options).await {
        Ok(_) => Ok(()),
        Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
            match same_object(store, key, ready).await? {
                true => Ok(()),
                false => Err(Error::unavailable(format!(
                    "{key} existed a moment ago and is gone; delivering it again may help"
                ))),
            }
        }
        Err(error) => Err(refuse(error)),
    }
}

async fn put_parts(mut upload: WriteMultipart, file: PathBuf) -> Result<object_store::Result<()>> {
    use tokio::io::AsyncReadExt;
    let refuse = |cause| Error::io(format!("cannot read {}", file.display()), cause);
    let mut open = tokio::fs::File::open(&file).await.map_err(refuse)?;
    loop {
        let mut chunk = vec![0; READ_BYTES];
        let read = open.read(&mut chunk).await.map_err(refuse)?;
        if read == 0 {
            return Ok(upload.finish().await.map(drop));
        }
        chunk.truncate(read);
        if let Err(error) = upload.wait_for_capacity(4).await {
            return Ok(Err(error));
        }
        upload.put(Bytes::from(chunk));
    }
}

fn read_chunks(path: &Path) -> std::io::Result<PutPayload> {
    let mut file = File::open(path)?;
    let mut chunks = Vec::new();
    loop {
        let mut chunk = Vec::with_capacity(READ_BYTES);
        file.by_ref().take(READ_BYTES as u64).read_to_end(&mut chunk)?;
        if chunk.is_empty() {
            return Ok(chunks.into_iter().collect());
        }
        chunks.push(Bytes::from(chunk));
    }
}

/// Whether the object is there and is ours; `Fenced` when it is there and is not.
async fn same_object(store: &dyn ObjectStore, key: &Key, ready: &ReadyFile) -> Result<bool> {
    let head = GetOptions { head: true, ..Default::default() };
    let found = match store.get_opts(key, head).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(store_error(&format!("cannot look at {key}"), error)),
    };
    let crc = found.attributes.get(&Attribute::Metadata(CRC_ATTRIBUTE.into())).map(|crc| crc.as_ref().to_owned());
    let bytes = found.meta.size;
    // A store that keeps no metadata leaves the length to decide.
    if bytes == ready.bytes && crc.as_ref().is_none_or(|crc| *crc == format!("{:08x}", ready.crc32c)) {
        return Ok(true);
    }
    Err(fenced(key.as_ref(), ready, &format!("{bytes} bytes and CRC-32C {}", crc.as_deref().unwrap_or("unknown"))))
}
