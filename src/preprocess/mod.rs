//! From the bytes of an image file to the pixel values of the vision encoder.
//!
//! ```text
//! bytes ─ decode ─▶ RGB ─ choose_grid ─▶ columns × rows ─ tile ─▶ tiles ─ normalise ─▶ [tiles, 3, S, S] f32
//! ```
//!
//! Every stage gives the same bytes as the reference, which is the `load_image` of the InternVL
//! model cards on Pillow 10.4 and torchvision:
//!
//! * [`decode`]: what `Image.open(file).convert("RGB")` gives. Alpha is dropped, colours are not
//!   composited, embedded colour profiles are ignored, animations give their first frame.
//! * [`choose_grid`]: `find_closest_aspect_ratio`, including the order in which CPython walks a
//!   set of tuples, which decides some ties.
//! * [`resize_bicubic`]: Pillow's 8-bit `BICUBIC` with antialiasing, in the fixed-point
//!   arithmetic of its two passes.
//! * [`tile`]: `dynamic_preprocess`: resize, cut, thumbnail last.
//! * [`normalise`]: `ToTensor` and `Normalize`, each step rounded to `f32`.
//!
//! The one wanted difference is [`Orientation::Auto`], which turns photographs upright by their
//! EXIF tag; the reference ([`Orientation::Ignore`]) does not look at it.
//!
//! The module knows nothing of models: tile size, tile limits, mean and standard deviation are
//! arguments.

mod decode;
mod error;
mod grid;
mod normalise;
mod resize;
mod set_order;
mod tile;

pub use decode::{DEFAULT_MAX_PIXELS, DecodeOptions, DecodedImage, ImageFormat, Orientation, decode};
pub use error::ImageError;
pub use grid::{Grid, choose_grid};
pub use normalise::normalise;
pub use resize::resize_bicubic;
pub use tile::{MAX_TILES, Tiling, TilingOptions, tile};
