//! The cache of a decoder: its shape, the memory it lies in, what is copied inside it.

mod buffers;
mod copy_graph;
mod memory;

pub(super) use buffers::CacheBuffers;
pub use memory::CacheMemory;

use ort::value::TensorElementType;

use crate::package::{Architecture, GraphVariant, STANDARD};

/// Element type of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheDtype {
    /// float32
    F32,
    /// float16
    F16,
}

impl CacheDtype {
    /// The type of this name in a manifest.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "fp32" => Some(Self::F32),
            "fp16" => Some(Self::F16),
            _ => None,
        }
    }

    pub(super) fn element(self) -> TensorElementType {
        match self {
            Self::F32 => TensorElementType::Float32,
            Self::F16 => TensorElementType::Float16,
        }
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

/// How a graph treats its cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheForm {
    /// Past and present are one buffer, in which the graph writes (the fused variant).
    InPlace,
    /// The graph reads the past, masked by a bias, and gives the new keys and values, which are copied behind it here (the
    /// standard variant).
    Apart,
}

/// Shape and names of the cache.
#[derive(Clone, Debug)]
pub struct CacheLayout {
    /// Names of each cache tensor as input (past) and output (present).
    pub tensors: Vec<(String, String)>,
    /// Key/value heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Element type.
    pub dtype: CacheDtype,
    /// How the graph treats it.
    pub form: CacheForm,
    /// Width of the graph's first output.
    pub output_width: usize,
}

impl CacheLayout {
    /// The cache of a decoder in one of its variants.
    ///
    /// # Errors
    /// What the variant's cache is, where it is none that is known here.
    pub fn of(sizes: &Architecture, variant: &GraphVariant) -> Result<Self, String> {
        let tensors = (0..sizes.num_hidden_layers).flat_map(|layer| ["key", "value"].map(move |kind| (layer, kind)));
        let tensors = tensors
            .map(|(layer, kind)| (format!("past_key_values.{layer}.{kind}"), format!("present.{layer}.{kind}")))
            .collect();
        let name = variant.cache_dtype();
        let dtype = name.and_then(CacheDtype::named);
        let dtype = dtype.ok_or_else(|| format!("its cache has dtype {}", name.unwrap_or("(no cache input)")))?;
        Ok(Self {
            tensors,
            heads: sizes.num_key_value_heads,
            head_dim: sizes.head_dim,
            dtype,
            form: if variant.variant == STANDARD { CacheForm::Apart } else { CacheForm::InPlace },
            output_width: sizes.vocab_size,
        })
    }

    /// Bytes one position of one row takes.
    pub fn position_bytes(&self) -> usize {
        self.tensors.len() * self.heads * self.vector_bytes()
    }

    /// Bytes of one position of one head.
    fn vector_bytes(&self) -> usize {
        self.head_dim * self.dtype.size()
    }
}

/// Numbers that lie one behind the other: where from, and where to.
#[derive(Clone, Copy, Debug)]
struct Line {
    from: *const u8,
    to: *mut u8,
}
