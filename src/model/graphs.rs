//! Loading the graphs of a package: the one place where a model is made of ONNX Runtime.

use std::path::PathBuf;

use super::ModelError;
use crate::graph::onnx::{CacheLayout, CacheMemory, GraphSource, Library, OnnxCachedGraph, OnnxGraph};
use crate::graph::{CachedGraph, Graph, Placement};
use crate::package::{Component, FUSED, GraphVariant, Package, STANDARD};
use crate::provider::ComponentProviders;
use crate::provider::tensorrt::{EngineSource, ShapeLimits, default_folder};

/// The graphs of a model, wherever they run.
pub struct Graphs {
    /// Pixel values `[tiles, 3, S, S]` to features `[tiles, patches, C]`.
    pub vision_encoder: Box<dyn Graph>,
    /// Features to image embeddings `[tiles, tokens per tile, hidden size]`.
    pub projector: Box<dyn Graph>,
    /// New positions to the logits of the last one.
    pub decoder: Box<dyn CachedGraph>,
}

impl Graphs {
    /// Loads the graphs of a package. `progress` is told which one comes next.
    ///
    /// # Errors
    /// [`ModelError::Graph`] when a graph cannot be loaded, [`ModelError::NoVariant`] when there is none this version can run.
    pub fn load(
        package: &Package,
        library: &Library,
        providers: &ComponentProviders,
        mut progress: impl FnMut(Component),
    ) -> Result<Self, ModelError> {
        let mut load = |component| {
            progress(component);
            Ok::<_, ModelError>(OnnxGraph::load(library, &graph_source(package, providers, component)?)?)
        };
        let encoder = load(Component::VisionEncoder)?;
        let projector = load(Component::Projector)?;
        let decoder = load(Component::Decoder)?;
        let layout = CacheLayout::of(&package.manifest().architecture, decoder.variant())
            .map_err(|found| ModelError::NoVariant { component: Component::Decoder, found })?;
        let memory = CacheMemory::of(library, &decoder, &layout)?;
        let decoder = OnnxCachedGraph::new(decoder, layout, memory)?;
        Ok(Self { vision_encoder: Box::new(encoder), projector: Box::new(projector), decoder: Box::new(decoder) })
    }

    /// Loads one graph and lets it go again: what a provider compiles ahead of time is kept where it keeps it.
    ///
    /// # Errors
    /// As [`Graphs::load`].
    pub fn compile(
        package: &Package,
        library: &Library,
        providers: &ComponentProviders,
        component: Component,
    ) -> Result<Placement, ModelError> {
        let graph = OnnxGraph::load(library, &graph_source(package, providers, component)?)?;
        Ok(graph.placement().clone())
    }
}

/// A graph of a package with all that loading it needs.
///
/// # Errors
/// [`ModelError::NoVariant`] when there is no variant that this version can run.
pub fn graph_source<'a>(
    package: &'a Package,
    providers: &'a ComponentProviders,
    component: Component,
) -> Result<GraphSource<'a>, ModelError> {
    let manifest = package.manifest();
    Ok(GraphSource {
        variants: usable_variants(package, component)?,
        providers: providers.of(component),
        strict: providers.strict,
        engine: EngineSource { component, limits: ShapeLimits::of(manifest), folder: default_folder(manifest) },
    })
}

/// The variants of a graph this runtime knows how to run, with their files.
fn usable_variants(package: &Package, component: Component) -> Result<Vec<(PathBuf, &GraphVariant)>, ModelError> {
    let variants = package.variants(component);
    let known = variants.iter().filter(|variant| [FUSED, STANDARD].contains(&variant.variant.as_str()));
    let usable: Vec<_> = known
        .map(|variant| (variant.files.first().map(|file| package.path(file)).unwrap_or_default(), variant))
        .collect();
    if usable.is_empty() {
        let found = variants.iter().map(|variant| variant.variant.as_str()).collect::<Vec<_>>().join(", ");
        return Err(ModelError::NoVariant { component, found });
    }
    Ok(usable)
}
