//! A hash table in shards, so that unrelated requests do not wait for each other.

use std::hash::{BuildHasher as _, Hash};

use hashbrown::{DefaultHashBuilder, HashMap};

use crate::sync::Mutex;

/// Number of shards: more than the threads of a server, and a power of two.
const SHARDS: usize = 32;

/// A table of `V` by `K`; each key lives in the shard that its hash picks.
#[derive(Debug)]
pub struct Shards<K, V> {
    hasher: DefaultHashBuilder,
    shards: Box<[Mutex<HashMap<K, V>>]>,
}

impl<K: Eq + Hash, V> Default for Shards<K, V> {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::new(HashMap::new())).collect();
        Self { hasher: DefaultHashBuilder::default(), shards }
    }
}

impl<K: Eq + Hash, V> Shards<K, V> {
    /// Calls `act` with the locked shard of `key`.
    pub fn with<T>(&self, key: &K, act: impl FnOnce(&mut HashMap<K, V>) -> T) -> T {
        let index = usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or(0) % SHARDS;
        match self.shards.get(index) {
            Some(shard) => act(&mut shard.lock()),
            None => act(&mut HashMap::new()),
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<V>
    where
        V: Clone,
    {
        self.with(key, |map| map.get(key).cloned())
    }

    /// Number of entries; only a rough figure while others change the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values, shard by shard.
    #[must_use]
    pub fn values(&self) -> Vec<V>
    where
        V: Clone,
    {
        self.shards.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }
}
