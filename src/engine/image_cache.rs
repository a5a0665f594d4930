//! Image embeddings kept by content, so that a second question on an image does not encode it again.

use std::sync::Arc;

use ndarray::Array2;

/// Embeddings of recently used images, least recently used first.
pub(super) struct ImageCache {
    entries: Vec<(u128, Arc<Array2<f32>>)>,
    max_bytes: usize,
}

impl ImageCache {
    /// A cache that holds at most `max_bytes` of embeddings.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { entries: Vec::new(), max_bytes }
    }

    /// The embeddings `[image tokens, hidden size]` of the image with this digest.
    pub(super) fn get(&mut self, digest: u128) -> Option<Arc<Array2<f32>>> {
        let index = self.entries.iter().position(|(key, _)| *key == digest)?;
        let entry = self.entries.remove(index);
        let embeds = Arc::clone(&entry.1);
        self.entries.push(entry);
        Some(embeds)
    }

    /// Keeps the embeddings of an image, at the cost of those unused for longest.
    pub(super) fn insert(&mut self, digest: u128, embeds: Arc<Array2<f32>>) {
        self.entries.retain(|(key, _)| *key != digest);
        self.entries.push((digest, embeds));
        let bytes = |(_, embeds): &(u128, Arc<Array2<f32>>)| embeds.len() * size_of::<f32>();
        let mut total: usize = self.entries.iter().map(bytes).sum();
        while total > self.max_bytes {
            total -= bytes(&self.entries.remove(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embeds(rows: usize) -> Arc<Array2<f32>> {
        Arc::new(Array2::zeros((rows, 1)))
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = ImageCache::new(40);
        cache.insert(1, embeds(5));
        cache.insert(2, embeds(5));
        assert!(cache.get(1).is_some());
        cache.insert(3, embeds(5));
        assert!(cache.get(2).is_none());
        assert!(cache.get(1).is_some() && cache.get(3).is_some());
    }

    #[test]
    fn an_image_larger_than_the_cache_is_not_kept() {
        let mut cache = ImageCache::new(16);
        cache.insert(1, embeds(5));
        assert!(cache.get(1).is_none());
    }
}
