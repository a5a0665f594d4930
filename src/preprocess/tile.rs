//! An image to its tiles (`dynamic_preprocess` of the reference).

use image::RgbImage;

use super::error::ImageError;
use super::grid::{Grid, choose_grid};
use super::resize::{resize_bicubic, resize_with};

/// Largest accepted [`TilingOptions::max_tiles`].
///
/// Models are trained with at most 12 to 40 tiles; the bound keeps a mistyped number from
/// allocating gigabytes.
pub const MAX_TILES: u32 = 256;

/// Largest accepted [`TilingOptions::tile_size`].
const MAX_TILE_SIZE: u32 = 2048;

/// How an image is cut into tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TilingOptions {
    /// Side of the square tiles in pixels (`image_size` of the model, usually 448).
    pub tile_size: u32,
    /// Fewest tiles of the grid.
    pub min_tiles: u32,
    /// Most tiles of the grid, thumbnail not counted.
    pub max_tiles: u32,
    /// Whether a thumbnail of the whole image follows the tiles when there is more than one.
    pub thumbnail: bool,
}

impl TilingOptions {
    fn check(&self) -> Result<(), ImageError> {
        let valid = (1..=MAX_TILE_SIZE).contains(&self.tile_size)
            && self.min_tiles >= 1
            && self.min_tiles <= self.max_tiles
            && self.max_tiles <= MAX_TILES;
        if valid {
            Ok(())
        } else {
            Err(ImageError::Tiling { tile_size: self.tile_size, min_tiles: self.min_tiles, max_tiles: self.max_tiles })
        }
    }
}

/// The tiles of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiling {
    /// The chosen grid.
    pub grid: Grid,
    /// Tiles row by row from the top left, each `tile_size` square; the thumbnail is the last
    /// one when present.
    pub tiles: Vec<RgbImage>,
    /// Whether the last tile is a thumbnail of the whole image.
    pub thumbnail: bool,
}

/// Cuts an image into tiles of the grid that [`choose_grid`] picks.
///
/// The whole image is resized to `tile_size · columns` × `tile_size · rows` without keeping its
/// aspect ratio and cut row by row. With [`TilingOptions::thumbnail`] and more than one tile, the
/// whole *original* image resized to one tile follows. The thumbnail is computed on a second
/// thread when the image is large.
///
/// # Errors
///
/// [`ImageError::ZeroSize`] for an image without pixels, [`ImageError::Tiling`] for options that
/// describe no grid: a tile size outside 1 to 2048, `min_tiles` of 0, `min_tiles > max_tiles`, or
/// more than [`MAX_TILES`] tiles.
pub fn tile(image: &RgbImage, options: &TilingOptions) -> Result<Tiling, ImageError> {
    options.check()?;
    let (width, height) = image.dimensions();
    if width == 0 || height == 0 {
        return Err(ImageError::ZeroSize { width, height });
    }
    let size = options.tile_size;
    let grid = choose_grid(width, height, size, options.min_tiles, options.max_tiles);
    let (whole_width, whole_height) = (size * grid.columns, size * grid.rows);
    let thumbnail = options.thumbnail && grid.tiles() > 1;

    let (whole, last) = if thumbnail {
        std::thread::scope(|scope| {
            let last = scope.spawn(|| resize_with(image, size, size, 1));
            let threads = std::thread::available_parallelism().map_or(1, |n| (n.get() / 2).max(1));
            let whole = resize_with(image, whole_width, whole_height, threads);
            let last = last.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (whole, Some(last))
        })
    } else {
        (resize_bicubic(image, whole_width, whole_height), None)
    };

    let mut tiles = cut(&whole, size);
    tiles.extend(last);
    Ok(Tiling { grid, tiles, thumbnail })
}

/// Square tiles of `image` row by row; its sides are multiples of `size`.
fn cut(image: &RgbImage, size: u32) -> Vec<RgbImage> {
    let pitch = image.width() as usize * 3;
    let side = size as usize;
    let columns = (image.width() / size) as usize;
    let band = pitch * side;
    let mut tiles = Vec::new();
    for rows in image.as_raw().chunks_exact(band) {
        for column in 0..columns {
            let left = column * side * 3;
            let mut pixels = Vec::with_capacity(side * side * 3);
            for row in rows.chunks_exact(pitch) {
                pixels.extend_from_slice(&row[left..left + side * 3]);
            }
            tiles.extend(RgbImage::from_raw(size, size, pixels));
        }
    }
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: TilingOptions = TilingOptions { tile_size: 8, min_tiles: 1, max_tiles: 6, thumbnail: true };

    #[test]
    fn one_tile_has_no_thumbnail() {
        let tiling = tile(&RgbImage::new(4, 4), &OPTIONS).unwrap();
        assert_eq!(tiling.grid.tiles(), 1);
        assert_eq!(tiling.tiles.len(), 1);
        assert!(!tiling.thumbnail);
    }

    #[test]
    fn thumbnail_is_last() {
        let image = RgbImage::from_fn(64, 32, |x, y| image::Rgb([x as u8 * 4, y as u8 * 8, 7]));
        let tiling = tile(&image, &OPTIONS).unwrap();
        assert_eq!((tiling.grid.columns, tiling.grid.rows), (2, 1));
        assert_eq!(tiling.tiles.len(), 3);
        assert!(tiling.thumbnail);
        assert_eq!(tiling.tiles[2], resize_bicubic(&image, 8, 8));
    }

    #[test]
    fn options_without_a_grid_are_refused() {
        let image = RgbImage::new(4, 4);
        for options in [
            TilingOptions { tile_size: 0, ..OPTIONS },
            TilingOptions { min_tiles: 0, ..OPTIONS },
            TilingOptions { min_tiles: 7, ..OPTIONS },
            TilingOptions { max_tiles: MAX_TILES + 1, ..OPTIONS },
        ] {
            assert!(matches!(tile(&image, &options), Err(ImageError::Tiling { .. })));
        }
        assert!(matches!(tile(&RgbImage::new(0, 4), &OPTIONS), Err(ImageError::ZeroSize { .. })));
    }
}
