//! Which files a path stands for: a file itself, all in a folder, or those that a pattern names.

use std::io::ErrorKind as Io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use coulee_runtime::{Error, Result};
use futures::TryStreamExt;
use object_store::ObjectMeta;
use object_store::path::Path as Key;
use regex::Regex;

use super::location::{Location, store_error};
use super::mark::FileMark;
use super::paths::unreadable;
use super::pipe::is_pipe;

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

/// A listed file: its absolute path or its URL, and of an object what the store says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The path or URL.
    pub path: String,
    /// What an object is known by.
    pub object: Option<FileMark>,
    /// Whether it is a pipe.
    pub is_pipe: bool,
}

impl Listed {
    fn local(path: String) -> Self {
        Listed { path, object: None, is_pipe: false }
    }
}

/// The files, by name. Hidden ones (a name that begins with `.` or `_`) only count when they are named themselves.
///
/// # Errors
/// `Invalid` when the path is not there or cannot be read.
pub async fn list(location: &Location, only: Option<&Regex>) -> Result<Vec<Listed>> {
    let mut files = match location {
        Location::Local(path) => {
            let path = path.clone();
            let listing = tokio::task::spawn_blocking(move || list_local(&path)).await;
            listing.map_err(|error| Error::internal(format!("listing files: {error}")))??
        }
        Location::Object { .. } => list_objects(location).await?,
    };
    if let Some(only) = only {
        files.retain(|file| only.is_match(&file.path));
    }
    files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// The same; an empty result would look like an empty table.
///
/// # Errors
/// Also when there is none.
pub async fn list_some(location: &Location, only: Option<&Regex>) -> Result<Vec<Listed>> {
    let files = list(location, only).await?;
    if files.is_empty() {
        let place = location.display();
        let filter = only.map_or(String::new(), |only| format!(" that matches {}", only.as_str()));
        return Err(Error::invalid(format!("{place} has no file{filter}: check 'path'")));
    }
    Ok(files)
}

/// Whether a local path, or the folder that a pattern begins with, is there. A file that log rotation seems to have renamed may be there for a job that
/// began with it, which looks for it itself.
///
/// # Errors
/// `Invalid` when it is not.
pub fn check_local(path: &Path) -> Result<()> {
    let text = path.to_str().ok_or_else(|| Error::invalid(format!("{} is not UTF-8", path.display())))?;
    let is_there = |path: &Path| std::fs::metadata(path).map(drop).map_err(|cause| unreadable(path, cause));
    match std::fs::symlink_metadata(path) {
        Ok(_) => is_there(path),
        Err(_) => {
            let (folder, pattern) = pattern(text)?;
            let is_rotated = pattern.is_none() && has_rotated(path);
            if is_rotated { Ok(()) } else { is_there(Path::new(&folder)) }
        }
    }
}

/// Whether there is a file whose name is that of `path` with something behind.
fn has_rotated(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let entries = path.parent().map(std::fs::read_dir).and_then(std::io::Result::ok);
    entries.is_some_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{name}.")))
    })
}

/// The same for a local path. May block.
///
/// # Errors
/// `Invalid`, naming what is wrong: the component of the path that is not there, the link that leads nowhere.
pub fn list_local(path: &Path) -> Result<Vec<Listed>> {
    let text = path.to_str().ok_or_else(|| Error::invalid(format!("{} is not UTF-8", path.display())))?;
    // A name that has '*' or '?' in it is no pattern where a file has that name.
    let (folder, pattern) =
        if std::fs::symlink_metadata(path).is_ok() { (text.to_owned(), None) } else { pattern(text)? };
    let folder = Path::new(&folder);
    let meta = std::fs::metadata(folder).map_err(|cause| unreadable(folder, cause))?;
    if pattern.is_none() && !meta.is_dir() {
        let path = absolute(folder)?.to_string_lossy().into_owned();
        let is_pipe = is_pipe(meta.file_type());
        if !is_pipe && !meta.is_file() {
            return Err(Error::invalid(format!(
                "{path} is neither a file, nor a folder, nor a pipe, and cannot be read"
            )));
        }
        return Ok(vec![Listed { path, object: None, is_pipe }]);
    }
    let mut files = Vec::new();
    walk(folder, &mut Vec::new(), &mut files)?;
    let mut names = Vec::with_capacity(files.len());
    for file in files {
        let Some(name) = file.to_str() else {
            return Err(Error::invalid(format!("{} is not UTF-8; rename it", file.display())));
        };
        if pattern.as_ref().is_none_or(|pattern| pattern.is_match(name)) {
            names.push(Listed::local(absolute(&file)?.to_string_lossy().into_owned()));
        }
    }
    Ok(names)
}

/// Whether a split's path is of those that `location` stands for, were there a file.
pub fn covers(location: &Location, split: &str) -> bool {
    // A file whose path another one had before has its number behind it.
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let path = split.rsplit_once('#').filter(|(_, number)| is_number(number)).map_or(split, |(path, _)| path);
    let (place, path) = match location {
        Location::Local(place) => (place.to_string_lossy().into_owned(), path),
        Location::Object { key, root, .. } => {
            (key.clone(), path.strip_prefix(root.as_str()).unwrap_or(path).trim_start_matches('/'))
        }
    };
    let place = match location {
        Location::Local(_) => absolute(Path::new(&place)).map_or(place, |place| place.to_string_lossy().into_owned()),
        Location::Object { .. } => place,
    };
    let place = place.trim_end_matches('/');
    path == place
        || place.is_empty()
        || path.strip_prefix(place).is_some_and(|below| below.starts_with('/'))
        || pattern(place).is_ok_and(|(_, pattern)| pattern.is_some_and(|pattern| pattern.is_match(path)))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|cause| Error::io(path.display(), cause))
}

/// The files below a folder. `above`: the folders that lead to it, as links may lead back.
fn walk(folder: &Path, above: &mut Vec<(u64, u64)>, files: &mut Vec<PathBuf>) -> Result<()> {
    let refuse = |cause| Error::io(format!("cannot list {}", folder.display()), cause);
    let meta = std::fs::metadata(folder).map_err(refuse)?;
    let id = (meta.dev(), meta.ino());
    if above.contains(&id) {
        return Ok(());
    }
    above.push(id);
    for entry in std::fs::read_dir(folder).map_err(refuse)? {
        let entry = entry.map_err(refuse)?;
        if is_hidden(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        // Through links, so that a link to a folder is a folder.
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => walk(&path, above, files)?,
            Ok(meta) if meta.is_file() => files.push(path),
            // A pipe or a socket in a folder is no file of the table.
            Ok(_) => {}
            // Removed or renamed since the folder was listed; a link that leads nowhere is still there.
            Err(cause) if cause.kind() == Io::NotFound && std::fs::symlink_metadata(&path).is_err() => {}
            Err(cause) => return Err(unreadable(&path, cause)),
        }
    }
    above.pop();
    Ok(())
}

fn is_hidden(name: &str) -> bool {
    name.starts_with(['.', '_'])
}

async fn list_objects(location: &Location) -> Result<Vec<Listed>> {
    let Location::Object { store, key, root } = location else { unreachable!("called for an object store") };
    let (folder, pattern) = pattern(key)?;
    let refuse = |error| store_error(&location.display(), error);
    let prefix = Key::parse(&folder).map_err(|error| Error::invalid(format!("{folder} is not a key: {error}")))?;
    let listed = |meta: &ObjectMeta| {
        let path = format!("{root}/{}", meta.location);
        Listed { object: Some(FileMark::of_object(&path, meta)), path, is_pipe: false }
    };
    if pattern.is_none()
        && !folder.is_empty()
        && let Ok(meta) = object_store::ObjectStoreExt::head(store, &prefix).await
    {
        return Ok(vec![listed(&meta)]);
    }
    let objects: Vec<ObjectMeta> = store.list(Some(&prefix)).try_collect().await.map_err(refuse)?;
    let below = folder.len();
    let is_visible = |key: &str| !key[below.min(key.len())..].split('/').any(is_hidden);
    let is_named = |key: &str| pattern.as_ref().is_none_or(|pattern| pattern.is_match(key));
    let wanted = objects.iter().filter(|meta| is_visible(meta.location.as_ref()) && is_named(meta.location.as_ref()));
    Ok(wanted.map(listed).collect())
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
        let names: Vec<&str> = files.iter().map(|file| &file.path[root.to_str().unwrap().len()..]).collect();
        assert_eq!(names, ["/1.json", "/b/2.json"]);
        let one = list(&Location::Local(root.join("*.json")), None).await.unwrap();
        assert_eq!(one.len(), 1);

        for (path, message) in [
            ("none", "cannot read ROOT/none: No such file or directory (os error 2)"),
            ("none/x.json", "cannot read ROOT/none/x.json: there is no ROOT/none"),
            ("1.json/x.json", "cannot read ROOT/1.json/x.json: ROOT/1.json is a file, expected a folder"),
            ("none/*.json", "cannot read ROOT/none: No such file or directory (os error 2)"),
        ] {
            let error = list(&Location::Local(root.join(path)), None).await.unwrap_err();
            assert_eq!(error.to_string().replace(root.to_str().unwrap(), "ROOT"), message);
            assert_eq!(error.kind(), coulee_model::ErrorKind::Invalid, "{error}");
        }
        let long = list(&Location::Local(root.join("x".repeat(300))), None).await.unwrap_err();
        assert_eq!(long.kind(), coulee_model::ErrorKind::Invalid, "not tried again: {long}");
        let only = full_match(".*csv").unwrap();
        let none = list_some(&Location::Local(root.to_owned()), Some(&only)).await.unwrap_err();
        assert!(none.to_string().contains("has no file that matches"), "{none}");
    }
    #[tokio::test]
    async fn links_are_followed_and_named_where_they_lead_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        std::fs::create_dir(root.join("a")).unwrap();
        std::fs::write(root.join("a/1.json"), "{}").unwrap();
        // Back to where it stands: walked once.
        std::os::unix::fs::symlink(root, root.join("a/up")).unwrap();
        std::os::unix::fs::symlink(root.join("a/1.json"), root.join("linked.json")).unwrap();
        let files = list(&Location::Local(root.to_owned()), None).await.unwrap();
        let names: Vec<&str> = files.iter().map(|file| &file.path[root.to_str().unwrap().len()..]).collect();
        assert_eq!(names, ["/a/1.json", "/linked.json"]);

        std::os::unix::fs::symlink("nowhere.json", root.join("a/dangling.json")).unwrap();
        for path in [root.to_owned(), root.join("a/dangling.json"), root.join("a/*.json")] {
            let error = list(&Location::Local(path), None).await.unwrap_err();
            assert!(
                error.to_string().contains("a/dangling.json is a link to nowhere.json, which is not there"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn names_may_have_any_characters() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["a b.json", "50%.json", "ümläut.json", "what?.json", "[x]*.json"] {
            std::fs::write(root.join(name), "{}").unwrap();
            let found = list(&Location::Local(root.join(name)), None).await.unwrap();
            assert_eq!(
                found.iter().map(|file| file.path.clone()).collect::<Vec<_>>(),
                [root.join(name).to_str().unwrap()]
            );
        }
        assert!(list_some(&Location::Local(root.join("wha?.json")), None).await.is_err());
        let place = Location::Local(root.to_owned());
        assert!(covers(&place, root.join("x/y.json").to_str().unwrap()) && !covers(&place, "/elsewhere/y.json"));
        let pattern = Location::Local(root.join("*.json"));
        assert!(
            covers(&pattern, root.join("y.json").to_str().unwrap())
                && !covers(&pattern, root.join("y.csv").to_str().unwrap())
        );
    }
}
