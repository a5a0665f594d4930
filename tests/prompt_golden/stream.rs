//! The text stream against the whole text, on ids no model would give.

use std::sync::LazyLock;

use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation;
use vintern::prompt::{StopStrings, StreamEnd, Tokenizer};

use crate::support::tokenizer;

static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| tokenizer("ckpt_a"));

/// Text that is delicate to cut: combining marks, emoji sequences, conjuncts, prepended marks,
/// Python's and Unicode's white space, and parts of stop strings.
const FRAGMENTS: [&str; 30] = [
    "a",
    "b",
    "ế",
    "e\u{302}\u{301}",
    "\u{302}",
    "\u{301}",
    "\u{323}",
    " ",
    "  ",
    "\n",
    "\r",
    "\r\n",
    "\u{1f}",
    "\u{a0}",
    "\u{200b}",
    "🇻",
    "🇳",
    "👨",
    "\u{200d}",
    "👍🏽",
    "\u{915}\u{94d}",
    "\u{937}",
    "\u{600}",
    "\u{1100}",
    "\u{1161}",
    "<|im",
    "_end|>",
    "<|im_end|>",
    "<",
    "\u{fffd}",
];

/// The id of a single byte: the vocabulary begins with the byte-level alphabet in the order of
/// its characters.
fn byte_id(byte: u8) -> u32 {
    let byte = u32::from(byte);
    match byte {
        0x21..=0x7e => byte - 0x21,
        0xa1..=0xac => byte - 0xa1 + 94,
        0xae..=0xff => byte - 0xae + 106,
        0x00..=0x20 => byte + 188,
        0x7f..=0xa0 => byte - 0x7f + 221,
        _ => 255,
    }
}

fn byte_ids(text: &str) -> Vec<u32> {
    text.bytes().map(byte_id).collect()
}

/// Fragments byte by byte, broken bytes, ordinary tokens, added tokens and ids without a token.
fn any_ids() -> impl Strategy<Value = Vec<u32>> {
    let part = prop_oneof![
        8 => prop::sample::select(FRAGMENTS.to_vec()).prop_map(byte_ids),
        2 => any::<u8>().prop_map(|byte| vec![byte_id(byte)]),
        2 => (0_u32..900).prop_map(|id| vec![id]),
        1 => (900_u32..940).prop_map(|id| vec![id]),
        1 => Just(vec![u32::MAX]),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

fn any_stops() -> impl Strategy<Value = StopStrings> {
    let stop = prop::collection::vec(prop::sample::select(FRAGMENTS.to_vec()), 1..4);
    prop::collection::vec(stop.prop_map(|parts| parts.concat()), 0..4)
        .prop_map(|stops| StopStrings::new(stops).unwrap())
}

/// The pieces, and after how many ids a stop string ended the text.
fn stream(ids: &[u32], stops: &StopStrings) -> (Vec<String>, Option<usize>) {
    let mut stream = TOKENIZER.text_stream(stops);
    let mut pieces = Vec::new();
    let mut stopped = None;
    for (index, &id) in ids.iter().enumerate() {
        pieces.extend(stream.push(id));
        if stream.is_stopped() {
            stopped = stopped.or(Some(index + 1));
        }
    }
    pieces.extend(stream.finish());
    assert!(stream.end().is_some());
    assert_eq!(stream.finish(), None);
    assert_eq!(stream.push(64), None);
    (pieces, stopped)
}

fn is_combining_mark(c: char) -> bool {
    ('\u{300}'..='\u{36f}').contains(&c)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pieces_join_to_the_response(ids in any_ids()) {
        let (pieces, _) = stream(&ids, &StopStrings::default());
        prop_assert_eq!(pieces.concat(), TOKENIZER.response(&ids));
    }

    #[test]
    fn pieces_join_to_the_response_before_the_stop_string(
        ids in any_ids(),
        stops in any_stops(),
    ) {
        let (pieces, _) = stream(&ids, &stops);
        prop_assert_eq!(pieces.concat(), TOKENIZER.response_until(&ids, &stops));
    }

    #[test]
    fn pieces_are_whole_grapheme_clusters(ids in any_ids(), stops in any_stops()) {
        let (pieces, _) = stream(&ids, &stops);
        let response = pieces.concat();
        let mut boundaries: Vec<usize> =
            response.grapheme_indices(true).map(|(index, _)| index).collect();
        boundaries.push(response.len());
        let mut end = 0;
        for piece in &pieces {
            prop_assert!(!piece.is_empty());
            end += piece.len();
            prop_assert!(boundaries.contains(&end), "{pieces:?}");
        }
        for pair in pieces.windows(2) {
            let letter_before = pair[0].ends_with(char::is_alphabetic);
            prop_assert!(!(letter_before && pair[1].starts_with(is_combining_mark)), "{pieces:?}");
        }
    }

    #[test]
    fn the_stop_test_and_the_stream_stop_at_the_same_token(
        ids in any_ids(),
        stops in any_stops(),
    ) {
        let (_, stopped) = stream(&ids, &stops);
        let found = (1..=ids.len()).find(|&n| TOKENIZER.completes_stop(&ids[..n], &stops));
        // The stream reads no further than the literal end of the turn, generation does.
        let turn_ends = TOKENIZER.decode(&ids, true).contains("<|im_end|>");
        prop_assert!(stopped == found || (stopped.is_none() && turn_ends), "{stopped:?} {found:?}");
    }

    #[test]
    fn vietnamese_text_survives_encoding(
        text in "([a-zA-Z0-9àáảãạăằắẳẵặâầấẩẫậèéẻẽẹêềếểễệìíỉĩịòóỏõọôồốổỗộơờớởỡợùúủũụưừứửữựỳýỷỹỵđĐẾƯỢ]\
                 |[ \n.,:?!()%-]){0,80}",
    ) {
        let ids = TOKENIZER.encode(&text).unwrap();
        prop_assert_eq!(TOKENIZER.decode(&ids, false), text.clone());
        prop_assert_eq!(TOKENIZER.decode(&ids, true), text);
    }
}

/// The pieces of each push in turn, `""` where nothing is settled, and of the end.
fn piece_by_piece(tokens: &[&str]) -> Vec<String> {
    let mut stream = TOKENIZER.text_stream(&StopStrings::default());
    let mut pieces: Vec<String> =
        tokens.iter().map(|token| byte_ids(token).into_iter().filter_map(|id| stream.push(id)).collect()).collect();
    pieces.push(stream.finish().unwrap_or_default());
    pieces
}

#[test]
fn text_comes_out_one_cluster_late() {
    assert_eq!(piece_by_piece(&["t", "i", "e"]), ["", "t", "i", "e"]);
}

#[test]
fn a_letter_waits_for_its_marks() {
    assert_eq!(piece_by_piece(&["ti", "e", "\u{302}", "\u{301}", "ng"]), ["t", "i", "", "", "e\u{302}\u{301}n", "g"]);
    assert_eq!(piece_by_piece(&["👨", "\u{200d}", "👩", "!"]), ["", "", "", "👨\u{200d}👩", "!"]);
    assert_eq!(piece_by_piece(&["🇻", "🇳", "🇻"]), ["", "", "🇻🇳", "🇻"]);
}

#[test]
fn white_space_waits_for_what_follows_and_is_dropped_at_both_ends() {
    assert_eq!(
        piece_by_piece(&[" \n", "a", " ", "\u{1f}", "b", "\u{3000}", "\n"]),
        ["", "", "a", "", "", " \u{1f}b", "", ""]
    );
    assert_eq!(piece_by_piece(&[" ", "\n"]), ["", "", ""]);
}

#[test]
fn what_may_begin_the_end_of_turn_is_held_back() {
    assert_eq!(piece_by_piece(&["ab<|", "im", "x"]), ["ab", "", "<|im", "x"]);
    assert_eq!(piece_by_piece(&["ab <|im_", "end|>", "more"]), ["ab", "", "", ""]);
}

#[test]
fn the_held_back_part_of_a_token_comes_out_when_it_begins_no_stop_string() {
    let stops = StopStrings::new(vec!["call>x".into()]).unwrap();
    let mut stream = TOKENIZER.text_stream(&stops);
    let tool_call = TOKENIZER.encode("<tool_call>").unwrap();
    assert_eq!(tool_call.len(), 1);
    assert_eq!(stream.push(tool_call[0]).as_deref(), Some("<tool_"));
    assert_eq!(stream.push(byte_id(b'y')).as_deref(), Some("call>"));
    assert_eq!(stream.push(tool_call[0]).as_deref(), Some("y<tool_"));
    assert_eq!(stream.push(byte_id(b'x')), None);
    assert_eq!(stream.end(), Some(StreamEnd::StopString(0)));
}

#[test]
fn a_stop_string_inside_a_token_ends_the_text_there() {
    let stops = StopStrings::new(vec!["zz".into(), "n c".into()]).unwrap();
    let ids = TOKENIZER.encode("Bạn có khỏe không").unwrap();
    let mut stream = TOKENIZER.text_stream(&stops);
    let mut text = String::new();
    for &id in &ids {
        text.extend(stream.push(id));
    }
    assert_eq!(text, "Bạ");
    assert_eq!(stream.end(), Some(StreamEnd::StopString(1)));
    assert_eq!(TOKENIZER.response_until(&ids, &stops), "Bạ");
}

#[test]
fn a_broken_character_is_replaced_only_when_nothing_can_complete_it() {
    let ids = byte_ids("😀");
    let mut stream = TOKENIZER.text_stream(&StopStrings::default());
    assert!(ids[..3].iter().all(|&id| stream.push(id).is_none()));
    assert_eq!(stream.clone().finish().as_deref(), Some("\u{fffd}"));
    assert_eq!(stream.push(ids[3]), None);
    assert_eq!(stream.finish().as_deref(), Some("😀"));
    assert_eq!(stream.end(), Some(StreamEnd::Finished));
}

#[test]
fn the_literal_end_of_turn_ends_the_stream() {
    let mut stream = TOKENIZER.text_stream(&StopStrings::default());
    let text: String = byte_ids(" a <|im_end|> b").into_iter().filter_map(|id| stream.push(id)).collect();
    assert_eq!(text, "a");
    assert_eq!(stream.end(), Some(StreamEnd::EndOfTurn));
    assert!(!stream.is_stopped());
}
