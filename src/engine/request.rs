//! What goes into the engine and what comes out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use image::RgbImage;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::generate::{FinishReason, GenerationSettings, TokenId, TokenLogprob};
use crate::preprocess::{self, DecodeOptions, DecodedImage, Grid, ImageError, Tiling, TilingOptions};
use crate::prompt::{Template, Turn};

/// One question to the model.
#[derive(Clone, Debug)]
pub struct Request {
    /// The question; `<image>` marks say where images stand.
    pub question: String,
    /// Images in the order of their marks.
    pub images: Vec<TiledImage>,
    /// Earlier turns. `None` and an empty list differ as in the reference: only without any history is a missing mark
    /// put before the question.
    pub history: Option<Vec<Turn>>,
    /// Chat template; the package's when absent.
    pub template: Option<Template>,
    /// System message; when absent the package's, or the template's own if another template was asked for.
    pub system_message: Option<String>,
    /// How to generate.
    pub settings: GenerationSettings,
    /// Texts that end the answer; the answer is cut before the first one.
    pub stop: Vec<String>,
    /// Asks for the log-probabilities of the answer's tokens, and of this many of the likeliest tokens at each place.
    pub logprobs: Option<usize>,
}

/// An image cut into tiles; clones share them.
#[derive(Clone, Debug)]
pub struct TiledImage {
    tiling: Arc<Tiling>,
    digest: u128,
    exact: bool,
    decode_time: Duration,
}

impl TiledImage {
    /// Decodes an image file and cuts it into tiles.
    ///
    /// # Errors
    /// [`ImageError`] when the bytes are no image, a broken one, or one over the limits.
    pub fn from_bytes(bytes: &[u8], decode: &DecodeOptions, tiling: &TilingOptions) -> Result<Self, ImageError> {
        let started = Instant::now();
        let DecodedImage { rgb, exact, .. } = preprocess::decode(bytes, decode)?;
        let tiled = Self::from_rgb(&rgb, tiling)?;
        Ok(Self { exact, decode_time: started.elapsed(), ..tiled })
    }

    /// Cuts a decoded image into tiles.
    ///
    /// # Errors
    /// [`ImageError`] when the options cannot be used.
    pub fn from_rgb(image: &RgbImage, options: &TilingOptions) -> Result<Self, ImageError> {
        let started = Instant::now();
        let tiling = preprocess::tile(image, options)?;
        let mut hasher = Sha256::new();
        for tile in &tiling.tiles {
            hasher.update(tile.width().to_le_bytes());
            hasher.update(tile.as_raw());
        }
        let hash = hasher.finalize();
        let digest = hash.iter().take(16).fold(0, |digest, byte| digest << 8 | u128::from(*byte));
        Ok(Self { tiling: Arc::new(tiling), digest, exact: true, decode_time: started.elapsed() })
    }

    /// The same image, for another request, which took so long to find it.
    pub(crate) fn found_in(&self, decode_time: Duration) -> Self {
        Self { decode_time, ..self.clone() }
    }

    /// Tiles the model sees, the thumbnail included.
    pub fn tiles(&self) -> &[RgbImage] {
        &self.tiling.tiles
    }

    /// The grid the image was cut by.
    pub fn grid(&self) -> Grid {
        self.tiling.grid
    }

    /// Identifies the content: equal for equal tiles.
    pub(super) fn digest(&self) -> u128 {
        self.digest
    }

    /// Whether the pixels are those the reference decodes; see [`DecodedImage::exact`].
    pub fn is_exact(&self) -> bool {
        self.exact
    }

    /// Time decoding and tiling took, or finding the tiles of an earlier time.
    pub fn decode_time(&self) -> Duration {
        self.decode_time
    }
}

/// Names a request in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub(super) u64);

/// What the engine tells while it works on requests.
#[derive(Debug)]
pub enum Event {
    /// Work on the prompt goes on.
    Progress {
        /// The request.
        id: RequestId,
        /// What is being done.
        stage: Stage,
        /// Units done: tiles or prompt tokens.
        done: usize,
        /// Units in all.
        total: usize,
    },
    /// More of the answer is settled.
    Text {
        /// The request.
        id: RequestId,
        /// Text that follows what was told before.
        text: String,
        /// Where they were asked for, the log-probabilities of the tokens of which this text is the first to be told.
        logprobs: Vec<TokenLogprob>,
    },
    /// The request is done.
    Finished {
        /// The request.
        id: RequestId,
        /// The answer.
        completion: Box<Completion>,
    },
    /// The request failed; others go on.
    Failed {
        /// The request.
        id: RequestId,
        /// Why.
        error: super::EngineError,
    },
}

/// What is done with a prompt before the answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Tiles go through the vision encoder.
    Vision,
    /// Prompt tokens go through the decoder.
    Prefill,
}

/// A finished request.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The answers, best first; one unless more were asked for.
    pub answers: Vec<Answer>,
    /// The question as it stands in a history: with the image mark that was put before it, if one was.
    pub question: String,
    /// Counts.
    pub usage: Usage,
    /// Durations.
    pub timings: Timings,
    /// `<image>` marks beyond the number of images; they stayed plain text.
    pub surplus_marks: usize,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The text: special tokens left out, cut at the first stop text, white space stripped at both ends.
    pub text: String,
    /// Generated ids; the eos that ended the answer is the last one.
    pub token_ids: Vec<TokenId>,
    /// The log-probabilities of the tokens that `text` is made of, where they were asked for. Special tokens and what was
    /// stripped or cut off leave none; see [`TokenSpans`](crate::prompt::TokenSpans).
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// Beam search: the score the hypotheses were ranked by.
    pub score: Option<f32>,
    /// Why the answer ends.
    pub finish: FinishReason,
}

/// Counts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt, image tokens included.
    pub prompt_tokens: usize,
    /// Image tokens of the prompt.
    pub image_tokens: usize,
    /// Tiles of all images, thumbnails included.
    pub tiles: usize,
    /// Tokens of the best answer.
    pub completion_tokens: usize,
    /// Prompt tokens whose keys and values were still in the cache from an earlier request.
    pub cached_tokens: usize,
}

/// Durations of a request.
#[derive(Clone, Debug, Default)]
pub struct Timings {
    /// Decoding and tiling of the images.
    pub decode_image: Duration,
    /// Vision encoder.
    pub vision: Duration,
    /// Projector.
    pub projector: Duration,
    /// Prompt through the decoder.
    pub prefill: Duration,
    /// All decode steps with their search.
    pub decode: Duration,
    /// From when the engine took the request on until the first token was chosen.
    pub first_token: Duration,
    /// Everything, from decoding the images on.
    pub total: Duration,
    /// Each decode step: the decoder call, the search and the cache copies it asked for.
    pub steps: Vec<Duration>,
}
