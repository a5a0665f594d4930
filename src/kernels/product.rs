//! Activations times a block-quantised matrix.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::LazyLock;

use super::activations::{CodeForm, GroupMut};
use super::chunk::{self, Lines};
use super::dense::{self, Dense};
use super::element::Element;
use super::{Activations, BlockMatrix, FEW_ROWS, GROUP, STRIP, portable};

/// Most rows of one piece of work.
const ROWS: usize = 384;

/// Rows that are rounded in one piece of work.
const ROUNDED_ROWS: usize = 16;

/// Most strips of one piece of work where rows are few. Neighbouring pieces mostly go to one thread, so that what it asks of
/// memory ahead of time is its own; at the end a thread waits for one piece of another's at the most.
const RUN: usize = 3;

/// Something that runs pieces of work, side by side where it can.
pub trait Tasks {
    /// Why the work could not be run.
    type Error;

    /// Runs `task(0)` to `task(count - 1)`, in any order, and returns when all are done.
    ///
    /// # Errors
    /// When they could not all be run.
    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync + Send)) -> Result<(), Self::Error>;
}

/// The instructions that products are computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockProduct(Instructions);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    /// Plain Rust: correct everywhere, fast nowhere.
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// The same for few rows, tiles of bfloat16 for many.
    #[cfg(target_arch = "x86_64")]
    Amx,
}

impl BlockProduct {
    /// The fast kernels of this processor, if there are some for it.
    pub fn detect() -> Option<Self> {
        Self::all().into_iter().find(|product| *product != Self::portable())
    }

    /// All there are on this processor: the fastest first, the portable one last.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        if super::avx512::available() {
            if super::amx::available() {
                all.push(Self(Instructions::Amx));
            }
            all.push(Self(Instructions::Avx512Vnni));
        }
        #[cfg(target_arch = "x86_64")]
        if super::avx2::available() {
            all.push(Self(Instructions::Avx2));
        }
        all.push(Self::portable());
        all
    }

    /// The same without what lets a row's result depend on more than the row: on whether it has few companions or many.
    #[must_use]
    pub fn exact(self) -> Self {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => Self(Instructions::Avx512Vnni),
            _ => self,
        }
    }

    /// Whether a row's result depends on nothing but the row.
    pub fn is_exact(self) -> bool {
        self == self.exact()
    }

    /// The same results without special instructions: slow, what the others are measured against.
    pub fn portable() -> Self {
        Self(Instructions::Portable)
    }

    /// Whether these instructions have a kernel for [`Self::attention`].
    pub fn has_attention(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni | Instructions::Amx => true,
            _ => false,
        }
    }

    /// Whether products with packed codes are what these instructions are best at ([`BlockMatrix::packed`]); else they read
    /// none.
    pub fn reads_packed(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => true,
            _ => false,
        }
    }

    /// Name of the instructions.
    pub fn name(self) -> &'static str {
        match self.0 {
            Instructions::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni => "avx512-vnni",
            #[cfg(target_arch = "x86_64")]
            Instructions::Amx => "amx-bf16",
        }
    }

    /// `out = values x transpose(matrix) + bias`.
    ///
    /// `values`: `[rows, inputs]`; `bias`: `[outputs]`; `out`: `[rows, outputs]`, all float32.
    ///
    /// # Errors
    /// What `tasks` says.
    ///
    /// # Panics
    /// When the sizes do not fit together, or the matrix is packed and these instructions read no such codes.
    pub fn run<T: Tasks>(
        self,
        values: &[f32],
        matrix: &BlockMatrix<'_>,
        bias: Option<&[f32]>,
        out: &mut [f32],
        tasks: &T,
    ) -> Result<(), T::Error> {
        let rows = values.len() / matrix.table.inputs.max(1);
        assert_eq!(values.len(), rows * matrix.table.inputs, "values are not rows of the matrix's inputs");
        assert_eq!(out.len(), rows * matrix.table.outputs, "the output has another size than the product");
        assert!(
            bias.is_none_or(|bias| bias.len() == matrix.table.outputs),
            "the bias has another size than the outputs"
        );
        if out.is_empty() {
            return Ok(());
        }
        #[cfg(target_arch = "x86_64")]
        if self.0 == Instructions::Amx && rows > FEW_ROWS {
            // SAFETY: `all` found the instructions.
            return unsafe { super::amx::product(values, matrix, bias, out, tasks) };
        }
        thread_local! {
            static ACTIVATIONS: RefCell<Activations> = RefCell::default();
        }
        ACTIVATIONS.with_borrow_mut(|activations| {
            self.round(values, matrix, activations, tasks)?;
            self.multiply(activations, matrix, bias, out, tasks)
        })
    }

    /// `out = values x matrix`, with a matrix as it is: each result is the sum of its products in the order of the inputs, in
    /// float32, each added with one rounding; then it is rounded to the elements.
    ///
    /// `values`: `[rows, inputs]`; `matrix`: `[inputs, outputs]`, of this `size`; `out`: `[rows, outputs]`.
    ///
    /// # Errors
    /// What `tasks` says.
    ///
    /// # Panics
    /// When the sizes do not fit together.
    pub fn dense<E: Element, T: Tasks>(
        self,
        values: &[E],
        matrix: &[E],
        size: (usize, usize),
        out: &mut [E],
        tasks: &T,
    ) -> Result<(), T::Error> {
        thread_local! {
            static SCRATCH: RefCell<dense::Scratch> = RefCell::default();
        }
        let dense = Dense::new(values, matrix, size);
        assert_eq!(out.len(), dense.results(), "the output has another size than the product");
        let out = Shared::new(out);
        tasks.run(dense.tasks(), &|task| {
            // SAFETY: `all` found the instructions, and every task has its own part of the output.
            SCRATCH.with_borrow_mut(|scratch| unsafe {
                match self.0 {
                    Instructions::Portable => dense.run::<f32>(task, &out, scratch),
                    #[cfg(target_arch = "x86_64")]
                    Instructions::Avx2 => super::avx2::multiply(&dense, task, &out, scratch),
                    #[cfg(target_arch = "x86_64")]
                    Instructions::Avx512Vnni | Instructions::Amx => {
                        super::avx512::multiply(&dense, task, &out, scratch);
                    }
                }
            });
        })
    }

    /// As [`chunk::attend`].
    ///
    /// # Safety
    /// As there, but for the instructions.
    pub(super) unsafe fn attend<E: Element>(
        self,
        lines: Lines<'_>,
        cached: (*const E, *const E),
        size: usize,
        scratch: &mut chunk::Scratch,
    ) {
        // SAFETY: `all` found the instructions; the rest as the caller vouches.
        unsafe {
            match self.0 {
                Instructions::Portable => chunk::attend::<f32, E>(lines, cached, size, scratch),
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx2 => super::avx2::attend(lines, cached, size, scratch),
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512Vnni | Instructions::Amx => super::avx512::attend(lines, cached, size, scratch),
            }
        }
    }

    /// The form of codes that the instructions want for so many rows.
    fn code_form(self, rows: usize) -> CodeForm {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni | Instructions::Amx => super::avx512::code_form(rows),
            _ => CodeForm::Signed,
        }
    }

    fn round<T: Tasks>(
        self,
        values: &[f32],
        matrix: &BlockMatrix<'_>,
        activations: &mut Activations,
        tasks: &T,
    ) -> Result<(), T::Error> {
        let rows = values.len() / matrix.table.inputs;
        activations.resize(rows, matrix.table.inputs, matrix.table.format, self.code_form(rows));
        let blocks = matrix.table.format.blocks_per_group();
        let codes = Shared::new(&mut activations.codes);
        let scales = Shared::new(&mut activations.scales);
        let sums = Shared::new(&mut activations.negated_sums);
        let kept = &*activations;
        tasks.run(rows.div_ceil(ROUNDED_ROWS), &|task| {
            for row in (task * ROUNDED_ROWS..rows).take(ROUNDED_ROWS) {
                let values = values[row * matrix.table.inputs..][..matrix.table.inputs].chunks(GROUP);
                for (group, values) in values.enumerate() {
                    let place = kept.place(group, row);
                    // SAFETY: `resize` made room for so many groups; every row is written by one task only.
                    let mut target = unsafe {
                        GroupMut {
                            codes: codes.part(place * GROUP, GROUP),
                            code_form: kept.code_form,
                            scale: &mut scales.part(place, 1)[0],
                            negated_sums: sums.part(place * blocks, blocks),
                        }
                    };
                    match self.0 {
                        Instructions::Portable => portable::quantise(values, matrix.table.format, &mut target),
                        #[cfg(target_arch = "x86_64")]
                        // SAFETY: `all` found the instructions.
                        Instructions::Avx2 => unsafe {
                            super::avx2::quantise(values, matrix.table.format, &mut target);
                        },
                        #[cfg(target_arch = "x86_64")]
                        // SAFETY: as above.
                        Instructions::Avx512Vnni | Instructions::Amx => unsafe {
                            super::avx512::quantise(values, matrix.table.format, &mut target);
                        },
                    }
                }
            }
        })
    }

    fn multiply<T: Tasks>(
        self,
        activations: &Activations,
        matrix: &BlockMatrix<'_>,
        bias: Option<&[f32]>,
        out: &mut [f32],
        tasks: &T,
    ) -> Result<(), T::Error> {
        let rows = activations.rows;
        let strips = matrix.table.outputs.div_ceil(STRIP);
        let out = Shared::new(out);
        let pieces = rows.div_ceil(ROWS);
        let run = if rows <= FEW_ROWS { (strips / (8 * threads())).clamp(1, RUN) } else { 1 };
        tasks.run((strips * pieces).div_ceil(run), &|task| {
            for strip in (task * run..strips * pieces).take(run) {
                let (first, piece) = (strip % strips * STRIP, strip / strips);
                let rows = rows * piece / pieces..rows * (piece + 1) / pieces;
                // SAFETY: this task has the strip to itself.
                unsafe { self.strip(activations, rows, matrix, first, bias, &out) };
            }
        })
    }

    /// [`STRIP`] outputs from `first` on for some rows.
    ///
    /// # Safety
    /// Nothing else touches this part of `out`, which is `[activations.rows, matrix.table.outputs]`.
    unsafe fn strip(
        self,
        activations: &Activations,
        rows: Range<usize>,
        matrix: &BlockMatrix<'_>,
        first: usize,
        bias: Option<&[f32]>,
        out: &Shared<f32>,
    ) {
        match self.0 {
            Instructions::Portable => {
                let width = STRIP.min(matrix.table.outputs - first);
                for row in rows {
                    // SAFETY: as the caller vouches.
                    let out = unsafe { out.part(row * matrix.table.outputs + first, width) };
                    for (index, out) in out.iter_mut().enumerate() {
                        let bias = bias.map_or(0.0, |bias| bias[first + index]);
                        *out = portable::output(activations, row, matrix, first + index) + bias;
                    }
                }
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => {
                thread_local! {
                    static SCRATCH: RefCell<crate::kernels::avx2::Scratch> = RefCell::default();
                }
                let added = bias_of_strip(bias, first);
                // SAFETY: `all` found the instructions; the rest as the caller vouches.
                SCRATCH.with_borrow_mut(|scratch| unsafe {
                    super::avx2::strip(activations, rows, matrix, first, &added, out.pointer(), scratch);
                });
            }
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vnni | Instructions::Amx => {
                thread_local! {
                    static SCRATCH: RefCell<crate::kernels::avx512::Scratch> = RefCell::default();
                }
                let added = bias_of_strip(bias, first);
                // SAFETY: `all` found the instructions; the rest as the caller vouches.
                SCRATCH.with_borrow_mut(|scratch| unsafe {
                    super::avx512::strip(activations, rows, matrix, first, &added, out.pointer(), scratch);
                });
            }
        }
    }
}

/// The bias of [`STRIP`] outputs from `first` on; 0 where there is none.
#[cfg(target_arch = "x86_64")]
fn bias_of_strip(bias: Option<&[f32]>, first: usize) -> [f32; STRIP] {
    let mut added = [0.0; STRIP];
    if let Some(bias) = bias {
        let width = STRIP.min(bias.len() - first);
        added[..width].copy_from_slice(&bias[first..][..width]);
    }
    added
}

/// A strip of outputs from `first` on by `WIDTH` of them: where each part begins, and its bias. No part begins past the outputs.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn parts_of_strip<const WIDTH: usize>(
    first: usize,
    outputs: usize,
    added: &[f32; STRIP],
) -> impl Iterator<Item = (usize, &[f32; WIDTH])> {
    let (added, _) = added.as_chunks::<WIDTH>();
    (first..outputs.min(first + STRIP)).step_by(WIDTH).zip(added)
}

/// Adds the bias to the results of some outputs from `first` on and writes them to `out`, `[rows, outputs]`.
///
/// # Safety
/// `out` has the rows, of which there are as many as of `totals`, and nothing else touches this part of it.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) unsafe fn write_totals<const WIDTH: usize>(
    totals: &mut [[f32; WIDTH]],
    added: &[f32; WIDTH],
    rows: Range<usize>,
    (first, outputs): (usize, usize),
    out: *mut f32,
) {
    let width = WIDTH.min(outputs - first);
    for (row, totals) in rows.zip(totals) {
        totals.iter_mut().zip(added).for_each(|(total, added)| *total += added);
        // SAFETY: `out` has a place for the row, and `width` ends at its end.
        unsafe { std::ptr::copy_nonoverlapping(totals.as_ptr(), out.add(row * outputs + first), width) };
    }
}

/// Threads that may share a product.
pub(super) fn threads() -> usize {
    static THREADS: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
    *THREADS
}

/// A pointer into memory of which every task touches its own part.
pub(super) struct Shared<T>(*mut T);

// SAFETY: whoever asks for a part vouches that no other task has it.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    /// The memory of a slice.
    pub(super) fn new(slice: &mut [T]) -> Self {
        Self(slice.as_mut_ptr())
    }

    /// Where it begins.
    pub(super) fn pointer(&self) -> *mut T {
        self.0
    }

    /// A part of the memory.
    ///
    /// # Safety
    /// The part lies inside it, and nothing else uses it meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: as the caller vouches.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}
