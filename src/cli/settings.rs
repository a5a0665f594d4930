//! From the command line to typed settings: presets, defaults and conflicts live here and nowhere else.
//!
//! A setting is the flag's, else the preset's; [`presets`] says which preset and what it comes to.

mod presets;

use std::path::Path;

use super::args::{ChatArgs, GenerationArgs, OrientationArg, RuntimeArgs, TilingArgs};
use super::error::CliError;
use crate::engine::EngineConfig;
use crate::generate::{BeamSearch, EarlyStopping, GenerationSettings, Sampling, Strategy};
use crate::graph::onnx::{LibraryOptions, RuntimeLog};
use crate::package::Package;
use crate::preprocess::{DecodeOptions, Orientation, TilingOptions};
use crate::prompt::{Template, Turn};
use crate::provider::ComponentProviders;

use presets::{ChosenPresets, PresetValues};
pub(super) use presets::{ListedPreset, Presets};

/// The reference's `top_k` when sampling is on and none is given.
const DEFAULT_TOP_K: usize = 50;

/// What `chat` runs with.
pub(super) struct ChatSettings<'a> {
    generation: &'a GenerationArgs,
    presets: ChosenPresets,
    /// Chat template; the package's when absent.
    pub(super) template: Option<Template>,
    /// How to read images, those of `/image` as well.
    pub(super) images: ImageOptions,
}

/// How to read images.
#[derive(Clone, Copy, Debug)]
pub(super) struct ImageOptions {
    pub(super) decode: DecodeOptions,
    pub(super) tiling: TilingOptions,
}

impl ChatArgs {
    /// The settings of the command with this package.
    ///
    /// # Errors
    /// [`CliError::Usage`] for an unknown preset or flags that contradict each other, [`CliError::Prompt`] for an unknown
    /// template, [`CliError::Package`] for a package whose default is no preset.
    pub(super) fn resolve(&self, package: &Package) -> Result<ChatSettings<'_>, CliError> {
        let presets = Presets::new(Some(package))?.choose(self.generation.preset.as_deref())?;
        let tile_size = package.manifest().architecture.image_size;
        Ok(ChatSettings {
            generation: &self.generation,
            template: self.prompt.template.as_deref().map(str::parse).transpose()?,
            images: self.tiling.resolve(tile_size, presets.of_call(true))?,
            presets,
        })
    }
}

impl ChatSettings<'_> {
    /// How a call with or without images generates.
    ///
    /// # Errors
    /// [`CliError::Usage`] for flags that contradict each other, [`CliError::Settings`] for values out of range.
    pub(super) fn generation(&self, has_images: bool) -> Result<GenerationSettings, CliError> {
        self.generation.resolve(self.presets.of_call(has_images))
    }
}

impl GenerationArgs {
    fn resolve(&self, preset: &PresetValues) -> Result<GenerationSettings, CliError> {
        let settings = GenerationSettings {
            max_new_tokens: self.max_new_tokens.unwrap_or(preset.max_new_tokens),
            min_new_tokens: self.min_new_tokens.unwrap_or(preset.min_new_tokens),
            repetition_penalty: self.repetition_penalty.unwrap_or(preset.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(preset.no_repeat_ngram_size),
            num_return_sequences: 1,
            strategy: self.strategy(preset)?,
        };
        settings.validate()?;
        check_beams(settings.rows())?;
        Ok(settings)
    }

    fn strategy(&self, preset: &PresetValues) -> Result<Strategy, CliError> {
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
            let num_beams = self.num_beams.unwrap_or(if greedy { 1 } else { preset.num_beams });
            return self.search(num_beams, preset);
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

    fn search(&self, num_beams: usize, preset: &PresetValues) -> Result<Strategy, CliError> {
        if num_beams == 1 {
            self.refuse_beam_flags("--num-beams 1")?;
            return Ok(Strategy::Greedy);
        }
        Ok(Strategy::Beam(BeamSearch {
            num_beams,
            length_penalty: self.length_penalty.unwrap_or(preset.length_penalty),
            early_stopping: self.early_stopping()?.unwrap_or(preset.early_stopping),
        }))
    }

    fn early_stopping(&self) -> Result<Option<EarlyStopping>, CliError> {
        Ok(self.early_stopping.as_deref().map(str::parse).transpose()?)
    }

    /// Flags of beam search that would have no effect; their neutral values are let through, and so is a preset, which
    /// serves calls with and without beams.
    fn refuse_beam_flags(&self, because: &str) -> Result<(), CliError> {
        let effective = match (self.length_penalty, self.early_stopping()?) {
            // By the total order, NaN is not the neutral value.
            (Some(penalty), _) if penalty.total_cmp(&1.0).is_ne() => "--length-penalty",
            (_, Some(EarlyStopping::True | EarlyStopping::Never)) => "--early-stopping",
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
    /// How to decode images and cut them into tiles of `tile_size` pixels.
    ///
    /// # Errors
    /// [`CliError::Usage`] for limits that contradict each other.
    pub(super) fn resolve(&self, tile_size: u32, preset: &PresetValues) -> Result<ImageOptions, CliError> {
        let orientation = match self.orientation {
            Some(OrientationArg::Auto) => Orientation::Auto,
            Some(OrientationArg::Ignore) => Orientation::Ignore,
            None => preset.orientation,
        };
        let max_tiles = self.max_tiles.unwrap_or(preset.max_tiles);
        let min_tiles = self.min_tiles.unwrap_or(preset.min_tiles.min(max_tiles));
        if min_tiles > max_tiles {
            let origin = if self.max_tiles.is_none() { " (the default)" } else { "" };
            return Err(CliError::usage(
                format!("--min-tiles {min_tiles} is above --max-tiles {max_tiles}{origin}"),
                "raise --max-tiles or lower --min-tiles",
            ));
        }
        let thumbnail = self.thumbnail || (preset.use_thumbnail && !self.no_thumbnail);
        Ok(ImageOptions {
            decode: DecodeOptions { orientation, max_pixels: self.max_image_pixels },
            tiling: TilingOptions { tile_size, min_tiles, max_tiles, thumbnail },
        })
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
        LibraryOptions {
            path: self.ort_library.clone(),
            threads: self.threads.map(usize::from),
            log,
            plugins: self.provider_library.clone(),
        }
    }

    /// Where each graph runs.
    ///
    /// # Errors
    /// [`CliError::Provider`] for a spec that cannot be honoured.
    pub(super) fn providers(&self) -> Result<ComponentProviders, CliError> {
        Ok(ComponentProviders { strict: self.strict, ..self.provider.parse()? })
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

    fn built_in(has_images: bool) -> PresetValues {
        Presets::new(None).unwrap().choose(None).unwrap().of_call(has_images).clone()
    }

    fn resolve(args: GenerationArgs) -> Result<GenerationSettings, CliError> {
        args.resolve(&built_in(true))
    }

    #[test]
    fn the_default_with_an_image_is_the_cards_call() {
        let settings = resolve(GenerationArgs::default()).unwrap();
        assert_eq!((settings.max_new_tokens, settings.repetition_penalty), (512, 3.5));
        assert!(matches!(settings.strategy, Strategy::Beam(BeamSearch { num_beams: 3, .. })));
        let text = GenerationArgs::default().resolve(&built_in(false)).unwrap();
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
        assert_eq!(GenerationArgs::default().resolve(&unusual()).unwrap(), expected);
    }

    #[test]
    fn flags_override_every_setting_of_a_preset() {
        let args = GenerationArgs {
            num_beams: Some(2),
            repetition_penalty: Some(1.0),
            length_penalty: Some(1.0),
            early_stopping: Some("false".into()),
            no_repeat_ngram_size: Some(0),
            min_new_tokens: Some(0),
            max_new_tokens: Some(5),
            ..Default::default()
        };
        let expected = GenerationSettings {
            max_new_tokens: 5,
            min_new_tokens: 0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            num_return_sequences: 1,
            strategy: Strategy::Beam(BeamSearch {
                num_beams: 2,
                length_penalty: 1.0,
                early_stopping: EarlyStopping::False,
            }),
        };
        assert_eq!(args.resolve(&unusual()).unwrap(), expected);
    }

    #[test]
    fn what_a_preset_says_of_beams_is_no_conflict_without_them() {
        let greedy = GenerationArgs { num_beams: Some(1), ..Default::default() };
        assert_eq!(greedy.resolve(&unusual()).unwrap().strategy, Strategy::Greedy);
        let sampling = GenerationArgs { temperature: Some(0.7), ..Default::default() };
        assert!(matches!(sampling.resolve(&unusual()).unwrap().strategy, Strategy::Sample(_)));
    }

    fn tiling() -> TilingArgs {
        TilingArgs {
            max_tiles: None,
            min_tiles: None,
            no_thumbnail: false,
            thumbnail: false,
            orientation: None,
            max_image_pixels: 1000,
        }
    }

    #[test]
    fn tiles_are_the_flags_then_the_presets() {
        let resolve = |args: &TilingArgs| args.resolve(28, &unusual()).unwrap();
        let preset = resolve(&tiling());
        assert_eq!(preset.decode, DecodeOptions { orientation: Orientation::Ignore, max_pixels: 1000 });
        let expected = TilingOptions { tile_size: 28, min_tiles: 2, max_tiles: 12, thumbnail: false };
        assert_eq!(preset.tiling, expected);
        let flags = TilingArgs {
            max_tiles: Some(6),
            min_tiles: Some(3),
            thumbnail: true,
            orientation: Some(OrientationArg::Auto),
            ..tiling()
        };
        assert_eq!(resolve(&flags).decode.orientation, Orientation::Auto);
        let expected = TilingOptions { tile_size: 28, min_tiles: 3, max_tiles: 6, thumbnail: true };
        assert_eq!(resolve(&flags).tiling, expected);
        let without = TilingArgs { no_thumbnail: true, ..tiling() };
        assert!(!without.resolve(28, &built_in(true)).unwrap().tiling.thumbnail);
    }

    /// `--max-tiles 1` is meant whatever the preset's fewest tiles are.
    #[test]
    fn a_flag_lowers_the_presets_fewest_tiles() {
        let args = TilingArgs { max_tiles: Some(1), ..tiling() };
        let resolved = args.resolve(28, &unusual()).unwrap().tiling;
        assert_eq!((resolved.min_tiles, resolved.max_tiles), (1, 1));
        let above = TilingArgs { min_tiles: Some(13), ..tiling() };
        assert!(matches!(above.resolve(28, &unusual()), Err(CliError::Usage { .. })));
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
