//! The layout of a block-quantised matrix.

use super::packed::{self, PackedCodes};
use super::{BlockTable, GROUP};

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
#[derive(Clone, Copy, Debug)]
pub struct BlockMatrix<'a> {
    pub(super) codes: Codes<'a>,
    pub(super) table: &'a BlockTable,
}

/// Codes of a matrix.
#[derive(Clone, Copy, Debug)]
pub(super) enum Codes<'a> {
    /// In the layout of ONNX Runtime's `MatMulNBits`.
    Rows(&'a [u8]),
    /// In the order of [`PackedCodes`].
    Packed(&'a [u8]),
}

impl<'a> BlockMatrix<'a> {
    /// A matrix of its codes, in the layout of ONNX Runtime's `MatMulNBits`, `[outputs, blocks, block size x bits / 8]`, and the
    /// table of its scales and zero points.
    ///
    /// # Errors
    /// [`FormatError::Size`].
    pub fn new(codes: &'a [u8], table: &'a BlockTable) -> Result<Self, FormatError> {
        let matrix = Self { codes: Codes::Rows(codes), table };
        matrix.sized(codes.len(), table.outputs * matrix.row_bytes())
    }

    /// A matrix of its packed codes; see [`BlockProduct::reads_packed`](super::BlockProduct::reads_packed).
    ///
    /// # Errors
    /// [`FormatError::Size`].
    pub fn packed(codes: &'a PackedCodes, table: &'a BlockTable) -> Result<Self, FormatError> {
        let codes = codes.bytes();
        Self { codes: Codes::Packed(codes), table }.sized(codes.len(), packed::size(table))
    }

    /// The matrix, if it has so many codes as it should.
    fn sized(self, found: usize, expected: usize) -> Result<Self, FormatError> {
        let (outputs, inputs) = self.table.size();
        if found == expected {
            Ok(self)
        } else {
            Err(FormatError::Size { tensor: "codes", found, expected, outputs, inputs })
        }
    }

    /// The codes of a matrix that is not packed.
    ///
    /// # Panics
    /// When it is.
    pub(super) fn rows(&self) -> &'a [u8] {
        match self.codes {
            Codes::Rows(codes) => codes,
            Codes::Packed(_) => panic!("a packed matrix for a kernel that reads rows"),
        }
    }

    /// Byte `index` of the codes of a row.
    pub(super) fn code_byte(&self, output: usize, index: usize) -> u8 {
        match self.codes {
            Codes::Rows(codes) => codes[output * self.row_bytes() + index],
            Codes::Packed(codes) => codes[packed::place(self.table, output, index)],
        }
    }

    /// Blocks of a row; the last may be longer than the inputs.
    pub(super) fn blocks(&self) -> usize {
        self.table.inputs.div_ceil(self.table.format.block_size())
    }

    /// Bytes of the codes of a row that is not packed.
    pub(super) fn row_bytes(&self) -> usize {
        self.blocks() * self.table.format.block_size() * self.table.format.bits / 8
    }
}
