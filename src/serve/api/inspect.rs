//! A request for the tiles of an image.

use super::ApiError;
use super::chat::{images, object};
use super::content::{ImageFile, image};
use super::fields::Fields;
use crate::settings::ImageChoices;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectRequest {
    /// The image.
    pub image: ImageFile,
    /// Preset whose tiles to use.
    pub preset: Option<String>,
    /// How to read the image.
    pub images: ImageChoices,
}

impl InspectRequest {
    /// Reads the body of a request: `image` as an image of a message, `preset`, and the choices for images.
    ///
    /// # Errors
    /// 400 with the field at fault.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::new(object(body)?, "")?;
        let (path, value) =
            fields.take(&["image"])?.ok_or_else(|| ApiError::field("image", "a request needs an image"))?;
        let image = image(value, path)?;
        let preset = fields.text(&["preset"])?;
        let images = images(&mut fields)?;
        fields.finish()?;
        Ok(Self { image, preset, images })
    }
}
