//! Weights that are read once, and then from a copy: they need not stay in memory beside it.

/// Lets the process have no memory for some bytes of a mapped file any more; whoever reads them again gets them from the file.
/// Bytes that are not, or no longer, a file's stay where they are.
pub(super) fn release(bytes: &[u8]) {
    #[cfg(target_os = "linux")]
    let _ = linux::release(bytes);
    #[cfg(not(target_os = "linux"))]
    let _ = bytes;
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::FileExt;

    /// Bits of an entry of `/proc/self/pagemap` (Linux, `Documentation/admin-guide/mm/pagemap.rst`): the page is in memory, in the
    /// swap, a file's or shared.
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const OF_A_FILE: u64 = 1 << 61;

    pub(super) fn release(bytes: &[u8]) -> io::Result<()> {
        // SAFETY: nothing is asked of the caller.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(io::Error::other)?;
        // The pages that lie in the bytes as a whole.
        let (start, end) = (bytes.as_ptr().addr(), bytes.as_ptr().addr() + bytes.len());
        let first = start.div_ceil(page);
        let count = (end / page).saturating_sub(first);
        let mut entries = vec![0; count * size_of::<u64>()];
        File::open("/proc/self/pagemap")?.read_exact_at(&mut entries, (first * size_of::<u64>()) as u64)?;
        let of_a_file = |entry: u64| entry & OF_A_FILE != 0 || entry & (PRESENT | SWAPPED) == 0;
        if entries.as_chunks().0.iter().all(|entry| of_a_file(u64::from_ne_bytes(*entry))) {
            let start = bytes.as_ptr().wrapping_add(first * page - start).cast_mut().cast();
            // SAFETY: the pages are a file's and nobody has changed them, so what is read there is the same after it.
            if unsafe { libc::madvise(start, count * page, libc::MADV_DONTNEED) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use memmap2::{MmapMut, MmapOptions};

    use super::*;

    const SIZE: usize = 1 << 20;

    fn content() -> Vec<u8> {
        (0..SIZE).map(|index| (index % 251) as u8).collect()
    }

    /// As ONNX Runtime maps files: to be written to, and for itself.
    fn mapped() -> MmapMut {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content()).unwrap();
        // SAFETY: nobody else has the file.
        unsafe { MmapOptions::new().map_copy(file.as_file()).unwrap() }
    }

    /// How many bytes of this mapping are in memory.
    fn resident(mapping: &[u8]) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let address = format!("{:x}-", mapping.as_ptr().addr());
        let lines = maps.lines().skip_while(|line| !line.starts_with(&address));
        let found = lines.skip(1).find_map(|line| line.strip_prefix("Rss:")).unwrap();
        1024 * found.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    }

    #[test]
    fn pages_of_a_file_are_let_go_and_come_back() {
        let mapping = mapped();
        assert_eq!(mapping[..], content());
        assert_eq!(resident(&mapping), SIZE);
        // Pages that others may have a part of stay.
        release(&mapping[1..SIZE - 1]);
        assert!((1..=SIZE / 4).contains(&resident(&mapping)), "{}", resident(&mapping));
        assert_eq!(mapping[..], content());
    }

    #[test]
    fn what_is_no_file_s_stays() {
        let mut changed = mapped();
        changed[SIZE / 2] ^= 1;
        let expected = changed.to_vec();
        release(&changed);
        assert_eq!(changed[..], expected);
        let memory = content();
        release(&memory);
        release(&memory[5..7]);
        release(&[]);
        assert_eq!(memory, content());
    }
}
