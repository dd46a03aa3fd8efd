//! Which files a path stands for: a file itself, all in a folder, or those that a pattern names.

use std::path::Path;

use coulee_runtime::{Error, Result};
use futures::TryStreamExt;
use object_store::path::Path as Key;
use regex::Regex;

use super::location::{Location, store_error};

/// Splits a path into the folder that needs no pattern and, if there is one, the pattern over the whole path.
fn pattern(path: &str) -> Result<(String, Option<Regex>)> {
    let Some(first) = path.find(['*', '?']) else { return Ok((path.to_owned(), None)) };
    let folder = path[..first].rfind('/').map_or("", |slash| &path[..slash.max(1)]);
    let mut regex = String::from("^");
    let mut rest = path;
    while let Some(next) = rest.chars().next() {
        let (meaning, length) = match next {
            '*' if rest.starts_with("**/") => ("(?:.*/)?".to_owned(), 3),
            '*' if rest.starts_with("**") => (".*".to_owned(), 2),
            '*' => ("[^/]*".to_owned(), 1),
            '?' => ("[^/]".to_owned(), 1),
            plain => (regex::escape(plain.encode_utf8(&mut [0; 4])), plain.len_utf8()),
        };
        regex.push_str(&meaning);
        rest = &rest[length..];
    }
    regex.push('$');
    Ok((folder.to_owned(), Some(full_match(&regex)?)))
}

/// A regular expression that must match all of a path.
///
/// # Errors
/// `Invalid` when it is not a regular expression.
pub fn full_match(regex: &str) -> Result<Regex> {
    Regex::new(&format!("^(?:{regex})$"))
        .map_err(|error| Error::invalid(format!("'{regex}' is not a regular expression: {error}")).because(error))
}

/// The files, by name: absolute paths, or URLs. Hidden ones (a name that begins with `.` or `_`) only count when they are named themselves.
///
/// # Errors
/// `Invalid` when there is none: an empty result would look like an empty table.
pub async fn list(location: &Location, only: Option<&Regex>) -> Result<Vec<String>> {
    let mut files = match location {
        Location::Local(path) => {
            let path = path.clone();
            let listing = tokio::task::spawn_blocking(move || list_local(&path)).await;
            listing.map_err(|error| Error::internal(format!("listing files: {error}")))??
        }
        Location::Object { .. } => list_objects(location).await?,
    };
    if let Some(only) = only {
        files.retain(|file| only.is_match(file));
    }
    files.sort_unstable();
    if files.is_empty() {
        let place = location.display();
        let filter = only.map_or(String::new(), |only| format!(" that matches {}", only.as_str()));
        return Err(Error::invalid(format!("{place} has no file{filter}: check 'path'")));
    }
    Ok(files)
}

/// Whether a local path, or the folder that a pattern begins with, is there.
///
/// # Errors
/// `Invalid` when it is not.
pub fn check_local(path: &Path) -> Result<()> {
    let text = path.to_str().ok_or_else(|| Error::invalid(format!("{} is not UTF-8", path.display())))?;
    let (folder, _) = pattern(text)?;
    std::fs::metadata(&folder).map(drop).map_err(|cause| Error::io(format!("cannot read {folder}"), cause))
}

fn list_local(path: &Path) -> Result<Vec<String>> {
    let text = path.to_str().ok_or_else(|| Error::invalid(format!("{} is not UTF-8", path.display())))?;
    let absolute = |path: &Path| std::path::absolute(path).map_err(|cause| Error::io(path.display(), cause));
    let (folder, pattern) = pattern(text)?;
    let folder = Path::new(&folder);
    let meta =
        std::fs::metadata(folder).map_err(|cause| Error::io(format!("cannot read {}", folder.display()), cause))?;
    let mut files = Vec::new();
    if meta.is_file() {
        files.push(absolute(folder)?);
    } else {
        walk(folder, &mut files)?;
    }
    let mut names = Vec::with_capacity(files.len());
    for file in files {
        let Some(name) = file.to_str() else {
            return Err(Error::invalid(format!("{} is not UTF-8; rename it", file.display())));
        };
        if pattern.as_ref().is_none_or(|pattern| pattern.is_match(name)) {
            names.push(absolute(&file)?.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

fn walk(folder: &Path, files: &mut Vec<std::path::PathBuf>) -> Result<()> {
    let refuse = |cause| Error::io(format!("cannot list {}", folder.display()), cause);
    for entry in std::fs::read_dir(folder).map_err(refuse)? {
        let entry = entry.map_err(refuse)?;
        if is_hidden(&entry.file_name().to_string_lossy()) {
            continue;
        }
        // Through links, so that a link to a folder is a folder.
        let meta = std::fs::metadata(entry.path()).map_err(refuse)?;
        if meta.is_dir() {
            walk(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

async fn list_objects(location: &Location) -> Result<Vec<String>> {
    let Location::Object { store, key, root } = location else { unreachable!("called for an object store") };
    let (folder, pattern) = pattern(key)?;
    let refuse = |error| store_error(&location.display(), error);
    let prefix = Key::parse(&folder).map_err(|error| Error::invalid(format!("{folder} is not a key: {error}")))?;
    if pattern.is_none() && !folder.is_empty() && object_store::ObjectStoreExt::head(store, &prefix).await.is_ok() {
        return Ok(vec![location.display()]);
    }
    let objects: Vec<_> = store.list(Some(&prefix)).try_collect().await.map_err(refuse)?;
    let below = folder.len();
    let keys = objects.into_iter().map(|object| object.location.to_string());
    let visible = keys.filter(|key| !key[below.min(key.len())..].split('/').any(is_hidden));
    let named = visible.filter(|key| pattern.as_ref().is_none_or(|pattern| pattern.is_match(key)));
    Ok(named.map(|key| format!("{root}/{key}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stop_at_slashes_unless_doubled() {
        let matches = |path: &str, file: &str| pattern(path).unwrap().1.unwrap().is_match(file);
        assert!(matches("/in/*.json", "/in/a.json"));
        assert!(!matches("/in/*.json", "/in/b/a.json"));
        assert!(matches("/in/**/a?.json", "/in/b/c/ab.json"));
        assert!(matches("/in/**/a.json", "/in/a.json"));
        assert!(!matches("/in/*.json", "/in/a.jsonx"));
        assert_eq!(pattern("/in/x*/y").unwrap().0, "/in");
        assert_eq!(pattern("/x*").unwrap().0, "/");
    }

    #[tokio::test]
    async fn hidden_files_and_missing_ones() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir_all(root.join("b/_temporary")).unwrap();
        for file in ["b/2.json", "1.json", ".hidden", "_SUCCESS", "b/_temporary/x.json"] {
            std::fs::write(root.join(file), "{}").unwrap();
        }
        let files = list(&Location::Local(root.to_owned()), None).await.unwrap();
        let names: Vec<&str> = files.iter().map(|file| &file[root.to_str().unwrap().len()..]).collect();
        assert_eq!(names, ["/1.json", "/b/2.json"]);
        let one = list(&Location::Local(root.join("*.json")), None).await.unwrap();
        assert_eq!(one.len(), 1);

        let missing = list(&Location::Local(root.join("none")), None).await.unwrap_err();
        assert!(missing.to_string().contains("none: No such file"), "{missing}");
        let only = full_match(".*csv").unwrap();
        let none = list(&Location::Local(root.to_owned()), Some(&only)).await.unwrap_err();
        assert!(none.to_string().contains("has no file that matches"), "{none}");
    }
}
