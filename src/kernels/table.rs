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
/// This is a copy: for each block of an output a byte where scales are short, else four, and a zero point of a code's bits.
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
        let zero_points = zero_points.map_or_else(
            || vec![unset; places * format.bits() / 8],
            |packed| packed_by_sets(packed, format.bits(), (found_blocks, blocks), places),
        );
        let scales = short_by_sets(scales, (found_blocks, blocks), places)
            .unwrap_or_else(|| Scales::Whole(by_sets(scales, (found_blocks, blocks), places)));
        Ok(Self { format, outputs, inputs, blocks, scales, zero_points })
    }

    /// Where what belongs to a block of an output stands.
    fn place(&self, output: usize, block: usize) -> usize {
        (output / SET * self.blocks + block) * SET + output % SET
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

/// Values `[outputs, given blocks]` by sets, `[sets, blocks, SET]`.
fn by_sets<T: Copy + Default>(given: &[T], (given_blocks, blocks): (usize, usize), places: usize) -> Vec<T> {
    let mut found = vec![T::default(); places];
    let sets = given.chunks(given_blocks.max(1) * SET).zip(found.chunks_exact_mut(blocks.max(1) * SET));
    for (rows, set) in sets {
        for (lane, row) in rows.chunks_exact(given_blocks.max(1)).enumerate() {
            for (value, found) in row.iter().zip(set.chunks_exact_mut(SET)) {
                found[lane] = *value;
            }
        }
    }
    found
}

/// Scales in a byte each, by sets; `None` when one does not fit: it has a longer mantissa, is negative, or is too far from
/// others of its output.
fn short_by_sets(scales: &[f32], blocks: (usize, usize), places: usize) -> Option<Scales> {
    let rows = scales.chunks_exact(blocks.0.max(1));
    let mut codes = Vec::with_capacity(scales.len());
    let mut firsts = vec![0; places / blocks.1.max(1)];
    for (row, first) in rows.zip(&mut firsts) {
        let least = row.iter().map(|scale| scale.to_bits()).min()? >> LEFT_OUT;
        // Every code then stands for a number.
        if least + u32::from(u8::MAX) >= f32::INFINITY.to_bits() >> LEFT_OUT {
            return None;
        }
        *first = least << LEFT_OUT;
        // What does not fit leaves bits outside those of a code.
        let mut used = 0;
        codes.extend(row.iter().map(|scale| {
            let distance = scale.to_bits() - (least << LEFT_OUT);
            used |= distance;
            (distance >> LEFT_OUT) as u8
        }));
        if used & !(u32::from(u8::MAX) << LEFT_OUT) != 0 {
            return None;
        }
    }
    Some(Scales::Short { codes: by_sets(&codes, blocks, places), firsts })
}

/// Zero points as `MatMulNBits` packs them, by sets, packed again.
fn packed_by_sets(packed: &[u8], bits: usize, (given_blocks, blocks): (usize, usize), places: usize) -> Vec<u8> {
    if bits == 8 {
        return by_sets(packed, (given_blocks, blocks), places);
    }
    let bytes = given_blocks.div_ceil(2);
    let mut found = vec![0; places / 2];
    let sets = packed.chunks(bytes.max(1) * SET).zip(found.chunks_exact_mut(blocks.max(1) * SET / 2));
    for (rows, set) in sets {
        for (lane, row) in rows.chunks_exact(bytes.max(1)).enumerate() {
            let shift = 4 * (lane % 2);
            for (pair, found) in row.iter().zip(set.chunks_mut(SET)) {
                found[lane / 2] |= (pair & 15) << shift;
                // The last pair may be a single one.
                if let Some(found) = found.get_mut(SET / 2 + lane / 2) {
                    *found |= (pair >> 4) << shift;
                }
            }
        }
    }
    found
}
