//! Which tokens a text was made of.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use super::token_table::{Piece, TokenTable};
use super::utf8::Utf8Decoder;

/// Follows the ids that a [`TextStream`] takes, and tells those whose text it has given out.
///
/// A token belongs to the text when at least one character it has a byte in does. So tokens at either end may reach beyond
/// the text, where white space was stripped or a stop string begins within a token; special tokens, which leave no trace,
/// belong to none.
///
/// [`TextStream`]: super::TextStream
#[derive(Debug, Clone)]
pub struct TokenSpans {
    table: Arc<TokenTable>,
    utf8: Utf8Decoder,
    /// Bytes decoded so far.
    decoded: usize,
    pushed: usize,
    /// Tokens that were not told yet: number, and where the characters they have a byte in lie in the decoded text.
    waiting: VecDeque<(usize, Range<usize>)>,
}

impl TokenSpans {
    pub(super) fn new(table: Arc<TokenTable>) -> Self {
        Self { table, utf8: Utf8Decoder::default(), decoded: 0, pushed: 0, waiting: VecDeque::new() }
    }

    /// Takes the next id.
    pub fn push(&mut self, id: u32) {
        let number = self.pushed;
        self.pushed += 1;
        let table = Arc::clone(&self.table);
        let span = match table.piece(id, true) {
            Piece::Bytes(bytes) => self.span(bytes),
            Piece::Text(text) => {
                let mut broken = String::new();
                self.utf8.flush(&mut broken);
                let start = self.decoded + broken.len();
                self.decoded = start + text.len();
                start..self.decoded
            }
            Piece::Nothing => return,
        };
        if !span.is_empty() {
            self.waiting.push_back((number, span));
        }
    }

    /// Where the characters lie that these bytes are part of. One that is unfinished counts as one byte, which is enough
    /// to tell whether it is in a text: that begins and ends between characters.
    fn span(&mut self, bytes: &[u8]) -> Range<usize> {
        let Some((first, rest)) = bytes.split_first() else { return 0..0 };
        let mut text = String::new();
        self.utf8.push(std::slice::from_ref(first), &mut text);
        let own = if self.utf8.is_pending() { 0 } else { text.chars().next_back().map_or(0, char::len_utf8) };
        let start = self.decoded + text.len() - own;
        self.utf8.push(rest, &mut text);
        self.decoded += text.len();
        start..self.decoded + usize::from(self.utf8.is_pending())
    }

    /// The numbers, counted from 0, of the tokens that belong to `told` of the decoded text and were not told before.
    /// A later call may only reach further.
    pub fn tell(&mut self, told: &Range<usize>) -> Vec<usize> {
        let mut tokens = Vec::new();
        while let Some((number, span)) = self.waiting.pop_front_if(|(_, span)| span.start < told.end) {
            if span.end > told.start {
                tokens.push(number);
            }
        }
        tokens
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StopStrings, TextStream};
    use super::*;

    const SPECIAL: u32 = 256;
    const ADDED: u32 = 257;
    const WORD: u32 = 258;

    /// One token a byte, a special one, one with a text of its own, and ` ab`.
    fn table() -> Arc<TokenTable> {
        let mut table = TokenTable::new(&[SPECIAL]);
        (0..=255_u8).for_each(|byte| table.insert_bytes(u32::from(byte), vec![byte]));
        table.insert_added(SPECIAL, "<s>".to_owned());
        table.insert_added(ADDED, "<x>".to_owned());
        table.insert_bytes(WORD, b" ab".to_vec());
        Arc::new(table)
    }

    /// The text of the ids, and the tokens told with it: those told after each id, and at the end.
    fn told(ids: &[u32], stops: &[&str]) -> (String, Vec<Vec<usize>>) {
        let stops = StopStrings::new(stops.iter().map(ToString::to_string).collect()).unwrap();
        let mut stream = TextStream::new(table(), &stops);
        let mut spans = TokenSpans::new(table());
        let (mut text, mut tokens) = (String::new(), Vec::new());
        for id in ids {
            spans.push(*id);
            text += &stream.push(*id).unwrap_or_default();
            tokens.push(spans.tell(&stream.told()));
        }
        text += &stream.finish().unwrap_or_default();
        tokens.push(spans.tell(&stream.told()));
        (text, tokens)
    }

    #[test]
    fn a_token_is_told_with_the_first_of_its_text() {
        let (text, tokens) = told(&[WORD, b'c'.into(), b' '.into(), b'd'.into()], &[]);
        assert_eq!((text.as_str(), tokens), ("abc d", vec![vec![0], vec![], vec![1], vec![], vec![2, 3]]));
    }

    #[test]
    fn tokens_belong_to_the_text_their_characters_are_in() {
        for (ids, stops, text, belonging) in [
            (&[0x20, 0x61, 0x20][..], &[][..], "a", &[1][..]),
            (&[WORD, 0x20], &[], "ab", &[0]),
            (&[SPECIAL, 0x61, SPECIAL, 0x62], &[], "ab", &[1, 3]),
            (&[0xe1, 0xba, 0xa3], &[], "ả", &[0, 1, 2]),
            (&[0xe1, SPECIAL, 0xba, 0xa3], &[], "ả", &[0, 2, 3]),
            (&[0x61, 0xe1, ADDED, 0x62], &[], "a\u{fffd}<x>b", &[0, 1, 2, 3]),
            (&[0x61, 0xe1, 0xba], &[], "a\u{fffd}", &[0, 1, 2]),
            // A byte that continues no character is none of the broken one before it.
            (&[0xe1, 0x28], &["("], "\u{fffd}", &[0]),
            (&[0xe1, 0xe1], &["\u{fffd}\u{fffd}"], "", &[]),
            (&[0x63, WORD], &["b"], "c a", &[0, 1]),
            (&[0x63, WORD], &[" a"], "c", &[0]),
            (&[999, 0x61], &[], "a", &[1]),
        ] {
            let (found, tokens) = told(ids, stops);
            assert_eq!((found.as_str(), tokens.concat().as_slice()), (text, belonging), "{ids:?}");
        }
    }
}
