//! Python's idea of white space.

/// Whether `str.strip()` of Python removes this character.
///
/// That is Unicode's `White_Space` and the four information separators U+001C to U+001F, which
/// have bidirectional type B or S.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

/// Python's `str.rstrip()`.
pub(super) fn strip_end(text: &str) -> &str {
    text.trim_end_matches(is_python_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_is_that_of_python() {
        let expected: Vec<u32> = [
            0x09..=0x0d,
            0x1c..=0x20,
            0x85..=0x85,
            0xa0..=0xa0,
            0x1680..=0x1680,
            0x2000..=0x200a,
            0x2028..=0x2029,
            0x202f..=0x202f,
            0x205f..=0x205f,
            0x3000..=0x3000,
        ]
        .into_iter()
        .flatten()
        .collect();
        let found: Vec<u32> = ('\0'..=char::MAX).filter(|&c| is_python_space(c)).map(u32::from).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn zero_width_characters_are_kept() {
        assert_eq!(strip("\u{1f}\u{3000} \u{200b}x\u{feff}\u{a0}\n"), "\u{200b}x\u{feff}");
        assert_eq!(strip_end(" x\u{1c}\u{85}"), " x");
        assert_eq!(strip(" \t"), "");
    }
}
