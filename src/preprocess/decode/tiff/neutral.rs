//! A copy of a TIFF that the `tiff` crate reads as plain bands.

use std::ops::Range;

use ::tiff::tags::Tag;

use super::{ImageError, Reader, fail, malformed, truncated};

const PHOTOMETRIC_INTERPRETATION: u64 = 262;
/// "Black is zero": gray for one sample, unnamed bands for several.
const BLACK_IS_ZERO: u16 = 1;

/// The copy, and the photometric interpretation that it hides.
pub(super) struct Neutral {
    pub(super) bytes: Vec<u8>,
    pub(super) photometric: u16,
}

/// Replaces the photometric interpretation of the first page by "black is zero".
pub(super) fn neutral(bytes: &[u8]) -> Result<Neutral, ImageError> {
    let fields = Fields { bytes, big_endian: bytes.starts_with(b"MM") };
    let at = fields.photometric_value()?;
    let photometric = fields.number(at, 2)? as u16;
    let mut copy = bytes.to_vec();
    let value = if fields.big_endian { BLACK_IS_ZERO.to_be_bytes() } else { BLACK_IS_ZERO.to_le_bytes() };
    // Inside the file, as the number has just been read there.
    copy[at..at + 2].copy_from_slice(&value);
    Ok(Neutral { bytes: copy, photometric })
}

/// Reverses the bits of all strips or tiles (fill order 2: the lowest bit comes first).
pub(super) fn reverse_bits(mut reader: Reader) -> Result<Reader, ImageError> {
    let chunks = chunks(&mut reader)?;
    let mut bytes = std::mem::take(reader.inner().get_mut());
    for chunk in chunks {
        let end = chunk.end.min(bytes.len());
        for byte in bytes.get_mut(chunk.start..end).unwrap_or_default() {
            *byte = byte.reverse_bits();
        }
    }
    super::reader(bytes)
}

/// Where the strips or tiles are in the file.
pub(super) fn chunks(reader: &mut Reader) -> Result<Vec<Range<usize>>, ImageError> {
    let mut read = |strips, tiles| -> Result<Vec<u64>, ImageError> {
        for tag in [strips, tiles] {
            if let Some(values) = reader.find_tag_unsigned_vec(tag).map_err(fail)? {
                return Ok(values);
            }
        }
        Ok(Vec::new())
    };
    let offsets = read(Tag::StripOffsets, Tag::TileOffsets)?;
    let lengths = read(Tag::StripByteCounts, Tag::TileByteCounts)?;
    Ok(offsets
        .into_iter()
        .zip(lengths)
        .map(|(offset, length)| offset as usize..offset.saturating_add(length) as usize)
        .collect())
}

/// Numbers of a file of either byte order.
struct Fields<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl Fields<'_> {
    /// The unsigned number of `length` bytes at `at`.
    fn number(&self, at: usize, length: usize) -> Result<u64, ImageError> {
        let end = at.checked_add(length).ok_or_else(truncated)?;
        let digits = self.bytes.get(at..end).ok_or_else(truncated)?.iter();
        let join = |number, &digit: &u8| (number << 8) | u64::from(digit);
        Ok(if self.big_endian { digits.fold(0, join) } else { digits.rev().fold(0, join) })
    }

    /// Where the first directory keeps the 16-bit photometric interpretation.
    fn photometric_value(&self) -> Result<usize, ImageError> {
        // `BigTIFF` has 64-bit offsets and counts, and 20-byte entries.
        let big = self.number(2, 2)? == 43;
        let (pointer, offset, count, entry) = if big { (8, 8, 8, 20) } else { (4, 4, 2, 12) };
        let directory = self.number(pointer, offset)? as usize;
        let mut at = directory.saturating_add(count);
        for _ in 0..self.number(directory, count)? {
            if self.number(at, 2)? == PHOTOMETRIC_INTERPRETATION {
                let long = self.number(at + 2, 2)? == 4;
                let value = at + entry - offset;
                // A 32-bit number in big-endian order has its low half behind the high one.
                return Ok(if long && self.big_endian { value + 2 } else { value });
            }
            at = at.saturating_add(entry);
        }
        Err(malformed("it has no photometric interpretation"))
    }
}
