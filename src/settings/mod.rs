//! From what a caller chooses to typed settings: presets, defaults and conflicts live here and nowhere else.
//!
//! A setting is the caller's, else the preset's; [`Presets`] says which preset and what it comes to. Front ends differ in
//! how they write the names, see [`Spelling`].

mod error;
mod presets;

pub use error::{ChoiceError, Spelling};
pub use presets::{ChosenPresets, ListedPreset, PresetValues, Presets};

use crate::generate::{BeamSearch, EarlyStopping, GenerationSettings, Sampling, Strategy};
use crate::preprocess::{DecodeOptions, Orientation, TilingOptions};

/// The reference's `top_k` when sampling is on and none is given.
const DEFAULT_TOP_K: usize = 50;

/// How to generate, as far as the caller says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationChoices {
    /// Beams; 1 is greedy search.
    pub num_beams: Option<usize>,
    /// See [`GenerationSettings::repetition_penalty`].
    pub repetition_penalty: Option<f32>,
    /// See [`BeamSearch::length_penalty`].
    pub length_penalty: Option<f32>,
    /// See [`BeamSearch::early_stopping`].
    pub early_stopping: Option<EarlyStopping>,
    /// See [`GenerationSettings::no_repeat_ngram_size`].
    pub no_repeat_ngram_size: Option<usize>,
    /// See [`GenerationSettings::max_new_tokens`].
    pub max_new_tokens: Option<usize>,
    /// See [`GenerationSettings::min_new_tokens`].
    pub min_new_tokens: Option<usize>,
    /// See [`Sampling::temperature`]; 0 is greedy search.
    pub temperature: Option<f32>,
    /// See [`Sampling::top_k`].
    pub top_k: Option<usize>,
    /// See [`Sampling::top_p`].
    pub top_p: Option<f32>,
    /// See [`Sampling::min_p`].
    pub min_p: Option<f32>,
    /// See [`Sampling::seed`].
    pub seed: Option<u64>,
    /// Answers to return.
    pub num_return_sequences: Option<usize>,
}

/// How to read images, as far as the caller says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageChoices {
    /// Most tiles of the grid.
    pub max_tiles: Option<u32>,
    /// Fewest tiles of the grid.
    pub min_tiles: Option<u32>,
    /// Whether the whole image is one more tile.
    pub thumbnail: Option<bool>,
    /// What to do with EXIF orientation.
    pub orientation: Option<Orientation>,
}

/// How to read images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageOptions {
    /// From bytes to pixels.
    pub decode: DecodeOptions,
    /// From pixels to tiles.
    pub tiling: TilingOptions,
}

impl GenerationChoices {
    /// The settings of a call that starts from `preset`, of at most `max_rows` beams or samples.
    ///
    /// # Errors
    /// Choices that contradict each other or are out of range.
    pub fn resolve(&self, preset: &PresetValues, max_rows: usize) -> Result<GenerationSettings, ChoiceError> {
        let settings = GenerationSettings {
            max_new_tokens: self.max_new_tokens.unwrap_or(preset.max_new_tokens),
            min_new_tokens: self.min_new_tokens.unwrap_or(preset.min_new_tokens),
            repetition_penalty: self.repetition_penalty.unwrap_or(preset.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(preset.no_repeat_ngram_size),
            num_return_sequences: self.num_return_sequences.unwrap_or(1),
            strategy: self.strategy(preset)?,
        };
        settings.validate()?;
        let is_beam = matches!(settings.strategy, Strategy::Beam(_));
        let choice = if is_beam { "num_beams" } else { "num_return_sequences" };
        check_rows(choice, settings.rows(), max_rows, !is_beam || self.num_beams.is_some())?;
        Ok(settings)
    }

    fn strategy(&self, preset: &PresetValues) -> Result<Strategy, ChoiceError> {
        let filters = [
            ("top_k", self.top_k.is_some()),
            ("top_p", self.top_p.is_some()),
            ("min_p", self.min_p.is_some()),
            ("seed", self.seed.is_some()),
        ];
        let filter = filters.iter().find(|(_, given)| *given).map(|(name, _)| *name);
        let samples = self.temperature.map_or(filter.is_some(), |temperature| temperature != 0.0);
        if !samples {
            if let Some(choice) = filter {
                return Err(ChoiceError::NotSampling { choice });
            }
            let greedy = self.temperature == Some(0.0);
            let num_beams = self.num_beams.unwrap_or(if greedy { 1 } else { preset.num_beams });
            return self.search(num_beams, preset);
        }
        let asked = if self.temperature.is_some() { "temperature" } else { filter.unwrap_or("temperature") };
        if self.num_beams.is_some_and(|beams| beams != 1) {
            return Err(ChoiceError::SamplingWithBeams { choice: asked });
        }
        self.refuse_beam_choices(asked)?;
        Ok(Strategy::Sample(Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(DEFAULT_TOP_K),
            top_p: self.top_p.unwrap_or(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            seed: self.seed.unwrap_or_else(rand::random),
        }))
    }

    fn search(&self, num_beams: usize, preset: &PresetValues) -> Result<Strategy, ChoiceError> {
        if num_beams == 1 {
            self.refuse_beam_choices("num_beams")?;
            return Ok(Strategy::Greedy);
        }
        Ok(Strategy::Beam(BeamSearch {
            num_beams,
            length_penalty: self.length_penalty.unwrap_or(preset.length_penalty),
            early_stopping: self.early_stopping.unwrap_or(preset.early_stopping),
        }))
    }

    /// Choices of beam search that would have no effect; their neutral values are let through, and so is a preset, which
    /// serves calls with and without beams.
    fn refuse_beam_choices(&self, because: &'static str) -> Result<(), ChoiceError> {
        let choice = match (self.length_penalty, self.early_stopping) {
            // By the total order, NaN is not the neutral value.
            (Some(penalty), _) if penalty.total_cmp(&1.0).is_ne() => "length_penalty",
            (_, Some(EarlyStopping::True | EarlyStopping::Never)) => "early_stopping",
            _ => return Ok(()),
        };
        Err(ChoiceError::NoBeams { choice, because })
    }
}

/// Refuses more beams or samples than are kept. `chosen`: the caller said how many, not a preset.
///
/// # Errors
/// [`ChoiceError::TooManyRows`].
pub fn check_rows(choice: &'static str, asked: usize, most: usize, chosen: bool) -> Result<(), ChoiceError> {
    if asked <= most { Ok(()) } else { Err(ChoiceError::TooManyRows { choice, asked, most, chosen }) }
}

impl ImageChoices {
    /// How to decode images of up to `max_pixels` and cut them into tiles of `tile_size` pixels.
    ///
    /// # Errors
    /// Limits that contradict each other.
    pub fn resolve(&self, tile_size: u32, max_pixels: u64, preset: &PresetValues) -> Result<ImageOptions, ChoiceError> {
        let max_tiles = self.max_tiles.unwrap_or(preset.max_tiles);
        let min_tiles = self.min_tiles.unwrap_or(preset.min_tiles.min(max_tiles));
        if min_tiles > max_tiles {
            let chosen = self.max_tiles.is_some();
            return Err(ChoiceError::Tiles { fewest: min_tiles, most: max_tiles, chosen });
        }
        let orientation = self.orientation.unwrap_or(preset.orientation);
        let thumbnail = self.thumbnail.unwrap_or(preset.use_thumbnail);
        Ok(ImageOptions {
            decode: DecodeOptions { orientation, max_pixels },
            tiling: TilingOptions { tile_size, min_tiles, max_tiles, thumbnail },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST_ROWS: usize = 64;

    fn built_in(has_images: bool) -> PresetValues {
        Presets::new(None).unwrap().choose(None).unwrap().of_call(has_images).clone()
    }

    fn resolve(choices: &GenerationChoices) -> Result<GenerationSettings, ChoiceError> {
        choices.resolve(&built_in(true), MOST_ROWS)
    }

    #[test]
    fn the_default_with_an_image_is_the_cards_call() {
        let settings = resolve(&GenerationChoices::default()).unwrap();
        assert_eq!((settings.max_new_tokens, settings.repetition_penalty), (512, 3.5));
        assert!(matches!(settings.strategy, Strategy::Beam(BeamSearch { num_beams: 3, .. })));
        let text = GenerationChoices::default().resolve(&built_in(false), MOST_ROWS).unwrap();
        assert_eq!((text.max_new_tokens, text.repetition_penalty, text.strategy), (64, 1.5, Strategy::Greedy));
    }

    /// A preset none of whose settings is neutral.
    fn unusual() -> PresetValues {
        PresetValues {
            min_tiles: 2,
            max_tiles: 12,
            use_thumbnail: false,
            num_beams: 4,
            repetition_penalty: 1.25,
            length_penalty: 0.5,
            early_stopping: EarlyStopping::Never,
            no_repeat_ngram_size: 7,
            min_new_tokens: 2,
            max_new_tokens: 99,
            orientation: Orientation::Ignore,
        }
    }

    #[test]
    fn a_call_takes_every_setting_of_its_preset() {
        let expected = GenerationSettings {
            max_new_tokens: 99,
            min_new_tokens: 2,
            repetition_penalty: 1.25,
            no_repeat_ngram_size: 7,
            num_return_sequences: 1,
            strategy: Strategy::Beam(BeamSearch {
                num_beams: 4,
                length_penalty: 0.5,
                early_stopping: EarlyStopping::Never,
            }),
        };
        assert_eq!(GenerationChoices::default().resolve(&unusual(), MOST_ROWS).unwrap(), expected);
    }

    #[test]
    fn choices_override_every_setting_of_a_preset() {
        let choices = GenerationChoices {
            num_beams: Some(2),
            repetition_penalty: Some(1.0),
            length_penalty: Some(1.0),
            early_stopping: Some(EarlyStopping::False),
            no_repeat_ngram_size: Some(0),
            min_new_tokens: Some(0),
            max_new_tokens: Some(5),
            num_return_sequences: Some(2),
            ..Default::default()
        };
        let expected = GenerationSettings {
            max_new_tokens: 5,
            min_new_tokens: 0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            num_return_sequences: 2,
            strategy: Strategy::Beam(BeamSearch {
                num_beams: 2,
                length_penalty: 1.0,
                early_stopping: EarlyStopping::False,
            }),
        };
        assert_eq!(choices.resolve(&unusual(), MOST_ROWS).unwrap(), expected);
    }

    #[test]
    fn what_a_preset_says_of_beams_is_no_conflict_without_them() {
        let greedy = GenerationChoices { num_beams: Some(1), ..Default::default() };
        assert_eq!(greedy.resolve(&unusual(), MOST_ROWS).unwrap().strategy, Strategy::Greedy);
        let sampling = GenerationChoices { temperature: Some(0.7), ..Default::default() };
        assert!(matches!(sampling.resolve(&unusual(), MOST_ROWS).unwrap().strategy, Strategy::Sample(_)));
    }

    #[test]
    fn tiles_are_the_callers_then_the_presets() {
        let resolve = |choices: ImageChoices| choices.resolve(28, 1000, &unusual()).unwrap();
        let preset = resolve(ImageChoices::default());
        assert_eq!(preset.decode, DecodeOptions { orientation: Orientation::Ignore, max_pixels: 1000 });
        let expected = TilingOptions { tile_size: 28, min_tiles: 2, max_tiles: 12, thumbnail: false };
        assert_eq!(preset.tiling, expected);
        let choices = ImageChoices {
            max_tiles: Some(6),
            min_tiles: Some(3),
            thumbnail: Some(true),
            orientation: Some(Orientation::Auto),
        };
        assert_eq!(resolve(choices).decode.orientation, Orientation::Auto);
        let expected = TilingOptions { tile_size: 28, min_tiles: 3, max_tiles: 6, thumbnail: true };
        assert_eq!(resolve(choices).tiling, expected);
        let without = ImageChoices { thumbnail: Some(false), ..ImageChoices::default() };
        assert!(!without.resolve(28, 1000, &built_in(true)).unwrap().tiling.thumbnail);
    }

    /// At most one tile is meant whatever the preset's fewest tiles are.
    #[test]
    fn a_choice_lowers_the_presets_fewest_tiles() {
        let one = ImageChoices { max_tiles: Some(1), ..ImageChoices::default() };
        let resolved = one.resolve(28, 1000, &unusual()).unwrap().tiling;
        assert_eq!((resolved.min_tiles, resolved.max_tiles), (1, 1));
        let above = ImageChoices { min_tiles: Some(13), ..ImageChoices::default() };
        let refused = above.resolve(28, 1000, &unusual()).unwrap_err();
        assert_eq!(refused, ChoiceError::Tiles { fewest: 13, most: 12, chosen: false });
    }

    #[test]
    fn sampling_choices_replace_the_presets_beams() {
        let choices = GenerationChoices {
            temperature: Some(0.7),
            seed: Some(3),
            num_return_sequences: Some(4),
            ..Default::default()
        };
        let settings = resolve(&choices).unwrap();
        let Strategy::Sample(sampling) = settings.strategy else { panic!("not sampling") };
        assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (0.7, 50, 3));
        assert_eq!(settings.num_return_sequences, 4);
    }

    #[test]
    fn temperature_zero_is_greedy() {
        let choices = GenerationChoices { temperature: Some(0.0), ..Default::default() };
        assert_eq!(resolve(&choices).unwrap().strategy, Strategy::Greedy);
    }

    #[test]
    fn choices_without_effect_are_refused_unless_neutral() {
        let greedy = GenerationChoices { num_beams: Some(1), ..Default::default() };
        let neutral = GenerationChoices {
            length_penalty: Some(1.0),
            early_stopping: Some(EarlyStopping::False),
            ..greedy.clone()
        };
        assert_eq!(resolve(&neutral).unwrap().strategy, Strategy::Greedy);
        for (refused, choice) in [
            (GenerationChoices { length_penalty: Some(2.0), ..greedy.clone() }, "length_penalty"),
            (GenerationChoices { early_stopping: Some(EarlyStopping::Never), ..greedy }, "early_stopping"),
            (GenerationChoices { temperature: Some(0.5), num_beams: Some(3), ..Default::default() }, "temperature"),
            (GenerationChoices { temperature: Some(0.0), top_k: Some(5), ..Default::default() }, "top_k"),
            (
                GenerationChoices { temperature: Some(0.5), length_penalty: Some(0.5), ..Default::default() },
                "length_penalty",
            ),
            (GenerationChoices { num_beams: Some(65), ..Default::default() }, "num_beams"),
            (GenerationChoices { repetition_penalty: Some(0.0), ..Default::default() }, "repetition_penalty"),
        ] {
            assert_eq!(resolve(&refused).unwrap_err().choice(), choice, "{refused:?}");
        }
    }

    #[test]
    fn a_caller_reads_its_own_names() {
        let conflict = ChoiceError::NoBeams { choice: "length_penalty", because: "num_beams" };
        let flag: Spelling = |name| format!("--{}", name.replace('_', "-"));
        let message = "--length-penalty is for beam search and has no effect with --num-beams 1";
        assert_eq!(conflict.message(flag), message);
        assert_eq!(conflict.hint(flag).unwrap(), "leave it out, or pass --num-beams 2 or more");
        let expected = "length_penalty is for beam search and has no effect with num_beams 1\n\
                        hint: leave it out, or pass num_beams 2 or more";
        assert_eq!(conflict.to_string(), expected);
    }
}
