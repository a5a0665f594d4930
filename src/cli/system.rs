//! What the operating system says of this machine and process. Linux only; nothing elsewhere.

use std::path::Path;

/// Bytes of memory the machine has, and bytes a program can still get without swapping.
pub(super) fn memory() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some((field(&text, "MemTotal:")?, field(&text, "MemAvailable:")?))
}

/// Bytes a program can still get without swapping, and without meeting the limit of its container (cgroup v2).
pub(super) fn available_memory() -> Option<u64> {
    let number =
        |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse::<u64>().ok();
    let left = number("memory.max").zip(number("memory.current")).map(|(most, now)| most.saturating_sub(now));
    let (_, available) = memory()?;
    Some(left.map_or(available, |left| left.min(available)))
}

/// Most bytes this process had resident at once.
pub(super) fn peak_resident() -> Option<u64> {
    field(&std::fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// Forgets [`peak_resident`] so far. Where the system does not let us, the peak is that of the whole run.
pub(super) fn reset_peak_resident() {
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Name of the processor.
pub(super) fn processor() -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/cpuinfo")).ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A `name: 123 kB` line, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// `1.5 GiB`
pub(super) fn bytes_text(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes >= 1024.0 { format!("{:.1} GiB", mebibytes / 1024.0) } else { format!("{mebibytes:.0} MiB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_in_bytes() {
        assert_eq!(field("MemTotal:  16 kB\nMemAvailable: 2 kB\n", "MemAvailable:"), Some(2048));
        assert_eq!(field("MemTotal: many\n", "MemTotal:"), None);
    }

    #[test]
    fn sizes_are_told_in_the_unit_that_fits() {
        assert_eq!(bytes_text(3 << 20), "3 MiB");
        assert_eq!(bytes_text(3 << 29), "1.5 GiB");
    }
}
