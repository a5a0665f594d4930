//! From requests as they are written to what the engine takes.

use super::api::{ApiError, ChatRequest, Conversation, ImageFile, ImageSource, InspectRequest, on_one_line, shortened};
use super::tile_cache::TileCache;
use crate::engine::{self, TiledImage};
use crate::package::Manifest;
use crate::settings::{ImageChoices, ImageOptions, PresetValues, Presets};

/// Bytes of text for each token of the longest prompt, at most: texts are several times shorter, long runs of one character
/// aside. What is longer is not even counted in tokens, which takes time and memory.
const MOST_BYTES_A_TOKEN: usize = 32;

/// Makes requests for the engine; knows its limits, not the engine itself.
pub struct RequestReader {
    presets: Presets,
    limits: Limits,
    tiles: Option<TileCache>,
}

/// A request whose images are still to be had.
pub(super) struct Resolved {
    request: engine::Request,
    pub(super) images: Vec<ImageFile>,
    options: ImageOptions,
}

/// What a request has to keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Side of a tile in pixels.
    pub tile_size: u32,
    /// Tokens of a tile.
    pub tokens_per_tile: usize,
    /// Tokens of a prompt and its answer.
    pub max_length: usize,
    /// Most beams or samples.
    pub max_rows: usize,
    /// Most pixels of an image.
    pub max_image_pixels: u64,
}

impl Limits {
    /// Those of a package's model; `max_rows` and `max_image_pixels` are the server's.
    pub fn new(manifest: &Manifest, max_rows: usize, max_image_pixels: u64) -> Self {
        let sizes = &manifest.architecture;
        Self {
            tile_size: sizes.image_size,
            tokens_per_tile: sizes.tokens_per_tile,
            max_length: sizes.max_length,
            max_rows,
            max_image_pixels,
        }
    }
}

impl RequestReader {
    /// Reads requests that may name one of `presets`.
    pub fn new(presets: Presets, limits: Limits) -> Self {
        Self { presets, limits, tiles: None }
    }

    /// The same, which finds images that came before in `tiles`.
    pub(super) fn with_cache(self, tiles: TileCache) -> Self {
        Self { tiles: Some(tiles), ..self }
    }

    /// The presets a request may name.
    pub fn presets(&self) -> &Presets {
        &self.presets
    }

    /// What a request has to keep to.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The request as the engine takes it: settings of its preset and its own, images decoded and cut into tiles.
    ///
    /// # Errors
    /// 400 with the field that is out of its range, in conflict with another, or an image that is none.
    pub fn read(&self, request: ChatRequest) -> Result<engine::Request, ApiError> {
        self.read_images(self.resolve(request)?)
    }

    /// All of a request but its images: settings of its preset and its own.
    ///
    /// # Errors
    /// 400 with the field that is out of its range, or in conflict with another.
    pub(super) fn resolve(&self, request: ChatRequest) -> Result<Resolved, ApiError> {
        let conversation = request.conversation;
        self.check_text(&conversation)?;
        let presets = self.presets.choose(request.preset.as_deref())?;
        let preset = presets.of_call(!conversation.images.is_empty());
        let options = self.image_options(&request.images, preset)?;
        let request = engine::Request {
            question: conversation.question,
            images: Vec::new(),
            history: (!conversation.history.is_empty()).then_some(conversation.history),
            template: None,
            system_message: conversation.system,
            settings: request.generation.resolve(preset, self.limits.max_rows)?,
            stop: request.stop,
            logprobs: request.logprobs,
        };
        Ok(Resolved { request, images: conversation.images, options })
    }

    fn check_text(&self, conversation: &Conversation) -> Result<(), ApiError> {
        let Conversation { system, history, question, .. } = conversation;
        let answers = history.iter().filter_map(|turn| turn.answer.as_ref());
        let questions = history.iter().map(|turn| &turn.question);
        let bytes: usize = questions.chain(answers).chain(system).chain([question]).map(String::len).sum();
        let (max_length, most) = (self.limits.max_length, self.limits.max_length * MOST_BYTES_A_TOKEN);
        if bytes <= most {
            return Ok(());
        }
        let message = format!(
            "the messages are {bytes} bytes of text, and a prompt of {max_length} tokens, the model's longest, is {most} \
             at most; send shorter ones"
        );
        Err(ApiError { code: "context_length_exceeded", ..ApiError::field("messages", message) })
    }

    /// The request with its images.
    ///
    /// # Errors
    /// 400 with an image that is none, or one too many.
    pub(super) fn read_images(&self, resolved: Resolved) -> Result<engine::Request, ApiError> {
        let images = self.images(&resolved.images, &resolved.options)?;
        Ok(engine::Request { images, ..resolved.request })
    }

    /// An image whose tiles are asked for, and how to read it.
    ///
    /// # Errors
    /// 400 with the field at fault.
    pub fn resolve_tiles(&self, request: InspectRequest) -> Result<(ImageFile, ImageOptions), ApiError> {
        let presets = self.presets.choose(request.preset.as_deref())?;
        let options = self.image_options(&request.images, presets.of_call(true))?;
        Ok((request.image, options))
    }

    /// The tiles of an image.
    ///
    /// # Errors
    /// 400 with an image that is none, or has too many.
    pub fn read_tiles(&self, image: &ImageFile, options: &ImageOptions) -> Result<TiledImage, ApiError> {
        Ok(self.images(std::slice::from_ref(image), options)?.remove(0))
    }

    fn image_options(&self, choices: &ImageChoices, preset: &PresetValues) -> Result<ImageOptions, ApiError> {
        Ok(choices.resolve(self.limits.tile_size, self.limits.max_image_pixels, preset)?)
    }

    /// Decodes images and cuts them into tiles, until they are more than a prompt can hold.
    ///
    /// # Errors
    /// The image that is none, or one too many.
    fn images(&self, files: &[ImageFile], options: &ImageOptions) -> Result<Vec<TiledImage>, ApiError> {
        let Limits { tokens_per_tile, max_length, .. } = self.limits;
        let (mut images, mut tiles) = (Vec::with_capacity(files.len()), 0);
        for file in files {
            let bytes = bytes_of(file)?;
            let image = match &self.tiles {
                Some(tiles) => tiles.read(bytes, options),
                None => TiledImage::from_bytes(bytes, &options.decode, &options.tiling),
            };
            let image = image.map_err(|error| ApiError {
                code: "invalid_image",
                ..ApiError::field(&file.path, on_one_line(&error))
            })?;
            tiles += image.tiles().len();
            let tokens = tiles * tokens_per_tile;
            if tokens > max_length {
                let message = format!(
                    "{tiles} tiles of images are {tokens} tokens, the model takes {max_length} in all; send fewer images \
                     or lower max_tiles"
                );
                return Err(ApiError { code: "context_length_exceeded", ..ApiError::field(&file.path, message) });
            }
            images.push(image);
        }
        Ok(images)
    }
}

/// The bytes of an image; one at another server was not fetched by whoever reads the request.
fn bytes_of(file: &ImageFile) -> Result<&[u8], ApiError> {
    match &file.source {
        ImageSource::Bytes(bytes) => Ok(bytes),
        ImageSource::Url(url) => {
            let host = shortened(url.host_str().unwrap_or("HOST"));
            let message = format!(
                "images are not fetched by this server; send a data URL (data:image/png;base64,…), or have it started \
                 with --allow-image-host {host}"
            );
            Err(ApiError { code: "image_url_not_allowed", ..ApiError::field(&file.path, message) })
        }
    }
}
