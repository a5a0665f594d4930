//! What the samples of a TIFF mean.

use image::RgbImage;

use super::{ImageError, Reader, Tags, fail, malformed};
use crate::preprocess::decode::convert::{clip, clip_float, cmyk_to_rgb, collect_rgb, unpremultiply};

/// How the samples of a pixel become RGB.
pub(super) enum Meaning {
    /// One gray sample of at most 8 bits, scaled; `inverted` when white is zero.
    Gray { inverted: bool, alpha: bool },
    /// One gray sample of 16 or 32 bits, clipped to a byte.
    WideGray { mode: &'static str },
    /// One floating-point gray sample, clipped to a byte.
    FloatGray,
    /// An index into RGB entries.
    Palette { colors: Vec<[u8; 3]>, alpha: bool },
    /// Three colours, perhaps with alpha.
    Rgb(Alpha),
    /// Four inks.
    Cmyk,
    /// JPEG in its own colour space, which libjpeg turns into RGB.
    JpegYcc,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Alpha {
    None,
    Straight,
    Premultiplied,
}

impl Meaning {
    /// The row of Pillow's `OPEN_INFO` for these tags.
    pub(super) fn of(tags: &Tags, palette: impl FnOnce() -> Result<Vec<u16>, ImageError>) -> Result<Self, ImageError> {
        let jpeg = tags.compression == super::COMPRESSION_JPEG;
        let small = matches!(tags.bits, 1 | 2 | 4 | 8);
        let key = (tags.photometric, tags.sample_format, tags.bits, tags.samples);
        Ok(match key {
            (0 | 1, 1, _, 1) if small => Self::Gray { inverted: tags.photometric == 0, alpha: false },
            (1, 2, 8, 1) | (6, 1, 8, 1) => Self::Gray { inverted: false, alpha: false },
            (1, 1, 8, 2) if tags.extra == [2] => Self::Gray { inverted: false, alpha: true },
            (0 | 1, 1, 16, 1) => Self::WideGray { mode: if tags.big_endian { "I;16B" } else { "I;16" } },
            (1, 2, 16, 1) | (1, 1 | 2, 32, 1) => Self::WideGray { mode: "I" },
            (0 | 1, 3, 32, 1) => Self::FloatGray,
            (2, 1, 8 | 16, 3..) => Self::Rgb(alpha_of(tags)?),
            (3, 1, _, 1) if small => Self::Palette { colors: entries(&palette()?), alpha: false },
            (3, 1, 8, 2) => Self::Palette { colors: entries(&palette()?), alpha: tags.extra == [2] },
            (5, 1, 8, 4..) | (5, 1, 16, 4) => Self::Cmyk,
            (6, 1, 8, 3) if jpeg && !tags.planar => Self::JpegYcc,
            _ => return Err(tags.unsupported()),
        })
    }

    /// Pillow's name of the mode.
    pub(super) fn mode(&self, bits: u16) -> &'static str {
        match self {
            Self::Gray { alpha: true, .. } => "LA",
            Self::Gray { .. } if bits == 1 => "1",
            Self::Gray { .. } => "L",
            Self::WideGray { mode } => mode,
            Self::FloatGray => "F",
            Self::Palette { alpha: true, .. } => "PA",
            Self::Palette { .. } => "P",
            Self::Rgb(Alpha::None) | Self::JpegYcc => "RGB",
            Self::Rgb(_) => "RGBA",
            Self::Cmyk => "CMYK",
        }
    }
}

/// The alpha channel of an RGB image, from the kinds of its extra samples.
fn alpha_of(tags: &Tags) -> Result<Alpha, ImageError> {
    match (tags.samples, tags.extra.as_slice()) {
        (3, []) | (4.., [0, ..]) => Ok(Alpha::None),
        (4.., [1, ..]) => Ok(Alpha::Premultiplied),
        // libtiff takes a fourth plane without a kind for premultiplied alpha.
        (4, []) if tags.planar && tags.compression != super::COMPRESSION_NONE => Ok(Alpha::Premultiplied),
        (4, []) | (4.., [2 | 999, ..]) => Ok(Alpha::Straight),
        _ => Err(tags.unsupported()),
    }
}

/// Palette entries from the colour map; Pillow keeps the high bytes.
fn entries(map: &[u16]) -> Vec<[u8; 3]> {
    let count = map.len() / 3;
    (0..count).map(|index| [0, 1, 2].map(|channel| (map[channel * count + index] >> 8) as u8)).collect()
}

/// Uncompressed samples: whole bytes in native order, or packed rows of 1, 2 or 4 bits.
pub(super) struct Samples<'a> {
    tags: &'a Tags,
    bytes: Vec<u8>,
    row_stride: usize,
    /// Bytes from one plane to the next of a planar image.
    plane_stride: usize,
}

impl<'a> Samples<'a> {
    pub(super) fn read(reader: &mut Reader, tags: &'a Tags) -> Result<Self, ImageError> {
        let layout = reader.image_buffer_layout().map_err(fail)?;
        let mut bytes = vec![0; layout.complete_len];
        reader.read_image_bytes(&mut bytes).map_err(fail)?;
        let stride = |length: Option<std::num::NonZeroUsize>| {
            length.map(std::num::NonZero::get).ok_or_else(|| malformed("its rows are empty"))
        };
        Ok(Self { tags, bytes, row_stride: stride(layout.row_stride)?, plane_stride: stride(layout.plane_stride)? })
    }

    /// Samples of 8 bits, interleaved without padding.
    pub(super) fn interleaved(tags: &'a Tags, bytes: Vec<u8>) -> Self {
        Self { tags, row_stride: tags.width as usize * usize::from(tags.samples), plane_stride: bytes.len(), bytes }
    }

    pub(super) fn to_rgb(&self, meaning: &Meaning) -> RgbImage {
        let (width, height) = (self.tags.width, self.tags.height);
        let pixels = (0..height as usize)
            .flat_map(|y| (0..width as usize).map(move |x| (x, y)))
            .map(|(x, y)| self.pixel(meaning, x, y));
        collect_rgb(width, height, pixels)
    }

    fn pixel(&self, meaning: &Meaning, x: usize, y: usize) -> [u8; 3] {
        match meaning {
            Meaning::Gray { inverted, .. } => {
                let largest = (1u16 << self.tags.bits) - 1;
                let value = (u16::from(self.small(x, y)) * (255 / largest)) as u8;
                [if *inverted { !value } else { value }; 3]
            }
            Meaning::WideGray { .. } => [clip(self.integer(x, y)); 3],
            Meaning::FloatGray => [clip_float(f32::from_ne_bytes(self.at(0, x, y))); 3],
            Meaning::Palette { colors, .. } => colors.get(usize::from(self.small(x, y))).copied().unwrap_or_default(),
            Meaning::Rgb(Alpha::Premultiplied) => {
                let rgb = [0, 1, 2].map(|channel| self.high_byte(channel, x, y));
                unpremultiply(rgb, self.high_byte(3, x, y))
            }
            Meaning::Rgb(_) | Meaning::JpegYcc => [0, 1, 2].map(|channel| self.high_byte(channel, x, y)),
            Meaning::Cmyk => cmyk_to_rgb([0, 1, 2, 3].map(|ink| self.high_byte(ink, x, y))),
        }
    }

    /// The bytes of a sample of whole bytes.
    fn at<const N: usize>(&self, channel: usize, x: usize, y: usize) -> [u8; N] {
        let start = if self.tags.planar {
            channel * self.plane_stride + y * self.row_stride + x * N
        } else {
            y * self.row_stride + (x * usize::from(self.tags.samples) + channel) * N
        };
        std::array::from_fn(|byte| self.bytes[start + byte])
    }

    /// An 8-bit sample, or the high byte of a 16-bit one.
    fn high_byte(&self, channel: usize, x: usize, y: usize) -> u8 {
        if self.tags.bits == 16 {
            (u16::from_ne_bytes(self.at(channel, x, y)) >> 8) as u8
        } else {
            self.at::<1>(channel, x, y)[0]
        }
    }

    /// The first sample of 1, 2, 4 or 8 bits, high bits first.
    fn small(&self, x: usize, y: usize) -> u8 {
        let bits = usize::from(self.tags.bits);
        if bits == 8 {
            return self.at::<1>(0, x, y)[0];
        }
        let byte = self.bytes[y * self.row_stride + x * bits / 8];
        (byte >> (8 - bits - x * bits % 8)) & ((1 << bits) - 1)
    }

    /// A 16-bit sample by its sign, or a 32-bit one, which Pillow takes for signed.
    fn integer(&self, x: usize, y: usize) -> i64 {
        match (self.tags.bits, self.tags.sample_format) {
            (16, 2) => i64::from(i16::from_ne_bytes(self.at(0, x, y))),
            (16, _) => i64::from(u16::from_ne_bytes(self.at(0, x, y))),
            _ => i64::from(i32::from_ne_bytes(self.at(0, x, y))),
        }
    }
}
