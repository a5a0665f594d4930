//! What the fuzz targets share: a server's reader of requests, and what is true of every refusal.

use std::collections::BTreeSet;
use std::panic::PanicHookInfo;
use std::path::Path;
use std::sync::Mutex;

use vintern::package::Package;
use vintern::preprocess::TilingOptions;
use vintern::serve::{Limits, RequestReader};
use vintern::settings::{ImageChoices, ImageOptions, Presets};

/// Most pixels of an image: few, so that an input takes little time, and memory that goes beyond them shows.
const MAX_IMAGE_PIXELS: u64 = 1 << 18;

/// Side of a tile: short, so that the time goes to the decoders and not to resizing.
const TILE_SIZE: u32 = 16;

/// Most bytes of what a client is told, whatever it sent.
const LONGEST: usize = 1000;

/// Lets pass the panics of the decoders that others wrote, each place of which is told once: `decode` makes errors of them.
/// What panics elsewhere is a failure still, as is a panic of theirs that nothing catches.
pub fn let_decoders_panic() {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let fail = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic: &PanicHookInfo| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        if !place.contains("/registry/src/") {
            fail(panic);
        }
        if TOLD.lock().unwrap().insert(place) {
            eprintln!("caught, and an error for the caller: {panic}");
        }
    }));
}

fn presets_and_limits() -> (Presets, Limits) {
    let package = Package::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/vintern-tiny")).unwrap();
    let limits = Limits::new(package.manifest(), 16, MAX_IMAGE_PIXELS);
    (Presets::new(Some(&package)).unwrap(), Limits { tile_size: TILE_SIZE, ..limits })
}

/// The reader of a server of the bundled model.
pub fn reader() -> RequestReader {
    let (presets, limits) = presets_and_limits();
    RequestReader::new(presets, limits)
}

/// How that server reads an image when a request says nothing of it.
pub fn image_options() -> ImageOptions {
    let (presets, limits) = presets_and_limits();
    let presets = presets.choose(None).unwrap();
    ImageChoices::default().resolve(limits.tile_size, limits.max_image_pixels, presets.of_call(true)).unwrap()
}

/// Checks that tiles are as many and as large as was asked for.
pub fn check_tiles(image: &vintern::engine::TiledImage, options: &TilingOptions) {
    let (tiles, grid) = (image.tiles(), image.grid());
    assert!((options.min_tiles..=options.max_tiles).contains(&grid.tiles()), "{grid:?}");
    let thumbnail = options.thumbnail && grid.tiles() > 1;
    assert_eq!(tiles.len(), grid.tiles() as usize + usize::from(thumbnail));
    assert!(tiles.iter().all(|tile| tile.dimensions() == (options.tile_size, options.tile_size)));
}

/// Checks that a client is told little of what it sent.
pub fn check_short(text: &str) {
    assert!(text.len() <= LONGEST, "{} bytes: {text}", text.len());
}
