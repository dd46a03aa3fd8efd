//! Hard links: how the files of a checkpoint are kept for an upload while the job goes on.

use std::path::Path;

/// Removes the folders in `scratch` whose names begin with `prefix`; there need not be a `scratch`.
pub(super) fn clear(scratch: &Path, prefix: &str) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(scratch) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Hard links of every file below `from`. A file that is removed meanwhile belongs to a later checkpoint and is not missed.
pub(super) fn link_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    std::fs::create_dir_all(to)?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_tree(&entry.path(), &target)?;
            continue;
        }
        match std::fs::hard_link(entry.path(), &target) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            linked => linked?,
        }
    }
    Ok(())
}
