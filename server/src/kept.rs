//! The tables and views that a data folder keeps: `catalog.json`, replaced atomically with each change.

use std::path::PathBuf;
use std::sync::Arc;

use coulee_sql::{CatalogChange, Definitions};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::folder::write_json;
use crate::{Error, Result};

/// The version of the file that is written.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct File {
    version: u32,
    relations: Definitions,
}

/// What is kept now. Scripts see it as it was when they began.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    definitions: Mutex<Arc<Definitions>>,
}

impl Kept {
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub(crate) fn open(path: PathBuf) -> Result<Self> {
        let definitions = match std::fs::read(&path) {
            Ok(text) => {
                let damaged = |reason: String| Error::Damaged { path: path.clone(), reason };
                let file: File = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
                if file.version > VERSION {
                    return Err(damaged(format!("it has version {}, and this build knows {VERSION}", file.version)));
                }
                file.relations
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Definitions::new(),
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        Ok(Kept { path, definitions: Mutex::new(Arc::new(definitions)) })
    }

    pub(crate) fn definitions(&self) -> Arc<Definitions> {
        self.definitions.lock().clone()
    }

    /// Makes changes, which are on disk when it returns. Blocks.
    ///
    /// # Errors
    /// [`Error::Io`]; nothing is changed then.
    pub(crate) fn change(&self, changes: Vec<CatalogChange>) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        // Held while it is written, so that the last one to write has all changes.
        let mut definitions = self.definitions.lock();
        let mut changed = definitions.as_ref().clone();
        for change in changes {
            match change {
                CatalogChange::Keep(name, definition) => changed.insert(name, definition),
                CatalogChange::Forget(name) => changed.remove(&name),
            };
        }
        let file = File { version: VERSION, relations: changed };
        write_json(&self.path, &file)?;
        *definitions = Arc::new(file.relations);
        Ok(())
    }
}
