//! WebP by the `image` crate.

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::{ImageDecoder, Rgba};

use super::convert::collect_rgb;
use super::{ImageError, ImageFormat, Pixels, SizeLimit, from_image_crate, orientation};

/// The chunks of a RIFF file or of one of its chunks: names of four letters and data, none where they end too early.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = (&[u8; 4], Option<&[u8]>)> {
    std::iter::from_fn(move || {
        let (name, behind) = rest.split_first_chunk::<4>()?;
        let (size, behind) = behind.split_first_chunk::<4>()?;
        let size = u32::from_le_bytes(*size) as usize;
        rest = behind.get(size.next_multiple_of(2)..).unwrap_or_default();
        Some((name, behind.get(..size)))
    })
}

/// The chunks of a file of the extended kind, which alone has others than that of its pixels.
fn extended_chunks(bytes: &[u8]) -> impl Iterator<Item = (&[u8; 4], Option<&[u8]>)> {
    chunks(bytes.get(12..).filter(|chunks| chunks.starts_with(b"VP8X")).unwrap_or_default())
}

const TRUNCATED: ImageError = ImageError::Truncated { format: ImageFormat::WebP };

/// The EXIF block of a file of the extended kind; the decoder would make room for all that the chunk claims to hold.
fn exif(bytes: &[u8]) -> Result<Option<&[u8]>, ImageError> {
    let exif = extended_chunks(bytes).find(|(name, _)| *name == b"EXIF");
    exif.map(|(_, data)| data.ok_or(TRUNCATED)).transpose()
}

/// Checks that an animation's first frame is of the size it says if its alpha channel comes apart: the decoder takes the frame
/// for as large as that.
fn check_first_frame(bytes: &[u8]) -> Result<(), ImageError> {
    let Some((_, frame)) = extended_chunks(bytes).find(|(name, _)| *name == b"ANMF") else { return Ok(()) };
    let (head, parts) = frame.ok_or(TRUNCATED)?.split_first_chunk::<16>().ok_or(TRUNCATED)?;
    let side = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], 0]) + 1;
    let mut parts = chunks(parts);
    if parts.next().is_none_or(|(name, _)| name != b"ALPH") {
        return Ok(());
    }
    let size = match parts.next() {
        // A frame that needs no other: its first bit is not set, and a size follows behind three bytes and a mark.
        Some((b"VP8 ", Some(&[tag, _, _, 0x9D, 0x01, 0x2A, a, b, c, d, ..]))) if tag & 1 == 0 => {
            [[a, b], [c, d]].map(|side| u32::from(u16::from_le_bytes(side) & 0x3FFF))
        }
        _ => [0, 0],
    };
    if size == [side(6), side(9)] {
        return Ok(());
    }
    let reason = "the first frame of the animation is not of the size it says".to_owned();
    Err(ImageError::Malformed { format: ImageFormat::WebP, reason })
}

pub(super) fn decode(bytes: &[u8], limit: SizeLimit) -> Result<Pixels, ImageError> {
    let fail = |error| from_image_crate(ImageFormat::WebP, error);
    if let Some(&[a, b, c, d]) = bytes.get(4..8) {
        // The size of the RIFF file behind this field; the decoder itself may not miss the rest.
        let size = u32::from_le_bytes([a, b, c, d]) as usize;
        if bytes.len() - 8 < size {
            return Err(TRUNCATED);
        }
    }
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(fail)?;
    let (width, height) = decoder.dimensions();
    limit.check(width, height)?;
    let orientation_tag = orientation::tag_of(exif(bytes)?);
    if decoder.has_animation() {
        check_first_frame(bytes)?;
        // What a first frame does not cover is transparent black in libwebp, black without alpha.
        decoder.set_background_color(Rgba([0, 0, 0, 0])).map_err(fail)?;
    }

    let channels = usize::from(decoder.color_type().channel_count());
    let mut samples = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut samples).map_err(fail)?;
    let pixels = samples.chunks_exact(channels).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
    Ok(Pixels {
        rgb: collect_rgb(width, height, pixels),
        mode: if channels == 4 { "RGBA" } else { "RGB" },
        orientation_tag,
        exact: true,
    })
}
