//! WebP by the `image` crate.

use std::io::Cursor;

use image::codecs::webp::WebPDecoder;
use image::{ImageDecoder, Rgba};

use super::convert::collect_rgb;
use super::{ImageError, ImageFormat, Pixels, SizeLimit, from_image_crate, orientation};

/// The EXIF block of a file of the extended kind; the decoder would make room for all that the chunk claims to hold.
fn exif(bytes: &[u8]) -> Result<Option<&[u8]>, ImageError> {
    let mut rest = bytes.get(12..).filter(|chunks| chunks.starts_with(b"VP8X")).unwrap_or_default();
    while let Some((header, behind)) = rest.split_first_chunk::<8>() {
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if header.starts_with(b"EXIF") {
            return behind.get(..size).map(Some).ok_or(ImageError::Truncated { format: ImageFormat::WebP });
        }
        rest = behind.get(size.next_multiple_of(2)..).unwrap_or_default();
    }
    Ok(None)
}

pub(super) fn decode(bytes: &[u8], limit: SizeLimit) -> Result<Pixels, ImageError> {
    let fail = |error| from_image_crate(ImageFormat::WebP, error);
    if let Some(&[a, b, c, d]) = bytes.get(4..8) {
        // The size of the RIFF file behind this field; the decoder itself may not miss the rest.
        let size = u32::from_le_bytes([a, b, c, d]) as usize;
        if bytes.len() - 8 < size {
            return Err(ImageError::Truncated { format: ImageFormat::WebP });
        }
    }
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(fail)?;
    let (width, height) = decoder.dimensions();
    limit.check(width, height)?;
    let orientation_tag = orientation::tag_of(exif(bytes)?);
    if decoder.has_animation() {
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
