//! Random histories of a prefix that several processes use: whatever happens, each snapshot that is listed restores byte for byte.

use std::collections::BTreeMap;

use super::*;

/// The content of every file of a snapshot, by path.
type Content = BTreeMap<String, String>;

/// SplitMix64: the same history for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

struct History {
    chance: Chance,
    faulty: Arc<Faulty>,
    /// Two processes.
    stores: [SnapshotStore; 2],
    /// What each snapshot that was ever asked for holds.
    taken: BTreeMap<String, Content>,
    next: u64,
    hours: i64,
    deleted: usize,
    scratch: tempfile::TempDir,
}

impl History {
    fn new(seed: u64) -> Self {
        let faulty = Arc::new(Faulty::new(Arc::new(InMemory::new())));
        let store = || SnapshotStore::new(faulty.clone(), ObjectPath::from("p/j"));
        let stores = [store(), store()];
        let scratch = tempfile::tempdir().unwrap();
        History { chance: Chance(seed), faulty, stores, taken: BTreeMap::new(), next: 0, hours: 2, deleted: 0, scratch }
    }

    fn store(&mut self) -> SnapshotStore {
        self.stores[self.chance.below(2) as usize].clone()
    }

    async fn upload(&mut self) {
        self.next += 1;
        let request = if self.chance.below(4) == 0 {
            savepoint(self.next, &format!("s{}", self.next))
        } else {
            request(self.next)
        };
        let dir = tempfile::tempdir().unwrap();
        let mut content = Content::new();
        for file in 0..4 {
            // Few values, so that contents come back after they were garbage.
            let (path, value) = (format!("state/{file}.sst"), format!("value {} of {file}", self.chance.below(8)));
            write(dir.path(), &[(&path, &value)]);
            content.insert(path, value);
        }
        self.taken.insert(Manifest::new(&request, Vec::new()).name().to_string(), content);
        let store = self.store();
        let fault = [Fault::Refuse, Fault::LoseAnswer, Fault::LoseConnection][self.chance.below(3) as usize];
        self.faulty.fail_at(self.chance.below(40), fault);
        let first = store.upload(&request, dir.path()).await;
        self.faulty.disarm();
        if first.is_err() && self.chance.below(2) == 0 {
            // Unless a collection that died on the way left its list.
            let again = store.upload(&request, dir.path()).await;
            assert!(matches!(again, Ok(_) | Err(Error::BeingCollected { .. })), "{again:?}");
        }
    }

    async fn restore(&mut self, manifest: &Manifest) {
        let target = self.scratch.path().join("restored");
        self.store().restore(&manifest.name(), &target).await.unwrap();
        for (path, value) in &self.taken[&manifest.name().to_string()] {
            assert_eq!(std::fs::read_to_string(target.join(path)).unwrap(), *value, "{path} of {}", manifest.name());
        }
        std::fs::remove_dir_all(&target).unwrap();
    }

    async fn step(&mut self) {
        match self.chance.below(10) {
            0..4 => self.upload().await,
            4 => drop(self.store().retain(1 + self.chance.below(3) as usize).await.unwrap()),
            5 => {
                let listed = self.store().list().await.unwrap();
                if !listed.is_empty() {
                    let name = listed[self.chance.below(listed.len() as u64) as usize].name();
                    self.store().delete(&name).await.unwrap();
                }
            }
            6 | 7 => {
                self.hours += self.chance.below(3) as i64;
                // Dies on the way, or not.
                self.faulty.fail_at(self.chance.below(60), Fault::LoseConnection);
                if let Ok(report) = self.store().collect_garbage(HOUR, hours_on(self.hours)).await {
                    self.deleted += report.deleted;
                }
                self.faulty.disarm();
            }
            8 => {
                let fresh = SnapshotStore::new(self.faulty.clone(), ObjectPath::from("p/j"));
                self.stores[self.chance.below(2) as usize] = fresh;
            }
            _ => {
                let listed = self.store().list().await.unwrap();
                if let Some(newest) = listed.last() {
                    self.restore(newest).await;
                }
            }
        }
    }

    async fn check(&mut self) {
        let store = self.store();
        for manifest in store.list().await.unwrap() {
            for file in &manifest.files {
                let object = store.object_of(file);
                assert!(store.read(&object).await.unwrap().is_some(), "{} of {} is lost", file.path, manifest.name());
            }
        }
    }
}

#[tokio::test]
async fn every_listed_snapshot_restores_whatever_happened() {
    let mut deleted = 0;
    for seed in 0..16 {
        let mut history = History::new(seed);
        for _ in 0..60 {
            history.step().await;
            history.check().await;
        }
        for manifest in history.stores[0].list().await.unwrap() {
            history.restore(&manifest).await;
        }
        // In the end nothing is left but what is referred to.
        let store = history.stores[0].clone();
        deleted += history.deleted;
        for hours in [100, 102, 104] {
            store.collect_garbage(HOUR, hours_on(history.hours + hours)).await.unwrap();
        }
        let report = store.collect_garbage(HOUR, hours_on(history.hours + 106)).await.unwrap();
        assert_eq!((report.unused, report.deleted), (0, 0), "seed {seed}");
        history.check().await;
    }
    assert!(deleted > 50, "the histories deleted too little to say anything: {deleted}");
}

/// A collection by another process at each point of an upload, of contents that are garbage and due when it begins.
#[tokio::test]
async fn an_upload_and_a_collection_may_interleave_anyhow() {
    let (mut reused, mut refused) = (0, 0);
    for seed in 0..200 {
        let mut chance = Chance(seed);
        let slow = Arc::new(Faulty::new(Arc::new(InMemory::new())));
        let store = || SnapshotStore::new(slow.clone(), ObjectPath::from("p/j"));
        let (uploader, collector) = (store(), store());
        let dir = folder(&[("state/1.sst", "one"), ("state/2.sst", "two")]);
        uploader.upload(&request(1), dir.path()).await.unwrap();
        uploader.delete(&checkpoint(1)).await.unwrap();
        collector.collect_garbage(HOUR, hours_on(2)).await.unwrap();

        let request = request(2);
        let upload = uploader.upload(&request, dir.path());
        let (uploaded, _) = interleave(&mut chance, upload, collector.collect_garbage(HOUR, hours_on(4))).await;
        match uploaded {
            Err(Error::BeingCollected { .. }) => refused += 1,
            other => reused += usize::from(other.unwrap().uploaded_bytes == 0),
        }
        for manifest in uploader.list().await.unwrap() {
            uploader.restore(&manifest.name(), &dir.path().join("restored")).await.unwrap();
        }
    }
    assert!(reused > 0 && refused > 0, "the interleavings are too tame: {reused} reused, {refused} refused");
}

/// A restore while another process deletes the snapshot and collects what is left of it.
#[tokio::test]
async fn a_restore_gets_all_of_a_snapshot_or_learns_that_it_is_gone() {
    let (mut whole, mut gone) = (0, 0);
    for seed in 0..200 {
        let mut chance = Chance(seed);
        let slow = Arc::new(Faulty::new(Arc::new(InMemory::new())));
        let store = || SnapshotStore::new(slow.clone(), ObjectPath::from("p/j"));
        let (reader, owner) = (store(), store());
        let dir = folder(&[("state/1.sst", "one"), ("state/2.sst", "two")]);
        owner.upload(&request(1), dir.path()).await.unwrap();
        let name = checkpoint(1);
        let collect = async {
            owner.delete(&name).await.unwrap();
            for hours in [2, 4] {
                owner.collect_garbage(HOUR, hours_on(hours)).await.unwrap();
            }
        };
        let target = dir.path().join("restored");
        match interleave(&mut chance, reader.restore(&name, &target), collect).await.0 {
            Ok(_) => whole += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => gone += 1,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(whole > 0 && gone > 0, "the interleavings are too tame: {whole} whole, {gone} gone");
}

/// Runs both to their ends, by turns of random length: a single request of one, or all that is left of it, while the other waits.
async fn interleave<A: Future, B: Future>(chance: &mut Chance, a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (Box::pin(a), Box::pin(b));
    let (mut of_a, mut of_b) = (None, None);
    while of_a.is_none() || of_b.is_none() {
        let turn_of_a = chance.below(2) == 0;
        for _ in 0..1 << chance.below(7) {
            if turn_of_a && of_a.is_none() {
                of_a = step(&mut a).await;
            } else if !turn_of_a && of_b.is_none() {
                of_b = step(&mut b).await;
            }
        }
    }
    (of_a.expect("ended"), of_b.expect("ended"))
}

/// Polls once; `None` when the future waits.
async fn step<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    // Has the runtime wake what waits within.
    tokio::task::yield_now().await;
    match futures::poll!(future) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
