//! Puts a snapshot where a job will look for its state.

use std::io;
use std::path::{Path, PathBuf};

use coulee_checkpoint::snapshot::{Manifest, SnapshotName, SnapshotStore};

use super::snapshots::{SPOOL_FOLDER, STATE_FOLDER};
use crate::job::executor::{Executor, Tokio};
use crate::{Error, Result};

/// Puts the state and the spool of a snapshot where a job that has neither will look for them: `state` and `spool` must not exist.
///
/// # Errors
/// `Invalid` when they exist or there is no such snapshot; `Corrupt` when it is damaged; `Unavailable` when the object store does not answer.
pub async fn restore(from: &SnapshotStore, name: &SnapshotName, state: &Path, spool: &Path) -> Result<Manifest> {
    restore_on(&Tokio, from, name, (state, spool)).await
}

/// As [`restore`], with the work on files done by `executor`.
pub(in crate::job) async fn restore_on(
    executor: &dyn Executor,
    from: &SnapshotStore,
    name: &SnapshotName,
    (state, spool): (&Path, &Path),
) -> Result<Manifest> {
    for folder in [state, spool] {
        if folder.exists() {
            return Err(Error::invalid(format!(
                "{} exists: a snapshot is restored only where a job has no state",
                folder.display()
            )));
        }
    }
    let folder = state.with_extension("restoring");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(|e| Error::io(folder.display(), e))?;
    }
    let manifest = from.restore(name, &folder).await?;
    let (state, spool) = (state.to_owned(), spool.to_owned());
    let into_place = move || {
        // The state last: with it the job has one.
        for (part, to) in [(SPOOL_FOLDER, &spool), (STATE_FOLDER, &state)] {
            let part = folder.join(part);
            if part.exists() {
                steps_into_place(&part, to).iter().try_for_each(Step::carry_out)?;
            }
        }
        std::fs::remove_dir_all(&folder).map_err(|e| Error::io(folder.display(), e))
    };
    executor.blocking("work on files", into_place).await?;
    Ok(manifest)
}

/// Something that is done to a disk.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Rename(PathBuf, PathBuf),
    /// Makes the names in a folder durable.
    Sync(PathBuf),
}

impl Step {
    fn carry_out(&self) -> Result<()> {
        let (path, done): (&Path, io::Result<()>) = match self {
            Step::Rename(from, to) => (to, std::fs::rename(from, to)),
            Step::Sync(folder) => (folder, std::fs::File::open(folder).and_then(|folder| folder.sync_all())),
        };
        done.map_err(|e| Error::io(path.display(), e))
    }
}

/// Moves a folder so that its new name survives a power loss before anything else is done: otherwise the state could be there without its spool, or the job
/// begin anew although somebody was told that it is restored.
fn steps_into_place(from: &Path, to: &Path) -> [Step; 2] {
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    [Step::Rename(from.to_owned(), to.to_owned()), Step::Sync(parent.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_name_is_made_durable_before_the_next_step() {
        let steps = steps_into_place(Path::new("/job/state.restoring/spool"), Path::new("/job/spool"));
        let rename = Step::Rename("/job/state.restoring/spool".into(), "/job/spool".into());
        assert_eq!(steps, [rename, Step::Sync("/job".into())]);
        assert_eq!(steps_into_place(Path::new("a"), Path::new("b"))[1], Step::Sync(".".into()));
    }
}
