//! From flags to typed settings, by the rules of [`crate::settings`].

use std::path::Path;

use super::args::{ChatArgs, GenerationArgs, OrientationArg, RuntimeArgs, TilingArgs};
use super::error::CliError;
use crate::engine::EngineConfig;
use crate::generate::GenerationSettings;
use crate::graph::onnx::{LibraryOptions, RuntimeLog};
use crate::package::Package;
use crate::preprocess::Orientation;
use crate::prompt::{Template, Turn};
use crate::provider::ComponentProviders;
use crate::settings::{ChosenPresets, GenerationChoices, ImageChoices, ImageOptions, PresetValues, Presets};

/// What `chat` runs with.
pub(super) struct ChatSettings {
    generation: GenerationChoices,
    presets: ChosenPresets,
    /// Chat template; the package's when absent.
    pub(super) template: Option<Template>,
    /// How to read images, those of `/image` as well.
    pub(super) images: ImageOptions,
}

impl ChatArgs {
    /// The settings of the command with this package.
    ///
    /// # Errors
    /// [`CliError::Usage`] for an unknown preset or flags that contradict each other, [`CliError::Prompt`] for an unknown
    /// template, [`CliError::Package`] for a package whose default is no preset.
    pub(super) fn resolve(&self, package: &Package) -> Result<ChatSettings, CliError> {
        let presets = Presets::new(Some(package))?.choose(self.generation.preset.as_deref())?;
        let tile_size = package.manifest().architecture.image_size;
        Ok(ChatSettings {
            generation: self.generation.choices()?,
            template: self.prompt.template.as_deref().map(str::parse).transpose()?,
            images: self.tiling.resolve(tile_size, presets.of_call(true))?,
            presets,
        })
    }
}

impl ChatSettings {
    /// How a call with or without images generates.
    ///
    /// # Errors
    /// [`CliError::Usage`] for flags that contradict each other, [`CliError::Settings`] for values out of range.
    pub(super) fn generation(&self, has_images: bool) -> Result<GenerationSettings, CliError> {
        Ok(self.generation.resolve(self.presets.of_call(has_images), EngineConfig::default().max_rows)?)
    }
}

impl GenerationArgs {
    fn choices(&self) -> Result<GenerationChoices, CliError> {
        Ok(GenerationChoices {
            num_beams: self.num_beams,
            repetition_penalty: self.repetition_penalty,
            length_penalty: self.length_penalty,
            early_stopping: self.early_stopping.as_deref().map(str::parse).transpose()?,
            no_repeat_ngram_size: self.no_repeat_ngram_size,
            max_new_tokens: self.max_new_tokens,
            min_new_tokens: self.min_new_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed: self.seed,
            num_return_sequences: None,
        })
    }
}

impl TilingArgs {
    /// How to decode images and cut them into tiles of `tile_size` pixels.
    ///
    /// # Errors
    /// [`CliError::Usage`] for limits that contradict each other.
    pub(super) fn resolve(&self, tile_size: u32, preset: &PresetValues) -> Result<ImageOptions, CliError> {
        let choices = ImageChoices {
            max_tiles: self.max_tiles,
            min_tiles: self.min_tiles,
            thumbnail: if self.thumbnail { Some(true) } else { self.no_thumbnail.then_some(false) },
            orientation: self.orientation.map(|orientation| match orientation {
                OrientationArg::Auto => Orientation::Auto,
                OrientationArg::Ignore => Orientation::Ignore,
            }),
        };
        Ok(choices.resolve(tile_size, self.max_image_pixels, preset)?)
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
            path_origin: self.origins.ort_library.clone(),
            threads: self.threads.map(usize::from),
            log,
            plugins: self.provider_library.clone(),
            profiles: self.ort_profile.clone(),
        }
    }

    /// Where each graph runs.
    ///
    /// # Errors
    /// [`CliError::Provider`] for a spec that cannot be honoured.
    pub(super) fn providers(&self) -> Result<ComponentProviders, CliError> {
        Ok(ComponentProviders {
            strict: self.strict.unwrap_or(false),
            ..self.provider.as_deref().unwrap_or("cpu").parse()?
        })
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
