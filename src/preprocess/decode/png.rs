//! PNG by the `image` crate, with Pillow's reading of 16-bit samples.

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::{ColorType, ImageDecoder, Limits, RgbImage};

use super::convert::{clip, collect_rgb};
use super::{ImageError, ImageFormat, Pixels, SizeLimit, from_image_crate, orientation};

/// Most bytes of a colour profile, unpacked: one that has more is passed over, as all are that are there.
const MAX_PROFILE: usize = 16 << 20;

const GRAY: u8 = 0;
const PALETTE: u8 = 3;

pub(super) fn decode(bytes: &[u8], limit: SizeLimit) -> Result<Pixels, ImageError> {
    let fail = |error| from_image_crate(ImageFormat::Png, error);
    let header = header(bytes)?;
    limit.check(header.width, header.height)?;
    let mut decoder = PngDecoder::with_limits(Cursor::new(bytes), limits(bytes, &header)).map_err(fail)?;
    let orientation_tag = orientation::tag_of(decoder.exif_metadata().map_err(fail)?.as_deref());

    let color = decoder.color_type();
    let mut samples = vec![0; decoder.total_bytes() as usize];
    decoder.read_image(&mut samples).map_err(fail)?;
    Ok(Pixels { rgb: to_rgb(&header, color, samples)?, mode: header.mode(), orientation_tag, exact: true })
}

/// Memory for all but the pixels: chunks as they lie, one line, and the colour profile, of which a kilobyte may unpack to a
/// megabyte.
fn limits(bytes: &[u8], header: &Header) -> Limits {
    let (chunks, line) = (4 * bytes.len(), 8 * (header.width as usize + 1));
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some((chunks + line + MAX_PROFILE) as u64);
    limits
}

/// The fields of the first chunk that decide how pixels are read.
struct Header {
    width: u32,
    height: u32,
    depth: u8,
    color: u8,
}

fn header(bytes: &[u8]) -> Result<Header, ImageError> {
    let truncated = ImageError::Truncated { format: ImageFormat::Png };
    match bytes.get(12..26) {
        None => Err(truncated),
        Some(&[b'I', b'H', b'D', b'R', w0, w1, w2, w3, h0, h1, h2, h3, depth, color]) => Ok(Header {
            width: u32::from_be_bytes([w0, w1, w2, w3]),
            height: u32::from_be_bytes([h0, h1, h2, h3]),
            depth,
            color,
        }),
        Some(_) => Err(ImageError::Malformed {
            format: ImageFormat::Png,
            reason: "its first chunk is not the header (IHDR)".to_owned(),
        }),
    }
}

impl Header {
    /// The mode Pillow opens the file with.
    fn mode(&self) -> &'static str {
        match (self.color, self.depth) {
            (GRAY, 1) => "1",
            (GRAY, 16) => "I;16",
            (GRAY, _) => "L",
            (2, _) => "RGB",
            (PALETTE, _) => "P",
            // Pillow widens 16-bit gray with alpha to colour.
            (4, 8) => "LA",
            _ => "RGBA",
        }
    }
}

/// Samples as the decoder gives them (8-bit, or 16-bit in native byte order) to RGB.
///
/// The decoder has already looked palette entries up, scaled gray of less than 8 bits, and added
/// an alpha channel where the file names transparent colours; alpha is dropped.
fn to_rgb(header: &Header, color: ColorType, samples: Vec<u8>) -> Result<RgbImage, ImageError> {
    let (width, height) = (header.width, header.height);
    let channels = usize::from(color.channel_count());
    let wide = color.bytes_per_pixel() as usize / channels == 2;
    if color == ColorType::Rgb8 {
        return RgbImage::from_raw(width, height, samples).ok_or(ImageError::Truncated { format: ImageFormat::Png });
    }
    // Pillow clips 16-bit gray (its mode I;16), but keeps the high byte of gray with alpha.
    let narrow = |sample: [u8; 2]| {
        let value = u16::from_ne_bytes(sample);
        if header.color == GRAY { clip(i64::from(value)) } else { (value >> 8) as u8 }
    };
    let bytes_per_pixel = usize::from(color.bytes_per_pixel());
    let pixels = samples.chunks_exact(bytes_per_pixel).map(|pixel| {
        let sample = |channel: usize| {
            if wide { narrow([pixel[2 * channel], pixel[2 * channel + 1]]) } else { pixel[channel] }
        };
        if channels < 3 { [sample(0); 3] } else { [sample(0), sample(1), sample(2)] }
    });
    Ok(collect_rgb(width, height, pixels))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn chunk(kind: &[u8], data: &[u8]) -> Vec<u8> {
        let mut crc = flate2::Crc::new();
        crc.update(kind);
        crc.update(data);
        [(data.len() as u32).to_be_bytes().as_slice(), kind, data, &crc.sum().to_be_bytes()].concat()
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// 32 KiB that become 32 MiB.
    #[test]
    fn a_profile_that_unpacks_to_much_is_passed_over() {
        let profile = [b"name\0\0".as_slice(), &packed(&vec![0; 2 * MAX_PROFILE])].concat();
        let start = b"\x89PNG\r\n\x1a\n".to_vec();
        let ihdr = chunk(b"IHDR", b"\0\0\0\x01\0\0\0\x01\x08\0\0\0\0");
        let rest = [chunk(b"IDAT", &packed(&[0, 7])), chunk(b"IEND", &[])].concat();
        let file = [start, ihdr, chunk(b"iCCP", &profile), rest].concat();
        let mut decoder = PngDecoder::with_limits(Cursor::new(&file), limits(&file, &header(&file).unwrap())).unwrap();
        assert_eq!(decoder.icc_profile().unwrap(), None);
        assert_eq!(decode(&file, SizeLimit(1)).unwrap().rgb.as_raw(), &[7; 3]);
    }
}
