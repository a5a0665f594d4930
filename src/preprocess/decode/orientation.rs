//! The EXIF orientation tag.

use image::metadata::Orientation as Turn;
use image::{DynamicImage, RgbImage};
use serde::Serialize;

/// What to do with the EXIF orientation tag of a photograph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Orientation {
    /// Turn the image upright. What people mean by the picture; the default.
    #[default]
    Auto,
    /// Leave the pixels as they are stored. What the reference does.
    Ignore,
}

/// Orientation of an EXIF block (a TIFF header and its directory); 1 when it has none.
pub(super) fn tag_of(exif: Option<&[u8]>) -> u8 {
    exif.map(|exif| exif.strip_prefix(b"Exif\0\0").unwrap_or(exif))
        .and_then(Turn::from_exif_chunk)
        .map_or(1, Turn::to_exif)
}

/// Turns an image by an EXIF orientation; also tells whether that changed anything.
pub(super) fn turn(rgb: RgbImage, tag: u8) -> (RgbImage, bool) {
    match Turn::from_exif(tag) {
        None | Some(Turn::NoTransforms) => (rgb, false),
        Some(turn) => {
            let mut image = DynamicImage::ImageRgb8(rgb);
            image.apply_orientation(turn);
            (image.into_rgb8(), true)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 2 × 3 image whose pixels are numbered row by row.
    fn numbered() -> RgbImage {
        RgbImage::from_fn(2, 3, |x, y| image::Rgb([(y * 2 + x) as u8; 3]))
    }

    #[test]
    fn turns_follow_the_exif_standard() {
        let expected: [(u8, u32, [u8; 6]); 9] = [
            (0, 2, [0, 1, 2, 3, 4, 5]),
            (1, 2, [0, 1, 2, 3, 4, 5]),
            (2, 2, [1, 0, 3, 2, 5, 4]),
            (3, 2, [5, 4, 3, 2, 1, 0]),
            (4, 2, [4, 5, 2, 3, 0, 1]),
            (5, 3, [0, 2, 4, 1, 3, 5]),
            (6, 3, [4, 2, 0, 5, 3, 1]),
            (7, 3, [5, 3, 1, 4, 2, 0]),
            (8, 3, [1, 3, 5, 0, 2, 4]),
        ];
        for (tag, width, values) in expected {
            let (turned, applied) = turn(numbered(), tag);
            let found: Vec<u8> = turned.pixels().map(|pixel| pixel[0]).collect();
            assert_eq!((turned.width(), &found[..]), (width, &values[..]), "tag {tag}");
            assert_eq!(applied, tag > 1);
        }
    }

    #[test]
    fn exif_without_or_with_bad_orientation_is_upright() {
        assert_eq!(tag_of(None), 1);
        assert_eq!(tag_of(Some(b"garbage")), 1);
        let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
        assert_eq!(tag_of(Some(exif)), 6);
        assert_eq!(tag_of(Some(&exif[6..])), 6);
    }
}
