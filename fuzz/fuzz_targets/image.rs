//! The bytes of an image file, decoded and cut into tiles.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use vintern::engine::TiledImage;
use vintern::settings::ImageOptions;
use vintern_fuzz::{check_short, check_tiles, image_options, let_decoders_panic};

static OPTIONS: LazyLock<ImageOptions> = LazyLock::new(image_options);

fuzz_target!(init: let_decoders_panic(), |file: &[u8]| {
    match TiledImage::from_bytes(file, &OPTIONS.decode, &OPTIONS.tiling) {
        Ok(image) => check_tiles(&image, &OPTIONS.tiling),
        Err(error) => check_short(&error.to_string()),
    }
});
