//! A sequence group: one prompt and the rows (beams or samples) that answer it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array2;

use super::request::{Answer, Completion, RequestId, TiledImage, Timings, Usage};
use super::rows::Position;
use crate::generate::{GeneratedSequence, Search, TokenId};
use crate::graph::Interrupt;
use crate::prompt::{StopStrings, TextStream, Tokenizer};

/// A request on its way through the engine.
pub(super) struct Group {
    pub(super) id: RequestId,
    pub(super) interrupt: Interrupt,
    /// The prompt, position by position.
    pub(super) prompt: Vec<Position>,
    pub(super) images: Vec<TiledImage>,
    /// Embeddings of the images that have some already, in the order of `images`.
    pub(super) embeds: Vec<Option<Arc<Array2<f32>>>>,
    /// Most rows the search will need.
    pub(super) max_rows: usize,
    /// Positions a row may come to hold.
    pub(super) capacity: usize,
    pub(super) search: Box<dyn Search>,
    /// Cache row of each live beam or sample, and the token it is fed next.
    pub(super) rows: Vec<usize>,
    /// Whether rows that lose their beam stay with the group: stop strings can leave a step fewer beams than the next.
    pub(super) keeps_rows: bool,
    /// Rows kept without a beam. They take part in decoder calls, and nothing is read from what they compute.
    pub(super) spare: Vec<usize>,
    pub(super) pending: Vec<TokenId>,
    pub(super) text: Option<SettledText>,
    pub(super) stop: StopStrings,
    pub(super) question: String,
    pub(super) surplus_marks: usize,
    pub(super) usage: Usage,
    pub(super) timings: Timings,
    pub(super) submitted: Instant,
}

/// Turns settled tokens into settled text.
pub(super) struct SettledText {
    stream: TextStream,
    tokens: usize,
}

impl SettledText {
    pub(super) fn new(stream: TextStream) -> Self {
        Self { stream, tokens: 0 }
    }

    /// Text that became settled now that `tokens` are.
    fn advance(&mut self, tokens: &[TokenId]) -> String {
        let new = tokens.get(self.tokens..).unwrap_or_default();
        let text = new.iter().filter_map(|token| self.stream.push(*token)).collect();
        self.tokens = self.tokens.max(tokens.len());
        text
    }

    /// The rest of the text, all tokens known.
    fn finish(&mut self, tokens: &[TokenId]) -> String {
        let text = self.advance(tokens);
        text + &self.stream.finish().unwrap_or_default()
    }
}

impl Group {
    /// Text that became settled since the last call; nothing for a request with several answers.
    pub(super) fn settled_text(&mut self) -> Option<String> {
        let text = self.text.as_mut()?.advance(self.search.settled());
        (!text.is_empty()).then_some(text)
    }

    /// The answers as they stand, and the text not yet told.
    pub(super) fn complete(&mut self, tokenizer: &Tokenizer) -> (String, Completion) {
        let sequences = self.search.results();
        let rest = match (&mut self.text, sequences.first()) {
            (Some(text), Some(best)) => text.finish(&best.tokens),
            _ => String::new(),
        };
        let answers: Vec<Answer> = sequences.into_iter().map(|sequence| self.answer(sequence, tokenizer)).collect();
        let mut usage = self.usage;
        usage.completion_tokens = answers.first().map_or(0, |answer| answer.token_ids.len());
        let mut timings = std::mem::take(&mut self.timings);
        timings.decode_image = self.images.iter().map(TiledImage::decode_time).sum();
        timings.decode = timings.steps.iter().sum::<Duration>();
        timings.total = timings.decode_image + self.submitted.elapsed();
        let question = std::mem::take(&mut self.question);
        (rest, Completion { answers, question, usage, timings, surplus_marks: self.surplus_marks })
    }

    fn answer(&self, sequence: GeneratedSequence, tokenizer: &Tokenizer) -> Answer {
        let GeneratedSequence { tokens, score, finish } = sequence;
        let text = tokenizer.response_until(&tokens, &self.stop);
        Answer { text, token_ids: tokens, score, finish }
    }

    /// Every live row of the group.
    pub(super) fn owned_rows(&self) -> Vec<usize> {
        [self.rows.as_slice(), &self.spare].concat()
    }

    /// Whether its interrupt was raised.
    pub(super) fn is_cancelled(&self) -> bool {
        self.interrupt.is_raised()
    }
}
