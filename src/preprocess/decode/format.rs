//! Image formats and how to tell them from the content.

use crate::preprocess::error::ImageError;

/// A supported image format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// JPEG (also the first image of an MPO file).
    Jpeg,
    /// PNG (also the default image of an APNG).
    Png,
    /// GIF, first frame.
    Gif,
    /// WebP, lossy or lossless, first frame of an animation.
    WebP,
    /// Windows bitmap.
    Bmp,
    /// TIFF, first page.
    Tiff,
}

impl std::fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Gif => "GIF",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        })
    }
}

/// Formats that are recognised in order to name them in the error.
const UNSUPPORTED: [(&[u8], &str); 9] = [
    (b"\0\0\x01\0", "ICO"),
    (b"%PDF-", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"qoif", "QOI"),
    (b"\xFF\x0A", "JPEG XL"),
    (b"\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0CjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xFF\x4F\xFF\x51", "JPEG 2000"),
    (b"<svg", "SVG"),
];

impl ImageFormat {
    /// The supported formats, for messages.
    pub const SUPPORTED: &str = "JPEG, PNG, GIF, WebP, BMP and TIFF";

    /// Tells the format of an image file from its first bytes.
    ///
    /// # Errors
    ///
    /// [`ImageError::Empty`], [`ImageError::UnsupportedFormat`] for formats known by name (HEIC,
    /// AVIF, JPEG XL, JPEG 2000, SVG, PDF, ...) and [`ImageError::Unrecognised`] for the rest.
    pub fn of(bytes: &[u8]) -> Result<Self, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        let supported = match bytes {
            [0xFF, 0xD8, 0xFF, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', 0x0D, 0x0A, 0x1A, 0x0A, ..] => Some(Self::Png),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'I', b'I', 42 | 43, 0, ..] | [b'M', b'M', 0, 42 | 43, ..] => Some(Self::Tiff),
            // Two letters are little, so the size of the header behind them is looked at, too.
            [b'B', b'M', ..] if matches!(bytes.get(15..18), Some([0, 0, 0])) => Some(Self::Bmp),
            _ => None,
        };
        if let Some(format) = supported {
            return Ok(format);
        }
        if let Some(name) = iso_media_brand(bytes) {
            return Err(ImageError::UnsupportedFormat { name });
        }
        let known = UNSUPPORTED.iter().find(|(magic, _)| bytes.starts_with(magic));
        Err(match known {
            Some(&(_, name)) => ImageError::UnsupportedFormat { name },
            None => ImageError::Unrecognised { start: describe(bytes) },
        })
    }
}

/// Name of the image format of an ISO base media file (`ftyp` box).
fn iso_media_brand(bytes: &[u8]) -> Option<&'static str> {
    match (bytes.get(4..8)?, bytes.get(8..12)?) {
        (b"ftyp", b"avif" | b"avis") => Some("AVIF"),
        (b"ftyp", b"heic" | b"heix" | b"hevc" | b"heim" | b"heis" | b"mif1" | b"msf1") => Some("HEIC"),
        _ => None,
    }
}

/// The first bytes for people: quoted when they are text, hexadecimal otherwise.
fn describe(bytes: &[u8]) -> String {
    let start = &bytes[..bytes.len().min(12)];
    match std::str::from_utf8(start) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !c.is_whitespace()) => {
            format!("the text {text:?}")
        }
        _ => {
            let hex: Vec<String> = start.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("the bytes {}", hex.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_empty_known_and_unknown_apart() {
        assert!(matches!(ImageFormat::of(b""), Err(ImageError::Empty)));
        for (bytes, name) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0"[..], "HEIC"),
            (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
            (b"%PDF-1.7", "PDF"),
        ] {
            let error = ImageFormat::of(bytes).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(error.contains("JPEG, PNG"), "{error}");
        }
        let error = ImageFormat::of(b"hello, world").unwrap_err().to_string();
        assert!(error.contains("the text \"hello, world\""), "{error}");
        let error = ImageFormat::of(&[0xFF, 0, 1]).unwrap_err().to_string();
        assert!(error.contains("the bytes ff 00 01"), "{error}");
        // A text that begins like a bitmap.
        assert!(matches!(ImageFormat::of(b"BMW and other makers of cars"), Err(ImageError::Unrecognised { .. })));
    }
}
