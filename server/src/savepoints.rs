//! Savepoints: snapshots of a job that the user keeps, and beginning a job with one.
//!
//! A snapshot is known by its name within its job, and everywhere by the URL of its manifest,
//! `<place>/<job>/savepoints/<name>.json`. A job's savepoints are looked for in the places that its record lists: where its
//! settings say, and wherever one was put.

use std::path::Path;
use std::sync::Arc;

use coulee_checkpoint::JobStore;
use coulee_checkpoint::snapshot::{Manifest, SnapshotKind, SnapshotName, SnapshotStore};
use coulee_model::{CheckpointId, JobName, Timestamp};
use coulee_runtime::job::{restore, savepoint_at_rest, stored_states};
use coulee_runtime::state::StateDescriptor;

use crate::blocking::blocking;
use crate::engine::Engine;
use crate::job::Job;
use crate::snapshots::store_at;
use crate::{Error, Result};

/// The folders of manifests in a job's place, as the checkpoint store has them.
const SAVEPOINTS: &str = "savepoints";
const SNAPSHOTS: &str = "snapshots";

/// A snapshot or savepoint, and where it is.
#[derive(Debug, Clone)]
pub struct KeptSnapshot {
    /// The URL or folder that holds the folder of its job.
    pub place: String,
    /// What it holds.
    pub manifest: Manifest,
}

/// A savepoint to be taken.
#[derive(Debug, Clone, Default)]
pub struct SavepointRequest {
    /// The job.
    pub job: String,
    /// Its name; made from the time when absent.
    pub name: Option<String>,
    /// What the user wants to remember.
    pub note: Option<String>,
    /// A URL or folder; where the job's settings say when absent.
    pub to: Option<String>,
}

impl KeptSnapshot {
    /// Its name within its job.
    pub fn name(&self) -> String {
        self.manifest.name().to_string()
    }

    /// The URL of its manifest: what a job can be started from.
    pub fn url(&self) -> String {
        let (place, job) = (self.place.trim_end_matches('/'), &self.manifest.job);
        match &self.manifest.kind {
            SnapshotKind::Savepoint { name, .. } => format!("{place}/{job}/savepoints/{name}.json"),
            SnapshotKind::Periodic => format!("{place}/{job}/snapshots/{:020}.json", self.manifest.checkpoint().0),
        }
    }

    /// What the operators of its job keep.
    ///
    /// # Errors
    /// When the record of its checkpoint does not decode.
    pub fn states(&self) -> Result<Vec<StateDescriptor>> {
        Ok(stored_states(&self.manifest.record)?)
    }

    /// Bytes of its files.
    pub fn size_bytes(&self) -> u64 {
        self.manifest.bytes()
    }
}

/// A snapshot as the user refers to it.
#[derive(Debug, PartialEq, Eq)]
enum Reference {
    /// By its name, in a job's places.
    Name(SnapshotName),
    /// By the URL of its manifest; without a name, the newest there.
    At { place: String, job: JobName, name: Option<SnapshotName> },
}

/// The snapshot whose manifest has this name in this folder.
fn named(folder: &str, file: &str) -> Result<SnapshotName> {
    if folder == SAVEPOINTS {
        return Ok(SnapshotName::savepoint(file)?);
    }
    let number = file.parse().map_err(|_| Error::Invalid(format!("'{file}' is not the number of a checkpoint")))?;
    Ok(SnapshotName::Checkpoint(CheckpointId(number)))
}

/// Reads a name, the URL of a manifest, or the URL of a job's folder.
fn reference(text: &str) -> Result<Reference> {
    let Some((folder, last)) = text.trim_end_matches('/').rsplit_once('/') else {
        return Ok(Reference::Name(text.parse()?));
    };
    let (folder, last, name) = match (last.strip_suffix(".json"), folder.rsplit_once('/')) {
        (Some(name), Some((job, kind))) if kind == SAVEPOINTS || kind == SNAPSHOTS => {
            let (place, job) = job.rsplit_once('/').unwrap_or((".", job));
            (place, job, Some(named(kind, name)?))
        }
        _ => (folder, last, None),
    };
    let job = JobName::new(last).map_err(|_| {
        Error::Invalid(format!(
            "'{text}' names no snapshot: expected a name, or a URL such as <dir>/<job>/savepoints/<name>.json as `coulee savepoint list` shows it"
        ))
    })?;
    Ok(Reference::At { place: folder.to_owned(), job, name })
}

impl Engine {
    /// Takes a savepoint of a job, whether it runs or rests; answers when it is complete where it is kept.
    ///
    /// # Errors
    /// [`Error::NoJob`]; for a job that has no checkpoint yet, a name that is taken, and a store that does not answer.
    pub async fn create_savepoint(&self, request: SavepointRequest) -> Result<KeptSnapshot> {
        let job = self.find(&request.job)?;
        let name = request.name.unwrap_or_else(|| name_at(self.clock().now()));
        // Before anything is done: the name may be wrong.
        SnapshotName::savepoint(&name)?;
        let place = match request.to {
            Some(to) => to,
            None => self.places(&job).swap_remove(0),
        };
        let store = self.store(&place, &job.name()).await?;
        let manifest = match job.handle() {
            Some(handle) => handle.savepoint(store, name, request.note).await?,
            None => self.save_at_rest(&job, &store, name, request.note).await?,
        };
        let mut places = self.places(&job);
        if !places.contains(&place) {
            places.push(place.clone());
            job.update(|record| record.places = places).await?;
        }
        Ok(KeptSnapshot { place, manifest })
    }

    async fn save_at_rest(
        &self,
        job: &Arc<Job>,
        to: &SnapshotStore,
        name: String,
        note: Option<String>,
    ) -> Result<Manifest> {
        // Nobody starts it meanwhile: a state store has one user.
        let _resting = job.keep_at_rest()?;
        let state = job.folder.join("state");
        if !state.exists() {
            let reason = "has no checkpoint yet";
            let advice = "start it, and take the savepoint when it has one".to_owned();
            return Err(Error::JobState { name: job.name(), state: reason, advice });
        }
        let settings = self.parts.state.clone();
        let store = blocking(move || Ok(JobStore::open(&state, &settings)?)).await?;
        let (spool, scratch) = (job.folder.join("spool"), job.folder.join("scratch"));
        let at = (job.name(), Arc::new(store));
        Ok(savepoint_at_rest(at, (&spool, &scratch), to, (name, note), self.clock().clone()).await?)
    }

    /// The snapshots and savepoints of a job, or of all, oldest first.
    ///
    /// # Errors
    /// [`Error::NoJob`], and what a store says.
    pub async fn savepoints(&self, job: Option<&str>) -> Result<Vec<KeptSnapshot>> {
        let jobs = match job {
            Some(name) => vec![self.find(name)?],
            None => self.jobs.lock().values().cloned().collect(),
        };
        let mut found = Vec::new();
        for job in jobs {
            for place in self.places(&job) {
                // A folder that is not there yet has none.
                if is_absent(&place, &self.parts.base) {
                    continue;
                }
                let manifests = self.store(&place, &job.name()).await?.list().await?;
                found.extend(manifests.into_iter().map(|manifest| KeptSnapshot { place: place.clone(), manifest }));
            }
        }
        Ok(found)
    }

    /// The snapshot with a name, of a job if one is given, or at a URL.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is none, or several jobs have one of that name.
    pub async fn savepoint(&self, name: &str, job: Option<&str>) -> Result<KeptSnapshot> {
        match reference(name)? {
            Reference::At { place, job, name } => self.savepoint_at(place, &job, name).await,
            Reference::Name(wanted) => {
                let mut found = self.savepoints(job).await?;
                found.retain(|kept| kept.manifest.name() == wanted);
                match found.len() {
                    1 => Ok(found.swap_remove(0)),
                    0 => Err(Error::Invalid(format!(
                        "there is no snapshot '{name}'{}; `coulee savepoint list` shows those that there are",
                        job.map(|job| format!(" of job '{job}'")).unwrap_or_default()
                    ))),
                    _ => {
                        let urls: Vec<String> = found.iter().map(KeptSnapshot::url).collect();
                        Err(Error::Invalid(format!(
                            "several snapshots are called '{name}': name one by its URL: {}",
                            urls.join(", ")
                        )))
                    }
                }
            }
        }
    }

    async fn savepoint_at(&self, place: String, job: &JobName, name: Option<SnapshotName>) -> Result<KeptSnapshot> {
        if is_absent(&place, &self.parts.base) {
            return Err(Error::Invalid(format!("there is no folder '{place}': the snapshot's place is wrong")));
        }
        let store = self.store(&place, job).await?;
        let manifest = match name {
            Some(name) => store.manifest(&name).await?,
            None => store
                .list()
                .await?
                .pop()
                .ok_or_else(|| Error::Invalid(format!("there is no snapshot of job '{job}' in {place}")))?,
        };
        Ok(KeptSnapshot { place, manifest })
    }

    /// Removes a savepoint. Its files go with the next collection of what nothing refers to.
    ///
    /// # Errors
    /// As [`savepoint`](Self::savepoint).
    pub async fn delete_savepoint(&self, name: &str, job: Option<&str>) -> Result<KeptSnapshot> {
        let kept = self.savepoint(name, job).await?;
        let store = self.store(&kept.place, &kept.manifest.job).await?;
        store.delete(&kept.manifest.name()).await?;
        Ok(kept)
    }

    /// Copies a savepoint to another place, where it is complete by itself.
    ///
    /// # Errors
    /// As [`savepoint`](Self::savepoint), and when another one of its name is there.
    pub async fn export_savepoint(&self, name: &str, job: Option<&str>, to: &str) -> Result<KeptSnapshot> {
        let kept = self.savepoint(name, job).await?;
        let (job, name) = (&kept.manifest.job, kept.manifest.name());
        let (from, into) = (self.store(&kept.place, job).await?, self.store(to, job).await?);
        from.export(&name, &into).await?;
        Ok(KeptSnapshot { place: to.to_owned(), ..kept })
    }

    /// Puts a snapshot into the folder of a job that has no state.
    ///
    /// # Errors
    /// [`Error::JobState`] when it has; as [`savepoint`](Self::savepoint); for a snapshot that is damaged.
    pub(crate) async fn restore_job(&self, job: &Arc<Job>, kept: &KeptSnapshot) -> Result<()> {
        let (state, spool) = (job.folder.join("state"), job.folder.join("spool"));
        if state.exists() {
            let advice = "leave --from out to go on with it, or give --fresh to forget it".to_owned();
            return Err(Error::JobState { name: job.name(), state: "has state of its own", advice });
        }
        // Without state, a spool is what a start that came to nothing left.
        let left = spool.clone();
        blocking(move || crate::folder::remove_folder(&left)).await?;
        let store = self.store(&kept.place, &kept.manifest.job).await?;
        restore(&store, &kept.manifest.name(), &state, &spool).await?;
        tracing::info!(job = %job.name(), snapshot = kept.url(), "the job begins with a snapshot");
        Ok(())
    }

    /// Where savepoints of a job are: the first is where new ones go.
    fn places(&self, job: &Job) -> Vec<String> {
        let places = job.record().places;
        if places.is_empty() { vec![self.usual_place()] } else { places }
    }

    /// Where savepoints go when nobody says: on the same disk, so that they outlive a job but not the machine.
    pub(crate) fn usual_place(&self) -> String {
        self.folder.savepoints().display().to_string()
    }

    async fn store(&self, place: &str, job: &JobName) -> Result<SnapshotStore> {
        let (place, job, base) = (place.to_owned(), job.clone(), self.parts.base.clone());
        blocking(move || store_at(&place, &job, &base)).await
    }
}

/// Whether a place is a local folder that does not exist: looking for something there must not make it.
fn is_absent(place: &str, base: &Path) -> bool {
    let local = match place.split_once("://") {
        None => Some(place),
        Some(("file", local)) => Some(local),
        Some(_) => None,
    };
    local.is_some_and(|local| !base.join(local).exists())
}

/// `20240501-120102`, in UTC.
fn name_at(now: Timestamp) -> String {
    let text = now.to_string();
    let digits = |part: &str| part.chars().filter(char::is_ascii_digit).collect::<String>();
    let (day, time) = text.split_once(' ').unwrap_or((text.as_str(), ""));
    format!("{}-{}", digits(day), digits(time.split('.').next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_named_or_addressed() {
        let at = |place: &str, name| {
            let job = JobName::new("delays").unwrap();
            Reference::At { place: place.into(), job, name }
        };
        let savepoint = || SnapshotName::Savepoint("v1".into());
        assert_eq!(reference("v1").unwrap(), Reference::Name(savepoint()));
        assert_eq!(reference("checkpoint-7").unwrap(), Reference::Name(SnapshotName::Checkpoint(CheckpointId(7))));
        assert_eq!(reference("s3://b/p/delays/savepoints/v1.json").unwrap(), at("s3://b/p", Some(savepoint())));
        assert_eq!(reference("/d/delays/savepoints/v1.json").unwrap(), at("/d", Some(savepoint())));
        assert_eq!(reference("s3://b/p/delays/").unwrap(), at("s3://b/p", None));
        let periodic = Some(SnapshotName::Checkpoint(CheckpointId(12)));
        assert_eq!(reference("out/delays/snapshots/00000000000000000012.json").unwrap(), at("out", periodic));
        assert!(reference("s3://b/p/no name").unwrap_err().to_string().contains("savepoint list"));
    }

    #[test]
    fn a_savepoint_without_a_name_is_called_by_its_time() {
        assert_eq!(name_at(Timestamp(1_357_035_420_123)), "20130101-101700");
        SnapshotName::savepoint(&name_at(Timestamp(0))).unwrap();
    }
}
