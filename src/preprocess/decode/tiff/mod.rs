//! First page of a TIFF.
//!
//! The `tiff` crate undoes compression, predictors, tiles and byte order; what the samples mean is
//! decided here, by the table in Pillow's `TiffImagePlugin` (`OPEN_INFO`). The crate refuses
//! palettes and a few layouts that Pillow reads, so it is shown a copy of the file whose samples
//! claim to be plain gray bands ([`neutral`]). JPEG strips are decoded like JPEG files ([`strips`]).

mod neutral;
mod samples;
mod strips;

use std::io::Cursor;

use ::tiff::decoder::{Decoder, Limits};
use ::tiff::tags::{ByteOrder, Tag};
use ::tiff::{TiffError, TiffFormatError};

use super::{ImageError, ImageFormat, Pixels, SizeLimit};
use samples::{Meaning, Samples};

/// Most samples of a pixel that Pillow knows a mode for.
const MAX_SAMPLES: u16 = 6;

const COMPRESSION_NONE: u16 = 1;
const COMPRESSION_JPEG: u16 = 7;

type Reader = Decoder<Cursor<Vec<u8>>>;

pub(super) fn decode(bytes: &[u8], limit: SizeLimit) -> Result<Pixels, ImageError> {
    let neutral = neutral::neutral(bytes)?;
    let mut reader = reader(neutral.bytes)?;
    let (width, height) = reader.dimensions().map_err(fail)?;
    limit.check(width, height)?;
    let (chunk_width, chunk_height) = reader.chunk_dimensions();
    limit.check(chunk_width, chunk_height.min(height))?;

    let tags = Tags::read(&mut reader, neutral.photometric)?;
    if tags.fill_order == 2 && tags.compression != COMPRESSION_JPEG {
        reader = neutral::reverse_bits(reader)?;
    }
    let meaning = Meaning::of(&tags, || reader_palette(bytes))?;
    let samples = if tags.compression == COMPRESSION_JPEG {
        strips::read(&mut reader, &tags, &meaning, limit)?
    } else {
        Samples::read(&mut reader, &tags)?
    };
    Ok(Pixels {
        rgb: samples.to_rgb(&meaning),
        mode: meaning.mode(tags.bits),
        orientation_tag: tags.orientation,
        // Pillow swaps the bytes of compressed big-endian 32-bit samples twice and gets noise.
        exact: !(tags.big_endian && tags.bits == 32 && tags.compression != COMPRESSION_NONE),
    })
}

/// A reader whose lists of values are no longer than the file has room for; in memory a value takes 32 bytes.
fn reader(bytes: Vec<u8>) -> Result<Reader, ImageError> {
    let mut limits = Limits::unlimited();
    limits.decoding_buffer_size = 32 * bytes.len();
    Ok(Decoder::new(Cursor::new(bytes)).map_err(fail)?.with_limits(limits))
}

/// The colour map of the file: all reds, all greens, all blues, 16 bits each.
fn reader_palette(bytes: &[u8]) -> Result<Vec<u16>, ImageError> {
    let mut reader = Decoder::new(Cursor::new(bytes)).map_err(fail)?;
    reader
        .find_tag_unsigned_vec(Tag::ColorMap)
        .map_err(fail)?
        .ok_or_else(|| malformed("it has a palette mode, but no palette"))
}

/// The tags that decide what a sample means.
struct Tags {
    width: u32,
    height: u32,
    photometric: u16,
    bits: u16,
    samples: u16,
    /// Kinds of the samples beyond the colours: 0 unspecified, 1 premultiplied alpha, 2 alpha.
    extra: Vec<u16>,
    /// 1 unsigned, 2 signed, 3 floating point.
    sample_format: u16,
    compression: u16,
    planar: bool,
    fill_order: u16,
    orientation: u8,
    big_endian: bool,
}

impl Tags {
    fn read(reader: &mut Reader, photometric: u16) -> Result<Self, ImageError> {
        let (width, height) = reader.dimensions().map_err(fail)?;
        let big_endian = reader.byte_order() == ByteOrder::BigEndian;
        let mut all = |tag| -> Result<Vec<u16>, ImageError> {
            let values = reader.find_tag_unsigned_vec(tag).map_err(fail)?;
            Ok(values.unwrap_or_default())
        };
        let mut first = |tag, default| Ok(all(tag)?.first().copied().unwrap_or(default));
        let tags = Self {
            width,
            height,
            photometric,
            bits: first(Tag::BitsPerSample, 1)?,
            samples: first(Tag::SamplesPerPixel, 1)?,
            sample_format: first(Tag::SampleFormat, 1)?,
            compression: first(Tag::Compression, 1)?,
            planar: first(Tag::PlanarConfiguration, 1)? == 2,
            fill_order: first(Tag::FillOrder, 1)?,
            orientation: first(Tag::Orientation, 1)?.clamp(1, 8) as u8,
            extra: all(Tag::ExtraSamples)?,
            big_endian,
        };
        if tags.samples > MAX_SAMPLES || tags.bits > 32 {
            return Err(tags.unsupported());
        }
        Ok(tags)
    }

    fn unsupported(&self) -> ImageError {
        ImageError::UnsupportedFeature {
            format: ImageFormat::Tiff,
            feature: format!(
                "photometric interpretation {}, {} samples of {} bits, sample format {}, compression {}{}",
                self.photometric,
                self.samples,
                self.bits,
                self.sample_format,
                self.compression,
                if self.planar { ", planar" } else { "" },
            ),
        }
    }
}

fn truncated() -> ImageError {
    ImageError::Truncated { format: ImageFormat::Tiff }
}

fn malformed(reason: impl Into<String>) -> ImageError {
    ImageError::Malformed { format: ImageFormat::Tiff, reason: reason.into() }
}

fn fail(error: TiffError) -> ImageError {
    match error {
        TiffError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => truncated(),
        TiffError::FormatError(TiffFormatError::InvalidDimensions(width, height)) => {
            ImageError::ZeroSize { width, height }
        }
        TiffError::UnsupportedError(error) => {
            ImageError::UnsupportedFeature { format: ImageFormat::Tiff, feature: error.to_string() }
        }
        error => malformed(error.to_string()),
    }
}
