//! What can go wrong between the bytes of an image and its tiles.

use super::decode::ImageFormat;
use super::tile::MAX_TILES;

/// Why an image could not be decoded or tiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The input has no bytes.
    #[error("the image file is empty (0 bytes)\nhint: check the path, or that the upload or download finished")]
    Empty,

    /// The content is no image format this crate knows, whatever the file is called.
    #[error(
        "not an image: the content starts with {start}, which is none of the supported formats\n\
         hint: supported are {supported}; the content decides, not the file name",
        supported = ImageFormat::SUPPORTED
    )]
    Unrecognised {
        /// The first bytes, as text where they are text.
        start: String,
    },

    /// A known image format that is not supported.
    #[error(
        "{name} images are not supported\n\
         hint: convert it to one of {supported}",
        supported = ImageFormat::SUPPORTED
    )]
    UnsupportedFormat {
        /// Name of the format.
        name: &'static str,
    },

    /// A supported format that uses something this crate cannot decode.
    #[error("this {format} image cannot be decoded: {feature}\nhint: convert it to an 8-bit RGB PNG")]
    UnsupportedFeature {
        /// Format of the file.
        format: ImageFormat,
        /// What is not supported.
        feature: String,
    },

    /// More pixels than the limit allows. Checked before anything is decoded.
    #[error(
        "the image has {width} x {height} = {pixels} pixels, the limit is {limit}\n\
         hint: raise it with --max-image-pixels if the image is to be trusted",
        pixels = u64::from(*width) * u64::from(*height)
    )]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit, [`DecodeOptions::max_pixels`](super::DecodeOptions::max_pixels).
        limit: u64,
    },

    /// One side has length zero.
    #[error("the image has no pixels ({width} x {height})")]
    ZeroSize {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },

    /// The data end before the image does.
    #[error(
        "the {format} image is truncated: the data end before the last pixel\nhint: copy or download the file again"
    )]
    Truncated {
        /// Format of the file.
        format: ImageFormat,
    },

    /// The data break the rules of the format.
    #[error("the {format} image is damaged: {reason}")]
    Malformed {
        /// Format of the file.
        format: ImageFormat,
        /// What the decoder says.
        reason: String,
    },

    /// Tiling options that describe no grid.
    #[error(
        "cannot tile with tile size {tile_size}, at least {min_tiles} and at most {max_tiles} tiles\n\
         hint: 1 <= min_tiles <= max_tiles <= {MAX_TILES}, and a tile size from 1 to 2048 pixels"
    )]
    Tiling {
        /// Side of a tile in pixels.
        tile_size: u32,
        /// Fewest tiles asked for.
        min_tiles: u32,
        /// Most tiles asked for.
        max_tiles: u32,
    },
}
