//! What each token id adds to the text: the decoding half of the slow Qwen2 tokenizer.

use std::collections::{HashMap, HashSet};

use super::stop::{StopMatcher, StopStrings};
use super::utf8::Utf8Decoder;

/// What a token adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Bytes that join those of neighbouring tokens into characters.
    Bytes(&'a [u8]),
    /// Text of an added token; a character left unfinished before it stays broken.
    Text(&'a str),
    /// Nothing: bytes before and after it still join.
    Nothing,
}

/// Token id to bytes or text.
///
/// An id without a token (logits may be wider than the vocabulary) adds nothing. The slow
/// tokenizer of the reference raises a `TypeError` there, so there is no text to agree with.
#[derive(Debug)]
pub(super) struct TokenTable {
    entries: HashMap<u32, Entry>,
    skipped: HashSet<u32>,
}

#[derive(Debug)]
enum Entry {
    Bytes(Box<[u8]>),
    Added(Box<str>),
}

impl TokenTable {
    /// A table of nothing but the ids that are skipped when special tokens are.
    pub(super) fn new(skipped: &[u32]) -> Self {
        Self { entries: HashMap::new(), skipped: skipped.iter().copied().collect() }
    }

    /// Adds a token of the byte-level vocabulary, unless an added token has this id.
    pub(super) fn insert_bytes(&mut self, id: u32, bytes: Vec<u8>) {
        self.entries.entry(id).or_insert(Entry::Bytes(bytes.into_boxed_slice()));
    }

    /// Adds an added token.
    pub(super) fn insert_added(&mut self, id: u32, text: String) {
        self.entries.insert(id, Entry::Added(text.into_boxed_str()));
    }

    /// The text of an added token.
    pub(super) fn added(&self, id: u32) -> Option<&str> {
        match self.entries.get(&id) {
            Some(Entry::Added(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether any token has this id.
    pub(super) fn contains(&self, id: u32) -> bool {
        self.entries.contains_key(&id)
    }

    /// What the token adds; with `skip_special`, nothing if it is one of the skipped ids.
    pub(super) fn piece(&self, id: u32, skip_special: bool) -> Piece<'_> {
        match self.entries.get(&id) {
            Some(_) if skip_special && self.skipped.contains(&id) => Piece::Nothing,
            Some(Entry::Bytes(bytes)) => Piece::Bytes(bytes),
            Some(Entry::Added(text)) => Piece::Text(text),
            None => Piece::Nothing,
        }
    }

    /// The text of the tokens; each maximal broken part of UTF-8 becomes one U+FFFD.
    pub(super) fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        for &id in ids {
            match self.piece(id, skip_special) {
                Piece::Bytes(more) => bytes.extend_from_slice(more),
                Piece::Text(added) => {
                    text.push_str(&String::from_utf8_lossy(&bytes));
                    bytes.clear();
                    text.push_str(added);
                }
                Piece::Nothing => {}
            }
        }
        text.push_str(&String::from_utf8_lossy(&bytes));
        text
    }

    /// Whether the settled text of the tokens holds a stop string that the last token may have
    /// completed. Looks only as far back as such a match can reach.
    pub(super) fn completes_stop(&self, ids: &[u32], stops: &StopStrings) -> bool {
        let Some((_, before)) = ids.split_last() else {
            return false;
        };
        if stops.is_empty() {
            return false;
        }
        // A match reaches back over all but one of its bytes, and perhaps over a character of
        // which the last token settles the end (3 bytes). Replacing broken bytes never makes the
        // text shorter. Up to 3 more bytes are lost to a character that the window cuts.
        let reach = stops.longest() - 1 + 3 + 3;
        let mut start = before.len();
        let mut length = 0;
        while start > 0 && length < reach {
            start -= 1;
            length += match self.piece(ids[start], true) {
                Piece::Bytes(bytes) => bytes.len(),
                Piece::Text(text) => text.len(),
                Piece::Nothing => 0,
            };
        }
        let text = self.settled_text(&ids[start..], start > 0);
        StopMatcher::new(stops).push_str(&text).is_some()
    }

    /// The text of the tokens without a character that is unfinished at the end and, if the
    /// tokens are `cut` from longer ones, without the bytes at the start that may belong to a
    /// character begun earlier.
    fn settled_text(&self, ids: &[u32], cut: bool) -> String {
        let mut text = String::new();
        let mut decoder = Utf8Decoder::default();
        // A fourth continuation byte in a row belongs to no character, whatever stands before it.
        let mut skippable = if cut { 3 } else { 0 };
        for &id in ids {
            match self.piece(id, true) {
                Piece::Bytes(mut bytes) => {
                    while let [0x80..=0xbf, rest @ ..] = bytes
                        && skippable > 0
                    {
                        skippable -= 1;
                        bytes = rest;
                    }
                    if !bytes.is_empty() {
                        skippable = 0;
                    }
                    decoder.push(bytes, &mut text);
                }
                Piece::Text(added) => {
                    skippable = 0;
                    decoder.flush(&mut text);
                    text.push_str(added);
                }
                Piece::Nothing => {}
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Id = byte; 256 is an added token, 257 a skipped one, 300 none.
    fn bytes_and_added() -> TokenTable {
        let mut table = TokenTable::new(&[257]);
        table.insert_added(256, "<ref>".to_owned());
        table.insert_added(257, "<pad>".to_owned());
        for byte in 0..=u8::MAX {
            table.insert_bytes(u32::from(byte), vec![byte]);
        }
        table
    }

    fn ids(text: &[u8]) -> Vec<u32> {
        text.iter().copied().map(u32::from).collect()
    }

    #[test]
    fn added_tokens_break_characters_and_skipped_ones_do_not() {
        let table = bytes_and_added();
        let broken = [0xe1, 0xba, 256, 0xa3];
        assert_eq!(table.decode(&broken, true), "\u{fffd}<ref>\u{fffd}");
        for nothing in [257, 300, u32::MAX] {
            assert_eq!(table.decode(&[0xe1, nothing, 0xba, 0xa3], true), "ả");
        }
        assert_eq!(table.decode(&[257, 65], false), "<pad>A");
    }

    #[test]
    fn an_added_token_hides_a_vocabulary_entry_of_the_same_id() {
        let mut table = TokenTable::new(&[]);
        table.insert_added(1, "<a>".to_owned());
        table.insert_bytes(1, b"b".to_vec());
        assert_eq!(table.decode(&[1], true), "<a>");
    }

    #[test]
    fn a_stop_string_may_span_tokens_and_end_inside_one() {
        let mut table = bytes_and_added();
        table.insert_bytes(500, b"ab\nUs".to_vec());
        table.insert_bytes(501, b"er: hello".to_vec());
        let stops = StopStrings::new(vec!["\nUser:".to_owned()]).unwrap();
        assert!(table.completes_stop(&[500, 501], &stops));
        assert!(table.completes_stop(&[500, 257, 501], &stops));
        assert!(!table.completes_stop(&[500, 256, 501], &stops));
        assert!(!table.completes_stop(&[501], &stops));
        assert!(!table.completes_stop(&[], &stops));
        assert!(!table.completes_stop(&[500, 501], &StopStrings::default()));
    }

    #[test]
    fn a_window_that_cuts_a_character_invents_no_replacement_character() {
        let table = bytes_and_added();
        let stops = StopStrings::new(vec!["\u{fffd}".to_owned()]).unwrap();
        let text = ids("ảảảảảả".as_bytes());
        assert!((1..=text.len()).all(|n| !table.completes_stop(&text[..n], &stops)));
    }

    proptest! {
        #[test]
        fn the_window_finds_what_the_whole_text_holds(
            ids in prop::collection::vec(
                prop_oneof![
                    Just(0xe1_u32), Just(0xba), Just(0xa3), Just(0xf0), Just(u32::from(b'a')),
                    Just(u32::from(b'b')), Just(256), Just(257), Just(300)
                ],
                0..40,
            ),
            strings in prop::collection::vec("[abả\u{fffd}<]{1,4}", 1..3),
        ) {
            let table = bytes_and_added();
            let stops = StopStrings::new(strings).unwrap();
            let by_window =
                (1..=ids.len()).find(|&n| table.completes_stop(&ids[..n], &stops));
            let by_whole = (1..=ids.len())
                .find(|&n| stops.find(&table.settled_text(&ids[..n], false)).is_some());
            prop_assert_eq!(by_window, by_whole);
        }
    }
}
