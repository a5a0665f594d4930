//! What a caller may ask of a generation, and which of it makes sense.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// How to generate: limits, logits processors and the search strategy.
///
/// The names and meanings are those of transformers' `GenerationConfig`.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationSettings {
    /// Most tokens to generate, eos included; at least 1.
    pub max_new_tokens: usize,
    /// Eos is out of the question until this many tokens were generated. A value above
    /// `max_new_tokens` is allowed, as in the reference, and means that eos is never chosen. A
    /// [`StopRule`](super::StopRule) may still end a sequence earlier.
    pub min_new_tokens: usize,
    /// Factor that makes every token generated so far less likely (above 1) or more likely (below
    /// 1); 1 is off.
    pub repetition_penalty: f32,
    /// No run of this many generated tokens occurs twice; 0 is off.
    pub no_repeat_ngram_size: usize,
    /// How many sequences to return: 1 for greedy search, at most `num_beams` for beam search, any
    /// number of independent samples for sampling.
    pub num_return_sequences: usize,
    /// How tokens are chosen.
    pub strategy: Strategy,
}

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// The likeliest token each time.
    Greedy,
    /// A token drawn at random each time.
    Sample(Sampling),
    /// The likeliest whole sequence among those that beam search looks at.
    Beam(BeamSearch),
}

/// Settings of [`Strategy::Sample`], applied in the order of the fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; above 0.
    pub temperature: f32,
    /// Only the `top_k` likeliest tokens (and those that tie with the last of them) may be drawn; 0
    /// is off.
    pub top_k: usize,
    /// Only the fewest likeliest tokens that together hold this much probability may be drawn; in
    /// (0, 1], 1 is off.
    pub top_p: f32,
    /// Only tokens at least this likely, relative to the likeliest one, may be drawn; in [0, 1], 0
    /// is off.
    pub min_p: f32,
    /// Sequence `i` of a request draws from stream `i` of the `ChaCha8` generator of this seed, so
    /// it does not depend on how many other sequences there are or when they end.
    pub seed: u64,
}

/// Settings of [`Strategy::Beam`].
#[derive(Clone, Debug, PartialEq)]
pub struct BeamSearch {
    /// Sequences kept side by side; at least 1, and 1 is greedy search.
    pub num_beams: usize,
    /// A finished sequence scores its sum of log-probabilities divided by its length to this power.
    /// The sums are negative: above 0 favours longer sequences, below 0 shorter ones, 0 looks at
    /// the sum alone.
    pub length_penalty: f32,
    /// When to stop once `num_beams` sequences are finished.
    pub early_stopping: EarlyStopping,
}

/// When a beam search that holds `num_beams` finished sequences stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EarlyStopping {
    /// At once.
    True,
    /// When the best running candidate, scored at its present length, would not beat the worst
    /// finished one: a heuristic, and the reference's default.
    #[default]
    False,
    /// When the best running candidate could not beat the worst finished one at any length.
    Never,
}

impl fmt::Display for EarlyStopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::True => "true",
            Self::False => "false",
            Self::Never => "never",
        })
    }
}

/// `true`, `false` or `"never"`, as transformers writes it.
impl Serialize for EarlyStopping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::True => serializer.serialize_bool(true),
            Self::False => serializer.serialize_bool(false),
            Self::Never => serializer.serialize_str("never"),
        }
    }
}

impl FromStr for EarlyStopping {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "true" => Ok(Self::True),
            "false" => Ok(Self::False),
            "never" => Ok(Self::Never),
            _ => Err(refuse("early_stopping", format_args!("{text:?}"), "true, false or never")),
        }
    }
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A value outside the range its setting allows.
    #[error("{setting} is {value}; it must be {allowed}")]
    OutOfRange {
        /// Name of the setting.
        setting: &'static str,
        /// The value found.
        value: String,
        /// The values allowed, in words.
        allowed: &'static str,
    },
    /// More sequences asked for than the strategy keeps.
    #[error(
        "num_return_sequences is {requested}, but {strategy} returns at most {available}\n\
         hint: ask for fewer sequences, use more beams, or sample"
    )]
    TooManySequences {
        /// The sequences asked for.
        requested: usize,
        /// The sequences that can be had.
        available: usize,
        /// The strategy, in words.
        strategy: &'static str,
    },
}

fn refuse(setting: &'static str, value: impl fmt::Display, allowed: &'static str) -> SettingsError {
    SettingsError::OutOfRange { setting, value: value.to_string(), allowed }
}

impl GenerationSettings {
    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, with its value and what is allowed.
    pub fn validate(&self) -> Result<(), SettingsError> {
        if self.max_new_tokens == 0 {
            return Err(refuse("max_new_tokens", 0, "at least 1"));
        }
        if !positive(self.repetition_penalty) {
            return Err(refuse("repetition_penalty", self.repetition_penalty, "a finite number above 0"));
        }
        if self.num_return_sequences == 0 {
            return Err(refuse("num_return_sequences", 0, "at least 1"));
        }
        match &self.strategy {
            Strategy::Greedy => self.at_most(1, "greedy search"),
            Strategy::Sample(sampling) => sampling.validate(),
            Strategy::Beam(beam) => {
                beam.validate(self.max_new_tokens)?;
                self.at_most(beam.num_beams, "beam search")
            }
        }
    }

    fn at_most(&self, available: usize, strategy: &'static str) -> Result<(), SettingsError> {
        let requested = self.num_return_sequences;
        if requested > available {
            return Err(SettingsError::TooManySequences { requested, available, strategy });
        }
        Ok(())
    }

    /// The most rows that are ever live in one [`advance`](super::Search::advance) call, for sizing
    /// a KV cache.
    pub fn rows(&self) -> usize {
        match &self.strategy {
            Strategy::Greedy => 1,
            Strategy::Sample(_) => self.num_return_sequences,
            Strategy::Beam(beam) => beam.num_beams,
        }
    }
}

impl Sampling {
    fn validate(&self) -> Result<(), SettingsError> {
        if !positive(self.temperature) {
            return Err(refuse("temperature", self.temperature, "a finite number above 0"));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(refuse("top_p", self.top_p, "above 0 and at most 1"));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Err(refuse("min_p", self.min_p, "between 0 and 1"));
        }
        Ok(())
    }
}

impl BeamSearch {
    fn validate(&self, max_new_tokens: usize) -> Result<(), SettingsError> {
        if self.num_beams == 0 {
            return Err(refuse("num_beams", 0, "at least 1"));
        }
        // Scores divide by length^length_penalty: neither that power nor its inverse may overflow.
        let largest = (max_new_tokens as f64).powf(f64::from(self.length_penalty.abs()));
        if !self.length_penalty.is_finite() || !largest.is_finite() {
            let allowed = "a finite number for which max_new_tokens^length_penalty is finite";
            return Err(refuse("length_penalty", self.length_penalty, allowed));
        }
        Ok(())
    }
}

fn positive(value: f32) -> bool {
    value > 0.0 && value.is_finite()
}

/// The double nearest to the decimal that `value` prints as, so that a setting of 0.6 takes part in
/// double arithmetic as 0.6 and not as 0.60000002384.
pub(super) fn as_written(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(strategy: Strategy) -> GenerationSettings {
        GenerationSettings {
            max_new_tokens: 8,
            min_new_tokens: 0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            num_return_sequences: 1,
            strategy,
        }
    }

    fn sampling() -> Sampling {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 }
    }

    fn beams() -> BeamSearch {
        BeamSearch { num_beams: 3, length_penalty: 1.0, early_stopping: EarlyStopping::False }
    }

    fn refused(settings: &GenerationSettings) -> String {
        settings.validate().unwrap_err().to_string()
    }

    #[test]
    fn sensible_settings_pass() {
        settings(Strategy::Greedy).validate().unwrap();
        settings(Strategy::Sample(sampling())).validate().unwrap();
        settings(Strategy::Beam(beams())).validate().unwrap();
        GenerationSettings { min_new_tokens: 100, ..settings(Strategy::Greedy) }.validate().unwrap();
        for length_penalty in [-2.0, 0.0, 0.5] {
            settings(Strategy::Beam(BeamSearch { length_penalty, ..beams() })).validate().unwrap();
        }
        settings(Strategy::Sample(Sampling { min_p: 1.0, top_p: 1e-3, ..sampling() })).validate().unwrap();
    }

    #[test]
    fn limits_are_checked() {
        let greedy = settings(Strategy::Greedy);
        let found = refused(&GenerationSettings { max_new_tokens: 0, ..greedy.clone() });
        assert_eq!(found, "max_new_tokens is 0; it must be at least 1");
        let found = refused(&GenerationSettings { num_return_sequences: 0, ..greedy.clone() });
        assert_eq!(found, "num_return_sequences is 0; it must be at least 1");
        for penalty in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let found = refused(&GenerationSettings { repetition_penalty: penalty, ..greedy.clone() });
            assert_eq!(found, format!("repetition_penalty is {penalty}; it must be a finite number above 0"));
        }
    }

    #[test]
    fn sampling_ranges_are_checked() {
        let refused = |sampling| refused(&settings(Strategy::Sample(sampling)));
        for temperature in [0.0, -0.5, f32::NAN, f32::INFINITY] {
            assert!(refused(Sampling { temperature, ..sampling() }).starts_with("temperature is "));
        }
        for top_p in [0.0, -0.1, 1.5, f32::NAN] {
            assert!(refused(Sampling { top_p, ..sampling() }).starts_with("top_p is "));
        }
        for min_p in [-0.1, 1.5, f32::NAN] {
            assert!(refused(Sampling { min_p, ..sampling() }).starts_with("min_p is "));
        }
    }

    #[test]
    fn beam_ranges_are_checked() {
        let refused = |beam| refused(&settings(Strategy::Beam(beam)));
        assert_eq!(refused(BeamSearch { num_beams: 0, ..beams() }), "num_beams is 0; it must be at least 1");
        for length_penalty in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 400.0, -400.0] {
            assert!(refused(BeamSearch { length_penalty, ..beams() }).starts_with("length_penalty is "));
        }
    }

    #[test]
    fn more_sequences_than_the_strategy_keeps() {
        let found = refused(&GenerationSettings { num_return_sequences: 2, ..settings(Strategy::Greedy) });
        assert!(found.starts_with("num_return_sequences is 2, but greedy search returns at most 1\nhint: "));
        let four = GenerationSettings { num_return_sequences: 4, ..settings(Strategy::Beam(beams())) };
        assert!(refused(&four).contains("beam search returns at most 3"));
        let four = GenerationSettings { num_return_sequences: 4, ..settings(Strategy::Sample(sampling())) };
        four.validate().unwrap();
        assert_eq!(four.rows(), 4);
    }

    #[test]
    fn rows_is_the_widest_batch() {
        assert_eq!(settings(Strategy::Greedy).rows(), 1);
        assert_eq!(settings(Strategy::Beam(beams())).rows(), 3);
    }

    #[test]
    fn early_stopping_round_trips_through_text() {
        for value in [EarlyStopping::True, EarlyStopping::False, EarlyStopping::Never] {
            assert_eq!(value.to_string().parse::<EarlyStopping>().unwrap(), value);
        }
        let found = "maybe".parse::<EarlyStopping>().unwrap_err().to_string();
        assert_eq!(found, "early_stopping is \"maybe\"; it must be true, false or never");
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "the exact double is the point")]
    fn settings_widen_as_written() {
        assert_eq!(as_written(0.6), 0.6);
        assert_eq!(as_written(-1.0), -1.0);
        assert_eq!(as_written(1e-30), 1e-30);
    }
}
