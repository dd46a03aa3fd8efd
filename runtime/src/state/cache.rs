//! The memory of a table: slots by key, of which some are not in the store yet and the others can be forgotten.

use coulee_model::{CheckpointId, KeyGroup};
use hashbrown::HashTable;

use super::backend::{Backend, KeyRef};
use super::budget::MemoryReservation;

/// What a slot costs beside itself, its key and what its content owns, roughly: its place in the index, and what allocations round up to.
const OVERHEAD_BYTES: usize = 48;

const fn slot_bytes<T>() -> usize {
    size_of::<Option<Slot<T>>>() + OVERHEAD_BYTES
}

/// How a slot's content relates to the store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// The store has it.
    Clean,
    /// Only the memory has it.
    Dirty,
    /// Handed over with this checkpoint: the store has it when that is durable.
    Handed(CheckpointId),
}

/// The first bytes of a key as a number that is ordered as they are: comparing two keys by it touches no other memory.
pub(super) fn first_bytes(key: &[u8]) -> u128 {
    let mut first = [0; 16];
    let length = key.len().min(first.len());
    first[..length].copy_from_slice(&key[..length]);
    u128::from_be_bytes(first)
}

/// A key and what is known of it.
#[derive(Debug)]
pub(super) struct Slot<T> {
    pub(super) hash: u64,
    pub(super) key: Box<[u8]>,
    pub(super) content: T,
    status: Status,
    /// Used since the hand passed last: the second chance of the CLOCK algorithm.
    touched: bool,
    /// Bytes of the content, as last accounted.
    bytes: usize,
}

impl<T> Slot<T> {
    /// The key with its hash.
    pub(super) fn key(&self) -> KeyRef<'_> {
        KeyRef { hash: self.hash, bytes: &self.key }
    }

    /// Whether the store has the content when `durable` is the last durable checkpoint.
    fn is_stored(&self, durable: CheckpointId) -> bool {
        match self.status {
            Status::Clean => true,
            Status::Dirty => false,
            Status::Handed(checkpoint) => checkpoint <= durable,
        }
    }
}

/// Slots, found by key. A slot's number is stable until it is forgotten.
#[derive(Debug)]
pub(super) struct Cache<T> {
    index: HashTable<u32>,
    slots: Vec<Option<Slot<T>>>,
    vacant: Vec<u32>,
    dirty: Vec<u32>,
    hand: usize,
    /// Where the last sweep ended.
    broom: usize,
    bytes: usize,
    /// Of that, what will have to be handed over.
    dirty_bytes: usize,
    /// What was handed over and may not be durable yet: until then there are copies of it on their way to the store.
    handed: Vec<(CheckpointId, usize)>,
    /// The last durable checkpoint when nothing more could be forgotten.
    exhausted: Option<CheckpointId>,
    reservation: Option<MemoryReservation>,
}

impl<T> Cache<T> {
    pub(super) fn new() -> Self {
        Cache {
            index: HashTable::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            dirty: Vec::new(),
            hand: 0,
            broom: 0,
            bytes: 0,
            dirty_bytes: 0,
            handed: Vec::new(),
            exhausted: None,
            reservation: None,
        }
    }

    /// Takes part in the job's memory budget.
    pub(super) fn open(&mut self, backend: &Backend) {
        self.reservation = Some(backend.reservation());
    }

    pub(super) fn find(&mut self, key: KeyRef<'_>) -> Option<u32> {
        let slots = &self.slots;
        let same = |slot: &u32| {
            slots[*slot as usize].as_ref().is_some_and(|slot| slot.hash == key.hash && *slot.key == *key.bytes)
        };
        let found = self.index.find(key.hash, same).copied();
        if let Some(slot) = found {
            self.slot_mut(slot).touched = true;
        }
        found
    }

    /// Adds a key that is not there, as the store has it.
    pub(super) fn insert(&mut self, key: KeyRef<'_>, content: T, bytes: usize) -> u32 {
        let slot = Slot {
            hash: key.hash,
            key: key.bytes.into(),
            content,
            status: Status::Clean,
            touched: true,
            bytes: bytes + key.bytes.len() + slot_bytes::<T>(),
        };
        self.bytes += slot.bytes;
        let number = match self.vacant.pop() {
            Some(number) => {
                self.slots[number as usize] = Some(slot);
                number
            }
            None => {
                self.slots.push(Some(slot));
                (self.slots.len() - 1) as u32
            }
        };
        let slots = &self.slots;
        let hash_of = |slot: &u32| slots[*slot as usize].as_ref().map_or(0, |slot| slot.hash);
        self.index.insert_unique(key.hash, number, hash_of);
        number
    }

    pub(super) fn slot(&self, number: u32) -> &Slot<T> {
        self.slots[number as usize].as_ref().expect("a slot's number is used only while it is there")
    }

    pub(super) fn slot_mut(&mut self, number: u32) -> &mut Slot<T> {
        self.slots[number as usize].as_mut().expect("a slot's number is used only while it is there")
    }

    /// The content is about to change.
    pub(super) fn change(&mut self, number: u32) -> &mut Slot<T> {
        let slot = self.slots[number as usize].as_mut().expect("a slot's number is used only while it is there");
        if slot.status != Status::Dirty {
            slot.status = Status::Dirty;
            self.dirty.push(number);
            self.dirty_bytes += slot.bytes;
        }
        slot
    }

    /// The content has another size now.
    pub(super) fn resize(&mut self, number: u32, content_bytes: usize) {
        let slot = self.slots[number as usize].as_mut().expect("a slot's number is used only while it is there");
        let bytes = content_bytes + slot.key.len() + slot_bytes::<T>();
        self.bytes = self.bytes + bytes - slot.bytes;
        slot.bytes = bytes;
    }

    /// What changed since the last checkpoint, now handed over with this one; nearly in the order of the store, which sorts what it is given.
    pub(super) fn hand_over(&mut self, checkpoint: CheckpointId) -> Vec<u32> {
        let mut dirty: Vec<(KeyGroup, u128, u32)> = Vec::with_capacity(self.dirty.len());
        dirty.extend(std::mem::take(&mut self.dirty).into_iter().map(|number| {
            let slot = self.slot(number);
            (slot.key().group(), first_bytes(&slot.key), number)
        }));
        let key = |number: u32| &self.slot(number).key;
        dirty.sort_unstable_by(|(a_group, a, a_number), (b_group, b, b_number)| {
            (a_group, a).cmp(&(b_group, b)).then_with(|| key(*a_number).cmp(key(*b_number)))
        });
        let dirty: Vec<u32> = dirty.into_iter().map(|(_, _, number)| number).collect();
        self.handed.push((checkpoint, std::mem::take(&mut self.dirty_bytes)));
        for number in &dirty {
            self.slot_mut(*number).status = Status::Handed(checkpoint);
        }
        dirty
    }

    /// Tells the budget, and forgets slots when it asks for that; `forgot` sees each. A checkpoint is asked for when too little can be forgotten.
    pub(super) fn trim(&mut self, durable: CheckpointId, mut forgot: impl FnMut(&T)) {
        self.handed.retain(|(checkpoint, _)| *checkpoint > durable);
        // A change is copied when it is handed over, and once more into the store's write.
        let copies = self.dirty_bytes + 2 * self.handed.iter().map(|(_, bytes)| bytes).sum::<usize>();
        let Some(reservation) = &mut self.reservation else { return };
        reservation.set(self.bytes + copies);
        reservation.set_unsaved(self.dirty_bytes);
        let excess = reservation.excess();
        if excess == 0 {
            return;
        }
        if self.exhausted == Some(durable) {
            // All that could be forgotten was: only another checkpoint helps.
            reservation.request_checkpoint();
            return;
        }
        let target = self.bytes.saturating_sub(excess);
        let mut steps = 2 * self.slots.len();
        while self.bytes > target && steps > 0 {
            steps -= 1;
            self.hand = (self.hand + 1) % self.slots.len();
            let Some(slot) = &mut self.slots[self.hand] else { continue };
            if !slot.is_stored(durable) || std::mem::take(&mut slot.touched) {
                continue;
            }
            let number = self.hand as u32;
            if let Some(slot) = self.remove(number) {
                forgot(&slot.content);
            }
        }
        if let Some(reservation) = &mut self.reservation {
            reservation.set(self.bytes + copies);
            if self.bytes > target {
                reservation.request_checkpoint();
                self.exhausted = Some(durable);
            }
        }
    }

    /// Forgets slots whose content has expired and which the store has: looks at up to `steps` slots, going on where the last sweep ended.
    pub(super) fn sweep(&mut self, steps: usize, durable: CheckpointId, expired: impl Fn(&T) -> bool) {
        for _ in 0..steps.min(self.slots.len()) {
            self.broom = (self.broom + 1) % self.slots.len();
            let Some(slot) = &self.slots[self.broom] else { continue };
            if slot.is_stored(durable) && expired(&slot.content) {
                self.remove(self.broom as u32);
            }
        }
    }

    /// Forgets a slot.
    fn remove(&mut self, number: u32) -> Option<Slot<T>> {
        let slot = self.slots[number as usize].take()?;
        if let Ok(entry) = self.index.find_entry(slot.hash, |other| *other == number) {
            entry.remove();
        }
        self.vacant.push(number);
        self.bytes -= slot.bytes;
        Some(slot)
    }

    /// Bytes in memory, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
