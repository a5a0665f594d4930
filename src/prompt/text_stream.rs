//! Text of a sequence that is still growing, in pieces that never have to be taken back.

use std::ops::Range;
use std::sync::Arc;

use unicode_segmentation::GraphemeCursor;

use super::stop::{StopMatch, StopMatcher, StopStrings};
use super::token_table::{Piece, TokenTable};
use super::utf8::Utf8Decoder;
use super::white_space::{is_python_space, strip_end};

/// Why a [`TextStream`] gives no more text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// A stop string is complete; its position in the list of [`StopStrings`].
    StopString(usize),
    /// The literal text `<|im_end|>` is complete.
    EndOfTurn,
    /// [`TextStream::finish`] was called.
    Finished,
}

/// Turns generated ids into settled pieces of the response.
///
/// The pieces together are exactly [`Tokenizer::response_until`] of the ids. Text is held back
/// only while a later token could change it: an unfinished character, the last grapheme cluster
/// (a combining mark may follow), white space that may turn out to be at the end, and a tail that
/// may begin a stop string or `<|im_end|>`. Each token costs time in its own bytes, however long
/// the text has become.
///
/// [`Tokenizer::response_until`]: super::Tokenizer::response_until
#[derive(Debug, Clone)]
pub struct TextStream {
    table: Arc<TokenTable>,
    utf8: Utf8Decoder,
    matcher: StopMatcher,
    /// Strings given by the user; the matcher has one more, the end of the turn.
    stop_count: usize,
    tail: Tail,
    end: Option<StreamEnd>,
}

impl TextStream {
    pub(super) fn new(table: Arc<TokenTable>, stops: &StopStrings) -> Self {
        Self {
            table,
            utf8: Utf8Decoder::default(),
            matcher: StopMatcher::new(&stops.with_end_of_turn()),
            stop_count: stops.iter().count(),
            tail: Tail::default(),
            end: None,
        }
    }

    /// Takes the next id; the text that is settled by it, never empty. After the end of the
    /// stream ids are ignored.
    pub fn push(&mut self, id: u32) -> Option<String> {
        if self.end.is_some() {
            return None;
        }
        let mut text = String::new();
        match self.table.piece(id, true) {
            Piece::Bytes(bytes) => self.utf8.push(bytes, &mut text),
            Piece::Text(added) => {
                self.utf8.flush(&mut text);
                text.push_str(added);
            }
            Piece::Nothing => {}
        }
        self.read(&text);
        if self.end.is_some() { self.tail.take_all() } else { self.tail.take_settled(self.matcher.held_back()) }
    }

    /// Ends the sequence; the text held back until now, never empty.
    pub fn finish(&mut self) -> Option<String> {
        if self.end.is_some() {
            return None;
        }
        let mut text = String::new();
        self.utf8.flush(&mut text);
        self.read(&text);
        self.end.get_or_insert(StreamEnd::Finished);
        self.tail.take_all()
    }

    /// Why there is no more text to come, or `None` while there may be.
    pub const fn end(&self) -> Option<StreamEnd> {
        self.end
    }

    /// The part of the decoded text, in bytes, that was given out so far: what is before it is white space, which is
    /// stripped.
    pub const fn told(&self) -> Range<usize> {
        self.tail.leading..self.tail.leading + self.tail.told
    }

    /// Whether a stop string has ended the text.
    pub const fn is_stopped(&self) -> bool {
        matches!(self.end, Some(StreamEnd::StopString(_)))
    }

    /// Moves decoded text to the tail, up to the first stop string.
    fn read(&mut self, text: &str) {
        let mut utf8 = [0; 4];
        for c in text.chars() {
            self.tail.push(c);
            if let Some(found) = self.matcher.push_str(c.encode_utf8(&mut utf8)) {
                self.stop_at(found);
                return;
            }
        }
    }

    fn stop_at(&mut self, found: StopMatch) {
        self.tail.remove_end(found.length);
        self.end =
            Some(if found.index < self.stop_count { StreamEnd::StopString(found.index) } else { StreamEnd::EndOfTurn });
    }
}

/// The end of the response that has not been given out.
#[derive(Debug, Clone, Default)]
struct Tail {
    /// Begins at a grapheme cluster boundary of the response.
    text: String,
    /// Where `text` may be divided: cluster boundaries that do not follow white space, ascending.
    cuts: Vec<usize>,
    /// Where the last cluster of `text` begins.
    cluster: usize,
    /// The last character of the response, `None` while there is only leading white space.
    last: Option<char>,
    /// Bytes of leading white space.
    leading: usize,
    /// Bytes given out.
    told: usize,
}

impl Tail {
    fn push(&mut self, c: char) {
        if self.last.is_none() && is_python_space(c) {
            self.leading += c.len_utf8();
            return;
        }
        let at = self.text.len();
        self.text.push(c);
        if at > 0 && self.is_boundary(at) {
            self.cluster = at;
            if !self.last.is_some_and(is_python_space) {
                self.cuts.push(at);
            }
        }
        self.last = Some(c);
    }

    /// Whether a grapheme cluster ends at `at`. Clusters are told apart without a look at the
    /// clusters before them, so the text from the last boundary on is enough.
    fn is_boundary(&self, at: usize) -> bool {
        let cluster = &self.text[self.cluster..];
        GraphemeCursor::new(at - self.cluster, cluster.len(), true).is_boundary(cluster, 0).unwrap_or(false)
    }

    /// Drops the last bytes, as many as there are; they are whole characters. (Leading white
    /// space, which is not here, may have been the beginning of a stop string.)
    fn remove_end(&mut self, length: usize) {
        self.text.truncate(self.text.len().saturating_sub(length));
    }

    /// The text up to the last cut that leaves `held_back` bytes.
    fn take_settled(&mut self, held_back: usize) -> Option<String> {
        let limit = self.text.len().saturating_sub(held_back);
        let settled = self.cuts.partition_point(|&cut| cut <= limit);
        let cut = *self.cuts[..settled].last()?;
        self.cuts.drain(..settled);
        for later in &mut self.cuts {
            *later -= cut;
        }
        self.cluster -= cut;
        self.told += cut;
        let rest = self.text.split_off(cut);
        Some(std::mem::replace(&mut self.text, rest))
    }

    /// All of the text but white space at its end; nothing may be pushed after.
    fn take_all(&mut self) -> Option<String> {
        let mut text = std::mem::take(&mut self.text);
        text.truncate(strip_end(&text).len());
        self.told += text.len();
        (!text.is_empty()).then_some(text)
    }
}
