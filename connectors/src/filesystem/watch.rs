//! Finds files that come while a job runs, for `'source.monitor-interval'`: lists the path every so often, and tells new files from those that were renamed,
//! compressed or copied by log rotation.
//!
//! A file counts as it is when it is found: what is appended later is not read. Whoever writes them should move them into the folder when they are
//! whole, as with Flink.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use coulee_runtime::connector::{SplitEnumerator, SplitId, SplitStart};
use coulee_runtime::{Error, Result};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::find::Place;
use super::listing::{Listed, list};
use super::mark::{FileMark, sample};
use super::position::Position;

/// What one look at the path found: all that is known now, and the splits that are new.
type Look = (Seen, Vec<SplitStart>);

/// The files that a source has seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    ids: HashSet<SplitId>,
    /// Which file each path had: device and inode; zeros of an object.
    paths: HashMap<String, (u64, u64)>,
    files: HashMap<(u64, u64), FileMark>,
    samples: HashMap<u32, Vec<FileMark>>,
}

impl Seen {
    /// Notes a file.
    pub fn add(&mut self, id: &SplitId, position: &Position) {
        self.ids.insert(id.clone());
        let Some(mark) = &position.file else { return };
        self.paths.insert(mark.path.clone(), (mark.device, mark.inode));
        if mark.inode != 0 {
            self.files.insert((mark.device, mark.inode), mark.clone());
            self.samples.entry(mark.sample_crc32c).or_default().push(mark.clone());
        }
    }

    /// The split of a listed file if it is new. May block.
    fn look(&mut self, place: &Place, file: Listed) -> Result<Option<SplitStart>> {
        if file.is_pipe {
            return Err(Error::invalid(format!("{} is a pipe: 'source.monitor-interval' is for folders", file.path)));
        }
        let own = match file.object {
            Some(_) => (0, 0),
            None => match std::fs::metadata(&file.path) {
                Ok(meta) => (meta.dev(), meta.ino()),
                // Gone since it was listed.
                Err(_) => return Ok(None),
            },
        };
        if self.paths.get(&file.path) == Some(&own) {
            return Ok(None);
        }
        let path = file.path.clone();
        let mut start = place.start(file)?;
        let mut position = Position::decode(&start.id, start.position.as_deref().unwrap_or_default())?;
        if let Some(mark) = &position.file
            && own != (0, 0)
            && self.is_moved(place, mark)
        {
            self.paths.insert(path, own);
            return Ok(None);
        }
        if self.ids.contains(&start.id) {
            // Another file had this path.
            start.id = SplitId(format!("{path}#{}", own.1));
            position = Position::start(position.file);
            start.position = Some(position.encode());
        }
        self.add(&start.id, &position);
        Ok(Some(start))
    }

    /// Whether a file at a new path is one that was seen at another.
    fn is_moved(&self, place: &Place, mark: &FileMark) -> bool {
        let known = self.files.get(&(mark.device, mark.inode)).into_iter();
        let alike = self.samples.values().flatten().filter(|known| known.is_telling() || mark.is_rotated_from(known));
        let sample = || {
            let file = File::open(&mark.path)?;
            let compression = place.compression(&mark.path);
            sample(&file, &file.metadata()?, compression, place.sampling)
        };
        let Ok(sample) = sample() else { return false };
        known.chain(alike).any(|known| known.matches(&sample))
    }
}

/// Looks for new files.
#[derive(Debug)]
pub struct FileWatch {
    place: Place,
    every: Duration,
    seen: Seen,
    /// When the path is listed next.
    next: Instant,
    /// A listing under way: it goes on when a call is dropped.
    listing: Option<JoinHandle<Result<Look>>>,
}

impl FileWatch {
    /// Watches a place of which `seen` is known. Looks at it at once, and then every so often.
    pub fn new(place: Place, every: Duration, seen: Seen) -> Self {
        FileWatch { place, every, seen, next: Instant::now(), listing: None }
    }
}

#[async_trait]
impl SplitEnumerator for FileWatch {
    async fn discover(&mut self) -> Result<Option<Vec<SplitStart>>> {
        loop {
            tokio::time::sleep_until(self.next).await;
            let listing = match &mut self.listing {
                Some(listing) => listing,
                none => {
                    let (place, seen) = (self.place.clone(), self.seen.clone());
                    none.insert(tokio::spawn(look(place, seen)))
                }
            };
            let found = listing.await.map_err(|error| Error::internal(format!("listing files: {error}")));
            self.listing = None;
            self.next = Instant::now() + self.every;
            let (seen, new) = found??;
            self.seen = seen;
            if !new.is_empty() {
                return Ok(Some(new));
            }
        }
    }
}

/// The files that are new, and all that are seen with them.
async fn look(place: Place, mut seen: Seen) -> Result<(Seen, Vec<SplitStart>)> {
    let files = list(&place.location, place.only.as_ref()).await?;
    let look = move || {
        let mut new = Vec::new();
        for file in files {
            new.extend(seen.look(&place, file)?);
        }
        Ok((seen, new))
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked.map_err(|error| Error::internal(format!("listing files: {error}")))?
}

impl FileMark {
    /// Whether the name is one that log rotation gives: that of `other`, with something behind.
    fn is_rotated_from(&self, other: &FileMark) -> bool {
        let name = Path::new(&other.path).file_name().unwrap_or_default().to_string_lossy().into_owned();
        Path::new(&self.path).file_name().is_some_and(|own| own.to_string_lossy().starts_with(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesystem::location::Location;
    use crate::filesystem::mark::Sampling;

    #[tokio::test]
    async fn new_files_are_found_once_and_moved_ones_are_not_new() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let location = Location::Local(root.to_owned());
        let place = Place { location, only: None, compression: None, sampling: Sampling::Head };
        let mut watch = FileWatch::new(place, Duration::from_millis(1), Seen::default());
        let name = |split: &SplitStart| split.id.0.rsplit('/').next().unwrap().split('#').next().unwrap().to_owned();
        let names = |found: Option<Vec<SplitStart>>| found.unwrap().iter().map(name).collect::<Vec<_>>();
        std::fs::write(root.join("a.log"), "{\"n\":1}\n").unwrap();
        std::fs::write(root.join("b.log"), "{\"n\":2}\n").unwrap();
        // A call that is dropped loses nothing.
        let _ = futures::poll!(std::pin::pin!(watch.discover()));
        assert_eq!(names(watch.discover().await.unwrap()), ["a.log", "b.log"]);

        std::fs::rename(root.join("a.log"), root.join("a.log.1")).unwrap();
        std::fs::rename(root.join("b.log"), root.join("elsewhere.log")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, b"{\"n\":2}\n").unwrap();
        std::fs::write(root.join("b.log.2.gz"), gzip.finish().unwrap()).unwrap();
        std::fs::write(root.join("c.log"), "{\"n\":3}\n").unwrap();
        assert_eq!(names(watch.discover().await.unwrap()), ["c.log"]);
        // A new file under a name that another one had.
        std::fs::write(root.join("a.log"), "{\"n\":4}\n").unwrap();
        let again = watch.discover().await.unwrap().unwrap();
        assert_eq!((again.len(), name(&again[0])), (1, "a.log".to_owned()));
        assert!(again[0].id.0.contains('#'), "another split than the first one of that path: {again:?}");
    }
}
