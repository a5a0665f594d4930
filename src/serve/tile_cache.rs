//! Tiles of image files that came before: clients send an image again with each question about it.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use prometheus::IntCounter;
use sha2::{Digest, Sha256};

use crate::engine::TiledImage;
use crate::preprocess::ImageError;
use crate::recent::Recent;
use crate::settings::ImageOptions;

/// The SHA-256 of a file's bytes, and how it was read.
type Key = ([u8; 32], ImageOptions);

/// Tiles by the bytes of the file and how it is read.
pub(super) struct TileCache {
    recent: Mutex<Recent<Key, TiledImage>>,
    /// Images that were asked for.
    asked: IntCounter,
    /// Those among them that were there.
    found: IntCounter,
}

impl TileCache {
    /// Keeps at most `max_bytes` of pixels; counts the images that are asked for, and those that are found.
    pub(super) fn new(max_bytes: usize, asked: IntCounter, found: IntCounter) -> Self {
        Self { recent: Mutex::new(Recent::new(max_bytes)), asked, found }
    }

    /// The tiles of an image file: those that were kept, else decoded now and kept.
    ///
    /// # Errors
    /// What [`TiledImage::from_bytes`] says; nothing is kept then.
    pub(super) fn read(&self, bytes: &[u8], options: &ImageOptions) -> Result<TiledImage, ImageError> {
        let started = Instant::now();
        let key = (Sha256::digest(bytes).into(), *options);
        self.asked.inc();
        if let Some(image) = self.recent().get(&key) {
            self.found.inc();
            return Ok(image.found_in(started.elapsed()));
        }
        let image = TiledImage::from_bytes(bytes, &options.decode, &options.tiling)?;
        let pixels = image.tiles().iter().map(|tile| tile.as_raw().len()).sum();
        self.recent().insert(key, image.clone(), pixels);
        Ok(image)
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent<Key, TiledImage>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{ImageFormat, RgbImage};

    use super::*;
    use crate::preprocess::{DecodeOptions, TilingOptions};

    fn png(shade: u8) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        RgbImage::from_pixel(20, 20, image::Rgb([shade; 3])).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn options(tiles: u32) -> ImageOptions {
        let tiling = TilingOptions { tile_size: 16, min_tiles: tiles, max_tiles: tiles, thumbnail: true };
        ImageOptions { decode: DecodeOptions::default(), tiling }
    }

    #[test]
    fn only_the_same_bytes_read_the_same_way_are_found() {
        let [asked, found] = ["asked", "found"].map(|name| IntCounter::new(name, name).unwrap());
        let cache = TileCache::new(1 << 20, asked.clone(), found.clone());
        let first = cache.read(&png(1), &options(1)).unwrap();
        let again = cache.read(&png(1), &options(1)).unwrap();
        assert_eq!(first.tiles(), again.tiles());
        assert_eq!(first.tiles()[0].get_pixel(0, 0).0, [1; 3]);
        assert_eq!((asked.get(), found.get()), (2, 1));
        assert_eq!(cache.read(&png(2), &options(1)).unwrap().tiles()[0].get_pixel(0, 0).0, [2; 3]);
        assert_eq!(cache.read(&png(1), &options(4)).unwrap().tiles().len(), 5);
        assert!(cache.read(b"none", &options(1)).is_err() && cache.read(b"none", &options(1)).is_err());
        assert_eq!((asked.get(), found.get()), (6, 1));
    }
}
