//! Activations rounded to 8 bits.

use super::{BlockFormat, GROUP};

/// Rows of activations, rounded to 8 bits with one scale for every [`GROUP`] inputs, in the order that a format asks for.
///
/// x = scale x code, scale = max |x| / 127 of the group; ties go to even.
#[derive(Debug, Default)]
pub(super) struct Activations {
    pub(super) rows: usize,
    pub(super) code_form: CodeForm,
    pub(super) groups: usize,
    /// Codes, `[groups, rows, GROUP]`, in the form `code_form` says; what lies past the inputs is the code of 0.
    pub(super) codes: Vec<i8>,
    /// Scales, `[groups, rows]`.
    pub(super) scales: Vec<f32>,
    /// Sums of the codes of each block, negated, `[groups, rows, blocks per group]`: the lower 16 bits, the upper are 0.
    pub(super) negated_sums: Vec<i32>,
}

/// How codes from -127 to 127 are kept in a byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum CodeForm {
    /// As they are.
    #[default]
    Signed,
    /// 128 more, as an unsigned byte.
    Unsigned,
}

impl CodeForm {
    /// The byte of a code: the two forms differ by one bit.
    #[inline]
    pub fn flipped_bits(self) -> i8 {
        match self {
            Self::Signed => 0,
            Self::Unsigned => i8::MIN,
        }
    }
}

/// Where the results of one group of one row go.
pub(super) struct GroupMut<'a> {
    pub codes: &'a mut [i8],
    pub code_form: CodeForm,
    pub scale: &'a mut f32,
    pub negated_sums: &'a mut [i32],
}

impl Activations {
    /// Makes room for rows of `inputs` values; the contents are those of no row until they are written.
    pub(super) fn resize(&mut self, rows: usize, inputs: usize, format: BlockFormat, code_form: CodeForm) {
        self.rows = rows;
        self.code_form = code_form;
        self.groups = inputs.div_ceil(GROUP);
        self.codes.resize(rows * self.groups * GROUP, 0);
        self.scales.resize(rows * self.groups, 0.0);
        self.negated_sums.resize(rows * self.groups * format.blocks_per_group(), 0);
    }

    /// Number of a group of a row, in all three tensors.
    #[inline]
    pub(super) fn place(&self, group: usize, row: usize) -> usize {
        group * self.rows + row
    }
}

/// The sum of a block's codes as it is kept.
pub(super) fn negated(sum: i32) -> i32 {
    sum.wrapping_neg() & 0xffff
}

/// The step between the codes of values of which the largest is this, and what values are multiplied by to become codes; not
/// a number where one of them is none.
#[inline]
pub(super) fn step(largest: f32, spoilt: bool) -> (f32, f32) {
    let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
    (if spoilt { f32::NAN } else { largest / 127.0 }, inverse)
}
