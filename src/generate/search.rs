//! The seam between a search and whoever runs the model for it.

use ndarray::ArrayView2;

use super::{TokenId, TokenLogprob};

/// Ends a sequence by what it says, for example when its text holds a stop string.
pub trait StopRule: Send {
    /// Whether a sequence of these generated tokens, eos never among them, is complete.
    ///
    /// Must depend on `tokens` alone. Greedy search and sampling ask once a generated token; beam
    /// search asks for every candidate it looks at, at least one a beam.
    fn stops(&self, tokens: &[TokenId]) -> bool;
}

/// A running search: takes logits, gives token choices. Made by [`start`](super::start).
pub trait Search: Send {
    /// Chooses the next token of every live row.
    ///
    /// The first call takes `logits` `[1, vocab]` for the position after the prompt, which all rows
    /// share; each later call takes `[live rows, vocab]`, row `i` for the `i`-th row of the last
    /// [`Advance::Continue`].
    ///
    /// # Errors
    ///
    /// [`SearchError`]: logits of another shape, logits nothing can be chosen from, or a call after
    /// [`Advance::Finished`]. The sequences are as they were before the call, and
    /// [`results`](Self::results) still gives them.
    fn advance(&mut self, logits: ArrayView2<'_, f32>) -> Result<Advance, SearchError>;

    /// Tokens that every result must begin with, whatever comes: safe to show. They only ever grow.
    ///
    /// All tokens so far for greedy search or one sample; after [`Advance::Finished`] the best
    /// result.
    fn settled(&self) -> &[TokenId];

    /// Keeps from now on the log-probability of every token that is chosen, and of the `count` likeliest at its place.
    /// To be called before the first [`advance`](Self::advance).
    fn record_logprobs(&mut self, count: usize);

    /// What was kept of the [`settled`](Self::settled) tokens, one entry each; nothing unless
    /// [`record_logprobs`](Self::record_logprobs) was called.
    fn settled_logprobs(&self) -> &[TokenLogprob];

    /// Tokens generated so far in each running row.
    fn generated(&self) -> usize;

    /// The results, best first (samples: in the order of their streams).
    ///
    /// Final after [`Advance::Finished`]; before, the best there is, as if the length limit had
    /// been reached, with [`FinishReason::Cancelled`]. As many as were asked for, unless a stop rule
    /// ended so many candidates that beam search ran out of beams.
    fn results(&self) -> Vec<GeneratedSequence>;
}

/// What [`Search::advance`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// Run these rows; never empty.
    Continue(Vec<NextRow>),
    /// Nothing more to run.
    Finished,
}

/// One row of the next model call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextRow {
    /// The row of the previous call that this one continues, and whose KV cache it needs (0 after
    /// the first call).
    pub parent: usize,
    /// The token to feed.
    pub token: TokenId,
}

/// A generated sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedSequence {
    /// The generated tokens; ends with eos when eos ended it.
    pub tokens: Vec<TokenId>,
    /// One entry for each token, if [`Search::record_logprobs`] was called; else none.
    pub logprobs: Vec<TokenLogprob>,
    /// Beam search: the sum of the (processed) log-probabilities divided by
    /// length^`length_penalty`.
    pub score: Option<f32>,
    /// Why it ends where it does.
    pub finish: FinishReason,
}

/// Why a sequence ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model generated eos.
    Eos,
    /// The [`StopRule`] said so.
    StopRule,
    /// `max_new_tokens` tokens were generated.
    Length,
    /// The search was not driven to its end.
    Cancelled,
}

/// Why [`Search::advance`] could not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// Logits of another shape than the search asked for.
    #[error(
        "the search needs logits of shape [{rows}, {}], but got [{found_rows}, {found_vocab}]",
        vocab.map_or_else(|| "vocab".to_owned(), |vocab| vocab.to_string())
    )]
    Shape {
        /// Rows that are live.
        rows: usize,
        /// Vocabulary of the first call, if there was one.
        vocab: Option<usize>,
        /// Rows found.
        found_rows: usize,
        /// Vocabulary found.
        found_vocab: usize,
    },
    /// Logits that hold NaN or +infinity, or nothing above -infinity.
    #[error(
        "row {row} of the logits is not usable: {invalid} of its {vocab} values are NaN, +infinity, or part of a \
         row that is -infinity throughout\n\
         hint: this is what overflow in float16 looks like; try a model of higher precision"
    )]
    InvalidLogits {
        /// The first row with such values.
        row: usize,
        /// How many values of the row are NaN or +infinity; the whole row if all are -infinity.
        invalid: usize,
        /// Values in the row.
        vocab: usize,
    },
    /// Sampling only: the logits processors left no token to draw.
    #[error(
        "row {row}: the settings forbid every token\n\
         hint: a larger no_repeat_ngram_size (0 is off) or a smaller min_new_tokens leaves some"
    )]
    NothingLeft {
        /// The row.
        row: usize,
    },
    /// The search is over.
    #[error("the search is finished; its results are final")]
    Finished,
}

/// The tokens that all of `sequences` begin with; empty if there are none.
pub(super) fn common_prefix<'a>(sequences: impl IntoIterator<Item = &'a [TokenId]>) -> &'a [TokenId] {
    let shared = |a: &'a [TokenId], b: &'a [TokenId]| {
        let length = a.iter().zip(b).take_while(|(a, b)| a == b).count();
        &a[..length]
    };
    sequences.into_iter().reduce(shared).unwrap_or(&[])
}
