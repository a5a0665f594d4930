//! Windows bitmaps, read as Pillow's `BmpImagePlugin` reads them.

use image::RgbImage;

use super::{ImageError, ImageFormat, Pixels, SizeLimit};

/// Header sizes of the versions that store width and height in 32 bits.
const INFO_HEADERS: [u32; 6] = [40, 52, 56, 64, 108, 124];

/// How the pixels are stored (`biCompression`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    Raw,
    Rle8,
    Rle4,
    Bitfields,
}

pub(super) fn decode(bytes: &[u8], limit: SizeLimit) -> Result<Pixels, ImageError> {
    let header = Header::parse(bytes)?;
    limit.check(header.width, header.height)?;
    let (mut rgb, mode) = if header.bits <= 8 {
        let palette = Palette::parse(bytes, &header)?;
        let indices = match header.compression {
            Compression::Rle8 | Compression::Rle4 => unpack_rle(bytes, &header)?,
            Compression::Raw | Compression::Bitfields => unpack_indices(bytes, &header)?,
        };
        let pixels = indices.iter().map(|&index| palette.color(index));
        (header.collect(pixels), palette.mode())
    } else {
        let layout = Layout::of(bytes, &header)?;
        let width = header.width as usize * header.bits as usize / 8;
        let rows = header.rows(bytes)?;
        let pixels = rows.flat_map(|row| row[..width].chunks_exact(layout.bytes())).map(|pixel| layout.read(pixel));
        (header.collect(pixels), layout.mode())
    };
    if !header.top_down {
        image::imageops::flip_vertical_in_place(&mut rgb);
    }
    Ok(Pixels { rgb, mode, orientation_tag: 1, exact: true })
}

struct Header {
    /// Size of the information header behind the 14 bytes of the file header.
    size: u32,
    width: u32,
    height: u32,
    top_down: bool,
    bits: u32,
    compression: Compression,
    colors: u32,
    /// Where the pixels start.
    data: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let size = u32_at(bytes, 14)?;
        let core = size == 12;
        if !core && !INFO_HEADERS.contains(&size) {
            return Err(unsupported(format!("header of {size} bytes")));
        }
        let (width, height, bits) = if core {
            (u32::from(u16_at(bytes, 18)?), u32::from(u16_at(bytes, 20)?).cast_signed(), u16_at(bytes, 24)?)
        } else {
            (u32_at(bytes, 18)?, u32_at(bytes, 22)?.cast_signed(), u16_at(bytes, 28)?)
        };
        let compression = match if core { 0 } else { u32_at(bytes, 30)? } {
            0 => Compression::Raw,
            1 => Compression::Rle8,
            2 => Compression::Rle4,
            3 => Compression::Bitfields,
            other => return Err(unsupported(format!("compression method {other}"))),
        };
        if !matches!(bits, 1 | 4 | 8 | 16 | 24 | 32) {
            return Err(unsupported(format!("{bits} bits a pixel")));
        }
        let rle = matches!(compression, Compression::Rle8 | Compression::Rle4);
        if rle && bits > 8 || compression == Compression::Bitfields && bits < 16 {
            return Err(unsupported(format!("this compression at {bits} bits a pixel")));
        }
        let colors = match if core { 0 } else { u32_at(bytes, 46)? } {
            0 => 1u32.checked_shl(u32::from(bits)).unwrap_or(0),
            colors => colors,
        };
        let mut data = u32_at(bytes, 10)? as usize;
        let table = 14 + size as usize;
        if data == 0 {
            // No offset: the pixels follow the masks or the palette.
            let masks = if compression == Compression::Bitfields && size == 40 { 12 } else { 0 };
            let entry = if core { 3 } else { 4 };
            let palette = if bits <= 8 { colors as usize * entry } else { 0 };
            data = table + masks + palette;
        } else if data == table && bits <= 8 {
            // The offset points at the palette; Pillow steps over it by entries of four bytes.
            data += colors as usize * 4;
        }
        Ok(Self {
            size,
            width,
            height: height.unsigned_abs(),
            top_down: height < 0,
            bits: u32::from(bits),
            compression,
            colors,
            data,
        })
    }

    /// The stored rows. Each but the last is padded to four bytes.
    fn rows<'a>(&self, bytes: &'a [u8]) -> Result<impl Iterator<Item = &'a [u8]>, ImageError> {
        let used = (u64::from(self.width) * u64::from(self.bits)).div_ceil(8) as usize;
        let pitch = used.next_multiple_of(4);
        let rows = self.height as usize;
        let data = bytes.get(self.data..).unwrap_or_default();
        if data.len() < pitch * (rows - 1) + used {
            return Err(truncated());
        }
        Ok(data.chunks(pitch).take(rows))
    }

    fn collect(&self, pixels: impl Iterator<Item = [u8; 3]>) -> RgbImage {
        super::convert::collect_rgb(self.width, self.height, pixels)
    }
}

/// The colour table of an image of at most 8 bits.
struct Palette {
    colors: Vec<[u8; 3]>,
    /// The entries are the gray ramp (black and white for two): Pillow's modes `1` and `L`.
    gray: bool,
}

impl Palette {
    fn parse(bytes: &[u8], header: &Header) -> Result<Self, ImageError> {
        if header.colors > 65_536 {
            return Err(malformed(format!("palette of {} colours", header.colors)));
        }
        let entry = if header.size == 12 { 3 } else { 4 };
        let table = bytes.get(14 + header.size as usize..).unwrap_or_default();
        let colors: Vec<[u8; 3]> =
            table.chunks_exact(entry).take(header.colors as usize).map(|bgr| [bgr[2], bgr[1], bgr[0]]).collect();
        let last = if header.colors == 2 { 255 } else { 1 };
        let gray = colors.len() == header.colors as usize
            && colors
                .iter()
                .enumerate()
                .all(|(index, color)| color.iter().all(|&value| usize::from(value) == index * last));
        Ok(Self { colors, gray })
    }

    fn color(&self, index: u8) -> [u8; 3] {
        match self.colors.get(usize::from(index)) {
            Some(&color) => color,
            None if self.gray => [index; 3],
            None => [0; 3],
        }
    }

    fn mode(&self) -> &'static str {
        match (self.gray, self.colors.len()) {
            (true, 2) => "1",
            (true, _) => "L",
            (false, _) => "P",
        }
    }
}

/// Palette indices of 1, 4 or 8 bits, high bits first.
fn unpack_indices(bytes: &[u8], header: &Header) -> Result<Vec<u8>, ImageError> {
    let width = header.width as usize;
    let mut indices = Vec::with_capacity(width * header.height as usize);
    let bits = header.bits as usize;
    let mask = ((1u16 << bits) - 1) as u8;
    for row in header.rows(bytes)? {
        indices.extend((0..width).map(|x| {
            let bit = x * bits;
            (row[bit / 8] >> (8 - bits - bit % 8)) & mask
        }));
    }
    Ok(indices)
}

/// Palette indices of a run-length encoded image (`BmpRleDecoder` of Pillow).
fn unpack_rle(bytes: &[u8], header: &Header) -> Result<Vec<u8>, ImageError> {
    let four = header.compression == Compression::Rle4;
    let width = header.width as usize;
    let wanted = width * header.height as usize;
    let mut indices: Vec<u8> = Vec::with_capacity(wanted);
    let mut x = 0;
    let mut at = header.data;
    while indices.len() < wanted {
        let Some(&[count, value]) = bytes.get(at..at + 2) else {
            break;
        };
        at += 2;
        match (count, value) {
            (0, 0) => {
                indices.resize(indices.len().next_multiple_of(width), 0);
                x = 0;
            }
            (0, 1) => break,
            (0, 2) => {
                // Pillow reads the two offsets twice and uses the second pair.
                let Some(&[right, up]) = bytes.get(at + 2..at + 4) else {
                    break;
                };
                at += 4;
                let skipped = usize::from(right) + usize::from(up) * width;
                indices.resize((indices.len() + skipped).min(wanted), 0);
                x = indices.len() % width;
            }
            (0, literal) => {
                let literal = usize::from(literal);
                let length = if four { literal / 2 } else { literal };
                let end = (at + length).min(bytes.len());
                let data = bytes.get(at..end).unwrap_or_default();
                if four {
                    indices.extend(data.iter().flat_map(|byte| [byte >> 4, byte & 15]));
                } else {
                    indices.extend_from_slice(data);
                }
                if data.len() < length {
                    break;
                }
                x += literal;
                // Pillow aligns by the position in the file.
                at = (at + length).next_multiple_of(2);
            }
            (count, value) => {
                // A run stops at the end of the row.
                let count = usize::from(count).min(width.saturating_sub(x));
                let pair = if four { [value >> 4, value & 15] } else { [value; 2] };
                indices.extend((0..count).map(|index| pair[index % 2]));
                x += count;
            }
        }
    }
    if indices.len() < wanted {
        return Err(truncated());
    }
    indices.truncate(wanted);
    Ok(indices)
}

/// Where the channels of a 16, 24 or 32-bit pixel are.
enum Layout {
    /// Byte positions of red, green and blue among `bytes` bytes, and whether one is alpha.
    Bytes { bytes: usize, rgb: [usize; 3], alpha: bool },
    /// 5 bits each, or 6 for green.
    Packed { green_bits: u32 },
}

impl Layout {
    fn of(bytes: &[u8], header: &Header) -> Result<Self, ImageError> {
        let plain = |alpha| Self::Bytes { bytes: header.bits as usize / 8, rgb: [2, 1, 0], alpha };
        if header.compression != Compression::Bitfields {
            return Ok(match header.bits {
                16 => Self::Packed { green_bits: 5 },
                _ => plain(false),
            });
        }
        let [red, green, blue] = [u32_at(bytes, 54)?, u32_at(bytes, 58)?, u32_at(bytes, 62)?];
        let alpha = if header.size >= 56 { u32_at(bytes, 66)? } else { 0 };
        match (header.bits, [red, green, blue]) {
            (16, [0xF800, 0x7E0, 0x1F]) => return Ok(Self::Packed { green_bits: 6 }),
            (16, [0x7C00, 0x3E0, 0x1F]) => return Ok(Self::Packed { green_bits: 5 }),
            (24, [0xFF_0000, 0xFF00, 0xFF]) => return Ok(plain(false)),
            (32, [0, 0, 0]) if alpha == 0 => return Ok(plain(true)),
            (32, masks) => {
                let place = |mask: u32| (0..4).find(|&byte| mask == 0xFFu32 << (8 * byte));
                let rgb: Option<Vec<usize>> = masks.into_iter().map(place).collect();
                if let Some(&[red, green, blue]) = rgb.as_deref()
                    && (alpha == 0 || place(alpha).is_some())
                {
                    return Ok(Self::Bytes { bytes: 4, rgb: [red, green, blue], alpha: alpha != 0 });
                }
            }
            _ => {}
        }
        Err(unsupported(format!(
            "colour masks {red:x}, {green:x}, {blue:x}, {alpha:x} at {} bits a pixel",
            header.bits
        )))
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Bytes { bytes, .. } => *bytes,
            Self::Packed { .. } => 2,
        }
    }

    fn read(&self, pixel: &[u8]) -> [u8; 3] {
        match self {
            Self::Bytes { rgb, .. } => rgb.map(|at| pixel[at]),
            Self::Packed { green_bits } => {
                let value = u32::from(u16::from_le_bytes([pixel[0], pixel[1]]));
                // Pillow scales by a division that rounds down.
                let scale = |shift: u32, bits: u32| {
                    let largest = (1 << bits) - 1;
                    (((value >> shift) & largest) * 255 / largest) as u8
                };
                [scale(5 + green_bits, 5), scale(5, *green_bits), scale(0, 5)]
            }
        }
    }

    fn mode(&self) -> &'static str {
        match self {
            Self::Bytes { alpha: true, .. } => "RGBA",
            _ => "RGB",
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, ImageError> {
    match bytes.get(at..at + 2) {
        Some(&[a, b]) => Ok(u16::from_le_bytes([a, b])),
        _ => Err(truncated()),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ImageError> {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => Ok(u32::from_le_bytes([a, b, c, d])),
        _ => Err(truncated()),
    }
}

fn truncated() -> ImageError {
    ImageError::Truncated { format: ImageFormat::Bmp }
}

fn unsupported(feature: String) -> ImageError {
    ImageError::UnsupportedFeature { format: ImageFormat::Bmp, feature }
}

fn malformed(reason: String) -> ImageError {
    ImageError::Malformed { format: ImageFormat::Bmp, reason }
}
