//! The preprocessing stages against the reference's recorded results (`tests/golden`).

#[path = "common/reference_data.rs"]
mod reference_data;

use std::io::Cursor;

use image::RgbImage;
use ndarray::Array3;
use ndarray_npy::NpzReader;
use reference_data::{golden, golden_json, hex};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use vintern::preprocess::{
    DecodeOptions, DecodedImage, Orientation, TilingOptions, choose_grid, decode, normalise, resize_bicubic, tile,
};

const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];

/// As the reference: the EXIF orientation is not applied.
const REFERENCE: DecodeOptions =
    DecodeOptions { orientation: Orientation::Ignore, max_pixels: vintern::preprocess::DEFAULT_MAX_PIXELS };

#[derive(Deserialize)]
struct Golden {
    images: Vec<GoldenImage>,
    grid: Vec<[u32; 7]>,
}

#[derive(Deserialize)]
struct GoldenImage {
    image: String,
    format: String,
    mode: String,
    size: [u32; 2],
    decoded_rgb_sha256: String,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    image_size: u32,
    min_num: u32,
    max_num: u32,
    use_thumbnail: bool,
    grid_cols_rows: [u32; 2],
    n_tiles: usize,
    tiles_u8_sha256: String,
    pixel_values_sha256: String,
}

fn read(path: &str) -> Vec<u8> {
    let path = golden(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn records() -> Golden {
    golden_json("preprocess.json")
}

fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hex(&hash.finalize())
}

fn reference_decode(name: &str) -> DecodedImage {
    decode(&read(&format!("images/{name}")), &REFERENCE).unwrap()
}

#[test]
fn decoded_pixels_are_the_references() {
    for record in records().images {
        let name = &record.image;
        let decoded = reference_decode(name);
        assert_eq!(decoded.rgb.dimensions(), (record.size[0], record.size[1]), "{name}");
        assert_eq!(decoded.format.to_string().to_uppercase(), record.format, "{name}");
        assert_eq!(decoded.color_mode, record.mode, "{name}");
        assert!(decoded.exact && !decoded.orientation_applied, "{name}");
        assert_eq!(sha256([decoded.rgb.as_raw().as_slice()]), record.decoded_rgb_sha256, "{name}");
    }
}

#[test]
fn tiles_and_pixel_values_are_the_references() {
    for record in records().images {
        let rgb = reference_decode(&record.image).rgb;
        for run in record.runs {
            let what = format!("{} at {} px, {} to {} tiles", record.image, run.image_size, run.min_num, run.max_num);
            let options = TilingOptions {
                tile_size: run.image_size,
                min_tiles: run.min_num,
                max_tiles: run.max_num,
                thumbnail: run.use_thumbnail,
            };
            let tiling = tile(&rgb, &options).unwrap();
            assert_eq!([tiling.grid.columns, tiling.grid.rows], run.grid_cols_rows, "{what}");
            assert_eq!(tiling.tiles.len(), run.n_tiles, "{what}");
            assert_eq!(tiling.thumbnail, run.n_tiles as u32 > tiling.grid.tiles(), "{what}");
            let bytes = tiling.tiles.iter().map(|tile| tile.as_raw().as_slice());
            assert_eq!(sha256(bytes), run.tiles_u8_sha256, "{what}");

            let values = normalise(&tiling.tiles, MEAN, STD);
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            assert_eq!(sha256([bytes.as_slice()]), run.pixel_values_sha256, "{what}");
        }
    }
}

#[test]
fn grids_are_the_references() {
    for [width, height, tile_size, min, max, columns, rows] in records().grid {
        let grid = choose_grid(width, height, tile_size, min, max);
        assert_eq!(
            (grid.columns, grid.rows),
            (columns, rows),
            "{width}x{height}, tile {tile_size}, {min} to {max} tiles"
        );
    }
}

/// Ties that only the order of a `CPython` set decides.
#[test]
fn ties_inside_one_area_follow_the_set_order() {
    let orders: std::collections::BTreeMap<String, Vec<[u32; 2]>> =
        serde_json::from_slice(&read("set_order.json")).unwrap();
    let mut ties = 0;
    for (limits, order) in orders {
        let (min, max) = limits.split_once(',').unwrap();
        let (min, max) = (min.parse().unwrap(), max.parse().unwrap());
        for first in &order {
            for second in &order {
                if first[0] * first[1] != second[0] * second[1] || first == second {
                    continue;
                }
                // The aspect ratio half-way between the two.
                let width = first[0] * second[1] + second[0] * first[1];
                let height = 2 * first[1] * second[1];
                let expected = reference_choice(&order, width, height);
                let grid = choose_grid(width, height, 448, min, max);
                assert_eq!([grid.columns, grid.rows], expected, "{width}x{height}, {limits}");
                ties += 1;
            }
        }
    }
    assert!(ties > 1000);
}

/// The choice of the reference from a given order, for an image too small for the area rule.
fn reference_choice(order: &[[u32; 2]], width: u32, height: u32) -> [u32; 2] {
    let aspect = f64::from(width) / f64::from(height);
    let mut best = ([1, 1], f64::INFINITY);
    for &[columns, rows] in order {
        let difference = (aspect - f64::from(columns) / f64::from(rows)).abs();
        if difference < best.1 {
            best = ([columns, rows], difference);
        }
    }
    best.0
}

#[test]
fn resize_is_the_references() {
    #[derive(Deserialize)]
    struct Pair {
        index: usize,
        src_hw: [usize; 2],
        dst_hw: [usize; 2],
    }
    let pairs: Vec<Pair> = serde_json::from_slice(&read("resize.json")).unwrap();
    let mut arrays = NpzReader::new(Cursor::new(read("resize.npz"))).unwrap();
    assert!(pairs.len() >= 16);
    for pair in pairs {
        let mut load = |name: String, [height, width]: [usize; 2]| {
            let array: Array3<u8> = arrays.by_name(&name).unwrap();
            assert_eq!(array.dim(), (height, width, 3), "{name}");
            let (pixels, _) = array.into_raw_vec_and_offset();
            RgbImage::from_raw(width as u32, height as u32, pixels).unwrap()
        };
        let source = load(format!("src_{}", pair.index), pair.src_hw);
        let expected = load(format!("dst_{}", pair.index), pair.dst_hw);
        let resized = resize_bicubic(&source, expected.width(), expected.height());
        assert!(resized == expected, "pair {}", pair.index);
    }
}

#[test]
fn orientation_is_reported_and_applied_only_when_asked() {
    let bytes = read("images/exif_rot6.jpg");
    let ignored = decode(&bytes, &REFERENCE).unwrap();
    assert_eq!((ignored.orientation_tag, ignored.orientation_applied), (6, false));
    let upright = decode(&bytes, &DecodeOptions::default()).unwrap();
    assert_eq!((upright.orientation_tag, upright.orientation_applied), (6, true));
    assert_eq!(upright.rgb, image::imageops::rotate90(&ignored.rgb));
}
