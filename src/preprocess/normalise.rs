//! Tiles to pixel values (`ToTensor` and `Normalize` of torchvision).

use image::RgbImage;
use ndarray::{Array4, s};

/// Pixel values of `tiles` as `[tiles, 3, height, width]`, planes in the order red, green, blue.
///
/// Each value is `((byte / 255) - mean[c]) / std[c]`, every operation rounded to `f32`, which is
/// bit for bit what torchvision computes on a CPU. No tiles give an array of shape `[0, 3, 0, 0]`.
///
/// # Panics
///
/// When the tiles are not all of one size; [`tile`](super::tile) returns tiles of one size.
pub fn normalise(tiles: &[RgbImage], mean: [f32; 3], std: [f32; 3]) -> Array4<f32> {
    let (width, height) = tiles.first().map_or((0, 0), RgbImage::dimensions);
    let (width, height) = (width as usize, height as usize);
    // A channel has 256 possible values, so a table replaces the two divisions a pixel.
    let tables: [[f32; 256]; 3] =
        std::array::from_fn(|channel| std::array::from_fn(|byte| (byte as f32 / 255.0 - mean[channel]) / std[channel]));

    let mut values = Array4::zeros((tiles.len(), 3, height, width));
    for (index, tile) in tiles.iter().enumerate() {
        assert_eq!(
            (tile.width() as usize, tile.height() as usize),
            (width, height),
            "tiles of one image must have one size"
        );
        for (channel, table) in tables.iter().enumerate() {
            let mut plane = values.slice_mut(s![index, channel, .., ..]);
            for (value, pixel) in plane.iter_mut().zip(tile.as_raw().chunks_exact(3)) {
                *value = table[usize::from(pixel[channel])];
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
    const STD: [f32; 3] = [0.229, 0.224, 0.225];

    #[test]
    fn planes_are_channel_first() {
        let mut tile = RgbImage::new(2, 1);
        tile.put_pixel(1, 0, image::Rgb([255, 128, 1]));
        let values = normalise(&[tile.clone(), tile], MEAN, STD);
        assert_eq!(values.dim(), (2, 3, 1, 2));
        assert_eq!(values[[0, 0, 0, 0]].to_bits(), (-0.485f32 / 0.229).to_bits());
        assert_eq!(values[[1, 1, 0, 1]].to_bits(), ((128.0f32 / 255.0 - 0.456) / 0.224).to_bits());
    }

    #[test]
    fn no_tiles_give_an_empty_array() {
        assert_eq!(normalise(&[], MEAN, STD).dim(), (0, 3, 0, 0));
    }

    #[test]
    #[should_panic(expected = "one size")]
    fn tiles_of_two_sizes_are_a_mistake() {
        normalise(&[RgbImage::new(2, 2), RgbImage::new(2, 3)], MEAN, STD);
    }
}
