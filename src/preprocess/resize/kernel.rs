//! The inner loop of the resize: a weighted sum of lines of bytes.

use super::Job;
use super::weights::PRECISION_BITS;

/// Bytes of a line: 16 RGB pixels, six 256-bit registers of 32-bit sums.
pub(super) const LANES: usize = 48;

/// `clamp((2^21 + Σ weight · byte) >> 22)` for each of the [`LANES`] bytes at the front of
/// `lines`, where line `k` starts `k · pitch` bytes on and has weight `taps[k]`.
///
/// The sums fit in 32 bits: the magnitudes of the weights of one output pixel add up to less
/// than 1.5 · 2^22 (a test of `weights` checks it), and 255 · 1.5 · 2^22 < 2^31.
#[inline(always)]
pub(super) fn weighted_sum(lines: &[u8], pitch: usize, taps: &[i32]) -> [u8; LANES] {
    let mut sums = [1i32 << (PRECISION_BITS - 1); LANES];
    for (k, &weight) in taps.iter().enumerate() {
        let line = &lines[k * pitch..k * pitch + LANES];
        for (sum, &byte) in sums.iter_mut().zip(line) {
            *sum += i32::from(byte) * weight;
        }
    }
    sums.map(|sum| (sum >> PRECISION_BITS).clamp(0, 255) as u8)
}

/// Runs `job` on one band of target rows with the widest vectors of this machine.
pub(super) fn dispatch(job: &Job, first_row: usize, band: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, the only requirement of the function.
        return unsafe { run_avx2(job, first_row, band) };
    }
    job.run(first_row, band);
}

/// The same code compiled for AVX2, which multiplies eight 32-bit integers at once; the baseline
/// of x86-64 has no such instruction.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn run_avx2(job: &Job, first_row: usize, band: &mut [u8]) {
    job.run(first_row, band);
}
