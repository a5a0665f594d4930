//! UTF-8 decoding of a byte stream, with Python's `errors="replace"`.
//!
//! Both Python and Rust put one U+FFFD for each maximal part of a broken sequence (Unicode 16,
//! section 3.9, "substitution of maximal subparts"), so decoding in pieces gives the same text as
//! decoding in one go, if only a sequence that is cut off at the end of a piece waits for the next.

use std::str::from_utf8;

/// Decodes bytes as they come; holds back at most three bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Utf8Decoder {
    /// The start of a sequence that further bytes may complete.
    pending: Vec<u8>,
}

impl Utf8Decoder {
    /// Appends to `text` what is settled by these bytes.
    pub(super) fn push(&mut self, bytes: &[u8], text: &mut String) {
        if self.pending.is_empty() {
            self.decode(bytes, text);
        } else {
            let mut joined = std::mem::take(&mut self.pending);
            joined.extend_from_slice(bytes);
            self.decode(&joined, text);
        }
    }

    /// Whether an unfinished sequence waits for more.
    pub(super) fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Ends the byte stream: an unfinished sequence becomes one U+FFFD.
    pub(super) fn flush(&mut self, text: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }

    fn decode(&mut self, bytes: &[u8], text: &mut String) {
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let broken = chunk.invalid();
            if chunks.peek().is_none() && is_unfinished(broken) {
                self.pending = broken.to_vec();
            } else if !broken.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }
}

/// Whether the bytes are the start of a sequence that more bytes could complete.
fn is_unfinished(bytes: &[u8]) -> bool {
    from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken sequences and what Python 3 makes of them.
    const BROKEN: [(&[u8], &str); 14] = [
        (b"\x80", "\u{fffd}"),
        (b"\xc3", "\u{fffd}"),
        (b"\xc0\x80", "\u{fffd}\u{fffd}"),
        (b"\xc3\x28", "\u{fffd}("),
        (b"\xe1\xba", "\u{fffd}"),
        (b"\xe1\xba\x28", "\u{fffd}("),
        (b"\xe0\x80\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xf0\x9f\x98", "\u{fffd}"),
        (b"\xf0\x9f\x98a", "\u{fffd}a"),
        (b"\xf0\x80\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xf4\x90\x80\x80", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xf5\x80", "\u{fffd}\u{fffd}"),
        (b"\xe1\xba\xe1\xba\xa3", "\u{fffd}\u{1ea3}"),
    ];

    fn decode_in_pieces(pieces: &[&[u8]]) -> String {
        let (mut decoder, mut text) = (Utf8Decoder::default(), String::new());
        for piece in pieces {
            decoder.push(piece, &mut text);
        }
        decoder.flush(&mut text);
        text
    }

    #[test]
    fn broken_sequences_are_replaced_as_python_does() {
        for (bytes, expected) in BROKEN {
            assert_eq!(String::from_utf8_lossy(bytes), expected, "whole {bytes:x?}");
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(decode_in_pieces(&single), expected, "byte by byte {bytes:x?}");
        }
    }

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let (mut decoder, mut text) = (Utf8Decoder::default(), String::new());
        for byte in &"ả".as_bytes()[..2] {
            decoder.push(&[*byte], &mut text);
            assert_eq!(text, "");
        }
        decoder.push(&"ả".as_bytes()[2..], &mut text);
        assert_eq!(text, "ả");
        decoder.push(b"", &mut text);
        decoder.flush(&mut text);
        assert_eq!(text, "ả");
    }

    proptest::proptest! {
        #[test]
        fn pieces_give_the_text_of_the_whole(
            bytes in proptest::collection::vec(
                proptest::prop_oneof![
                    proptest::prelude::any::<u8>(),
                    0x80_u8..0xc0,
                    proptest::sample::select(vec![0xc3_u8, 0xe0, 0xe1, 0xed, 0xf0, 0xf4]),
                ],
                0..40,
            ),
            size in 1_usize..6,
        ) {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            proptest::prop_assert_eq!(decode_in_pieces(&pieces), String::from_utf8_lossy(&bytes));
        }
    }
}
