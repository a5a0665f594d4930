//! First frame of a GIF.

use std::io::Cursor;

use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};
use image::RgbImage;

use super::{ImageError, ImageFormat, Pixels, SizeLimit};

pub(super) fn decode(bytes: &[u8], limit: SizeLimit) -> Result<Pixels, ImageError> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(Cursor::new(bytes)).map_err(fail)?;
    let (screen_width, screen_height) = (decoder.width(), decoder.height());

    let frame = decoder.next_frame_info().map_err(fail)?.ok_or_else(|| malformed("it has no frame"))?;
    let (left, top) = (u32::from(frame.left), u32::from(frame.top));
    let (frame_width, frame_height) = (u32::from(frame.width), u32::from(frame.height));
    let transparent = frame.transparent;
    // Pillow enlarges the canvas where the frame reaches beyond it.
    let width = u32::from(screen_width).max(left + frame_width);
    let height = u32::from(screen_height).max(top + frame_height);
    limit.check(width, height)?;

    let mut indices = vec![0; decoder.buffer_size()];
    if !indices.is_empty() {
        decoder.read_into_buffer(&mut indices).map_err(fail)?;
    }
    let palette = Palette::of(decoder.palette().map_err(fail)?);

    // The canvas starts with the transparent colour of the frame, or the first of the palette.
    let background = palette.color(transparent.unwrap_or(0));
    let mut rgb = RgbImage::from_pixel(width, height, image::Rgb(background));
    for (y, row) in (top..).zip(indices.chunks_exact(frame_width.max(1) as usize)) {
        for (x, &index) in (left..).zip(row) {
            rgb.put_pixel(x, y, image::Rgb(palette.color(index)));
        }
    }
    Ok(Pixels { rgb, mode: if palette.is_ramp() { "L" } else { "P" }, orientation_tag: 1, exact: true })
}

/// A colour table of up to 256 entries of three bytes.
struct Palette<'a>(&'a [u8]);

impl<'a> Palette<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether entry `i` is gray `i` throughout; Pillow then opens the file as mode `L`.
    fn is_ramp(&self) -> bool {
        self.0.chunks_exact(3).enumerate().all(|(index, entry)| entry.iter().all(|&value| usize::from(value) == index))
    }

    /// Colour of an index; beyond the table it is black, or gray in a ramp.
    fn color(&self, index: u8) -> [u8; 3] {
        let at = usize::from(index) * 3;
        match self.0.get(at..at + 3) {
            Some(entry) => [entry[0], entry[1], entry[2]],
            None if self.is_ramp() => [index; 3],
            None => [0; 3],
        }
    }
}

fn malformed(reason: impl Into<String>) -> ImageError {
    ImageError::Malformed { format: ImageFormat::Gif, reason: reason.into() }
}

fn fail(error: DecodingError) -> ImageError {
    match error {
        DecodingError::UnexpectedEof => ImageError::Truncated { format: ImageFormat::Gif },
        DecodingError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format: ImageFormat::Gif }
        }
        error => malformed(error.to_string()),
    }
}
