//! What was used last, kept within a number of bytes.

use std::hash::Hash;

use lru::LruCache;

/// Values by key, of which those unused for longest make way for new ones.
pub(crate) struct Recent<K: Hash + Eq, V> {
    entries: LruCache<K, (V, usize)>,
    bytes: usize,
    max_bytes: usize,
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    /// Keeps at most `max_bytes`.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, max_bytes }
    }

    /// The value of a key, which is now the last that was used.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        self.entries.get(key).map(|(value, _)| value.clone())
    }

    /// Keeps a value of so many bytes, unless it alone is too large.
    pub(crate) fn insert(&mut self, key: K, value: V, bytes: usize) {
        if let Some((_, before)) = self.entries.pop(&key) {
            self.bytes -= before;
        }
        if bytes > self.max_bytes {
            return;
        }
        self.entries.push(key, (value, bytes));
        self.bytes += bytes;
        while self.bytes > self.max_bytes
            && let Some((_, (_, oldest))) = self.entries.pop_lru()
        {
            self.bytes -= oldest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut recent = Recent::new(40);
        recent.insert(1, 'a', 20);
        recent.insert(2, 'b', 20);
        assert_eq!(recent.get(&1), Some('a'));
        recent.insert(3, 'c', 20);
        assert_eq!([1, 2, 3].map(|key| recent.get(&key)), [Some('a'), None, Some('c')]);
    }

    #[test]
    fn a_key_that_comes_again_counts_once() {
        let mut recent = Recent::new(40);
        recent.insert(1, 'a', 30);
        recent.insert(1, 'b', 20);
        recent.insert(2, 'c', 20);
        assert_eq!([1, 2].map(|key| recent.get(&key)), [Some('b'), Some('c')]);
    }

    #[test]
    fn what_is_larger_than_all_is_not_kept_and_takes_nothing_with_it() {
        let mut recent = Recent::new(16);
        recent.insert(1, 'a', 16);
        recent.insert(2, 'b', 17);
        assert_eq!([1, 2].map(|key| recent.get(&key)), [Some('a'), None]);
    }
}
