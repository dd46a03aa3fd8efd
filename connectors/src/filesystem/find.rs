//! Finds the files of a table: all of them when a job begins, and later those again that its checkpoint knows, wherever they are by now.
//!
//! A file is looked for at its path, then by its number on the disk (it was renamed), then by its content (it was compressed or copied). What was read of
//! it must still be there: unless nobody has written to the file since, the bytes before the position are compared by their checksum.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coulee_runtime::connector::{SplitId, SplitStart};
use coulee_runtime::{Error, Result};
use regex::Regex;

use super::lines::decompressed;
use super::listing::{Listed, covers, list, list_local, list_some};
use super::location::{Input, Location};
use super::mark::{FileMark, Sampling, sample, sniff};
use super::paths::unreadable;
use super::position::Position;
use super::settings::LineCompression;

/// Where the files of a table are, and how they are told apart.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder, file or pattern.
    pub location: Location,
    /// What the paths must match besides.
    pub only: Option<Regex>,
    /// The option `compression`.
    pub compression: Option<String>,
    /// Which bytes are a file's sample.
    pub sampling: Sampling,
}

/// The files of all splits of a source, by their numbers on the disk: a file that is a split of its own is not taken for another one that is gone.
pub type KnownFiles = HashMap<(u64, u64), FileMark>;

/// A file that was found.
#[derive(Debug)]
pub struct Found {
    /// Where it is by now.
    pub path: String,
    /// How it is compressed there.
    pub compression: LineCompression,
    /// The file, open.
    pub input: Input,
    /// What it is known by, as of now.
    pub mark: FileMark,
    /// Whether it is another file than the one that was listed, of which nothing was read.
    pub is_new: bool,
}

impl Place {
    /// The splits of a job that begins: every file there is, at its beginning.
    ///
    /// # Errors
    /// `Invalid` when there is none, or one cannot be read.
    pub async fn begin(&self) -> Result<Vec<SplitStart>> {
        let files = list_some(&self.location, self.only.as_ref()).await?;
        let place = self.clone();
        let starts = move || files.into_iter().map(|file| place.start(file)).collect::<Result<Vec<_>>>();
        let starts = tokio::task::spawn_blocking(starts).await;
        starts.map_err(|error| Error::internal(format!("listing files: {error}")))?
    }

    /// A file at its beginning. May block.
    ///
    /// # Errors
    /// `Invalid` when it cannot be read.
    pub fn start(&self, file: Listed) -> Result<SplitStart> {
        let position = match file.object {
            Some(mark) => Position::start(Some(mark)),
            None if file.is_pipe => Position::of_pipe(),
            None => {
                let refuse = |cause| unreadable(Path::new(&file.path), cause);
                let open = File::open(&file.path).map_err(refuse)?;
                let compression = self.compression(&file.path);
                let mark = FileMark::of_file(&file.path, &open, compression, self.sampling).map_err(refuse)?;
                let is_plain = self.sampling == Sampling::Head && compression == LineCompression::None;
                Position::start(Some(mark.clone())).until(is_plain.then_some(mark.size))
            }
        };
        Ok(SplitStart { id: SplitId(file.path), position: Some(position.encode()) })
    }

    /// Looks for every unfinished file of a checkpoint, so that what is gone is said at once and not when its turn comes.
    ///
    /// # Errors
    /// `Invalid` for the first that is gone, `Corrupt` for one that has changed.
    pub async fn check(&self, files: Vec<(SplitId, Position)>, known: KnownFiles) -> Result<()> {
        match &self.location {
            Location::Object { .. } => self.check_objects(&files).await,
            Location::Local(_) => {
                let place = self.clone();
                let check = move || {
                    let is_there = |(id, position): &(SplitId, Position)| place.check_file(&id.0, position, &known);
                    files.iter().try_for_each(is_there)
                };
                let checked = tokio::task::spawn_blocking(check).await;
                checked.map_err(|error| Error::internal(format!("looking for files: {error}")))?
            }
        }
    }

    fn check_file(&self, id: &str, position: &Position, known: &KnownFiles) -> Result<()> {
        if position.pipe {
            return if position.is_start() { Ok(()) } else { Err(pipe_again(id)) };
        }
        let Some(mark) = &position.file else { return Ok(()) };
        let is_itself = |meta: &Metadata| mark.is_file(meta) && mark.size <= meta.len();
        if covers(&self.location, id) && std::fs::metadata(&mark.path).is_ok_and(|meta| is_itself(&meta)) {
            // Its content is compared when it is opened.
            return Ok(());
        }
        self.find_local(id, position, known).map(drop)
    }

    async fn check_objects(&self, files: &[(SplitId, Position)]) -> Result<()> {
        let now = list(&self.location, self.only.as_ref()).await?;
        let now: HashMap<&str, &Listed> = now.iter().map(|file| (file.path.as_str(), file)).collect();
        for (id, position) in files {
            let Some(Listed { object: Some(object), .. }) = now.get(id.0.as_str()) else {
                return Err(gone(&id.0, position));
            };
            check_object(&id.0, position, object)?;
        }
        Ok(())
    }

    /// Opens a file at its position. May block.
    ///
    /// # Errors
    /// `Invalid` when it is gone, `Corrupt` when it is not what it was before the position.
    pub fn find(&self, id: &str, position: &Position, known: &KnownFiles) -> Result<Found> {
        match &self.location {
            Location::Local(_) => self.find_local(id, position, known),
            Location::Object { .. } => {
                let input = self.location.open(id).map_err(|error| match error.kind() {
                    coulee_model::ErrorKind::Invalid if position.file.is_some() => gone(id, position).because(error),
                    _ => error,
                })?;
                let mark = match &input {
                    Input::Object(object) => FileMark::of_object(id, object.meta()),
                    Input::Local(_) => return Err(Error::internal(format!("{id} is an object"))),
                };
                check_object(id, position, &mark)?;
                Ok(Found { path: id.to_owned(), compression: self.compression(id), input, mark, is_new: false })
            }
        }
    }

    fn find_local(&self, id: &str, position: &Position, known: &KnownFiles) -> Result<Found> {
        let Some(mark) = &position.file else { return self.found(id, Path::new(id)) };
        let own = Path::new(&mark.path);
        let is_listed = covers(&self.location, id);
        let at_path = std::fs::metadata(own).ok().filter(|meta| is_listed && meta.is_file());
        if let Some(meta) = &at_path
            && (mark.is_untouched(meta) || self.has_content(id, own, position)?)
        {
            return self.found(id, own);
        }
        if let Some(path) = self.search(id, position, mark, known)? {
            tracing::info!(from = mark.path, to = %path.display(), "a file has moved; the job goes on with it");
            return self.found(id, &path);
        }
        match at_path {
            // Another file of the same name, where nothing was read of the former one.
            Some(_) if position.is_start() => Ok(Found { is_new: true, ..self.found(id, own)? }),
            Some(_) => Err(changed(&mark.path, position)),
            None => Err(gone(&mark.path, position)),
        }
    }

    /// The path of a file that is no longer where it was.
    fn search(&self, id: &str, position: &Position, mark: &FileMark, known: &KnownFiles) -> Result<Option<PathBuf>> {
        let own = Path::new(&mark.path);
        let name = own.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (mut renamed, mut others) = (Vec::new(), Vec::new());
        for path in self.candidates(own) {
            match std::fs::metadata(&path) {
                Ok(meta) if meta.is_file() && mark.is_file(&meta) => renamed.push(path),
                Ok(meta) if meta.is_file() => others.push((path, meta)),
                _ => {}
            }
        }
        for path in renamed {
            if position.is_start() || self.has_content(id, &path, position)? {
                return Ok(Some(path));
            }
        }
        let is_rotated = |path: &Path| path.file_name().is_some_and(|other| other.to_string_lossy().starts_with(&name));
        // Names of log rotation first.
        others.sort_by_key(|(path, _)| (!is_rotated(path), path.clone()));
        for (path, meta) in others {
            if !(is_rotated(&path) || mark.is_telling()) {
                continue;
            }
            let Ok(sample) = self.sample_at(id, &path) else { continue };
            let is_other = known.get(&(meta.dev(), meta.ino())).is_some_and(|other| other.matches(&sample));
            if !is_other && mark.matches(&sample) && self.has_content(id, &path, position)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Where a file may have gone: the table's files, and the others in its own folder, as a pattern may not cover its new name.
    fn candidates(&self, own: &Path) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = match &self.location {
            Location::Local(place) => {
                list_local(place).unwrap_or_default().into_iter().map(|file| PathBuf::from(file.path)).collect()
            }
            Location::Object { .. } => Vec::new(),
        };
        if let Some(Ok(entries)) = own.parent().map(std::fs::read_dir) {
            paths.extend(entries.flatten().map(|entry| entry.path()));
        }
        paths.sort();
        paths.dedup();
        paths.retain(|path| path != own);
        paths
    }

    fn found(&self, id: &str, path: &Path) -> Result<Found> {
        let refuse = |cause| unreadable(path, cause);
        let file = File::open(path).map_err(refuse)?;
        let path = path.to_string_lossy().into_owned();
        let compression = self.compression_at(id, &path, &file).map_err(refuse_at(&path))?;
        let mark = FileMark::of_file(&path, &file, compression, self.sampling).map_err(refuse_at(&path))?;
        Ok(Found { path, compression, input: Input::Local(file.into()), mark, is_new: false })
    }

    fn sample_at(&self, id: &str, path: &Path) -> std::io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let compression = self.compression_at(id, &path.to_string_lossy(), &file)?;
        sample(&file, &file.metadata()?, compression, self.sampling)
    }

    /// Whether a file has the content that was read, and where nothing was, the sample.
    fn has_content(&self, id: &str, path: &Path, position: &Position) -> Result<bool> {
        let Some(mark) = &position.file else { return Ok(true) };
        let check = || -> std::io::Result<bool> {
            let file = File::open(path)?;
            let meta = file.metadata()?;
            let compression = self.compression_at(id, &path.to_string_lossy(), &file)?;
            let sample = sample(&file, &meta, compression, self.sampling)?;
            match self.sampling {
                Sampling::Tail => Ok(meta.len() == mark.size && mark.matches(&sample)),
                Sampling::Head if position.is_start() || position.crc32c.is_none() => Ok(mark.matches(&sample)),
                Sampling::Head => {
                    let content = decompressed(BufReader::with_capacity(1 << 20, &file), compression)?;
                    let (bytes, crc32c) = checksum(content.take(position.offset))?;
                    Ok(bytes == position.offset && Some(crc32c) == position.crc32c)
                }
            }
        };
        match check() {
            Ok(same) => Ok(same),
            // What cannot be decompressed is not the file.
            Err(cause) if !matches!(cause.kind(), std::io::ErrorKind::PermissionDenied) => {
                tracing::debug!(path = %path.display(), %cause, "a file could not be compared");
                Ok(false)
            }
            Err(cause) => Err(unreadable(path, cause)),
        }
    }

    /// How a file is compressed that has the name it had first.
    pub fn compression(&self, path: &str) -> LineCompression {
        match self.sampling {
            Sampling::Head => LineCompression::of(self.compression.as_deref(), path),
            Sampling::Tail => LineCompression::None,
        }
    }

    /// The same, of one that may have been renamed and compressed since.
    fn compression_at(&self, id: &str, path: &str, file: &File) -> std::io::Result<LineCompression> {
        if path == id || self.sampling == Sampling::Tail { Ok(self.compression(path)) } else { sniff(file) }
    }
}

fn refuse_at(path: &str) -> impl Fn(std::io::Error) -> Error {
    move |cause| unreadable(Path::new(path), cause)
}

/// How many bytes there are, and their CRC-32C.
fn checksum(mut content: impl Read) -> std::io::Result<(u64, u32)> {
    let (mut bytes, mut crc32c, mut chunk) = (0, 0, vec![0; 256 << 10]);
    loop {
        match content.read(&mut chunk)? {
            0 => return Ok((bytes, crc32c)),
            read => {
                bytes += read as u64;
                crc32c = crc32c::crc32c_append(crc32c, &chunk[..read]);
            }
        }
    }
}

fn check_object(url: &str, position: &Position, now: &FileMark) -> Result<()> {
    let is_same = position.file.as_ref().is_none_or(|before| before.is_object(now));
    if is_same || position.is_start() { Ok(()) } else { Err(changed(url, position)) }
}

fn gone(path: &str, position: &Position) -> Error {
    let read = if position.is_start() {
        "nothing of it has been read yet".to_owned()
    } else {
        format!("it was read to {position}")
    };
    Error::invalid(format!(
        "{path} is gone, and the job needs it: {read}. With the file back (also renamed or compressed, in the same folder) the same command goes on; \
         --fresh starts over without it"
    ))
}

fn changed(path: &str, position: &Position) -> Error {
    Error::corrupt(format!(
        "{path} has changed before {position}, to which the job has read it: its rows would be missing or double. Files may grow, be renamed or be \
         compressed while a job reads them, not change. With the former file back the same command goes on; --fresh starts over"
    ))
}

/// Why a pipe is not read a second time.
pub fn pipe_again(path: &str) -> Error {
    Error::invalid(format!(
        "{path} is a pipe, of which a part was read before the job was interrupted: a pipe cannot be read again. Start over with --fresh, or \
         read a file if the job must be able to go on"
    ))
}
