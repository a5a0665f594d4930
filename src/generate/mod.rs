//! Turns logits into token choices: logits processors, greedy, sampling and beam search, stop
//! rules.
//!
//! The module is pure. It never runs a model; whoever does calls [`Search::advance`] with the
//! logits of the running rows and is told which tokens to feed next:
//!
//! ```text
//!            logits [rows, vocab]
//!                   │
//!         logits processors        repetition penalty → no-repeat n-gram → minimum length
//!                   │
//!    ┌──────────────┼─────────────────────┐
//!  argmax     temperature, top-k,    log-softmax (before the processors), sums,
//! (greedy)    top-p, min-p, draw     top 2B candidates, hypotheses (beams)
//!    └──────────────┼─────────────────────┘
//!                   ▼
//!      Advance::Continue(rows) or Advance::Finished
//! ```
//!
//! The rules, down to ties and rounding, are those of the `generate` method of transformers 4.44.2
//! called with `inputs_embeds` only, as `InternVLChatModel.chat` calls it. One consequence deserves
//! its own sentence: the processors see **generated tokens only**, never the prompt.
//!
//! ```
//! use ndarray::arr2;
//! use vintern::generate::{Advance, GenerationSettings, Strategy, start};
//!
//! let settings = GenerationSettings {
//!     max_new_tokens: 2,
//!     min_new_tokens: 0,
//!     repetition_penalty: 1.0,
//!     no_repeat_ngram_size: 0,
//!     num_return_sequences: 1,
//!     strategy: Strategy::Greedy,
//! };
//! let mut search = start(&settings, 2, None)?;
//! let Advance::Continue(rows) = search.advance(arr2(&[[0.1, 0.9, 0.3]]).view())? else { unreachable!() };
//! assert_eq!(rows[0].token, 1);
//! assert_eq!(search.advance(arr2(&[[0.1, 0.2, 0.3]]).view())?, Advance::Finished);
//! assert_eq!(search.results()[0].tokens, [1, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod beam;
mod greedy;
mod hypotheses;
mod independent;
mod logits;
mod logprobs;
mod processors;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference;
mod sampling;
mod search;
mod settings;
mod top_candidates;

pub use logprobs::TokenLogprob;
pub use search::{Advance, FinishReason, GeneratedSequence, NextRow, Search, SearchError, StopRule};
pub use settings::{BeamSearch, EarlyStopping, GenerationSettings, Sampling, SettingsError, Strategy};

/// A token's number in the vocabulary.
pub type TokenId = u32;

/// Starts the search that `settings` describe.
///
/// `eos` is the one token that ends a sequence; `stop` may end it earlier by what it says. A beam
/// search with one beam is a greedy search, as in the reference: raw logits, no score.
///
/// # Errors
///
/// The settings that [`GenerationSettings::validate`] refuses.
pub fn start(
    settings: &GenerationSettings,
    eos: TokenId,
    stop: Option<Box<dyn StopRule>>,
) -> Result<Box<dyn Search>, SettingsError> {
    settings.validate()?;
    Ok(match &settings.strategy {
        Strategy::Sample(sampling) => {
            let sampler = sampling::Sampler::new(sampling, settings.num_return_sequences);
            Box::new(independent::IndependentRows::new(settings, eos, stop, sampler))
        }
        Strategy::Beam(beam) if beam.num_beams > 1 => Box::new(beam::BeamGroup::new(settings, beam, eos, stop)),
        Strategy::Greedy | Strategy::Beam(_) => {
            Box::new(independent::IndependentRows::new(settings, eos, stop, greedy::Argmax::default()))
        }
    })
}
