//! From a request to a sequence group: the prompt's positions, the search, the checks that need no model run.

use std::sync::Arc;
use std::time::Instant;

use super::group::{Group, SettledText};
use super::request::{Request, RequestId, TiledImage, Timings, Usage};
use super::rows::Position;
use super::{Engine, EngineError};
use crate::generate::{self, GenerationSettings, Search, StopRule, Strategy, TokenId};
use crate::graph::Interrupt;
use crate::package::Tokens;
use crate::prompt::{
    Conversation, EncodedPrompt, StopStrings, Template, TokenRoles, Tokenizer, encode_prompt, expand_images,
    insert_image_mark, render,
};

/// What a manifest says of tokens, for the tokenizer: packages know nothing of prompts, nor prompts of packages.
impl From<&Tokens> for TokenRoles {
    fn from(tokens: &Tokens) -> Self {
        Self {
            eos: tokens.eos,
            pad: tokens.pad,
            image_start: tokens.image_start,
            image_end: tokens.image_end,
            image_context: tokens.image_context,
            skipped_in_text: tokens.skipped_in_text.clone(),
        }
    }
}

/// Ends a sequence whose text holds a stop string.
struct StopText {
    tokenizer: Arc<Tokenizer>,
    stop: StopStrings,
}

impl StopRule for StopText {
    fn stops(&self, tokens: &[TokenId]) -> bool {
        self.tokenizer.completes_stop(tokens, &self.stop)
    }
}

impl Engine {
    pub(super) fn group(&self, id: RequestId, request: Request, interrupt: &Interrupt) -> Result<Group, EngineError> {
        request.settings.validate()?;
        let max_rows = request.settings.rows();
        if max_rows > self.config.max_rows {
            return Err(EngineError::TooManyRows { rows: max_rows, max_rows: self.config.max_rows });
        }
        self.check_tiles(&request.images)?;
        let tiles: Vec<usize> = request.images.iter().map(|image| image.tiles().len()).collect();
        let question = insert_image_mark(&request.question, !tiles.is_empty(), request.history.is_some());
        let conversation = Conversation {
            template: request.template.unwrap_or(self.template),
            system_message: self.system_message(request.template, request.system_message),
            history: request.history,
        };
        let tokens_per_tile = self.manifest.architecture.tokens_per_tile;
        let placeholders: Vec<usize> = tiles.iter().map(|tiles| tiles * tokens_per_tile).collect();
        let expanded = expand_images(&render(&conversation, &question), &placeholders)?;
        let encoded = encode_prompt(&self.tokenizer, &expanded.text, placeholders.iter().sum())?;
        let usage = Usage {
            prompt_tokens: encoded.ids.len(),
            image_tokens: encoded.image_tokens,
            tiles: tiles.iter().sum(),
            ..Usage::default()
        };
        let settings = self.fit_to_length(request.settings, &usage)?;
        let capacity = usage.prompt_tokens + settings.max_new_tokens;
        self.check_budget(max_rows, capacity)?;
        let stop = StopStrings::new(request.stop)?;
        let with_logprobs = request.logprobs.is_some();
        let text =
            (settings.num_return_sequences == 1).then(|| SettledText::new(&self.tokenizer, &stop, with_logprobs));
        let search = self.search(&settings, &stop, request.logprobs)?;
        Ok(Group {
            id,
            interrupt: interrupt.clone(),
            prompt: self.positions(&encoded, &request.images, &placeholders),
            embeds: vec![None; request.images.len()],
            images: request.images,
            max_rows,
            capacity,
            search,
            rows: Vec::new(),
            keeps_rows: matches!(settings.strategy, Strategy::Beam(_)) && !stop.is_empty(),
            spare: Vec::new(),
            pending: Vec::new(),
            text,
            with_logprobs,
            stop,
            question,
            surplus_marks: expanded.surplus_marks,
            usage,
            timings: Timings::default(),
            submitted: Instant::now(),
        })
    }

    fn check_tiles(&self, images: &[TiledImage]) -> Result<(), EngineError> {
        let expected = self.manifest.architecture.image_size;
        let wrong = |tile: &&image::RgbImage| (tile.width(), tile.height()) != (expected, expected);
        match images.iter().flat_map(TiledImage::tiles).find(wrong) {
            Some(tile) => Err(EngineError::TileSize { found: tile.width(), expected }),
            None => Ok(()),
        }
    }

    /// Refuses what the cache could not hold even if it held nothing else.
    fn check_budget(&self, rows: usize, positions: usize) -> Result<(), EngineError> {
        if self.budget.holds(rows, positions) {
            return Ok(());
        }
        let (bytes, max_bytes) = (self.budget.bytes(rows, positions), self.budget.max_bytes());
        Err(EngineError::CacheTooSmall { rows, positions, bytes, max_bytes })
    }

    /// A search that ends at one of `stop`; `logprobs`: how many of each step's best are recorded, if any.
    fn search(
        &self,
        settings: &GenerationSettings,
        stop: &StopStrings,
        logprobs: Option<usize>,
    ) -> Result<Box<dyn Search>, EngineError> {
        let rule = (!stop.is_empty()).then(|| {
            let tokenizer = Arc::clone(&self.tokenizer);
            Box::new(StopText { tokenizer, stop: stop.clone() }) as Box<dyn StopRule>
        });
        let mut search = generate::start(settings, self.manifest.tokens.eos, rule)?;
        if let Some(count) = logprobs {
            search.record_logprobs(count);
        }
        Ok(search)
    }

    /// The message asked for; else the package's, unless another template than the package's was asked for.
    fn system_message(&self, template: Option<Template>, asked: Option<String>) -> String {
        asked.unwrap_or_else(|| match template {
            Some(template) if template != self.template => template.default_system_message().to_owned(),
            _ => self.manifest.prompt.system_message.clone(),
        })
    }

    /// Checks the prompt's length and lets the answer be no longer than the package allows.
    fn fit_to_length(
        &self,
        mut settings: GenerationSettings,
        usage: &Usage,
    ) -> Result<GenerationSettings, EngineError> {
        let max_length = self.decoder.max_length();
        let room = max_length.saturating_sub(usage.prompt_tokens);
        if room == 0 {
            return Err(EngineError::PromptTooLong {
                prompt: usage.prompt_tokens,
                image: usage.image_tokens,
                tiles: usage.tiles,
                text: usage.prompt_tokens - usage.image_tokens,
                max_length,
            });
        }
        settings.max_new_tokens = settings.max_new_tokens.min(room);
        Ok(settings)
    }

    /// What each position of the prompt is computed from.
    fn positions(&self, encoded: &EncodedPrompt, images: &[TiledImage], placeholders: &[usize]) -> Vec<Position> {
        let mut image_positions = images.iter().zip(placeholders).flat_map(|(image, count)| {
            let digest = image.digest();
            (0..*count).map(move |index| Position::Image { digest, index })
        });
        let image_context = self.manifest.tokens.image_context;
        let position = |id: &u32| match (*id == image_context).then(|| image_positions.next()).flatten() {
            Some(position) => position,
            None => Position::Token(*id),
        };
        encoded.ids.iter().map(position).collect()
    }
}
