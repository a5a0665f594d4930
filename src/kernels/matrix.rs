//! The layout of a block-quantised matrix.

use super::GROUP;

/// Why a matrix cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A combination of bits and block size there is no kernel for.
    #[error(
        "{bits} bits in blocks of {block_size}; there are kernels for 4 bits in blocks of 32, 64 and 128, and 8 bits in blocks of 128"
    )]
    Unsupported {
        /// Bits of a code.
        bits: usize,
        /// Inputs that share a scale.
        block_size: usize,
    },
    /// A tensor of another size than the matrix asks for.
    #[error("{tensor} holds {found} values; a matrix of {outputs} x {inputs} asks for {expected}")]
    Size {
        /// Which tensor.
        tensor: &'static str,
        /// Its number of values.
        found: usize,
        /// The number there should be.
        expected: usize,
        /// Rows of the matrix.
        outputs: usize,
        /// Columns of the matrix.
        inputs: usize,
    },
}

/// Bits and block size of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFormat {
    bits: usize,
    block_size: usize,
}

impl BlockFormat {
    /// The format, if there is a kernel for it.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`].
    pub fn new(bits: usize, block_size: usize) -> Result<Self, FormatError> {
        if matches!((bits, block_size), (4, 32 | 64 | 128) | (8, 128)) {
            Ok(Self { bits, block_size })
        } else {
            Err(FormatError::Unsupported { bits, block_size })
        }
    }

    /// Bits of a code, 4 or 8.
    pub fn bits(self) -> usize {
        self.bits
    }

    /// Inputs that share a scale.
    pub fn block_size(self) -> usize {
        self.block_size
    }

    /// Blocks in a group of activations.
    pub fn blocks_per_group(self) -> usize {
        GROUP / self.block_size
    }

    /// Bytes that hold the codes of a group.
    pub fn group_bytes(self) -> usize {
        GROUP * self.bits / 8
    }

    /// Where the code of input `index` of a group stands: byte, and how far to shift it right.
    ///
    /// Four bits: the lower half of a byte comes first.
    pub fn code_at(self, index: usize) -> (usize, usize) {
        if self.bits == 4 { (index / 2, 4 * (index % 2)) } else { (index, 0) }
    }

    /// Where the activation of input `index` of a group is kept.
    ///
    /// Four bits: inputs of even index come before those of odd index, so that 64 bytes of codes meet 64 activations with
    /// their lower halves and the next 64 with their upper halves. Eight bits: in order.
    pub fn activation_at(self, index: usize) -> usize {
        if self.bits == 4 { index % 2 * GROUP / 2 + index / 2 } else { index }
    }
}

/// A matrix `[outputs, inputs]` of codes in blocks along the inputs: weight = scale x (code - zero point).
///
/// The layout is that of the inputs of ONNX Runtime's `MatMulNBits`.
#[derive(Clone, Copy, Debug)]
pub struct BlockMatrix<'a> {
    pub(super) format: BlockFormat,
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) codes: &'a [u8],
    pub(super) scales: &'a [f32],
    pub(super) zero_points: Option<&'a [u8]>,
}

impl<'a> BlockMatrix<'a> {
    /// A matrix over its tensors.
    ///
    /// `codes`: `[outputs, blocks, block size x bits / 8]`; `scales`: `[outputs, blocks]` float32; `zero_points`:
    /// `[outputs, ceil(blocks x bits / 8)]`, half of the code's range when absent.
    ///
    /// # Errors
    /// [`FormatError::Size`].
    pub fn new(
        format: BlockFormat,
        (outputs, inputs): (usize, usize),
        codes: &'a [u8],
        scales: &'a [f32],
        zero_points: Option<&'a [u8]>,
    ) -> Result<Self, FormatError> {
        let matrix = Self { format, outputs, inputs, codes, scales, zero_points };
        let blocks = matrix.blocks();
        let zero_bytes = outputs * matrix.zero_point_bytes();
        for (tensor, found, expected) in [
            ("codes", codes.len(), outputs * matrix.row_bytes()),
            ("scales", scales.len(), outputs * blocks),
            ("zero points", zero_points.map_or(zero_bytes, <[u8]>::len), zero_bytes),
        ] {
            if found != expected {
                return Err(FormatError::Size { tensor, found, expected, outputs, inputs });
            }
        }
        Ok(matrix)
    }

    /// Blocks of a row; the last may be longer than the inputs.
    pub fn blocks(&self) -> usize {
        self.inputs.div_ceil(self.format.block_size)
    }

    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.inputs.div_ceil(GROUP)
    }

    /// Bytes of the codes of a row.
    pub(super) fn row_bytes(&self) -> usize {
        self.blocks() * self.format.block_size * self.format.bits / 8
    }

    /// Bytes of the zero points of a row.
    pub(super) fn zero_point_bytes(&self) -> usize {
        (self.blocks() * self.format.bits).div_ceil(8)
    }

    /// The zero point of a block.
    pub(super) fn zero_point(&self, output: usize, block: usize) -> i32 {
        let Some(packed) = self.zero_points else {
            return 1 << (self.format.bits - 1);
        };
        let row = &packed[output * self.zero_point_bytes()..];
        match self.format.bits {
            4 => i32::from(row[block / 2] >> (4 * (block % 2)) & 15),
            _ => i32::from(row[block]),
        }
    }

    /// Four bytes of the packed zero points of an output, from byte `at` of its row on; what lies past the row is of no
    /// meaning.
    #[inline]
    pub(super) fn zero_point_word(&self, output: usize, at: usize) -> u32 {
        let Some(packed) = self.zero_points else {
            return if self.format.bits == 4 { 0x8888_8888 } else { 0x8080_8080 };
        };
        let left = packed.get(output * self.zero_point_bytes() + at..).unwrap_or_default();
        match left.first_chunk::<4>() {
            Some(whole) => u32::from_le_bytes(*whole),
            None => left.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)),
        }
    }
}
