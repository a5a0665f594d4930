//! JPEG by MozJPEG.
//!
//! MozJPEG's decoder is libjpeg-turbo's, as is Pillow's: accurate integer DCT, smooth ("fancy")
//! chroma upsampling and block smoothing of incomplete progressive files are the defaults of
//! both. What it refuses is refused by Pillow, so there is no second decoder to fall back to.
//!
//! libjpeg reports fatal errors through a callback that must not return. The `mozjpeg` crate
//! unwinds from it with `resume_unwind`, which prints nothing; [`caught`] turns that into an error.

use std::cell::Cell;
use std::io::{self, BufRead, Read};

use image::RgbImage;
use mozjpeg::{ColorSpace, Decompress, Marker};

use super::convert::{cmyk_to_rgb, collect_rgb};
use super::{ImageError, ImageFormat, Pixels, SizeLimit, caught, orientation};

/// Most scans of an image. Each goes over the whole image, though it may hold nothing; encoders write a dozen or two.
const MAX_SCANS: usize = 100;

/// How the three or four components of a JPEG become RGB.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Colors {
    /// As the markers of the file say.
    FromFile,
    /// The components are red, green and blue whatever the file says (TIFF with RGB photometry).
    Stored,
}

/// Decodes a JPEG file.
pub(super) fn decode(bytes: &[u8], limit: SizeLimit) -> Result<Pixels, ImageError> {
    let samples = decode_samples(bytes, Colors::FromFile, |width, height| limit.check(width, height))?;
    let (rgb, mode) = match samples.channels {
        1 => (collect_rgb(samples.width, samples.height, samples.values.iter().map(|&value| [value; 3])), "L"),
        4 => {
            // Pillow takes every CMYK file for one by Adobe, which stores the complement.
            let pixels =
                samples.values.chunks_exact(4).map(|inks| cmyk_to_rgb(std::array::from_fn(|ink| 255 - inks[ink])));
            (collect_rgb(samples.width, samples.height, pixels), "CMYK")
        }
        _ => {
            let (width, height) = (samples.width, samples.height);
            let rgb = RgbImage::from_raw(width, height, samples.values)
                .ok_or_else(|| malformed("fewer samples than pixels"))?;
            (rgb, "RGB")
        }
    };
    Ok(Pixels { rgb, mode, orientation_tag: samples.orientation_tag, exact: true })
}

/// The samples of a JPEG, interleaved.
pub(super) struct Samples {
    pub(super) width: u32,
    pub(super) height: u32,
    /// 1 (gray), 3 (RGB) or 4 (CMYK as stored).
    pub(super) channels: usize,
    pub(super) values: Vec<u8>,
    orientation_tag: u8,
}

/// Decodes a JPEG stream to gray, RGB or CMYK; `check` sees the size before the pixels are read.
pub(super) fn decode_samples(
    bytes: &[u8],
    colors: Colors,
    check: impl FnOnce(u32, u32) -> Result<(), ImageError>,
) -> Result<Samples, ImageError> {
    let scans = count_scans(bytes);
    if scans > MAX_SCANS {
        let feature = format!("it has {scans} scans, more than {MAX_SCANS}");
        return Err(ImageError::UnsupportedFeature { format: ImageFormat::Jpeg, feature });
    }
    let ended = Cell::new(false);
    let result = caught(ImageFormat::Jpeg, || {
        let source = Source { rest: bytes, ended: &ended };
        let image = Decompress::builder()
            .with_markers(&[Marker::APP(1)])
            .from_reader(source)
            .map_err(|error| malformed(error.to_string()))?;
        let (width, height) = (image.width() as u32, image.height() as u32);
        check(width, height)?;
        let orientation_tag = image
            .markers()
            .find(|marker| marker.data.starts_with(b"Exif\0\0"))
            .map_or(1, |marker| orientation::tag_of(Some(marker.data)));
        let (space, channels) = output_space(image.color_space(), colors)?;
        let mut started = image.to_colorspace(space).map_err(|error| malformed(error.to_string()))?;
        let values = started.read_scanlines::<u8>().map_err(|error| malformed(error.to_string()))?;
        let samples = Samples { width, height, channels, values, orientation_tag };
        Ok((started, samples))
    });
    let (started, samples) = match result {
        Err(ImageError::Malformed { .. }) if ended.get() => {
            return Err(ImageError::Truncated { format: ImageFormat::Jpeg });
        }
        result => result?,
    };
    // What follows the last line may be missing, as it may for Pillow, but not be wrong.
    let finished = caught(ImageFormat::Jpeg, || started.finish().map_err(|error| malformed(error.to_string())));
    match finished {
        Err(error) if !ended.get() => Err(error),
        _ => Ok(samples),
    }
}

/// Scans of an image, from its markers; they stand where a byte of all ones is followed by another than 0.
fn count_scans(bytes: &[u8]) -> usize {
    const FILL: u8 = 0xFF;
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: u8 = 0xD9;
    let (mut rest, mut scans) = (bytes, 0);
    while let Some(at) = rest.iter().position(|byte| *byte == FILL) {
        rest = &rest[at + 1..];
        let length = match rest {
            // No marker: padding, or a data byte of all ones. Restarts and the start of the image have no length.
            [FILL, ..] => 0,
            [0 | 1 | 0xD0..=0xD8, ..] => 1,
            [] | [END_OF_IMAGE, ..] => break,
            [marker, length @ ..] => {
                scans += usize::from(*marker == START_OF_SCAN);
                1 + length.first_chunk().map_or(0, |length| usize::from(u16::from_be_bytes(*length)))
            }
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    scans
}

/// The colour space to ask libjpeg for, and its number of channels.
fn output_space(stored: ColorSpace, colors: Colors) -> Result<(ColorSpace, usize), ImageError> {
    match (stored, colors) {
        (ColorSpace::JCS_GRAYSCALE, _) => Ok((ColorSpace::JCS_GRAYSCALE, 1)),
        (ColorSpace::JCS_YCbCr, Colors::Stored) => Ok((ColorSpace::JCS_YCbCr, 3)),
        (ColorSpace::JCS_YCCK, Colors::Stored) => Ok((ColorSpace::JCS_YCCK, 4)),
        (ColorSpace::JCS_RGB | ColorSpace::JCS_YCbCr, _) => Ok((ColorSpace::JCS_RGB, 3)),
        (ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK, _) => Ok((ColorSpace::JCS_CMYK, 4)),
        _ => Err(ImageError::UnsupportedFeature {
            format: ImageFormat::Jpeg,
            feature: "it has neither 1, 3 nor 4 colour components".to_owned(),
        }),
    }
}

fn malformed(reason: impl Into<String>) -> ImageError {
    ImageError::Malformed { format: ImageFormat::Jpeg, reason: reason.into() }
}

/// The file as a stream whose end is an error.
///
/// By default the end of the data reads as an end-of-image marker and the missing part turns
/// gray. Pillow asks for more data instead and reports a truncated file when there is none.
struct Source<'a> {
    rest: &'a [u8],
    ended: &'a Cell<bool>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rest.read(buffer)
    }
}

impl BufRead for Source<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest.is_empty() {
            self.ended.set(true);
            // Not `UnexpectedEof`: the crate would answer that with an end-of-image marker.
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(self.rest)
    }

    fn consume(&mut self, amount: usize) {
        self.rest = &self.rest[amount..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes: &[u8]) -> Result<Pixels, ImageError> {
        decode(bytes, SizeLimit(1_000_000))
    }

    #[test]
    fn libjpeg_errors_become_errors() {
        for bytes in [
            &b"\xFF\xD8\xFF\xD9"[..],
            b"\xFF\xD8\xFF\xE0\0\x02\xFF\xDA\0\x03\0",
            b"\xFF\xD8\xFF\xC0\0\x0B\x08\0\x08\0\x08\x01\x01\x11\0\xFF\xD9",
        ] {
            assert!(matches!(run(bytes), Err(ImageError::Malformed { .. })));
        }
    }

    #[test]
    fn the_end_of_the_data_is_an_error_of_its_own() {
        for bytes in [&b"\xFF\xD8\xFF"[..], b"\xFF\xD8\xFF\xE0\0\x10JFIF\0"] {
            assert!(matches!(run(bytes), Err(ImageError::Truncated { .. })));
        }
    }
}
