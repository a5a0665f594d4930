//! From the command line to typed settings: presets, defaults and conflicts live here and nowhere else.

use std::path::Path;

use super::args::{GenerationArgs, OrientationArg, Preset, RuntimeArgs, TilingArgs};
use super::error::CliError;
use crate::engine::EngineConfig;
use crate::generate::{BeamSearch, EarlyStopping, GenerationSettings, Sampling, Strategy};
use crate::graph::onnx::{LibraryOptions, RuntimeLog};
use crate::model::ComponentProviders;
use crate::package::Tiling;
use crate::preprocess::{DecodeOptions, Orientation, TilingOptions};
use crate::prompt::Turn;

/// The reference's `top_k` when sampling is on and none is given.
const DEFAULT_TOP_K: usize = 50;

/// What a preset fixes.
struct PresetValues {
    num_beams: usize,
    repetition_penalty: f32,
    max_new_tokens: usize,
}

impl Preset {
    fn or_default(preset: Option<Self>, has_images: bool) -> Self {
        preset.unwrap_or(if has_images { Self::Describe } else { Self::Text })
    }

    fn values(self) -> PresetValues {
        let (num_beams, repetition_penalty, max_new_tokens) = match self {
            Self::Describe => (3, 3.5, 512),
            Self::Text => (1, 1.5, 64),
            Self::Benchmark => (3, 1.0, 1024),
        };
        PresetValues { num_beams, repetition_penalty, max_new_tokens }
    }
}

impl GenerationArgs {
    /// The settings a call runs with.
    ///
    /// # Errors
    /// [`CliError::Usage`] for flags that contradict each other, [`CliError::Settings`] for values out of range.
    pub(super) fn resolve(&self, has_images: bool) -> Result<GenerationSettings, CliError> {
        let preset = Preset::or_default(self.preset, has_images).values();
        let settings = GenerationSettings {
            max_new_tokens: self.max_new_tokens.unwrap_or(preset.max_new_tokens),
            min_new_tokens: self.min_new_tokens.unwrap_or(0),
            repetition_penalty: self.repetition_penalty.unwrap_or(preset.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(0),
            num_return_sequences: 1,
            strategy: self.strategy(preset.num_beams)?,
        };
        settings.validate()?;
        check_beams(settings.rows())?;
        Ok(settings)
    }

    fn strategy(&self, preset_beams: usize) -> Result<Strategy, CliError> {
        let filters = [
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--min-p", self.min_p.is_some()),
            ("--seed", self.seed.is_some()),
        ];
        let filter = filters.iter().find(|(_, given)| *given).map(|(name, _)| *name);
        let samples = self.temperature.map_or(filter.is_some(), |temperature| temperature != 0.0);
        if !samples {
            if let Some(filter) = filter {
                return Err(CliError::usage(
                    format!("{filter} is for sampling, --temperature 0 is greedy search"),
                    "leave one of them out",
                ));
            }
            let greedy = self.temperature == Some(0.0);
            let num_beams = self.num_beams.unwrap_or(if greedy { 1 } else { preset_beams });
            return self.search(num_beams);
        }
        let asked = if self.temperature.is_some() { "--temperature" } else { filter.unwrap_or("--temperature") };
        if self.num_beams.is_some_and(|beams| beams != 1) {
            return Err(CliError::usage(
                format!("{asked} samples, --num-beams searches with beams; one call cannot do both"),
                "leave one of them out",
            ));
        }
        self.refuse_beam_flags(asked)?;
        Ok(Strategy::Sample(Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(DEFAULT_TOP_K),
            top_p: self.top_p.unwrap_or(1.0),
            min_p: self.min_p.unwrap_or(0.0),
            seed: self.seed.unwrap_or_else(rand::random),
        }))
    }

    fn search(&self, num_beams: usize) -> Result<Strategy, CliError> {
        if num_beams == 1 {
            self.refuse_beam_flags("--num-beams 1")?;
            return Ok(Strategy::Greedy);
        }
        Ok(Strategy::Beam(BeamSearch {
            num_beams,
            length_penalty: self.length_penalty.unwrap_or(1.0),
            early_stopping: self.early_stopping()?,
        }))
    }

    fn early_stopping(&self) -> Result<EarlyStopping, CliError> {
        Ok(self.early_stopping.as_deref().map_or(Ok(EarlyStopping::False), str::parse)?)
    }

    /// Flags of beam search that would have no effect; their neutral values are let through.
    fn refuse_beam_flags(&self, because: &str) -> Result<(), CliError> {
        let effective = match (self.length_penalty, self.early_stopping()?) {
            // By the total order, NaN is not the neutral value.
            (Some(penalty), _) if penalty.total_cmp(&1.0).is_ne() => "--length-penalty",
            (_, EarlyStopping::True | EarlyStopping::Never) => "--early-stopping",
            _ => return Ok(()),
        };
        Err(CliError::usage(
            format!("{effective} is for beam search and has no effect with {because}"),
            "leave it out, or pass --num-beams 2 or more",
        ))
    }
}

/// Refuses more beams than the engine keeps, before anything is loaded.
///
/// # Errors
/// [`CliError::Usage`].
pub(super) fn check_beams(num_beams: usize) -> Result<(), CliError> {
    let max_rows = EngineConfig::default().max_rows;
    if num_beams <= max_rows {
        return Ok(());
    }
    let message = format!("--num-beams is {num_beams}; it must be at most {max_rows}");
    Err(CliError::usage(
        message,
        "every beam costs as much time and memory as an answer of its own; the model card uses 3",
    ))
}

impl TilingArgs {
    /// How to decode images.
    pub(super) fn decode_options(&self, preset: Option<Preset>) -> DecodeOptions {
        let default = if preset == Some(Preset::Benchmark) { OrientationArg::Ignore } else { OrientationArg::Auto };
        let orientation = match self.orientation.unwrap_or(default) {
            OrientationArg::Auto => Orientation::Auto,
            OrientationArg::Ignore => Orientation::Ignore,
        };
        DecodeOptions { orientation, max_pixels: self.max_image_pixels }
    }

    /// How to cut images into tiles of `tile_size` pixels.
    ///
    /// # Errors
    /// [`CliError::Usage`] for limits that contradict each other.
    pub(super) fn tiling_options(&self, tile_size: u32, defaults: &Tiling) -> Result<TilingOptions, CliError> {
        let max_tiles = self.max_tiles.unwrap_or(defaults.max_tiles);
        let min_tiles = self.min_tiles.unwrap_or(defaults.min_tiles.min(max_tiles));
        if min_tiles > max_tiles {
            let origin = if self.max_tiles.is_none() { " (the default)" } else { "" };
            return Err(CliError::usage(
                format!("--min-tiles {min_tiles} is above --max-tiles {max_tiles}{origin}"),
                "raise --max-tiles or lower --min-tiles",
            ));
        }
        let thumbnail = defaults.use_thumbnail && !self.no_thumbnail;
        Ok(TilingOptions { tile_size, min_tiles, max_tiles, thumbnail })
    }
}

impl RuntimeArgs {
    /// How to load ONNX Runtime.
    pub(super) fn library_options(&self) -> LibraryOptions {
        let log = match self.verbose {
            0 => RuntimeLog::Nothing,
            1 => RuntimeLog::Warnings,
            _ => RuntimeLog::Everything,
        };
        LibraryOptions { path: self.ort_library.clone(), threads: self.threads.map(usize::from), log }
    }

    /// Where each graph runs.
    ///
    /// # Errors
    /// [`CliError::Provider`] for a spec that cannot be honoured.
    pub(super) fn providers(&self) -> Result<ComponentProviders, CliError> {
        Ok(ComponentProviders::all(&self.provider.parse()?))
    }
}

/// Reads `--history`: a JSON list of `[question, answer]` pairs.
///
/// # Errors
/// [`CliError::Read`] or [`CliError::History`].
pub(super) fn read_history(file: &Path) -> Result<Vec<Turn>, CliError> {
    let text = super::read_file("history", file)?;
    serde_json::from_slice(&text).map_err(|source| CliError::History { file: file.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(args: GenerationArgs) -> Result<GenerationSettings, CliError> {
        args.resolve(true)
    }

    #[test]
    fn the_default_with_an_image_is_the_cards_call() {
        let settings = resolve(GenerationArgs::default()).unwrap();
        assert_eq!((settings.max_new_tokens, settings.repetition_penalty), (512, 3.5));
        assert!(matches!(settings.strategy, Strategy::Beam(BeamSearch { num_beams: 3, .. })));
        let text = GenerationArgs::default().resolve(false).unwrap();
        assert_eq!((text.max_new_tokens, text.repetition_penalty, text.strategy), (64, 1.5, Strategy::Greedy));
    }

    #[test]
    fn sampling_flags_replace_the_presets_beams() {
        let args = GenerationArgs { temperature: Some(0.7), seed: Some(3), ..Default::default() };
        let Strategy::Sample(sampling) = resolve(args).unwrap().strategy else { panic!("not sampling") };
        assert_eq!((sampling.temperature, sampling.top_k, sampling.seed), (0.7, 50, 3));
    }

    #[test]
    fn temperature_zero_is_greedy() {
        let args = GenerationArgs { temperature: Some(0.0), ..Default::default() };
        assert_eq!(resolve(args).unwrap().strategy, Strategy::Greedy);
    }

    #[test]
    fn flags_without_effect_are_refused_unless_neutral() {
        let greedy = GenerationArgs { num_beams: Some(1), ..Default::default() };
        let neutral =
            GenerationArgs { length_penalty: Some(1.0), early_stopping: Some("false".into()), ..greedy.clone() };
        assert_eq!(resolve(neutral).unwrap().strategy, Strategy::Greedy);
        for refused in [
            GenerationArgs { length_penalty: Some(2.0), ..greedy.clone() },
            GenerationArgs { early_stopping: Some("never".into()), ..greedy },
            GenerationArgs { temperature: Some(0.5), num_beams: Some(3), ..Default::default() },
            GenerationArgs { temperature: Some(0.0), top_k: Some(5), ..Default::default() },
            GenerationArgs { temperature: Some(0.5), length_penalty: Some(0.5), ..Default::default() },
        ] {
            assert!(matches!(resolve(refused.clone()), Err(CliError::Usage { .. })), "{refused:?}");
        }
    }
}
