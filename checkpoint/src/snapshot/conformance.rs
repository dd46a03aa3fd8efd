//! The contract of an object store, as far as snapshots rely on it: for whoever brings another store.
//!
//! What garbage collection is argued with in the [module](super) is here as a test: a read and a listing show every put and delete that was answered before
//! they began, a put that is to create does so once, and an upload in parts is invisible until it is complete.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

/// Calls a store as snapshots do, below the empty prefix `at`, and leaves nothing there.
///
/// # Panics
/// When the store breaks the contract.
pub async fn object_store_conforms(objects: Arc<dyn ObjectStore>, at: &str) {
    let path = |name: &str| Path::from(format!("{at}/{name}"));
    puts_and_deletes_are_seen_at_once(&*objects, &path).await;
    one_of_many_creates(&*objects, &path).await;
    parts_become_one_object_or_none(&*objects, &path).await;
    folders_are_told_apart(&*objects, &path).await;
    assert_eq!(listed(&*objects, &Path::from(at)).await, BTreeSet::new(), "all is removed");
}

async fn listed(objects: &dyn ObjectStore, folder: &Path) -> BTreeSet<Path> {
    let found: Vec<_> = objects.list(Some(folder)).try_collect().await.expect("a listing");
    found.into_iter().map(|meta| meta.location).collect()
}

async fn content(objects: &dyn ObjectStore, path: &Path) -> Option<Bytes> {
    match objects.get(path).await {
        Ok(found) => Some(found.bytes().await.expect("its bytes")),
        Err(Error::NotFound { .. }) => None,
        Err(other) => panic!("a get of {path}: {other}"),
    }
}

async fn remove(objects: &dyn ObjectStore, path: &Path) {
    match objects.delete(path).await {
        Ok(()) | Err(Error::NotFound { .. }) => {}
        Err(other) => panic!("a deletion of {path}: {other}"),
    }
}

async fn puts_and_deletes_are_seen_at_once(objects: &dyn ObjectStore, path: &impl Fn(&str) -> Path) {
    let (folder, one) = (path("seen"), path("seen/one"));
    assert_eq!(content(objects, &one).await, None, "an object that was never put");
    for round in ["first", "second, and longer"] {
        objects.put(&one, round.into()).await.expect("a put");
        assert_eq!(content(objects, &one).await, Some(round.into()), "the last put counts");
        assert_eq!(listed(objects, &folder).await, BTreeSet::from([one.clone()]));
        let about = objects.head(&one).await.expect("it is there");
        assert_eq!(about.size, round.len() as u64);
    }
    remove(objects, &one).await;
    assert_eq!(content(objects, &one).await, None, "a deletion is seen");
    assert_eq!(listed(objects, &folder).await, BTreeSet::new(), "by listings too");
    remove(objects, &one).await;
}

async fn one_of_many_creates(objects: &dyn ObjectStore, path: &impl Fn(&str) -> Path) {
    let one = path("once/manifest.json");
    let bodies: Vec<Bytes> = (0..8).map(|number| Bytes::from(format!("by {number}"))).collect();
    let puts = bodies.iter().map(|body| objects.put_opts(&one, body.clone().into(), create()));
    let mut created = Vec::new();
    for (body, put) in bodies.iter().zip(join_all(puts).await) {
        match put {
            Ok(_) => created.push(body.clone()),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
            Err(other) => panic!("a put that is to create: {other}"),
        }
    }
    assert_eq!(created.len(), 1, "one of them has created it");
    assert_eq!(content(objects, &one).await, created.pop(), "and it is what is there");
    let again = objects.put_opts(&one, "later".into(), create()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. } | Error::Precondition { .. })), "{again:?}");
    remove(objects, &one).await;
    objects.put_opts(&one, "anew".into(), create()).await.expect("it was removed");
    remove(objects, &one).await;
}

async fn parts_become_one_object_or_none(objects: &dyn ObjectStore, path: &impl Fn(&str) -> Path) {
    // Not smaller: stores have a least size for all parts but the last.
    const PART_BYTES: usize = 5 << 20;
    let (folder, whole, none) = (path("parts"), path("parts/whole"), path("parts/none"));
    let parts = [vec![1u8; PART_BYTES], vec![2u8; 3]];
    let mut upload = objects.put_multipart(&whole).await.expect("an upload in parts");
    for part in &parts {
        upload.put_part(part.clone().into()).await.expect("a part");
        assert_eq!(content(objects, &whole).await, None, "it is not complete");
        assert_eq!(listed(objects, &folder).await, BTreeSet::new(), "nor listed");
    }
    upload.complete().await.expect("all parts are there");
    assert!(content(objects, &whole).await == Some(parts.concat().into()), "its parts in their order");
    let mut given_up = objects.put_multipart(&none).await.expect("an upload in parts");
    given_up.put_part(parts[1].clone().into()).await.expect("a part");
    given_up.abort().await.expect("given up");
    assert_eq!(listed(objects, &folder).await, BTreeSet::from([whole.clone()]));
    remove(objects, &whole).await;
}

/// A listing of a folder has what is below it, and nothing of a folder whose name only begins alike.
async fn folders_are_told_apart(objects: &dyn ObjectStore, path: &impl Fn(&str) -> Path) {
    let paths = ["a/1", "a/b/2", "ab/3"].map(path);
    for path in &paths {
        objects.put(path, "x".into()).await.expect("a put");
    }
    assert_eq!(listed(objects, &path("a")).await, paths[..2].iter().cloned().collect());
    assert_eq!(listed(objects, &path("none")).await, BTreeSet::new());
    for path in &paths {
        remove(objects, path).await;
    }
}

#[cfg(test)]
mod tests {
    use object_store::local::LocalFileSystem;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn memory_conforms() {
        object_store_conforms(Arc::new(InMemory::new()), "snapshots/job").await;
    }

    #[tokio::test]
    async fn a_folder_conforms() {
        let folder = tempfile::tempdir().expect("a folder");
        let objects = LocalFileSystem::new_with_prefix(folder.path()).expect("a store");
        object_store_conforms(Arc::new(objects), "snapshots/job").await;
    }
}
