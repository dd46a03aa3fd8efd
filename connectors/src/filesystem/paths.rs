//! Says of a path that cannot be read which part of it is to blame.

use std::io::ErrorKind as Io;
use std::path::Path;

use coulee_runtime::Error;

/// Why a path cannot be read, said of the component that is to blame.
pub fn unreadable(path: &Path, cause: std::io::Error) -> Error {
    let shown = path.display();
    let parts: Vec<&Path> = path.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    for part in parts.into_iter().rev() {
        let Ok(own) = std::fs::symlink_metadata(part) else {
            if cause.kind() == Io::NotFound && part != path {
                return Error::invalid(format!("cannot read {shown}: there is no {}", part.display())).because(cause);
            }
            break;
        };
        match std::fs::metadata(part) {
            Err(error) if own.is_symlink() && error.kind() == Io::NotFound => {
                let target = std::fs::read_link(part).unwrap_or_default();
                let (part, target) = (part.display(), target.display());
                return Error::invalid(format!(
                    "cannot read {shown}: {part} is a link to {target}, which is not there"
                ))
                .because(cause);
            }
            Ok(meta) if part != path && !meta.is_dir() => {
                let part = part.display();
                return Error::invalid(format!("cannot read {shown}: {part} is a file, expected a folder"))
                    .because(cause);
            }
            _ => {}
        }
    }
    if cause.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
        return Error::invalid(format!("cannot read {shown}: its links lead in a circle")).because(cause);
    }
    Error::io(format!("cannot read {shown}"), cause)
}
