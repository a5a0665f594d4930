//! Image bytes to RGB as Pillow 10.4 decodes them.
//!
//! | file | how the pixels are made |
//! | --- | --- |
//! | JPEG | MozJPEG, whose decoder is that of libjpeg-turbo (accurate integer DCT, smooth chroma upsampling); CMYK and YCCK by Pillow's formula |
//! | PNG | the `image` crate; 16-bit gray clips at 255, other 16-bit samples keep their high byte |
//! | GIF | first frame on a canvas of the transparent or the first palette colour |
//! | WebP | the `image` crate |
//! | BMP | palette, 16, 24 and 32 bits, RLE4, RLE8 |
//! | TIFF | first page; gray, palette, RGB, CMYK, 1 to 32 bits, float; JPEG strips as JPEG files |
//!
//! Known differences from Pillow, none of which touches an undamaged file of a usual kind:
//!
//! * A JPEG with damaged coefficients that Pillow accepts is accepted, too, but the damaged blocks
//!   may have other colours: libjpeg-turbo's vector code and its portable code treat values out of
//!   range differently, and only the former is in Pillow's wheels.
//! * A PNG that ends between its last pixel and its end chunk is refused as truncated; Pillow reads
//!   it. A GIF that ends between its last pixel and its trailer is read; Pillow may refuse it.
//! * TIFF compression by CCITT group 3, LZMA, Zstandard, `ThunderScan` or old-style JPEG, 12-bit gray
//!   and CIE L*a*b* are refused, lossless and 12-bit JPEG as well. A few TIFF layouts that Pillow
//!   refuses are read.
//! * A JPEG of more than 100 scans is refused, and a TIFF whose JPEG strips share bytes of the file: they
//!   would take hours.
//! * [`DecodedImage::exact`] is false for the one case in which Pillow's pixels are noise.

mod bmp;
mod convert;
mod format;
mod gif;
mod jpeg;
mod orientation;
mod png;
mod tiff;
mod webp;

use image::RgbImage;

pub use format::ImageFormat;
pub use orientation::Orientation;

use super::error::ImageError;

/// Default of [`DecodeOptions::max_pixels`]: the size beyond which Pillow refuses an image as a
/// decompression bomb, twice `Image.MAX_IMAGE_PIXELS`.
pub const DEFAULT_MAX_PIXELS: u64 = 178_956_970;

/// How to decode an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DecodeOptions {
    /// Whether the EXIF orientation tag is applied.
    pub orientation: Orientation,
    /// Images of more pixels are refused before they are decoded.
    pub max_pixels: u64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self { orientation: Orientation::Auto, max_pixels: DEFAULT_MAX_PIXELS }
    }
}

/// A decoded image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedImage {
    /// The pixels.
    pub rgb: RgbImage,
    /// Format of the file, by its content.
    pub format: ImageFormat,
    /// Colour mode of the file in Pillow's names: `1`, `L`, `LA`, `P`, `PA`, `RGB`, `RGBA`,
    /// `CMYK`, `I`, `I;16`, `I;16B`, `F`.
    pub color_mode: String,
    /// EXIF orientation, 1 to 8; 1 when the file has none.
    pub orientation_tag: u8,
    /// Whether `rgb` was turned by the tag.
    pub orientation_applied: bool,
    /// Whether the pixels of an undamaged file are those of the reference. False only for
    /// compressed big-endian TIFF with 32-bit samples, where Pillow returns noise.
    pub exact: bool,
}

/// What the decoder of a format returns.
struct Pixels {
    rgb: RgbImage,
    mode: &'static str,
    /// EXIF orientation tag as found.
    orientation_tag: u8,
    exact: bool,
}

/// Decodes an image file to RGB.
///
/// The result is that of `Image.open(file).convert("RGB")` in Pillow 10.4, then turned upright
/// if [`DecodeOptions::orientation`] asks for it. The format is told from the content.
///
/// Pillow turns a TIFF by its orientation tag whenever it loads one, so a TIFF is turned with
/// [`Orientation::Ignore`], too.
///
/// # Errors
///
/// See [`ImageError`]. Truncated data are an error in every format; damage that leaves the data
/// complete is accepted where Pillow accepts it.
pub fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<DecodedImage, ImageError> {
    let format = ImageFormat::of(bytes)?;
    let limit = SizeLimit(options.max_pixels);
    let pixels = caught(format, || match format {
        ImageFormat::Jpeg => jpeg::decode(bytes, limit),
        ImageFormat::Png => png::decode(bytes, limit),
        ImageFormat::Gif => gif::decode(bytes, limit),
        ImageFormat::WebP => webp::decode(bytes, limit),
        ImageFormat::Bmp => bmp::decode(bytes, limit),
        ImageFormat::Tiff => tiff::decode(bytes, limit),
    })?;

    let apply = options.orientation == Orientation::Auto || format == ImageFormat::Tiff;
    let (rgb, orientation_applied) =
        if apply { orientation::turn(pixels.rgb, pixels.orientation_tag) } else { (pixels.rgb, false) };
    Ok(DecodedImage {
        rgb,
        format,
        color_mode: pixels.mode.to_owned(),
        orientation_tag: pixels.orientation_tag,
        orientation_applied,
        exact: pixels.exact,
    })
}

/// The largest accepted number of pixels.
#[derive(Clone, Copy)]
struct SizeLimit(u64);

impl SizeLimit {
    fn check(self, width: u32, height: u32) -> Result<(), ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::ZeroSize { width, height });
        }
        if u64::from(width) * u64::from(height) > self.0 {
            return Err(ImageError::TooLarge { width, height, limit: self.0 });
        }
        Ok(())
    }
}

/// Runs a decoder; a panic becomes an error.
///
/// libjpeg's fatal errors arrive as silent unwinding. The decoders in Rust are meant to return
/// errors, yet some damaged files make them panic, which must not end a server.
fn caught<T>(format: ImageFormat, run: impl FnOnce() -> Result<T, ImageError>) -> Result<T, ImageError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("without a reason");
        let reason = match message.strip_prefix("libjpeg fatal error: ") {
            Some(reason) => reason.to_owned(),
            None => format!("the decoder failed: {message}"),
        };
        Err(ImageError::Malformed { format, reason })
    })
}

/// The error of the `image` crate as ours.
fn from_image_crate(format: ImageFormat, error: image::ImageError) -> ImageError {
    match error {
        image::ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format }
        }
        image::ImageError::Unsupported(error) => ImageError::UnsupportedFeature { format, feature: error.to_string() },
        error => ImageError::Malformed { format, reason: error.to_string() },
    }
}
