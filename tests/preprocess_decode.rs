//! Decoding: every format and colour mode against Pillow 10.4 (`tests/images`), and every way
//! in which an image can be refused.

#[path = "common/png.rs"]
mod png;
#[path = "common/reference_data.rs"]
mod reference_data;

use std::collections::BTreeMap;
use std::path::PathBuf;

use png::chunk;
use reference_data::hex;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use vintern::preprocess::{DecodeOptions, ImageError, ImageFormat, Orientation, TilingOptions, decode, tile};

#[derive(Deserialize)]
struct Record {
    images: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expected {
    Pixels { mode: String, size: (u32, u32), rgb_sha256: String },
    Error { error: bool },
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/images")
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn reference() -> DecodeOptions {
    DecodeOptions { orientation: Orientation::Ignore, ..DecodeOptions::default() }
}

/// Decodes with the defaults and expects an error.
fn refusal(bytes: &[u8]) -> ImageError {
    decode(bytes, &DecodeOptions::default()).expect_err("the image should be refused")
}

#[test]
fn every_image_is_read_as_pillow_reads_it() {
    let record: Record = serde_json::from_slice(&read("expected.json")).unwrap();
    assert!(record.images.len() > 60);
    for (name, expected) in record.images {
        let decoded = decode(&read(&name), &reference());
        match expected {
            Expected::Error { error } => {
                assert!(error && decoded.is_err(), "{name} should be refused");
            }
            Expected::Pixels { mode, size, rgb_sha256 } => {
                let decoded = decoded.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(decoded.rgb.dimensions(), size, "{name}");
                assert_eq!(decoded.color_mode, mode, "{name}");
                assert!(decoded.exact, "{name}");
                let hash = hex(&Sha256::digest(decoded.rgb.as_raw()));
                assert_eq!(hash, rgb_sha256, "{name}");
            }
        }
    }
}

#[test]
fn truncated_files_say_so() {
    for (name, format) in [
        ("jpeg_truncated.jpg", ImageFormat::Jpeg),
        ("png_truncated.png", ImageFormat::Png),
        ("gif_truncated.gif", ImageFormat::Gif),
        ("webp_truncated.webp", ImageFormat::WebP),
        ("bmp_truncated.bmp", ImageFormat::Bmp),
        ("tiff_truncated.tif", ImageFormat::Tiff),
    ] {
        let error = refusal(&read(name));
        assert!(matches!(error, ImageError::Truncated { format: found } if found == format), "{name}: {error}");
        let text = error.to_string();
        assert!(text.contains("truncated") && text.contains(&format.to_string()));
    }
}

#[test]
fn content_decides_and_names_do_not() {
    assert!(matches!(refusal(b""), ImageError::Empty));
    let text = refusal(b"Xin chao, day la van ban").to_string();
    assert!(text.contains("not an image") && text.contains("PNG"), "{text}");
    let text = refusal(b"\0\0\0\x1cftypheic\0\0\0\0mif1heic").to_string();
    assert!(text.contains("HEIC") && text.contains("JPEG"), "{text}");
}

#[test]
fn the_pixel_limit_is_checked_before_decoding() {
    // A header of 60 000 x 60 000 pixels without any data: decoding could only fail.
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    png.extend(60_000u32.to_be_bytes());
    png.extend(60_000u32.to_be_bytes());
    png.extend(b"\x08\x02\0\0\0");
    let text = refusal(&png).to_string();
    for part in ["60000 x 60000", "3600000000", "178956970", "--max-image-pixels"] {
        assert!(text.contains(part), "{text}");
    }

    for name in
        ["jpeg_gray.jpg", "png_gray2.png", "gif_interlace0.gif", "webp_lossy.webp", "bmp_24.bmp", "tiff_cmyk.tif"]
    {
        let bytes = read(name);
        let pixels = decode(&bytes, &reference()).unwrap().rgb.pixels().len() as u64;
        let options = |max_pixels| DecodeOptions { max_pixels, ..DecodeOptions::default() };
        assert!(decode(&bytes, &options(pixels)).is_ok(), "{name}");
        assert!(matches!(decode(&bytes, &options(pixels - 1)), Err(ImageError::TooLarge { .. })), "{name}");
    }
}

#[test]
fn images_without_pixels_are_refused() {
    let mut bmp = read("bmp_24.bmp");
    bmp[18..22].fill(0);
    assert!(matches!(refusal(&bmp), ImageError::ZeroSize { width: 0, height: 11 }));
    let mut png = read("png_gray2.png");
    png[20..24].fill(0);
    assert!(matches!(refusal(&png), ImageError::ZeroSize { width: 19, height: 0 }));
}

#[test]
fn damage_that_libjpeg_cannot_pass_is_an_error() {
    let mut jpeg = read("jpeg_gray.jpg");
    // A second start of frame in the place of the Huffman tables.
    let at = jpeg.windows(2).position(|pair| pair == b"\xFF\xC4").unwrap();
    jpeg[at + 1] = 0xC0;
    let error = refusal(&jpeg);
    assert!(matches!(error, ImageError::Malformed { format: ImageFormat::Jpeg, .. }), "{error}");
}

/// Pillow turns a TIFF when it loads it, whether asked to or not.
#[test]
fn a_tiff_is_always_turned() {
    let bytes = read("tiff_rotated.tif");
    let ignored = decode(&bytes, &reference()).unwrap();
    let upright = decode(&bytes, &DecodeOptions::default()).unwrap();
    assert_eq!(ignored, upright);
    assert_eq!((ignored.orientation_tag, ignored.orientation_applied), (6, true));
}

/// An Exif block with the given orientation, as JPEG, PNG and WebP files carry it.
fn exif(orientation: u8) -> Vec<u8> {
    let mut block = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    block.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    block
}

#[test]
fn orientation_is_found_in_jpeg_png_and_webp() {
    let mut jpeg = read("jpeg_444_baseline.jpg");
    let block = [b"Exif\0\0".as_slice(), &exif(3)].concat();
    let length = (block.len() as u16 + 2).to_be_bytes();
    jpeg.splice(2..2, [b"\xFF\xE1", length.as_slice(), &block].concat());

    let mut png = read("png_gray2.png");
    png.splice(33..33, chunk(*b"eXIf", &exif(3)));

    // A lossy image in the extended layout: VP8X with the Exif flag, image, EXIF.
    let webp = read("webp_lossy.webp");
    let mut extended = b"VP8X\x0A\0\0\0\x08\0\0\0\x2C\0\0\x1E\0\0".to_vec();
    extended.extend(&webp[12..]);
    extended.extend(b"EXIF\x1A\0\0\0");
    extended.extend(exif(3));
    let size = (extended.len() as u32 + 4).to_le_bytes();
    let webp = [b"RIFF", size.as_slice(), b"WEBP", &extended].concat();

    for bytes in [jpeg, png, webp] {
        let stored = decode(&bytes, &reference()).unwrap();
        assert_eq!((stored.orientation_tag, stored.orientation_applied), (3, false));
        let upright = decode(&bytes, &DecodeOptions::default()).unwrap();
        assert!(upright.orientation_applied);
        assert_eq!(upright.rgb, image::imageops::rotate180(&stored.rgb));
    }
}

#[test]
fn files_on_disk_go_all_the_way_to_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("photograph.png");
    image::RgbImage::from_pixel(90, 30, image::Rgb([1, 2, 3])).save(&path).unwrap();
    let decoded = decode(&std::fs::read(&path).unwrap(), &DecodeOptions::default()).unwrap();
    let options = TilingOptions { tile_size: 28, min_tiles: 1, max_tiles: 6, thumbnail: true };
    let tiling = tile(&decoded.rgb, &options).unwrap();
    assert_eq!((tiling.grid.columns, tiling.grid.rows), (3, 1));
    assert_eq!(tiling.tiles.len(), 4);
}
