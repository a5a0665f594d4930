//! The network: vision encoder, projector, token embeddings, decoder with its cache, over the graph seam.

mod decoder;
mod embeddings;
mod vision;

use std::path::PathBuf;

use crate::graph::onnx::{CacheDtype, CacheForm, CacheLayout, GraphSource, Library, OnnxCachedGraph, OnnxGraph};
use crate::graph::{GraphError, Placement};
use crate::package::{Architecture, Component, FUSED, GraphVariant, Package, STANDARD};
use crate::provider::ComponentProviders;

pub use decoder::Decoder;
pub use embeddings::EmbeddingTable;
pub use vision::VisionTower;

/// Why a model could not be loaded or run.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A graph could not be loaded or run.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The token embedding table cannot be used.
    #[error(
        "the embedding table {} cannot be used: {message}\nhint: copy the package again, or export again",
        file.display()
    )]
    Embeddings {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A token id outside the embedding table.
    #[error(
        "token id {id} is outside the embedding table of {rows} rows\nhint: tokenizer.json and the embedding table of this package do not belong together"
    )]
    TokenId {
        /// The id.
        id: u32,
        /// Rows of the table.
        rows: usize,
    },
    /// No variant of a graph can be used.
    #[error("the package holds no {component} graph that this version can run: {found}")]
    NoVariant {
        /// The graph.
        component: Component,
        /// What the package holds.
        found: String,
    },
    /// A graph gave a result of an unexpected shape.
    #[error("{component} returned shape {found:?}, expected {expected:?}")]
    Shape {
        /// The graph.
        component: Component,
        /// Shape it returned.
        found: Vec<usize>,
        /// Shape the manifest implies.
        expected: Vec<usize>,
    },
}

/// The loaded network.
pub struct Model {
    /// Vision encoder and projector.
    pub vision: VisionTower,
    /// Token embeddings.
    pub embeddings: EmbeddingTable,
    /// Language model with its cache.
    pub decoder: Decoder,
}

impl Model {
    /// Loads every graph of a package. `progress` is told which graph comes next.
    ///
    /// # Errors
    /// [`ModelError`] when a graph or the embedding table cannot be loaded or is not what the manifest says.
    pub fn load(
        package: &Package,
        library: &Library,
        providers: &ComponentProviders,
        mut progress: impl FnMut(Component),
    ) -> Result<Self, ModelError> {
        let sizes = &package.manifest().architecture;
        let embeddings = EmbeddingTable::open(package)?;
        let mut source = |component| {
            progress(component);
            let variants = usable_variants(package, component)?;
            Ok::<_, ModelError>(GraphSource { variants, providers: providers.of(component), strict: providers.strict })
        };
        let encoder = OnnxGraph::load(library, &source(Component::VisionEncoder)?)?;
        let projector = OnnxGraph::load(library, &source(Component::Projector)?)?;
        let decoder = source(Component::Decoder)?;
        let decoder = OnnxGraph::load(library, &decoder)?;
        let layout = cache_layout(sizes, decoder.variant())?;
        let decoder = OnnxCachedGraph::new(decoder, layout)?;
        Ok(Self {
            vision: VisionTower::new(Box::new(encoder), Box::new(projector), sizes),
            embeddings,
            decoder: Decoder::new(Box::new(decoder), sizes),
        })
    }

    /// Where the nodes of each graph run.
    pub fn placements(&self) -> [(Component, &Placement); 3] {
        let [encoder, projector] = self.vision.placements();
        let decoder = self.decoder.placement();
        [(Component::VisionEncoder, encoder), (Component::Projector, projector), (Component::Decoder, decoder)]
    }
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

fn cache_layout(sizes: &Architecture, variant: &GraphVariant) -> Result<CacheLayout, ModelError> {
    let tensors: Vec<(String, String)> = (0..sizes.num_hidden_layers)
        .flat_map(|layer| ["key", "value"].map(move |kind| (layer, kind)))
        .map(|(layer, kind)| (format!("past_key_values.{layer}.{kind}"), format!("present.{layer}.{kind}")))
        .collect();
    let first = tensors.first().map_or("", |(past, _)| past.as_str());
    let dtype = variant.inputs.iter().find(|input| input.name == first).map(|input| input.dtype.as_str());
    let dtype = match dtype {
        Some("fp32") => CacheDtype::F32,
        Some("fp16") => CacheDtype::F16,
        found => {
            let found = format!("its cache input {first} has dtype {}", found.unwrap_or("(missing)"));
            return Err(ModelError::NoVariant { component: Component::Decoder, found });
        }
    };
    Ok(CacheLayout {
        tensors,
        heads: sizes.num_key_value_heads,
        head_dim: sizes.head_dim,
        dtype,
        form: if variant.variant == STANDARD { CacheForm::Apart } else { CacheForm::InPlace },
        output_width: sizes.vocab_size,
    })
}
