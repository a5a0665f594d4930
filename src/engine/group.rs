//! A sequence group: one prompt and the rows (beams or samples) that answer it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::Array2;

use super::request::{Answer, Completion, RequestId, TiledImage, Timings, Usage};
use super::rows::Position;
use crate::generate::{GeneratedSequence, Search, TokenId, TokenLogprob};
use crate::graph::Interrupt;
use crate::prompt::{StopStrings, TextStream, TokenSpans, Tokenizer};

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
    /// Whether the search records log-probabilities.
    pub(super) with_logprobs: bool,
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
    /// Which tokens the text is made of, where their log-probabilities are asked for.
    spans: Option<TokenSpans>,
}

/// Text that became settled, and the log-probabilities that go with it.
#[derive(Default)]
pub(super) struct Told {
    pub(super) text: String,
    pub(super) logprobs: Vec<TokenLogprob>,
}

impl SettledText {
    pub(super) fn new(tokenizer: &Tokenizer, stop: &StopStrings, with_logprobs: bool) -> Self {
        let spans = with_logprobs.then(|| tokenizer.token_spans());
        Self { stream: tokenizer.text_stream(stop), tokens: 0, spans }
    }

    /// Text that became settled now that `tokens` are.
    fn advance(&mut self, tokens: &[TokenId]) -> String {
        let new = tokens.get(self.tokens..).unwrap_or_default();
        if let Some(spans) = &mut self.spans {
            for token in new {
                spans.push(*token);
            }
        }
        let text = new.iter().filter_map(|token| self.stream.push(*token)).collect();
        self.tokens = self.tokens.max(tokens.len());
        text
    }

    /// The rest of the text, all tokens known.
    fn finish(&mut self, tokens: &[TokenId]) -> String {
        let text = self.advance(tokens);
        text + &self.stream.finish().unwrap_or_default()
    }

    /// Puts the log-probabilities of its tokens to a text that was given out just now. `recorded` are those of all tokens.
    fn with_logprobs(&mut self, text: String, recorded: &[TokenLogprob]) -> Told {
        let tokens = self.spans.as_mut().map(|spans| spans.tell(&self.stream.told())).unwrap_or_default();
        let logprobs = tokens.into_iter().filter_map(|token| recorded.get(token).cloned()).collect();
        Told { text, logprobs }
    }
}

impl Group {
    /// Text that became settled since the last call; nothing for a request with several answers.
    pub(super) fn settled_text(&mut self) -> Option<Told> {
        let settled = self.text.as_mut()?;
        let text = settled.advance(self.search.settled());
        (!text.is_empty()).then(|| settled.with_logprobs(text, self.search.settled_logprobs()))
    }

    /// The answers as they stand, and the text not yet told.
    pub(super) fn complete(&mut self, tokenizer: &Tokenizer) -> (Told, Completion) {
        let sequences = self.search.results();
        let rest = match (&mut self.text, sequences.first()) {
            (Some(settled), Some(best)) => {
                let text = settled.finish(&best.tokens);
                settled.with_logprobs(text, &best.logprobs)
            }
            _ => Told::default(),
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
        let GeneratedSequence { tokens, logprobs, score, finish } = sequence;
        let text = tokenizer.response_until(&tokens, &self.stop);
        let logprobs = self.with_logprobs.then(|| {
            let mut settled = SettledText::new(tokenizer, &self.stop, true);
            let text = settled.finish(&tokens);
            settled.with_logprobs(text, &logprobs).logprobs
        });
        Answer { text, token_ids: tokens, logprobs, score, finish }
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
