//! Vision encoder and projector.

use ndarray::{Array3, ArrayView4, Ix3};

use super::ModelError;
use crate::graph::{Graph, Input, Interrupt, Placement};
use crate::package::{Architecture, Component};

/// Turns normalised tiles into image tokens.
pub struct VisionTower {
    encoder: Box<dyn Graph>,
    projector: Box<dyn Graph>,
    tokens_per_tile: usize,
    hidden_size: usize,
}

impl VisionTower {
    /// A tower over two graphs.
    pub fn new(encoder: Box<dyn Graph>, projector: Box<dyn Graph>, sizes: &Architecture) -> Self {
        Self { encoder, projector, tokens_per_tile: sizes.tokens_per_tile, hidden_size: sizes.hidden_size }
    }

    /// Runs the vision encoder: pixel values `[tiles, 3, S, S]` to features `[tiles, patches, C]`.
    ///
    /// # Errors
    /// [`ModelError::Graph`] when the graph fails or is interrupted, [`ModelError::Shape`].
    pub fn encode(
        &mut self,
        pixel_values: ArrayView4<'_, f32>,
        interrupt: &Interrupt,
    ) -> Result<Array3<f32>, ModelError> {
        let tiles = pixel_values.shape()[0];
        let input = Input { name: "pixel_values", values: pixel_values.into_dyn() };
        let features = self.encoder.run(&[input], interrupt)?;
        let found = features.shape().to_vec();
        features
            .into_dimensionality::<Ix3>()
            .ok()
            .filter(|features| features.shape()[0] == tiles)
            .ok_or(ModelError::Shape { component: Component::VisionEncoder, found, expected: vec![tiles, 0, 0] })
    }

    /// Runs the projector: features `[tiles, patches, C]` to image embeddings `[tiles, tokens per tile, hidden size]`.
    ///
    /// # Errors
    /// [`ModelError::Graph`] when the graph fails or is interrupted, [`ModelError::Shape`].
    pub fn project(&mut self, features: &Array3<f32>, interrupt: &Interrupt) -> Result<Array3<f32>, ModelError> {
        let expected = vec![features.shape()[0], self.tokens_per_tile, self.hidden_size];
        let input = Input { name: "features", values: features.view().into_dyn() };
        let embeds = self.projector.run(&[input], interrupt)?;
        let found = embeds.shape().to_vec();
        embeds.into_dimensionality::<Ix3>().ok().filter(|embeds| embeds.shape() == expected).ok_or(ModelError::Shape {
            component: Component::Projector,
            found,
            expected,
        })
    }

    /// Language-model tokens a tile becomes.
    pub fn tokens_per_tile(&self) -> usize {
        self.tokens_per_tile
    }

    /// Where the nodes of the vision encoder and of the projector run.
    pub fn placements(&self) -> [&Placement; 2] {
        [self.encoder.placement(), self.projector.placement()]
    }
}
