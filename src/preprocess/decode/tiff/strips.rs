//! JPEG strips and tiles.

use ::tiff::tags::Tag;
use image::{GenericImage, RgbImage};

use super::samples::{Alpha, Meaning};
use super::{ImageError, Reader, Tags, fail, malformed, neutral, truncated};
use crate::preprocess::decode::convert::{cmyk_to_rgb, collect_rgb};
use crate::preprocess::decode::jpeg::{Colors, decode_samples};

/// Decodes the JPEG of each strip or tile and puts it in its place.
pub(super) fn decode(
    reader: &mut Reader,
    tags: &Tags,
    meaning: &Meaning,
) -> Result<RgbImage, ImageError> {
    let (colors, channels) = match meaning {
        Meaning::JpegYcc => (Colors::FromFile, 3),
        Meaning::Rgb(Alpha::None) => (Colors::Stored, 3),
        Meaning::Gray {
            inverted: false,
            alpha: false,
        } => (Colors::Stored, 1),
        Meaning::Cmyk => (Colors::Stored, 4),
        _ => return Err(tags.unsupported()),
    };
    if tags.planar && channels > 1 || tags.bits != 8 || usize::from(tags.samples) != channels {
        return Err(tags.unsupported());
    }
    // Tables shared by all strips: a JPEG file without an image.
    let tables: Vec<u8> = reader
        .find_tag_unsigned_vec(Tag::JPEGTables)
        .map_err(fail)?
        .unwrap_or_default();
    let chunks = neutral::chunks(reader)?;
    let (chunk_width, chunk_height) = reader.chunk_dimensions();
    let across = tags.width.div_ceil(chunk_width);

    let mut rgb = RgbImage::new(tags.width, tags.height);
    for (index, chunk) in (0..).zip(chunks) {
        let left = index % across * chunk_width;
        let Some(top) = (index / across)
            .checked_mul(chunk_height)
            .filter(|&top| top < tags.height)
        else {
            break;
        };
        let width = chunk_width.min(tags.width - left);
        let height = chunk_height.min(tags.height - top);
        let stream = reader.inner().get_ref().get(chunk).ok_or_else(truncated)?;
        let stream = with_tables(&tables, stream);
        let samples = decode_samples(&stream, colors, |w, h| {
            // A strip may be padded, but not without measure.
            let fits = (width..=chunk_width.next_multiple_of(64)).contains(&w)
                && (height..=chunk_height.saturating_add(64)).contains(&h);
            if fits {
                Ok(())
            } else {
                Err(malformed(format!(
                    "a JPEG strip of {width} x {height} pixels is {w} x {h}"
                )))
            }
        })
        .map_err(as_tiff)?;
        if samples.channels != channels {
            return Err(malformed("a JPEG strip has other colours than the file"));
        }
        let pixels = samples
            .values
            .chunks_exact(channels)
            .map(|pixel| match *pixel {
                [red, green, blue] => [red, green, blue],
                [cyan, magenta, yellow, black] => cmyk_to_rgb([cyan, magenta, yellow, black]),
                _ => [pixel[0]; 3],
            });
        let strip = collect_rgb(samples.width, samples.height, pixels);
        let strip = image::imageops::crop_imm(&strip, 0, 0, width, height);
        rgb.copy_from(&*strip, left, top)
            .map_err(|error| malformed(error.to_string()))?;
    }
    Ok(rgb)
}

/// The tables without their end marker, then the strip without its start marker.
fn with_tables(tables: &[u8], strip: &[u8]) -> Vec<u8> {
    let tables = tables.strip_suffix(b"\xFF\xD9").unwrap_or(tables);
    match strip.strip_prefix(b"\xFF\xD8") {
        Some(rest) if !tables.is_empty() => [tables, rest].concat(),
        _ => strip.to_vec(),
    }
}

/// An error of a strip as one of the file.
fn as_tiff(error: ImageError) -> ImageError {
    match error {
        ImageError::Truncated { .. } => truncated(),
        ImageError::Malformed { reason, .. } => malformed(format!("a JPEG strip: {reason}")),
        ImageError::UnsupportedFeature { feature, .. } => ImageError::UnsupportedFeature {
            format: super::ImageFormat::Tiff,
            feature: format!("a JPEG strip: {feature}"),
        },
        error => error,
    }
}
