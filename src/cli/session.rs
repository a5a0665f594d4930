//! What every command that runs a model does first: open the package, load the library, load the graphs.

use std::path::{Path, PathBuf};

use super::args::{RuntimeArgs, TilingArgs};
use super::error::CliError;
use super::progress::Progress;
use super::read_file;
use crate::engine::{Engine, EngineConfig, TiledImage};
use crate::graph::onnx::Library;
use crate::package::{Component, Package};
use crate::preprocess::DecodeOptions;

/// Opens the package and loads its engine.
///
/// # Errors
/// When the package, the library or a graph cannot be used.
pub(super) fn load_engine(model: &Path, runtime: &RuntimeArgs, progress: &Progress) -> Result<Engine, CliError> {
    let providers = runtime.providers()?;
    let package = Package::open(model)?;
    let library = Library::load(&runtime.library_options())?;
    let engine = Engine::load(&package, &library, &providers, EngineConfig::default(), |component| {
        progress.loading(component);
    })?;
    progress.clear();
    if runtime.verbose {
        report_placement(&engine, &library);
    }
    Ok(engine)
}

/// Reads an image file and cuts it into tiles as the engine's model takes them.
///
/// # Errors
/// When the file cannot be read or is no usable image.
pub(super) fn load_image(
    file: &PathBuf,
    engine: &Engine,
    tiling: &TilingArgs,
    decode: &DecodeOptions,
) -> Result<TiledImage, CliError> {
    let manifest = engine.manifest();
    let options = tiling.tiling_options(manifest.architecture.image_size, &manifest.tiling);
    let bytes = read_file(file)?;
    TiledImage::from_bytes(&bytes, decode, &options)
        .map_err(|source| CliError::Image { file: file.clone(), source })
}

fn report_placement(engine: &Engine, library: &Library) {
    eprintln!("ONNX Runtime {} from {}", library.version(), library.path().display());
    let [encoder, projector] = engine.model().vision.placements();
    let decoder = engine.model().decoder.placement();
    for (component, placement) in Component::ALL.iter().zip([encoder, projector, decoder]) {
        eprintln!("{component}: {placement}");
    }
}
