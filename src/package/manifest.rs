//! The manifest: everything the runtime needs to know about a package, nothing it must guess.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::presets::{self, DefaultPresets, Preset};

/// Value of the manifest's `format` field.
pub const FORMAT: &str = "vintern-package";

/// The one format version this runtime reads.
pub const FORMAT_VERSION: u64 = 1;

/// `manifest.json`.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// Layout of the package; see [`FORMAT_VERSION`].
    pub format_version: u64,
    /// The program that wrote the package.
    pub exporter: Exporter,
    /// The checkpoint the package was made from.
    pub source: Source,
    /// Sizes of the network.
    pub architecture: Architecture,
    /// How images are cut into tiles by default, and how pixels are normalised.
    pub tiling: Tiling,
    /// Default chat template and system message.
    pub prompt: Prompt,
    /// The presets the package ships, by name.
    #[serde(default, deserialize_with = "presets::read", skip_serializing_if = "BTreeMap::is_empty")]
    pub presets: BTreeMap<String, Preset>,
    /// Which presets a call starts from when none is asked for.
    #[serde(default, skip_serializing_if = "DefaultPresets::is_empty")]
    pub default_presets: DefaultPresets,
    /// Token ids with a role.
    pub tokens: Tokens,
    /// The tokenizer file.
    pub tokenizer: Tokenizer,
    /// The token embedding table.
    pub embed_tokens: EmbedTokens,
    /// The graphs, each in one or more variants.
    pub graphs: Graphs,
    /// Inputs with independently computed results, for a numeric check on the machine that runs the package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parity: Option<Parity>,
}

/// The program that wrote a package.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Exporter {
    /// Program name.
    pub name: String,
    /// Program version.
    pub version: String,
}

/// The checkpoint behind a package.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Source {
    /// Folder or hub name.
    pub name: String,
    /// `internvl_chat` (original layout) or `transformers`.
    pub layout: String,
    /// SHA-256 over the checkpoint's configuration and weights.
    pub sha256: String,
}

/// Sizes of the network.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Architecture {
    /// Side of a tile in pixels.
    pub image_size: u32,
    /// Side of a patch in pixels.
    pub patch_size: u32,
    /// Language-model tokens a tile becomes.
    pub tokens_per_tile: usize,
    /// Width of the vision tower.
    pub vision_hidden_size: usize,
    /// Layers of the vision tower that are in the graph.
    pub vision_num_hidden_layers: usize,
    /// Width of the language model.
    pub hidden_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of the logits.
    pub vocab_size: usize,
    /// Rows of the embedding table.
    pub embedding_rows: usize,
    /// Longest prompt plus answer, in tokens.
    pub max_length: usize,
}

/// Default tiling and pixel normalisation.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Tiling {
    /// Fewest tiles of the grid.
    pub min_tiles: u32,
    /// Most tiles of the grid, the thumbnail not counted.
    pub max_tiles: u32,
    /// Whether the whole image is appended as one more tile when the grid has several.
    pub use_thumbnail: bool,
    /// Mean of each channel, of values in 0..=1.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, of values in 0..=1.
    pub std: [f32; 3],
}

/// Default chat template and system message.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Prompt {
    /// Template name as the reference spells it.
    pub template: String,
    /// System message.
    pub system_message: String,
}

/// Token ids with a role.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Tokens {
    /// Ends an answer.
    pub eos: u32,
    /// Padding.
    pub pad: u32,
    /// `<img>`
    pub image_start: u32,
    /// `</img>`
    pub image_end: u32,
    /// `<IMG_CONTEXT>`, the placeholder whose embedding an image token replaces.
    pub image_context: u32,
    /// Ids the reference's slow tokenizer leaves out of the text.
    pub skipped_in_text: Vec<u32>,
}

/// The tokenizer file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Tokenizer {
    /// `tokenizer.json`
    pub file: FileEntry,
}

/// The token embedding table.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct EmbedTokens {
    /// A safetensors file.
    pub file: FileEntry,
    /// Name of the tensor, `[embedding_rows, hidden_size]`.
    pub tensor: String,
    /// `bf16`, `fp16` or `fp32`.
    pub dtype: String,
}

/// Inputs with independently computed results.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Parity {
    /// A safetensors file.
    pub file: FileEntry,
}

/// The graphs of a package.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Graphs {
    /// `pixel_values [tiles, 3, S, S]` → `features [tiles, patches, C]`.
    pub vision_encoder: Vec<GraphVariant>,
    /// `features [tiles, patches, C]` → `image_embeds [tiles, T, H]`.
    pub projector: Vec<GraphVariant>,
    /// `inputs_embeds [rows, positions, H]` and a KV cache → `logits [rows, V]` of the last position.
    pub decoder: Vec<GraphVariant>,
}

/// Name of the variant with operators of `com.microsoft`.
pub const FUSED: &str = "fused";

/// Name of the variant of ai.onnx operators only.
pub const STANDARD: &str = "standard";

/// One graph in one variant.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct GraphVariant {
    /// `fused` or `standard`.
    pub variant: String,
    /// `fp32`, `fp16`, …
    pub precision: String,
    /// Execution providers the variant is meant for.
    pub providers: Vec<String>,
    /// How its matrices are stored, where they are quantised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantisation: Option<Quantisation>,
    /// Opset version of each operator domain.
    pub opset: BTreeMap<String, u64>,
    /// The `.onnx` file first, then its external data.
    pub files: Vec<FileEntry>,
    /// Inputs in order.
    pub inputs: Vec<TensorEntry>,
    /// Outputs in order.
    pub outputs: Vec<TensorEntry>,
}

impl GraphVariant {
    /// An input with past keys or values, if the graph has a cache; all of them have its number format.
    pub fn cache_input(&self) -> Option<&TensorEntry> {
        self.inputs.iter().find(|input| input.name.starts_with("past_key_values."))
    }

    /// Number format of the cache, if the graph has one.
    pub fn cache_dtype(&self) -> Option<&str> {
        self.cache_input().map(|input| input.dtype.as_str())
    }
}

/// How the matrices of a graph are quantised.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Quantisation {
    /// Matrices of the layers.
    pub body: QuantisedForm,
    /// The output projection of the language model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lm_head: Option<QuantisedForm>,
    /// What the runtime may compute with: 0 activations as they are, 4 activations of 8 bits.
    pub accuracy_level: u32,
}

/// One form of block quantisation.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct QuantisedForm {
    /// Bits of a code.
    pub bits: usize,
    /// Weights that share a scale.
    pub block_size: usize,
    /// Whether there are no zero points.
    pub symmetric: bool,
}

/// A file of the package.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct FileEntry {
    /// Bare file name, no folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// An input or output of a graph.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct TensorEntry {
    /// Tensor name.
    pub name: String,
    /// `fp32`, `fp16`, `int32` or `int64`.
    pub dtype: String,
    /// Sizes; a dynamic axis has a name.
    pub shape: Vec<Axis>,
}

/// One axis of a tensor: a fixed size or the name of a dynamic axis.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Axis {
    /// A fixed size.
    Fixed(u64),
    /// A dynamic axis.
    Named(String),
}

impl Manifest {
    /// Bytes one position of one sequence takes in the decoder's cache: keys and values of every layer, in the widest type
    /// that a variant of the decoder keeps them in.
    pub fn cache_position_bytes(&self) -> usize {
        let sizes = &self.architecture;
        let is_half = |variant: &GraphVariant| variant.cache_dtype() == Some("fp16");
        let decoder = &self.graphs.decoder;
        let element = if !decoder.is_empty() && decoder.iter().all(is_half) { 2 } else { 4 };
        2 * sizes.num_hidden_layers * sizes.num_key_value_heads * sizes.head_dim * element
    }

    /// Every file the manifest names, once: variants of a graph share their data file.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let graphs = &self.graphs;
        let variants = graphs.vision_encoder.iter().chain(&graphs.projector).chain(&graphs.decoder);
        [&self.tokenizer.file, &self.embed_tokens.file]
            .into_iter()
            .chain(self.parity.as_ref().map(|parity| &parity.file))
            .chain(variants.flat_map(|variant| &variant.files))
            .filter({
                let mut seen = HashSet::new();
                move |file| seen.insert(file.name.as_str())
            })
    }
}
