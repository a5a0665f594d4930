//! Whether AMX can be used.

/// Whether processor and system let this process use tiles of bfloat16.
///
/// Linux hands out the registers on request, once for a process and all its threads.
pub(in crate::kernels) fn available() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::sync::LazyLock;
        static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_instructions() && request());
        *AVAILABLE
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Whether the processor has the instructions.
#[cfg(target_os = "linux")]
fn has_instructions() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    /// Bits of EDX of leaf 7: bfloat16 products, and tiles.
    const BFLOAT16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    is_x86_feature_detected!("avx512bf16")
        && __cpuid(0).eax >= 7
        && __cpuid_count(7, 0).edx & BFLOAT16_AND_TILES == BFLOAT16_AND_TILES
}

/// Asks the system for the registers.
#[cfg(target_os = "linux")]
fn request() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` of `arch_prctl`.
    const REQUEST: libc::c_ulong = 0x1023;
    /// Number of the state component that holds the tiles' data.
    const TILE_DATA: libc::c_ulong = 18;
    // SAFETY: the call takes two numbers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
}
