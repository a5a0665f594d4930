//! The network: vision encoder, projector, token embeddings, decoder with its cache, over the graph seam.

mod decoder;
mod embeddings;
mod graphs;
mod vision;

use std::path::PathBuf;

use crate::graph::onnx::Library;
use crate::graph::{GraphError, Placement};
use crate::package::{Architecture, Component, Package};
use crate::provider::ComponentProviders;

pub use decoder::Decoder;
pub use embeddings::EmbeddingTable;
pub use graphs::{Graphs, graph_source};
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
        progress: impl FnMut(Component),
    ) -> Result<Self, ModelError> {
        let embeddings = EmbeddingTable::open(package)?;
        let graphs = Graphs::load(package, library, providers, progress)?;
        Ok(Self::new(graphs, embeddings, &package.manifest().architecture))
    }

    /// A model of loaded parts.
    pub fn new(graphs: Graphs, embeddings: EmbeddingTable, sizes: &Architecture) -> Self {
        Self {
            vision: VisionTower::new(graphs.vision_encoder, graphs.projector, sizes),
            embeddings,
            decoder: Decoder::new(graphs.decoder, sizes),
        }
    }

    /// Where the nodes of each graph run.
    pub fn placements(&self) -> [(Component, &Placement); 3] {
        let [encoder, projector] = self.vision.placements();
        let decoder = self.decoder.placement();
        [(Component::VisionEncoder, encoder), (Component::Projector, projector), (Component::Decoder, decoder)]
    }
}
