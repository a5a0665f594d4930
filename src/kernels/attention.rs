//! Attention without a mask, as a vision encoder computes it.

use std::cell::RefCell;

use super::product::{BlockProduct, Shared, Tasks};

/// Sizes of an attention. Queries, keys, values and the result are `[batch, positions, heads x head size]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionShape {
    /// Sequences.
    pub batch: usize,
    /// Positions of each.
    pub positions: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head, at most [`Self::MAX_HEAD_SIZE`].
    pub head_size: usize,
}

impl AttentionShape {
    /// Largest width of a head there is a kernel for.
    pub const MAX_HEAD_SIZE: usize = 128;

    /// Most positions: up to here no sum of codes leaves 32 bits.
    pub const MAX_POSITIONS: usize = 1 << 16;

    /// Values of a tensor.
    pub fn len(&self) -> usize {
        self.batch * self.positions * self.width()
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width of a position.
    pub fn width(&self) -> usize {
        self.heads * self.head_size
    }

    /// Whether there is a kernel for such heads.
    pub fn is_supported(&self) -> bool {
        (1..=Self::MAX_HEAD_SIZE).contains(&self.head_size) && self.positions <= Self::MAX_POSITIONS
    }
}

/// Queries, keys and values, float32, and what is added to them first.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs<'a> {
    /// Queries.
    pub query: &'a [f32],
    /// Keys.
    pub key: &'a [f32],
    /// Values.
    pub value: &'a [f32],
    /// Biases of queries, keys and values, `[3, heads x head size]`.
    pub bias: Option<&'a [f32]>,
}

impl BlockProduct {
    /// softmax(query x key / sqrt(head size)) x value, head by head; `scale` instead of the root where it is given.
    ///
    /// Queries and keys are rounded to 8 bits, a scale for each position, values to 8 bits, a scale for each channel, and
    /// probabilities to 16. What all keys, or all values, have in common is taken out before they are rounded: the softmax
    /// does not notice the one, and the other comes back whole because probabilities add up to 1. Both are done for
    /// keys and values as in `SageAttention` (arXiv 2410.02367), which smooths keys only.
    ///
    /// # Errors
    /// What `tasks` says.
    ///
    /// # Panics
    /// When the sizes do not fit together, the shape is not supported, or these instructions have no such kernel.
    pub fn attention<T: Tasks>(
        self,
        shape: AttentionShape,
        inputs: AttentionInputs<'_>,
        scale: Option<f32>,
        out: &mut [f32],
        tasks: &T,
    ) -> Result<(), T::Error> {
        let AttentionInputs { query, key, value, bias } = inputs;
        for (name, found) in [("query", query.len()), ("key", key.len()), ("value", value.len()), ("output", out.len())]
        {
            assert_eq!(found, shape.len(), "{name} has another size than {shape:?}");
        }
        assert!(bias.is_none_or(|bias| bias.len() == 3 * shape.width()), "the bias has another size than {shape:?}");
        assert!(shape.is_supported() && self.has_attention(), "there is no kernel for {shape:?}");
        if shape.is_empty() {
            return Ok(());
        }
        let scale = scale.unwrap_or_else(|| (shape.head_size as f32).sqrt().recip());
        let out = Shared::new(out);
        tasks.run(shape.batch * shape.heads, &|task| {
            #[cfg(target_arch = "x86_64")]
            {
                thread_local! {
                    static SCRATCH: RefCell<super::avx512::AttentionScratch> = RefCell::default();
                }
                // SAFETY: `has_attention` found the instructions; the sizes were checked; each task writes its own head.
                SCRATCH.with_borrow_mut(|scratch| unsafe {
                    super::avx512::attention(shape, task, inputs, scale, out.pointer(), scratch);
                });
            }
        })
    }
}
