//! The alphabet of byte-level BPE: one printable character for each byte.
//!
//! Printable bytes of Latin-1 stand for themselves; the other 68, in order, are written with the
//! characters from U+0100 on. This is the mapping of the GPT-2 tokenizer.

/// The bytes of a vocabulary entry, or `None` if a character is not of the alphabet.
pub(super) fn decode(entry: &str) -> Option<Vec<u8>> {
    entry.chars().map(byte_of).collect()
}

fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => u8::try_from(code).ok(),
        // The bytes that do not stand for themselves: 00 to 20, 7F to A0, AD.
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_alphabet_covers_each_byte_once() {
        let bytes: Vec<u8> = ('\0'..='\u{2ff}').filter_map(byte_of).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(bytes.into_iter().collect::<BTreeSet<_>>().len(), 256);
        let known = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
        assert!(known.into_iter().all(|c| byte_of(c).is_some()));
    }

    #[test]
    fn entries_decode_to_their_bytes() {
        assert_eq!(decode("Ġlà").unwrap(), [b' ', b'l', 0xe0]);
        assert_eq!(decode("Ċ").unwrap(), [b'\n']);
        assert_eq!(decode("ĠlÃł").unwrap(), " là".as_bytes());
        assert_eq!(decode("Ń").unwrap(), [0xad]);
        assert_eq!(decode(" "), None);
        assert_eq!(decode("你"), None);
        assert_eq!(decode("\u{144}"), None);
    }
}
