//! Products of tiles.

use std::arch::asm;

use super::{ACROSS, DEPTH, PAIR, SIDE, Tile};

/// Results of [`SIDE`] rows and outputs, float32.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Sums(pub(super) [[f32; SIDE]; SIDE]);

impl Sums {
    pub(super) const ZERO: Self = Self([[0.0; SIDE]; SIDE]);
}

/// Bytes of a row of a tile.
const ROW: usize = 64;

/// The tile registers of this thread, all of full size, until it is dropped.
pub(super) struct Configuration(());

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Description {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Configuration {
    /// Sets the registers up.
    ///
    /// # Safety
    /// The processor has them, and the system lets this process use them.
    pub(super) unsafe fn load() -> Self {
        let mut description =
            Description { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        description.row_bytes[..8].fill(ROW as u16);
        description.rows[..8].fill(SIDE as u8);
        // SAFETY: as the caller vouches; the description is what the instruction expects.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const description, options(nostack, readonly)) };
        Self(())
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        // SAFETY: the registers were set up by this thread.
        unsafe { asm!("tilerelease", options(nomem, nostack)) };
    }
}

/// Adds products of two tiles of rows with two of outputs to `sums`, `[PAIR, ACROSS]`, at `index` and the one after it;
/// `fresh`: the sums begin at 0.
pub(super) fn add(
    _set_up: &Configuration,
    rows: [&[Tile]; PAIR],
    weights: [&[Tile]; 2],
    depth: usize,
    fresh: bool,
    sums: &mut [Sums],
    index: usize,
) {
    assert!(depth > 0 && index + 1 < ACROSS && sums.len() == PAIR * ACROSS);
    assert!(rows.into_iter().chain(weights).all(|tiles| tiles.len() >= depth));
    if fresh {
        for tile in sums.chunks_mut(ACROSS) {
            tile[index..index + 2].fill(Sums::ZERO);
        }
    }
    let sums = sums[index..].as_mut_ptr();
    // SAFETY: the registers are set up for whole tiles, and as many of them are there as the loop reads.
    unsafe { multiply(rows.map(<[Tile]>::as_ptr), weights.map(<[Tile]>::as_ptr), depth, sums) };
}

const _: () = assert!(size_of::<Tile>() == 1024 && size_of::<Sums>() == 1024 && DEPTH * 2 == ROW);

/// Two tiles of rows by two of outputs.
///
/// # Safety
/// The registers are set up; `depth` tiles lie at each pointer, and sums at `sums` and [`ACROSS`] past it.
unsafe fn multiply(rows: [*const Tile; PAIR], weights: [*const Tile; 2], depth: usize, sums: *mut Sums) {
    // SAFETY: as the caller vouches.
    unsafe {
        asm!(
            "tileloadd tmm0, [{sums} + {row}]",
            "tileloadd tmm1, [{sums} + {row} + 1024]",
            "tileloadd tmm2, [{next} + {row}]",
            "tileloadd tmm3, [{next} + {row} + 1024]",
            "2:",
            "tileloadd tmm4, [{lower} + {row}]",
            "tileloaddt1 tmm6, [{left} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloaddt1 tmm7, [{right} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{upper} + {row}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {lower}, 1024",
            "add {upper}, 1024",
            "add {left}, 1024",
            "add {right}, 1024",
            "sub {depth}, 1",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 1024], tmm1",
            "tilestored [{next} + {row}], tmm2",
            "tilestored [{next} + {row} + 1024], tmm3",
            sums = in(reg) sums,
            next = in(reg) sums.wrapping_add(ACROSS),
            lower = inout(reg) rows[0] => _,
            upper = inout(reg) rows[1] => _,
            left = inout(reg) weights[0] => _,
            right = inout(reg) weights[1] => _,
            depth = inout(reg) depth => _,
            row = in(reg) ROW,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
