//! Properties of the preprocessing that hold for every image.

use image::{Rgb, RgbImage};
use proptest::prelude::*;
use vintern::preprocess::{DecodeOptions, TilingOptions, choose_grid, decode, normalise, resize_bicubic, tile};

/// Images of up to 60 x 60 pixels.
fn images() -> impl Strategy<Value = RgbImage> {
    (1u32..60, 1u32..60).prop_flat_map(|(width, height)| {
        prop::collection::vec(any::<u8>(), (width * height * 3) as usize)
            .prop_map(move |pixels| RgbImage::from_raw(width, height, pixels).expect("one triple a pixel"))
    })
}

fn golden_image(index: usize) -> Vec<u8> {
    const NAMES: [&str; 10] = [
        "jpeg_420_baseline.jpg",
        "jpeg_422_progressive.jpg",
        "png_gray16_alpha.png",
        "png_palette_too_short.png",
        "gif_interlace1.gif",
        "webp_lossy_alpha.webp",
        "webp_animated.webp",
        "bmp_rle4.bmp",
        "tiff_palette.tif",
        "tiff_rgb_jpeg.tif",
    ];
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images").join(NAMES[index % NAMES.len()]);
    std::fs::read(path).expect("a regression image")
}

proptest! {
    #[test]
    fn the_grid_has_an_allowed_number_of_tiles(
        width in 1u32..100_000,
        height in 1u32..100_000,
        min in 1u32..8,
        more in 0u32..33,
    ) {
        let grid = choose_grid(width, height, 448, min, min + more);
        prop_assert!((min..=min + more).contains(&grid.tiles()));
    }

    #[test]
    fn no_allowed_grid_is_nearer_to_the_aspect_ratio(
        width in 1u32..5000,
        height in 1u32..5000,
        max in 1u32..13,
    ) {
        let distance = |columns: u32, rows: u32| {
            (f64::from(width) / f64::from(height) - f64::from(columns) / f64::from(rows)).abs()
        };
        let grid = choose_grid(width, height, 448, 1, max);
        for columns in 1..=max {
            for rows in 1..=max / columns {
                prop_assert!(distance(grid.columns, grid.rows) <= distance(columns, rows));
            }
        }
    }

    #[test]
    fn a_constant_image_stays_constant(
        color in any::<[u8; 3]>(),
        (width, height) in (1u32..200, 1u32..200),
        (to_width, to_height) in (1u32..200, 1u32..200),
    ) {
        let image = RgbImage::from_pixel(width, height, Rgb(color));
        let resized = resize_bicubic(&image, to_width, to_height);
        prop_assert_eq!(resized, RgbImage::from_pixel(to_width, to_height, Rgb(color)));
    }

    #[test]
    fn a_resize_to_the_same_size_is_a_copy(image in images()) {
        prop_assert_eq!(&resize_bicubic(&image, image.width(), image.height()), &image);
    }

    /// The passes are the same for both axes, and a one-axis resize has one pass.
    #[test]
    fn transposition_commutes_with_a_resize_of_one_axis(image in images(), length in 1u32..90) {
        let transposed = |image: &RgbImage| {
            RgbImage::from_fn(image.height(), image.width(), |x, y| *image.get_pixel(y, x))
        };
        let wide = resize_bicubic(&image, length, image.height());
        let tall = resize_bicubic(&transposed(&image), image.height(), length);
        prop_assert_eq!(transposed(&wide), tall);
    }

    #[test]
    fn tiles_put_together_are_the_resized_image(image in images(), max in 1u32..9) {
        let size = 14;
        let options = TilingOptions {
            tile_size: size,
            min_tiles: 1,
            max_tiles: max,
            thumbnail: true,
        };
        let tiling = tile(&image, &options).expect("valid options");
        let grid = tiling.grid;
        let whole = resize_bicubic(&image, size * grid.columns, size * grid.rows);
        let joined = RgbImage::from_fn(whole.width(), whole.height(), |x, y| {
            let tile = &tiling.tiles[(y / size * grid.columns + x / size) as usize];
            *tile.get_pixel(x % size, y % size)
        });
        prop_assert_eq!(joined, whole);
        prop_assert_eq!(tiling.tiles.len() as u32, grid.tiles() + u32::from(tiling.thumbnail));
        prop_assert_eq!(tiling.thumbnail, grid.tiles() > 1);
    }

    #[test]
    fn pixel_values_follow_the_formula(image in images()) {
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let values = normalise(std::slice::from_ref(&image), mean, std);
        for (x, y, pixel) in image.enumerate_pixels() {
            for channel in 0..3 {
                let expected = (f32::from(pixel[channel]) / 255.0 - mean[channel]) / std[channel];
                let found = values[[0, channel, y as usize, x as usize]];
                prop_assert_eq!(found.to_bits(), expected.to_bits());
            }
        }
    }

    /// Damaged files give an image or an error, never a panic and never more pixels than allowed.
    #[test]
    fn damaged_files_do_not_panic(
        index in 0usize..10,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = golden_image(index);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()) + 1);
        }
        let options = DecodeOptions { max_pixels: 100_000, ..DecodeOptions::default() };
        if let Ok(decoded) = decode(&bytes, &options) {
            prop_assert!(decoded.rgb.pixels().len() <= 100_000);
        }
    }
}
