//! Small files that ask for much memory or time.

use std::path::Path;

use mozjpeg::{ColorSpace, Compress};
use vintern::preprocess::{DecodeOptions, DecodedImage, ImageError, ImageFormat, decode};

fn read(bytes: &[u8]) -> Result<DecodedImage, ImageError> {
    decode(bytes, &DecodeOptions::default())
}

fn image_file(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images").join(name)).unwrap()
}

/// A gray JPEG of 16 × 16 pixels, in several scans.
fn progressive_jpeg() -> Vec<u8> {
    let mut encoder = Compress::new(ColorSpace::JCS_GRAYSCALE);
    encoder.set_size(16, 16);
    encoder.set_progressive_mode();
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(&[100; 256]).unwrap();
    encoder.finish().unwrap()
}

/// A scan costs a pass over all pixels, and ten bytes.
#[test]
fn a_jpeg_has_a_hundred_scans_at_most() {
    let jpeg = progressive_jpeg();
    let with_scans = |count: usize| {
        let (before, end) = jpeg.split_at(jpeg.len() - 2);
        [before, &b"\xFF\xDA\0\x08\x01\x01\0\x01\x3F\0".repeat(count), end].concat()
    };
    assert_eq!(read(&with_scans(50)).unwrap().rgb, read(&jpeg).unwrap().rgb);
    let error = read(&with_scans(100)).unwrap_err();
    assert!(matches!(error, ImageError::UnsupportedFeature { format: ImageFormat::Jpeg, .. }), "{error}");
    assert!(error.to_string().contains("scans, more than 100"), "{error}");
}

/// A marker inside a segment, such as that of a thumbnail in the Exif block, begins no scan of the image.
#[test]
fn scans_are_counted_between_segments() {
    let mut jpeg = progressive_jpeg();
    let comment = b"\xFF\xDA".repeat(200);
    let length = (comment.len() as u16 + 2).to_be_bytes();
    jpeg.splice(2..2, [b"\xFF\xFE", length.as_slice(), &comment].concat());
    assert!(read(&jpeg).is_ok());
}

/// A little-endian TIFF of one page with short (3), long (4) and undefined (7) entries, and what follows the directory.
fn tiff(entries: &[(u16, u16, u32, u32)], data: &[u8]) -> Vec<u8> {
    let mut entries = entries.to_vec();
    entries.sort_unstable();
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        file.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
        file.extend([count.to_le_bytes(), value.to_le_bytes()].concat());
    }
    file.extend([0; 4]);
    file.extend(data);
    file
}

const BITS_PER_SAMPLE: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const STRIP_OFFSETS: u16 = 273;
const ORIENTATION: u16 = 274;
const STRIP_BYTES: u16 = 279;

fn page(height: u32) -> Vec<(u16, u16, u32, u32)> {
    let (width, rows_a_strip) = ((256, 3, 1, 1), (278, 3, 1, 1));
    vec![width, (257, 3, 1, height), (BITS_PER_SAMPLE, 3, 1, 8), (PHOTOMETRIC, 3, 1, 1), (277, 3, 1, 1), rows_a_strip]
}

/// Room for four thousand million values is 128 GiB, which ends the process where it cannot be had.
#[test]
fn a_tiff_has_no_lists_that_are_longer_than_the_file() {
    let plain = [page(1), vec![(STRIP_OFFSETS, 4, 1, 8), (STRIP_BYTES, 4, 1, 1)]].concat();
    assert!(read(&tiff(&plain, &[])).is_ok());
    for tag in [FILL_ORDER, ORIENTATION] {
        for kind in [2, 3, 4, 7] {
            let list = (tag, kind, u32::MAX, 8);
            let error = read(&tiff(&[plain.as_slice(), &[list]].concat(), &[])).unwrap_err();
            assert!(matches!(error, ImageError::Malformed { format: ImageFormat::Tiff, .. }), "{tag} {kind}: {error}");
        }
    }
}

/// Strips that are all the same long one: each is read from its beginning.
#[test]
fn jpeg_strips_are_no_longer_than_the_file() {
    let jpeg = progressive_jpeg();
    let strips = 3_u32;
    let lists = 8 + 2 + 10 * 12 + 4;
    let names = |length: u32| {
        let (offset, lengths) = (lists + 8 * strips, length.to_le_bytes().repeat(strips as usize));
        [offset.to_le_bytes().repeat(strips as usize), lengths, jpeg.clone()].concat()
    };
    let entries =
        [(COMPRESSION, 3, 1, 7), (STRIP_OFFSETS, 4, strips, lists), (STRIP_BYTES, 4, strips, lists + 4 * strips)];
    let entries = [page(strips), entries.to_vec(), vec![(ORIENTATION, 3, 1, 1)]].concat();
    let error = read(&tiff(&entries, &names(jpeg.len() as u32))).unwrap_err();
    assert!(error.to_string().contains("its strips are longer than the file"), "{error}");
}

/// A chunk that claims to hold more than the file does.
#[test]
fn a_webp_has_no_exif_block_beyond_its_end() {
    let file = image_file("webp_lossy.webp");
    let chunks = [b"VP8X\x0A\0\0\0\x08\0\0\0\x2C\0\0\x1E\0\0", &file[12..], b"EXIF\xF0\xFF\xFF\xFF"].concat();
    let size = (chunks.len() as u32 + 4).to_le_bytes();
    let error = read(&[b"RIFF", size.as_slice(), b"WEBP", &chunks].concat()).unwrap_err();
    assert!(matches!(error, ImageError::Truncated { format: ImageFormat::WebP }), "{error}");
}

/// A frame beside its alpha channel that is smaller or larger than its animation says, or has no size of its own.
#[test]
fn the_frame_of_an_animation_has_the_size_it_says() {
    let file = image_file("webp_animated.webp");
    assert!(read(&file).is_ok());
    let mark = file.windows(3).position(|bytes| bytes == [0x9D, 0x01, 0x2A]).unwrap();
    let with = |at: usize, value: u8| {
        let mut file = file.clone();
        file[at] = value;
        file
    };
    let [width, height] = [mark + 3, mark + 5];
    let sizes = [with(width, 1), with(width, file[width] + 16), with(height, 1), with(height, file[height] + 16)];
    let no_frames = [with(mark - 3, file[mark - 3] | 1), with(mark, 0), with(mark - 8, b'X')];
    for file in sizes.iter().chain(&no_frames) {
        let error = read(file).unwrap_err().to_string();
        assert!(error.contains("the first frame of the animation is not of the size it says"), "{error}");
    }
}
