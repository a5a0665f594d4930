//! Scales and zero points of a block-quantised matrix, in the order in which kernels read them.

use super::{BlockFormat, FormatError};

/// Outputs whose scales of a block stand side by side.
pub(super) const SET: usize = 8;

/// Sets are made up to a multiple of this, so that kernels for sixteen outputs read two.
const SETS: usize = 2;

/// Bits of a float32 that a short scale leaves out: all of the mantissa but its highest four.
pub(super) const LEFT_OUT: u32 = 19;

/// Scales and zero points of a matrix `[outputs, inputs]`, of eight outputs side by side for each block.
///
/// This is a copy, of 2.25 bits for every 32 weights of 4 bits where scales are short, else of up to 36.
#[derive(Clone, Debug)]
pub struct BlockTable {
    pub(super) format: BlockFormat,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// Blocks of an output; whole groups.
    pub(super) blocks: usize,
    pub(super) scales: Scales,
    /// `[sets, blocks, SET]`, packed as codes are.
    pub(super) zero_points: Vec<u8>,
}

/// Scales, `[sets, blocks, SET]`; those of outputs and blocks past the matrix are any number.
#[derive(Clone, Debug)]
pub(super) enum Scales {
    /// As float32.
    Whole(Vec<f32>),
    /// In a byte each, for scales of four bits of mantissa. Their float32 bits, without those that are 0 in all of them, are
    /// whole numbers; a byte says how far a scale's is from that of the output's `firsts`. They are the same scales.
    Short {
        codes: Vec<u8>,
        /// Bits of the float32 that code 0 stands for, `[sets, SET]`.
        firsts: Vec<u32>,
    },
}

impl BlockTable {
    /// The table of a matrix from its tensors, in the layout of ONNX Runtime's `MatMulNBits`.
    ///
    /// `scales`: `[outputs, blocks]` float32; `zero_points`: `[outputs, ceil(blocks x bits / 8)]`, half of the code's range when
    /// absent.
    ///
    /// # Errors
    /// [`FormatError::Size`].
    pub fn new(
        format: BlockFormat,
        (outputs, inputs): (usize, usize),
        scales: &[f32],
        zero_points: Option<&[u8]>,
    ) -> Result<Self, FormatError> {
        let found_blocks = inputs.div_ceil(format.block_size());
        let zero_bytes = (found_blocks * format.bits()).div_ceil(8);
        for (tensor, found, expected) in [
            ("scales", scales.len(), outputs * found_blocks),
            ("zero points", zero_points.map_or(outputs * zero_bytes, <[u8]>::len), outputs * zero_bytes),
        ] {
            if found != expected {
                return Err(FormatError::Size { tensor, found, expected, outputs, inputs });
            }
        }
        let blocks = found_blocks.next_multiple_of(format.blocks_per_group());
        let places = outputs.next_multiple_of(SETS * SET) * blocks;
        let unset = if format.bits() == 4 { 0x88 } else { 0x80 };
        let mut table = Self {
            format,
            outputs,
            inputs,
            blocks,
            scales: Scales::Whole(Vec::new()),
            zero_points: vec![unset; places * format.bits() / 8],
        };
        table.scales = table.short(scales).unwrap_or_else(|| table.whole(scales));
        for (output, packed) in zero_points.unwrap_or_default().chunks_exact(zero_bytes.max(1)).enumerate() {
            for block in 0..found_blocks {
                table.set_zero_point(output, block, packed);
            }
        }
        Ok(table)
    }

    /// Where what belongs to a block of an output stands.
    fn place(&self, output: usize, block: usize) -> usize {
        (output / SET * self.blocks + block) * SET + output % SET
    }

    /// Rows of scales as they are given.
    fn rows<'a>(&self, scales: &'a [f32]) -> impl Iterator<Item = (usize, &'a [f32])> {
        scales.chunks_exact(self.inputs.div_ceil(self.format.block_size()).max(1)).enumerate()
    }

    fn whole(&self, scales: &[f32]) -> Scales {
        let mut whole = vec![0.0; self.zero_points.len() * 8 / self.format.bits()];
        for (output, row) in self.rows(scales) {
            for (block, scale) in row.iter().enumerate() {
                whole[self.place(output, block)] = *scale;
            }
        }
        Scales::Whole(whole)
    }

    /// The scales in a byte each; `None` when one does not fit: it has a longer mantissa, is negative, or is too far from others
    /// of its output.
    fn short(&self, scales: &[f32]) -> Option<Scales> {
        let mut codes = vec![0; self.zero_points.len() * 8 / self.format.bits()];
        let mut firsts = vec![0; self.outputs.next_multiple_of(SETS * SET)];
        for (output, row) in self.rows(scales) {
            let first = row.iter().map(|scale| scale.to_bits() >> LEFT_OUT).min()?;
            // Every code then stands for a number.
            if first + u32::from(u8::MAX) >= f32::INFINITY.to_bits() >> LEFT_OUT {
                return None;
            }
            for (block, bits) in row.iter().map(|scale| scale.to_bits()).enumerate() {
                if bits.trailing_zeros() < LEFT_OUT {
                    return None;
                }
                codes[self.place(output, block)] = u8::try_from((bits >> LEFT_OUT) - first).ok()?;
            }
            firsts[output] = first << LEFT_OUT;
        }
        Some(Scales::Short { codes, firsts })
    }

    /// Takes over a zero point from the packed ones of its output.
    fn set_zero_point(&mut self, output: usize, block: usize, packed: &[u8]) {
        let place = self.place(output, block);
        if self.format.bits() == 4 {
            let (byte, shift) = (&mut self.zero_points[place / 2], 4 * (place % 2));
            *byte = *byte & !(15 << shift) | (packed[block / 2] >> (4 * (block % 2)) & 15) << shift;
        } else {
            self.zero_points[place] = packed[block];
        }
    }

    /// Outputs and inputs of the matrix.
    pub fn size(&self) -> (usize, usize) {
        (self.outputs, self.inputs)
    }

    /// Whether scales take a byte each.
    pub fn has_short_scales(&self) -> bool {
        matches!(self.scales, Scales::Short { .. })
    }

    /// The scale of a block.
    pub(super) fn scale(&self, output: usize, block: usize) -> f32 {
        let place = self.place(output, block);
        match &self.scales {
            Scales::Whole(scales) => scales[place],
            Scales::Short { codes, firsts } => f32::from_bits((u32::from(codes[place]) << LEFT_OUT) + firsts[output]),
        }
    }

    /// The zero point of a block.
    pub(super) fn zero_point(&self, output: usize, block: usize) -> i32 {
        let place = self.place(output, block);
        i32::from(match self.format.bits() {
            4 => self.zero_points[place / 2] >> (4 * (place % 2)) & 15,
            _ => self.zero_points[place],
        })
    }
}
