//! JPEG strips and tiles.

use ::tiff::tags::Tag;

use super::samples::{Meaning, Samples};
use super::{ImageError, Reader, SizeLimit, Tags, fail, malformed, neutral, truncated};
use crate::preprocess::decode::jpeg::{Colors, decode_samples};

/// Decodes the JPEG of each strip or tile and puts its samples in their place.
pub(super) fn read<'a>(
    reader: &mut Reader,
    tags: &'a Tags,
    meaning: &Meaning,
    limit: SizeLimit,
) -> Result<Samples<'a>, ImageError> {
    let channels = usize::from(tags.samples);
    if tags.planar && channels > 1 || tags.bits != 8 {
        return Err(tags.unsupported());
    }
    let colors = match meaning {
        Meaning::JpegYcc => Colors::FromFile,
        _ => Colors::Stored,
    };
    // Tables shared by all strips: a JPEG file without an image.
    let tables: Vec<u8> = reader.find_tag_unsigned_vec(Tag::JPEGTables).map_err(fail)?.unwrap_or_default();
    let chunks = neutral::chunks(reader)?;
    // Each is read from its beginning, so many names of a long one would be read for hours.
    let stored = chunks.iter().fold(0_usize, |sum, chunk| sum.saturating_add(chunk.len()));
    if stored > reader.inner().get_ref().len() {
        return Err(malformed("its strips are longer than the file"));
    }
    let (chunk_width, chunk_height) = reader.chunk_dimensions();
    let across = tags.width.div_ceil(chunk_width);

    let pitch = tags.width as usize * channels;
    let mut bytes = vec![0; pitch * tags.height as usize];
    for (index, chunk) in (0..).zip(chunks) {
        let left = index % across * chunk_width;
        let Some(top) = (index / across).checked_mul(chunk_height).filter(|&top| top < tags.height) else {
            break;
        };
        let width = chunk_width.min(tags.width - left);
        let height = chunk_height.min(tags.height - top);
        let stream = reader.inner().get_ref().get(chunk).ok_or_else(truncated)?;
        let strip = decode_samples(&with_tables(&tables, stream), colors, |w, h| {
            // A strip may be padded, but not without measure.
            let fits = (width..=chunk_width.saturating_add(64)).contains(&w)
                && (height..=chunk_height.saturating_add(64)).contains(&h);
            if fits {
                limit.check(w, h)
            } else {
                Err(malformed(format!("a JPEG strip of {width} x {height} pixels is {w} x {h}")))
            }
        })
        .map_err(as_tiff)?;
        if strip.channels != channels {
            return Err(malformed("a JPEG strip has other colours than the file"));
        }
        let rows = strip.values.chunks_exact(strip.width as usize * channels);
        for (row, y) in rows.zip(top..top + height) {
            let at = y as usize * pitch + left as usize * channels;
            let length = width as usize * channels;
            bytes[at..at + length].copy_from_slice(&row[..length]);
        }
    }
    Ok(Samples::interleaved(tags, bytes))
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
