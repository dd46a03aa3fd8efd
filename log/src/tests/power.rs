//! Power cuts: a disk that keeps what was written and what was synced apart, and at a cut drops or tears whatever was not synced.
//!
//! A seed draws appends, transactions over several shards, repeated batches of idempotent producers, streams that come and go, retention, orderly restarts, and
//! at which operation of the disk the power goes off. Then a folder is made of what the disk may hold: of every write that was not synced nothing,
//! all, or some of its sectors; of every name that was made, renamed or removed without a sync of its folder the old one or the new one. The log is
//! opened there, and must have all that was acknowledged.
//!
//! `COULEE_SIM_SEEDS=1000` runs so many seeds, `COULEE_SIM_SEED=17` this one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coulee_model::{ShardId, StreamName};
use parking_lot::Mutex;

use super::transactions::{id, prepare, seen};
use super::{Fixture, batch, folder_in_memory, name};
use crate::files::storage::{Disk, SegmentFile, Storage};
use crate::{Isolation, Log, ProducerId, Result, Shard, StreamSettings, Transaction, TransactionRef};

/// How many seeds an ordinary run of the tests takes, and within how many each planted bug must be found.
const SEEDS: u64 = 100;
const SEEDS_TO_FIND: u64 = 200;

const SHARDS: u32 = 3;

/// A sector of a disk is written whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Numbers drawn from a seed.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit.max(1)
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// What a name leads to: a number in `Platters::folders` or `Platters::files`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder(usize),
    File(usize),
}

#[derive(Debug, Default, Clone)]
struct FolderData {
    /// As the process sees it, and as it is after a cut.
    names: BTreeMap<String, Node>,
    synced: BTreeMap<String, Node>,
}

#[derive(Debug, Default, Clone)]
struct FileData {
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

/// A change of a file's content.
#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(at, bytes) => {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Change::Truncate(length) => content.resize(*length, 0),
        }
    }

    /// What became of it when the power went off.
    fn tear(&self, content: &mut Vec<u8>, random: &mut Random) {
        let Change::Write(at, bytes) = self else {
            if random.once_in(2) {
                self.apply(content);
            }
            return;
        };
        match random.below(4) {
            0 => {}
            1 => self.apply(content),
            2 => Change::Write(*at, bytes[..random.below(bytes.len() + 1)].to_vec()).apply(content),
            _ => {
                // The length is there, some sectors are not.
                content.resize(content.len().max(at + bytes.len()), 0);
                let sectors: Vec<bool> = (0..=(at + bytes.len()) / SECTOR_BYTES).map(|_| random.once_in(2)).collect();
                let kept = (*at..at + bytes.len()).zip(bytes).filter(|(at, _)| sectors[at / SECTOR_BYTES]);
                kept.for_each(|(at, byte)| content[at] = *byte);
            }
        }
    }
}

/// Names that change together: the folder, the name, and what it leads to from then on.
type Renaming = Vec<(usize, String, Option<Node>)>;

/// What a disk forgets to sync, for tests that must notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotSynced {
    /// Appended records are acknowledged without a sync.
    Segments,
    /// The decision about a transaction is not synced before its markers are written.
    Journal,
    /// A small file gets its name before its content is synced.
    Drafts,
    /// New names are not made durable.
    Folders,
    /// A sync leaves out the last write before it.
    LastWrite,
}

#[derive(Debug)]
struct Platters {
    root: PathBuf,
    folders: Vec<FolderData>,
    files: Vec<FileData>,
    renamings: Vec<Renaming>,
    operations: u64,
    /// The operation at which the power goes off, counted from the start.
    cut_at: Option<u64>,
    is_off: bool,
    broken: Option<NotSynced>,
}

/// See the module. Clones are the same disk.
#[derive(Debug, Clone)]
struct PowerDisk(Arc<Mutex<Platters>>);

fn off() -> io::Error {
    io::Error::other("the power is off")
}

impl Platters {
    /// A disk that holds what is in a folder now, all of it synced.
    fn new(root: &Path, broken: Option<NotSynced>) -> Self {
        let mut platters = Platters {
            root: root.to_owned(),
            folders: vec![FolderData::default()],
            files: Vec::new(),
            renamings: Vec::new(),
            operations: 0,
            cut_at: None,
            is_off: false,
            broken,
        };
        platters.take_in(root, 0);
        platters
    }

    fn take_in(&mut self, path: &Path, folder: usize) {
        for entry in std::fs::read_dir(path).expect("a folder") {
            let path = entry.expect("an entry").path();
            let node = if path.is_dir() {
                self.folders.push(FolderData::default());
                let number = self.folders.len() - 1;
                self.take_in(&path, number);
                Node::Folder(number)
            } else {
                let synced = std::fs::read(&path).expect("a file");
                self.files.push(FileData { synced, unsynced: Vec::new() });
                Node::File(self.files.len() - 1)
            };
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            self.folders[folder].names.insert(name.clone(), node);
            self.folders[folder].synced.insert(name, node);
        }
    }

    /// Counts an operation. An error when the power is off, or goes off now.
    fn operate(&mut self) -> io::Result<()> {
        self.operations += 1;
        self.is_off |= self.cut_at.is_some_and(|at| at <= self.operations);
        if self.is_off { Err(off()) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> Option<Node> {
        let mut at = Node::Folder(0);
        for part in path.strip_prefix(&self.root).ok()? {
            let Node::Folder(folder) = at else { return None };
            at = *self.folders[folder].names.get(part.to_str()?)?;
        }
        Some(at)
    }

    /// The folder that holds a name, and the name.
    fn place(&self, path: &Path) -> (usize, String) {
        let parent = path.parent().and_then(|parent| self.find(parent));
        let Some(Node::Folder(folder)) = parent else { panic!("no folder for {}", path.display()) };
        (folder, path.file_name().expect("a name").to_string_lossy().into_owned())
    }

    fn rename(&mut self, renaming: Renaming) {
        for (folder, name, node) in &renaming {
            set(&mut self.folders[*folder].names, name, *node);
        }
        self.renamings.push(renaming);
    }

    fn persist(&mut self, renaming: &Renaming) {
        for (folder, name, node) in renaming {
            set(&mut self.folders[*folder].synced, name, *node);
        }
    }

    fn sync_folder(&mut self, folder: usize) {
        let (done, left) = std::mem::take(&mut self.renamings)
            .into_iter()
            .partition::<Vec<Renaming>, _>(|renaming| renaming.iter().any(|(of, _, _)| *of == folder));
        self.renamings = left;
        done.iter().for_each(|renaming| self.persist(renaming));
    }

    fn forget(&mut self, path: &Path, folder: usize) {
        let names: Vec<(String, Node)> = self.folders[folder].names.clone().into_iter().collect();
        for (name, node) in names {
            if let Node::Folder(below) = node {
                self.forget(&path.join(&name), below);
            }
            self.rename(vec![(folder, name, None)]);
        }
    }

    /// What is left after a cut, in a folder of its own.
    fn image(&mut self, random: &mut Random) -> tempfile::TempDir {
        // Of names some file systems keep those that changed first, and none promises to.
        let renamings = std::mem::take(&mut self.renamings);
        let kept = random.below(renamings.len() + 1);
        let in_order = random.once_in(2);
        for (number, renaming) in renamings.iter().enumerate() {
            if if in_order { number < kept } else { random.once_in(2) } {
                self.persist(renaming);
            }
        }
        let folder = folder_in_memory();
        self.write_out(0, folder.path(), random);
        folder
    }

    fn write_out(&self, folder: usize, path: &Path, random: &mut Random) {
        for (name, node) in &self.folders[folder].synced {
            let path = path.join(name);
            match node {
                Node::Folder(below) => {
                    std::fs::create_dir(&path).expect("a folder");
                    self.write_out(*below, &path, random);
                }
                Node::File(file) => {
                    let mut content = self.files[*file].synced.clone();
                    self.files[*file].unsynced.iter().for_each(|change| change.tear(&mut content, random));
                    std::fs::write(&path, content).expect("a file");
                }
            }
        }
    }
}

fn set(names: &mut BTreeMap<String, Node>, name: &str, node: Option<Node>) {
    match node {
        Some(node) => drop(names.insert(name.to_owned(), node)),
        None => drop(names.remove(name)),
    }
}

struct PowerFile {
    file: Box<dyn SegmentFile>,
    number: usize,
    path: PathBuf,
    disk: PowerDisk,
}

impl Storage for PowerDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let mut platters = self.0.lock();
        platters.operate()?;
        let file = Disk.open(path)?;
        let number = match platters.find(path) {
            Some(Node::File(number)) => number,
            Some(Node::Folder(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None => {
                platters.files.push(FileData::default());
                let number = platters.files.len() - 1;
                let (folder, name) = platters.place(path);
                platters.rename(vec![(folder, name, Some(Node::File(number)))]);
                number
            }
        };
        Ok(Box::new(PowerFile { file, number, path: path.to_owned(), disk: self.clone() }))
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let mut platters = self.0.lock();
        platters.operate()?;
        Disk.create_folder(path)?;
        let mut missing: Vec<&Path> = path.ancestors().take_while(|path| platters.find(path).is_none()).collect();
        while let Some(path) = missing.pop() {
            platters.folders.push(FolderData::default());
            let number = platters.folders.len() - 1;
            let (folder, name) = platters.place(path);
            platters.rename(vec![(folder, name, Some(Node::Folder(number)))]);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut platters = self.0.lock();
        platters.operate()?;
        Disk.rename(from, to)?;
        let node = platters.find(from);
        let ((old, old_name), (new, new_name)) = (platters.place(from), platters.place(to));
        platters.rename(vec![(old, old_name, None), (new, new_name, node)]);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut platters = self.0.lock();
        platters.operate()?;
        Disk.remove_file(path)?;
        let (folder, name) = platters.place(path);
        platters.rename(vec![(folder, name, None)]);
        Ok(())
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        let mut platters = self.0.lock();
        platters.operate()?;
        Disk.remove_folder(path)?;
        if let Some(Node::Folder(folder)) = platters.find(path) {
            platters.forget(path, folder);
            let (folder, name) = platters.place(path);
            platters.rename(vec![(folder, name, None)]);
        }
        Ok(())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut platters = self.0.lock();
        platters.operate()?;
        match platters.find(path) {
            Some(Node::Folder(folder)) if platters.broken != Some(NotSynced::Folders) => {
                platters.sync_folder(folder);
            }
            // Above the log's folder all names are there.
            _ => {}
        }
        Ok(())
    }
}

impl PowerFile {
    /// An operation that changes the file. The one at which the power goes off may have been begun.
    fn change(&self, change: Change) -> io::Result<()> {
        let mut platters = self.disk.0.lock();
        let was_off = platters.is_off;
        let operated = platters.operate();
        if !was_off {
            platters.files[self.number].unsynced.push(change);
        }
        operated
    }

    fn is_broken(&self, platters: &Platters) -> bool {
        let ends = |ending| self.path.extension().is_some_and(|found| found == ending);
        match platters.broken {
            Some(NotSynced::Segments) => ends("log"),
            Some(NotSynced::Journal) => ends("journal"),
            Some(NotSynced::Drafts) => ends("tmp"),
            Some(NotSynced::Folders | NotSynced::LastWrite) | None => false,
        }
    }
}

impl SegmentFile for PowerFile {
    fn write_all_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.change(Change::Write(position as usize, bytes.to_vec()))?;
        self.file.write_all_at(bytes, position)
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut platters = self.disk.0.lock();
        platters.operate()?;
        if !self.is_broken(&platters) {
            let kept = usize::from(platters.broken == Some(NotSynced::LastWrite));
            let file = &mut platters.files[self.number];
            let synced = file.unsynced.len().saturating_sub(kept);
            for change in file.unsynced.drain(..synced) {
                change.apply(&mut file.synced);
            }
        }
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.change(Change::Truncate(bytes as usize))?;
        self.file.truncate(bytes)
    }
}

/// What is known of something that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Acknowledged,
    /// The power went off before there was an answer.
    Unknown,
}

/// A batch that was sent to a shard.
#[derive(Debug, Clone)]
struct Sent {
    values: Range<u64>,
    answer: Answer,
    transaction: Option<usize>,
}

/// What is known of a transaction.
#[derive(Debug)]
enum Fate {
    Ongoing(Transaction),
    /// Begun in a former life and not prepared, or given up.
    Aborted,
    Prepared(TransactionRef),
    PrepareUnknown,
    Committed(TransactionRef),
    EndUnknown {
        commit: bool,
        transaction: TransactionRef,
    },
}

/// A producer whose batches are numbered, with its last batch.
#[derive(Debug, Default, Clone)]
struct Producer {
    next: i32,
    last: Option<(Range<u64>, i32, Answer)>,
}

struct World {
    random: Random,
    fixture: Fixture,
    disk: PowerDisk,
    log: Option<Log>,
    shards: Vec<Arc<Shard>>,
    sent: [Vec<Sent>; SHARDS as usize],
    fates: Vec<Fate>,
    producers: [Producer; SHARDS as usize],
    /// Streams beside the one with the records: whether each is there, if that is known.
    others: BTreeMap<String, Option<bool>>,
    next_value: u64,
    with_retention: bool,
    broken: Option<NotSynced>,
}

fn stream(name: &str) -> StreamName {
    StreamName::new(name).expect("a name")
}

impl World {
    fn new(seed: u64, broken: Option<NotSynced>) -> Self {
        let mut random = Random::new(seed);
        let mut fixture = Fixture::in_memory();
        // One thread that writes: the order of the disk's operations is the seed's.
        fixture.settings.committer_threads = 1;
        fixture.settings.segment_bytes = [1024, 2048, 1 << 20][random.below(3)];
        let with_retention = random.once_in(3);
        fixture.stream = StreamSettings {
            shards: SHARDS,
            retention_bytes: with_retention.then_some(1_000),
            ..fixture.stream.clone()
        };
        let disk = PowerDisk(Arc::new(Mutex::new(Platters::new(fixture.folder.path(), broken))));
        fixture.storage = Arc::new(disk.clone());
        World {
            random,
            fixture,
            disk,
            log: None,
            shards: Vec::new(),
            sent: Default::default(),
            fates: Vec::new(),
            producers: Default::default(),
            others: BTreeMap::new(),
            next_value: 0,
            with_retention,
            broken,
        }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("it is open")
    }

    fn is_off(&self) -> bool {
        self.disk.0.lock().is_off
    }

    /// What an answer says: an error means that the power went off, and nothing else fails here.
    fn answer<T>(&self, result: &Result<T>) -> Answer {
        match result {
            Ok(_) => Answer::Acknowledged,
            Err(error) => {
                assert!(self.is_off(), "the disk works, and yet: {error}");
                Answer::Unknown
            }
        }
    }

    /// Opens the log. `false` when the power went off meanwhile.
    fn open(&mut self) -> bool {
        let log = match self.fixture.try_open() {
            Ok(log) => log,
            Err(error) => {
                assert!(self.is_off(), "the log does not open: {error}");
                return false;
            }
        };
        if log.stream(&name()).is_err() {
            assert!(self.sent.iter().all(Vec::is_empty), "the stream is gone");
            if self.answer(&log.create_stream(&name(), self.fixture.stream.clone())) == Answer::Unknown {
                return false;
            }
        }
        let opened = log.stream(&name()).expect("it is there");
        let shards: Result<Vec<_>> = (0..SHARDS).map(|shard| opened.shard(ShardId(shard))).collect();
        if self.answer(&shards) == Answer::Unknown {
            return false;
        }
        self.shards = shards.expect("they opened");
        self.log = Some(log);
        true
    }

    /// One life: opens the log, checks what it holds, and goes on until the power goes off or an orderly end.
    fn live(&mut self, steps: usize) {
        if !(self.open() && self.settle() && self.check()) {
            return;
        }
        for _ in 0..steps {
            self.step();
            if self.is_off() {
                return;
            }
        }
    }

    fn values(&mut self) -> Range<u64> {
        let first = self.next_value;
        self.next_value += 1 + self.random.below(12) as u64;
        first..self.next_value
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=3 => self.append_plainly(),
            // Retention forgets producers with their records.
            4..=6 if !self.with_retention => self.append_as_producer(),
            7 => self.send_again(),
            8..=14 if !self.with_retention => self.step_of_transaction(),
            15 => self.change_streams(),
            16..=17 if self.with_retention => drop(self.log().enforce_retention()),
            _ => self.append_at_once(),
        }
    }

    fn append_plainly(&mut self) {
        let (shard, values) = (self.random.below(SHARDS as usize), self.values());
        let answer = self.answer(&self.shards[shard].append(batch(values.clone())).wait());
        self.sent[shard].push(Sent { values, answer, transaction: None });
    }

    /// Several appends that wait for the disk together.
    fn append_at_once(&mut self) {
        let shard = self.random.below(SHARDS as usize);
        let batches: Vec<Range<u64>> = (0..4).map(|_| self.values()).collect();
        let appends: Vec<_> = batches.iter().map(|values| self.shards[shard].append(batch(values.clone()))).collect();
        for (values, append) in batches.into_iter().zip(appends) {
            let answer = self.answer(&append.wait());
            self.sent[shard].push(Sent { values, answer, transaction: None });
        }
    }

    fn append_as_producer(&mut self) {
        let shard = self.random.below(SHARDS as usize);
        if matches!(self.producers[shard].last, Some((.., Answer::Unknown))) {
            return;
        }
        let (values, first) = (self.values(), self.producers[shard].next);
        let numbered = batch(values.clone()).producer(ProducerId(1 << 40 | shard as i64), 0, first);
        let answer = self.answer(&self.shards[shard].append(numbered).wait());
        self.sent[shard].push(Sent { values: values.clone(), answer, transaction: None });
        self.producers[shard].next += (values.end - values.start) as i32;
        self.producers[shard].last = Some((values, first, answer));
    }

    /// A producer that did not hear the answer sends its last batch again: it is stored once.
    fn send_again(&mut self) {
        let shard = self.random.below(SHARDS as usize);
        let Some((values, first, _)) = self.producers[shard].last.clone() else { return };
        let numbered = batch(values.clone()).producer(ProducerId(1 << 40 | shard as i64), 0, first);
        let appended = self.shards[shard].append(numbered).wait();
        let answer = self.answer(&appended);
        let is_there = self.sent[shard].iter().any(|sent| sent.values == values);
        match appended {
            Ok(appended) => assert_eq!(appended.duplicate, is_there, "{values:?} sent again to shard {shard}"),
            Err(_) if is_there => return,
            Err(_) => {}
        }
        if !is_there {
            self.sent[shard].push(Sent { values: values.clone(), answer, transaction: None });
        }
        self.producers[shard].last = Some((values, first, answer));
    }

    fn step_of_transaction(&mut self) {
        let ongoing: Vec<usize> =
            (0..self.fates.len()).filter(|n| matches!(self.fates[*n], Fate::Ongoing(_))).collect();
        let prepared: Vec<usize> =
            (0..self.fates.len()).filter(|n| matches!(self.fates[*n], Fate::Prepared(_))).collect();
        let mut choose = |of: &[usize]| if of.is_empty() { 0 } else { of[self.random.below(of.len())] };
        let (one_ongoing, one_prepared) = (choose(&ongoing), choose(&prepared));
        match self.random.below(6) {
            0 if ongoing.len() < 3 => {
                let begun = self.log().transaction(&id(&format!("job/{}", self.fates.len())));
                if self.answer(&begun) == Answer::Acknowledged {
                    self.fates.push(Fate::Ongoing(begun.expect("it was acknowledged")));
                }
            }
            1..=2 if !ongoing.is_empty() => self.append_to(one_ongoing),
            3 if !ongoing.is_empty() => self.prepare(one_ongoing),
            4..=5 if !prepared.is_empty() => {
                let (number, commit) = (one_prepared, !self.random.once_in(3));
                let Fate::Prepared(transaction) = &self.fates[number] else { unreachable!("it was chosen so") };
                self.end(number, commit, transaction.clone());
            }
            _ => {}
        }
    }

    fn append_to(&mut self, number: usize) {
        let (shard, values) = (self.random.below(SHARDS as usize), self.values());
        let Fate::Ongoing(transaction) = &self.fates[number] else { unreachable!("it was chosen so") };
        let answer = self.answer(&transaction.append(&self.shards[shard], batch(values.clone())).wait());
        self.sent[shard].push(Sent { values, answer, transaction: Some(number) });
    }

    fn prepare(&mut self, number: usize) {
        let fate = std::mem::replace(&mut self.fates[number], Fate::PrepareUnknown);
        let Fate::Ongoing(mut transaction) = fate else { unreachable!("it was chosen so") };
        let prepared = prepare(&mut transaction);
        if self.answer(&prepared) == Answer::Acknowledged {
            self.fates[number] = Fate::Prepared(prepared.expect("it was acknowledged"));
        }
    }

    fn end(&mut self, number: usize, commit: bool, transaction: TransactionRef) {
        let ended = match commit {
            true => self.log().commit_transaction(&transaction),
            false => self.log().abort_transaction(&transaction),
        };
        self.fates[number] = match (self.answer(&ended.wait()), commit) {
            (Answer::Acknowledged, true) => Fate::Committed(transaction),
            (Answer::Acknowledged, false) => Fate::Aborted,
            (Answer::Unknown, commit) => Fate::EndUnknown { commit, transaction },
        };
    }

    fn change_streams(&mut self) {
        let named = format!("other-{}", self.random.below(2));
        let is_there = self.log().stream(&stream(&named)).is_ok();
        let answer = match is_there {
            true => self.answer(&self.log().delete_stream(&stream(&named))),
            false => self.answer(&self.log().create_stream(&stream(&named), StreamSettings::default())),
        };
        self.others.insert(named, (answer == Answer::Acknowledged).then_some(!is_there));
    }

    /// The end of a life: orderly, or with what a cut leaves.
    fn end_life(&mut self) {
        let fates = std::mem::take(&mut self.fates);
        let (mut fates, mut ongoing) = (fates, Vec::new());
        for fate in &mut fates {
            if matches!(fate, Fate::Ongoing(_)) {
                ongoing.push(std::mem::replace(fate, Fate::Aborted));
            }
        }
        self.fates = fates;
        self.shards.clear();
        self.log = None;
        // Later than the log: there is nobody left to be told.
        drop(ongoing);
        if self.is_off() {
            let folder = self.disk.0.lock().image(&mut self.random);
            self.fixture.folder = Arc::new(folder);
        }
        let disk = Platters::new(self.fixture.folder.path(), self.broken);
        self.disk = PowerDisk(Arc::new(Mutex::new(disk)));
        self.fixture.storage = Arc::new(self.disk.clone());
    }

    /// After a start: finds out what became of what nobody knows, and ends what has to be ended. `false` when the power goes off meanwhile.
    fn settle(&mut self) -> bool {
        let mut there = BTreeSet::new();
        for shard in &self.shards {
            there.extend(seen(shard, shard.earliest().0, Isolation::ReadUncommitted));
        }
        for (shard, sent) in self.sent.iter_mut().enumerate() {
            sent.retain_mut(|sent| {
                if sent.answer == Answer::Acknowledged {
                    return true;
                }
                let found = sent.values.clone().filter(|value| there.contains(value)).count() as u64;
                assert!(found == 0 || found == sent.values.end - sent.values.start, "{sent:?} in pieces in {shard}");
                sent.answer = Answer::Acknowledged;
                found > 0
            });
        }
        for (named, is_there) in &mut self.others {
            let found = self.log.as_ref().expect("open").stream(&stream(named)).is_ok();
            assert!(is_there.is_none_or(|expected| expected == found), "stream '{named}': {found}");
            *is_there = Some(found);
        }
        self.settle_transactions()
    }

    fn settle_transactions(&mut self) -> bool {
        let open = self.log().open_transactions("job/");
        for number in 0..self.fates.len() {
            match &self.fates[number] {
                Fate::Prepared(prepared) => assert!(open.contains(prepared), "a prepared transaction is gone"),
                Fate::PrepareUnknown => {
                    let named = id(&format!("job/{number}"));
                    match open.iter().find(|transaction| transaction.id == named) {
                        Some(transaction) => self.end(number, false, transaction.clone()),
                        None => self.fates[number] = Fate::Aborted,
                    }
                }
                Fate::EndUnknown { commit, transaction } => {
                    let (commit, transaction) = (*commit, transaction.clone());
                    self.end(number, commit, transaction);
                }
                Fate::Committed(transaction) => {
                    let again = self.log().commit_transaction(transaction).wait();
                    if self.answer(&again) == Answer::Unknown {
                        return false;
                    }
                }
                Fate::Ongoing(_) | Fate::Aborted => {}
            }
            if self.is_off() {
                return false;
            }
        }
        true
    }

    /// Compares what readers see with what is known. `false` when the power is off.
    fn check(&mut self) -> bool {
        for (index, shard) in self.shards.iter().enumerate() {
            let sent = &self.sent[index];
            let earliest = shard.earliest();
            let all: Vec<u64> = sent.iter().flat_map(|sent| sent.values.clone()).collect();
            let found = seen(shard, earliest.0, Isolation::ReadUncommitted);
            if self.with_retention {
                assert_eq!(found, all[earliest.0 as usize..], "shard {index} from {earliest:?} on");
                continue;
            }
            assert_eq!(found, all, "shard {index}");
            let is_open = |sent: &&Sent| sent.transaction.is_some_and(|n| matches!(self.fates[n], Fate::Prepared(_)));
            let is_committed =
                |sent: &&Sent| sent.transaction.is_none_or(|n| matches!(self.fates[n], Fate::Committed(_)));
            let decided = sent.iter().take_while(|sent| !is_open(sent)).filter(is_committed);
            let committed: Vec<u64> = decided.flat_map(|sent| sent.values.clone()).collect();
            assert_eq!(seen(shard, 0, Isolation::ReadCommitted), committed, "committed in shard {index}");
        }
        !self.is_off()
    }
}

/// Runs one seed, and panics when something is wrong.
fn run(seed: u64, broken: Option<NotSynced>) {
    let mut world = World::new(seed, broken);
    let lives = 2 + world.random.below(5);
    for _ in 0..lives {
        // Most cuts come amid the work, some while the log is opened or closed.
        let (limit, steps) = ([25, 150, 400][world.random.below(3)], 10 + world.random.below(60));
        let cut_at = world.random.below(limit) as u64;
        world.disk.0.lock().cut_at = (!world.random.once_in(5)).then_some(cut_at);
        world.live(steps);
        if !world.is_off() && world.random.once_in(2) {
            let operations = world.disk.0.lock().operations;
            world.disk.0.lock().cut_at = Some(operations + 1 + world.random.below(6) as u64);
        }
        world.end_life();
    }
    world.live(0);
    assert!(world.log.is_some(), "it is open in the end");
    world.end_life();
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: '{text}' is not a number")))
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let seeds = match number("COULEE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("COULEE_SIM_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let survived = std::panic::catch_unwind(|| run(seed, None));
        assert!(survived.is_ok(), "repeat it by: COULEE_SIM_SEED={seed} cargo test -p coulee-log --lib power");
    }
}

#[test]
fn a_disk_that_forgets_a_sync_is_noticed() {
    use NotSynced::{Drafts, Folders, Journal, LastWrite, Segments};
    let mut missed = Vec::new();
    for broken in [Segments, Journal, Drafts, Folders, LastWrite] {
        let found = (0..SEEDS_TO_FIND).find(|seed| std::panic::catch_unwind(|| run(*seed, Some(broken))).is_err());
        match found {
            Some(seed) => println!("{broken:?}: found by seed {seed}"),
            None => missed.push(broken),
        }
    }
    assert!(missed.is_empty(), "not found within {SEEDS_TO_FIND} seeds: {missed:?}");
}
