//! What every command that runs a model does first: load the library, load the graphs, read images.

use std::path::Path;

use super::args::RuntimeArgs;
use super::error::CliError;
use super::output::note;
use super::progress::Progress;
use super::read_file;
use crate::engine::{Engine, EngineConfig, TiledImage};
use crate::graph::onnx::{Library, try_provider};
use crate::model::graph_source;
use crate::package::{Component, Package};
use crate::provider::ComponentProviders;
use crate::provider::tensorrt::EngineState;
use crate::settings::ImageOptions;

/// Loads the engine of a package.
///
/// # Errors
/// When the library, the tokenizer or a graph cannot be used.
pub(super) fn load_engine(
    package: &Package,
    runtime: &RuntimeArgs,
    providers: &ComponentProviders,
    progress: &Progress,
) -> Result<Engine, CliError> {
    load_engine_with(package, runtime, providers, EngineConfig::default(), progress)
}

/// As [`load_engine`], with other limits than the usual ones.
///
/// # Errors
/// As [`load_engine`].
pub(super) fn load_engine_with(
    package: &Package,
    runtime: &RuntimeArgs,
    providers: &ComponentProviders,
    config: EngineConfig,
    progress: &Progress,
) -> Result<Engine, CliError> {
    let library = Library::load(&runtime.library_options())?;
    announce_engines(package, &library, providers);
    let loaded = Engine::load(package, &library, providers, config, |component| {
        progress.loading(component);
    });
    progress.clear();
    let engine = loaded?;
    report_skipped(&engine);
    if runtime.verbose > 0 {
        runtime.origins.lines().iter().for_each(|line| note(&format!("settings: {line}")));
        report_placement(&engine, &library);
    }
    Ok(engine)
}

/// Reads an image file and cuts it into tiles as the model takes them; says so when its pixels are not exact.
///
/// # Errors
/// When the file cannot be read or is no usable image.
pub(super) fn load_image(file: &Path, options: &ImageOptions, progress: &Progress) -> Result<TiledImage, CliError> {
    let bytes = read_file("image", file)?;
    let image = TiledImage::from_bytes(&bytes, &options.decode, &options.tiling)
        .map_err(|source| CliError::Image { file: file.to_path_buf(), source })?;
    if !image.is_exact() {
        progress.warn(&format!("{}: in this coding of its samples the reference reads other pixels", file.display()));
    }
    Ok(image)
}

/// Says which graphs take minutes to load, because TensorRT must compile them first.
fn announce_engines(package: &Package, library: &Library, providers: &ComponentProviders) {
    for component in Component::ALL {
        let first = &providers.of(component).entries()[0];
        if first.tensorrt_options().is_none() || try_provider(library, first).is_err() {
            continue;
        }
        // What is wrong with a plan is said when the graph is loaded.
        let source = graph_source(package, providers, component);
        let plan = source.ok().and_then(|source| source.engine_plan(library).ok().flatten());
        if plan.is_some_and(|plan| plan.state() == EngineState::Missing) {
            note(&format!(
                "{component}: TensorRT compiles it now, which takes minutes; `vintern engine build` does it ahead of time"
            ));
        }
    }
}

/// One line for each provider that was asked for and is not used; the same line once.
fn report_skipped(engine: &Engine) {
    let mut told = Vec::new();
    for skipped in engine.placements().iter().flat_map(|(_, placement)| &placement.skipped) {
        if !told.contains(&skipped) {
            note(&format!("provider {} is not used: {}", skipped.provider, skipped.reason));
            told.push(skipped);
        }
    }
}

fn report_placement(engine: &Engine, library: &Library) {
    note(&format!("ONNX Runtime {} from {}", library.version(), library.path().display()));
    for (component, placement) in engine.placements() {
        note(&format!("{component}: {placement}"));
    }
}
