//! What is known of a map's entries: hashed, until somebody asks for their order.

use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashMap;

/// Values by key. Keys are shared with who remembers them.
#[derive(Debug)]
pub(super) enum Known<V> {
    Hashed(HashMap<Arc<[u8]>, V>),
    Ordered(BTreeMap<Arc<[u8]>, V>),
}

impl<V> Default for Known<V> {
    fn default() -> Self {
        Known::Hashed(HashMap::new())
    }
}

impl<V> Known<V> {
    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        match self {
            Known::Hashed(values) => values.get(key),
            Known::Ordered(values) => values.get(key),
        }
    }

    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        match self {
            Known::Hashed(values) => values.get_mut(key),
            Known::Ordered(values) => values.get_mut(key),
        }
    }

    /// The key that is kept, if it is.
    pub(super) fn key(&self, key: &[u8]) -> Option<&Arc<[u8]>> {
        match self {
            Known::Hashed(values) => values.get_key_value(key).map(|(key, _)| key),
            Known::Ordered(values) => values.get_key_value(key).map(|(key, _)| key),
        }
    }

    pub(super) fn insert(&mut self, key: Arc<[u8]>, value: V) -> Option<V> {
        match self {
            Known::Hashed(values) => values.insert(key, value),
            Known::Ordered(values) => values.insert(key, value),
        }
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&[u8], &V) -> bool) {
        match self {
            Known::Hashed(values) => values.retain(|key, value| stays(key, value)),
            Known::Ordered(values) => values.retain(|key, value| stays(key, value)),
        }
    }

    pub(super) fn all(&self, mut holds: impl FnMut(&V) -> bool) -> bool {
        match self {
            Known::Hashed(values) => values.values().all(&mut holds),
            Known::Ordered(values) => values.values().all(&mut holds),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Known::Hashed(values) => values.is_empty(),
            Known::Ordered(values) => values.is_empty(),
        }
    }

    /// Puts the entries into the order of their keys, in which they stay from now on.
    pub(super) fn order(&mut self) {
        if let Known::Hashed(values) = self {
            *self = Known::Ordered(std::mem::take(values).into_iter().collect());
        }
    }

    /// The entries within bounds, in the order of their keys; none before [`order`](Self::order).
    pub(super) fn range(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> btree_map::Range<'_, Arc<[u8]>, V> {
        match self {
            Known::Ordered(values) => values.range::<[u8], _>(bounds),
            Known::Hashed(_) => btree_map::Range::default(),
        }
    }
}
