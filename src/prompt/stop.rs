//! Stop strings, found while the text is still being written.

use std::sync::Arc;

use super::{END_OF_TURN, PromptError};

/// Strings that end a text before themselves.
///
/// The match that counts is the one that is complete first (of several that end at the same byte,
/// the longest). So the result does not depend on how the text came in pieces: no later text can
/// change it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct StopStrings {
    patterns: Arc<[Pattern]>,
}

impl StopStrings {
    /// Takes the strings in any order; duplicates do no harm.
    ///
    /// # Errors
    /// [`PromptError::EmptyStopString`] if one of them is empty.
    pub fn new(stops: Vec<String>) -> Result<Self, PromptError> {
        if let Some(index) = stops.iter().position(String::is_empty) {
            return Err(PromptError::EmptyStopString { position: index + 1 });
        }
        Ok(Self { patterns: stops.into_iter().map(Pattern::new).collect() })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The strings, in the order given.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|pattern| pattern.text.as_str())
    }

    /// Where in `text` the match begins that is complete first, as a byte index.
    pub fn find(&self, text: &str) -> Option<usize> {
        let mut matcher = StopMatcher::new(self);
        text.bytes().enumerate().find_map(|(index, byte)| matcher.push(byte).map(|found| index + 1 - found.length))
    }

    /// Length of the longest string in bytes, 0 if there is none.
    pub(super) fn longest(&self) -> usize {
        self.patterns.iter().map(|pattern| pattern.text.len()).max().unwrap_or(0)
    }

    /// These strings and, last, the literal `<|im_end|>`, at which every response is cut.
    pub(super) fn with_end_of_turn(&self) -> Self {
        let end_of_turn = Pattern::new(END_OF_TURN.to_owned());
        Self { patterns: self.patterns.iter().cloned().chain([end_of_turn]).collect() }
    }
}

/// A string and its Knuth-Morris-Pratt failure function.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    /// At `i`: length of the longest proper prefix of the string that is a suffix of its first
    /// `i + 1` bytes.
    failure: Vec<usize>,
}

impl Pattern {
    fn new(text: String) -> Self {
        let bytes = text.as_bytes();
        let mut failure = vec![0; bytes.len()];
        let mut matched = 0;
        for index in 1..bytes.len() {
            while matched > 0 && bytes[index] != bytes[matched] {
                matched = failure[matched - 1];
            }
            matched += usize::from(bytes[index] == bytes[matched]);
            failure[index] = matched;
        }
        Self { text, failure }
    }

    /// The number of leading bytes of the string that end the text, after one more byte of it.
    fn advance(&self, mut matched: usize, byte: u8) -> usize {
        let bytes = self.text.as_bytes();
        if matched == bytes.len() {
            matched = self.failure[matched - 1];
        }
        while matched > 0 && bytes[matched] != byte {
            matched = self.failure[matched - 1];
        }
        matched + usize::from(bytes[matched] == byte)
    }
}

/// A complete match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StopMatch {
    /// Position of the string in the list.
    pub(super) index: usize,
    /// Length of the string in bytes.
    pub(super) length: usize,
}

/// Follows a text byte by byte, in time independent of its length.
#[derive(Debug, Clone)]
pub(super) struct StopMatcher {
    patterns: Arc<[Pattern]>,
    /// For each string, how much of it ends the text so far.
    matched: Vec<usize>,
}

impl StopMatcher {
    pub(super) fn new(stops: &StopStrings) -> Self {
        Self { patterns: Arc::clone(&stops.patterns), matched: vec![0; stops.patterns.len()] }
    }

    /// Takes the next byte; the longest string that it completes, if any.
    pub(super) fn push(&mut self, byte: u8) -> Option<StopMatch> {
        let mut found: Option<StopMatch> = None;
        for (index, (pattern, matched)) in self.patterns.iter().zip(&mut self.matched).enumerate() {
            *matched = pattern.advance(*matched, byte);
            let longer = found.is_none_or(|found| found.length < *matched);
            if *matched == pattern.text.len() && longer {
                found = Some(StopMatch { index, length: *matched });
            }
        }
        found
    }

    /// Takes the next bytes up to the first that completes a string; whether there was one.
    pub(super) fn push_str(&mut self, text: &str) -> Option<StopMatch> {
        text.bytes().find_map(|byte| self.push(byte))
    }

    /// Length of the longest tail of the text that begins a string.
    pub(super) fn held_back(&self) -> usize {
        self.matched.iter().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(strings: &[&str]) -> StopStrings {
        StopStrings::new(strings.iter().map(ToString::to_string).collect()).unwrap()
    }

    /// The definition, word for word.
    fn find_slowly(stops: &StopStrings, text: &str) -> Option<usize> {
        let ends = (1..=text.len()).filter(|&end| text.is_char_boundary(end));
        ends.into_iter().find_map(|end| {
            let complete = stops.iter().filter(|stop| text[..end].ends_with(stop));
            complete.map(|stop| end - stop.len()).min()
        })
    }

    #[test]
    fn empty_strings_are_refused_with_their_position() {
        let error = StopStrings::new(vec!["a".into(), String::new()]).unwrap_err();
        assert!(matches!(error, PromptError::EmptyStopString { position: 2 }));
        assert!(StopStrings::new(Vec::new()).unwrap().is_empty());
        assert_eq!(stops(&["b", "a"]).iter().collect::<Vec<_>>(), ["b", "a"]);
    }

    #[test]
    fn the_match_complete_first_counts() {
        assert_eq!(stops(&["abcdef", "cd"]).find("xabcdef"), Some(3));
        assert_eq!(stops(&["cd", "bcd"]).find("abcd"), Some(1));
        assert_eq!(stops(&["\nUser:"]).find("a\n\nUser:"), Some(2));
        assert_eq!(stops(&["aab"]).find("aaab"), Some(1));
        assert_eq!(stops(&["hết"]).find("chưa hết"), Some(6));
        assert_eq!(stops(&["xyz"]).find("xy"), None);
        assert_eq!(StopStrings::default().find("xyz"), None);
    }

    #[test]
    fn a_tail_that_may_begin_a_string_is_held_back() {
        let mut matcher = StopMatcher::new(&stops(&["abab!", "b"]).with_end_of_turn());
        assert_eq!(matcher.push_str("xa"), None);
        assert_eq!(matcher.held_back(), 1);
        assert_eq!(matcher.push_str("<|im"), None);
        assert_eq!(matcher.held_back(), 4);
        assert_eq!(matcher.push_str("_end|>"), Some(StopMatch { index: 2, length: 10 }));
    }

    proptest! {
        #[test]
        fn find_is_its_definition(
            strings in prop::collection::vec("[abả]{1,4}", 0..4),
            text in "[abả]{0,16}",
        ) {
            let stops = StopStrings::new(strings).unwrap();
            prop_assert_eq!(stops.find(&text), find_slowly(&stops, &text));
        }
    }
}
