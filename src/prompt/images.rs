//! From `<image>` marks to runs of placeholder tokens.
//!
//! Each image embedding overwrites the token embedding of one `<IMG_CONTEXT>`, so their number
//! must be exactly that of the embeddings.

use std::ops::Range;

use super::{PromptError, Tokenizer};

/// Stands for one image in a question or an answer.
pub const IMAGE_MARK: &str = "<image>";
/// Text of the token before an image's placeholders.
pub const IMAGE_START: &str = "<img>";
/// Text of the token after an image's placeholders.
pub const IMAGE_END: &str = "</img>";
/// Text of the placeholder token, one for each image embedding.
pub const IMAGE_CONTEXT: &str = "<IMG_CONTEXT>";

/// The question with `<image>` and a newline before it, if images are given, no history is given
/// (not even an empty one), and the question has no mark of its own.
pub fn insert_image_mark(question: &str, has_images: bool, history_given: bool) -> String {
    if has_images && !history_given && !question.contains(IMAGE_MARK) {
        format!("{IMAGE_MARK}\n{question}")
    } else {
        question.to_owned()
    }
}

/// A prompt whose `<image>` marks have become placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    /// The prompt.
    pub text: String,
    /// Placeholders put in: the sum over the images.
    pub image_tokens: usize,
    /// Marks beyond the number of images; they stay in the text as they are. Worth a warning.
    pub surplus_marks: usize,
}

/// Replaces one `<image>` mark for each entry of `placeholders_per_image` (tokens per tile times
/// tiles), first mark first, wherever in the prompt it stands: system message, questions or
/// answers.
///
/// # Errors
/// [`PromptError::ImageMarks`] if there are fewer marks than images.
pub fn expand_images(prompt: &str, placeholders_per_image: &[usize]) -> Result<Expanded, PromptError> {
    let marks = prompt.matches(IMAGE_MARK).count();
    let images = placeholders_per_image.len();
    let Some(surplus_marks) = marks.checked_sub(images) else {
        return Err(PromptError::ImageMarks { images, marks });
    };
    let image_tokens = placeholders_per_image.iter().sum::<usize>();
    let mut text = String::with_capacity(prompt.len() + image_tokens * IMAGE_CONTEXT.len() + images * IMAGE_END.len());
    let mut pieces = prompt.splitn(images + 1, IMAGE_MARK);
    text.push_str(pieces.next().unwrap_or_default());
    for (piece, &placeholders) in pieces.zip(placeholders_per_image) {
        text.push_str(IMAGE_START);
        text.push_str(&IMAGE_CONTEXT.repeat(placeholders));
        text.push_str(IMAGE_END);
        text.push_str(piece);
    }
    Ok(Expanded { text, image_tokens, surplus_marks })
}

/// A prompt as token ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPrompt {
    /// Token ids, in order.
    pub ids: Vec<u32>,
    /// Where image embeddings go: the runs of `<IMG_CONTEXT>` in `ids`, in order. One for each
    /// image that has placeholders, for `<img>` and `</img>` stand between any two.
    pub image_spans: Vec<Range<usize>>,
    /// Total length of `image_spans`.
    pub image_tokens: usize,
}

/// Token ids of an expanded prompt, checked against the number of image embeddings.
///
/// Without images (`expected_image_tokens` is 0) a literal `<IMG_CONTEXT>` is an ordinary token,
/// as in the reference, and there are no spans.
///
/// # Errors
/// [`PromptError::ImageTokens`] if images are given and the number of placeholders is another,
/// as happens when a user or an old answer contains the text `<IMG_CONTEXT>`;
/// [`PromptError::Encode`] if the tokenizer fails.
pub fn encode_prompt(
    tokenizer: &Tokenizer,
    expanded: &str,
    expected_image_tokens: usize,
) -> Result<EncodedPrompt, PromptError> {
    let ids = tokenizer.encode(expanded)?;
    if expected_image_tokens == 0 {
        return Ok(EncodedPrompt { ids, image_spans: Vec::new(), image_tokens: 0 });
    }
    let image_spans = runs_of(&ids, tokenizer.roles().image_context);
    let found = image_spans.iter().map(ExactSizeIterator::len).sum::<usize>();
    if found != expected_image_tokens {
        return Err(PromptError::ImageTokens { expected: expected_image_tokens, found });
    }
    Ok(EncodedPrompt { ids, image_spans, image_tokens: found })
}

/// The longest runs of `wanted` in `ids`.
fn runs_of(ids: &[u32], wanted: u32) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut runs = Vec::new();
    for run in ids.chunk_by(|a, b| a == b) {
        let end = start + run.len();
        if run[0] == wanted {
            runs.push(start..end);
        }
        start = end;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_inserted_only_without_history_and_without_a_mark() {
        assert_eq!(insert_image_mark("\nMô tả", true, false), "<image>\n\nMô tả");
        assert_eq!(insert_image_mark("Mô tả", false, false), "Mô tả");
        assert_eq!(insert_image_mark("Mô tả", true, true), "Mô tả");
        assert_eq!(insert_image_mark("Ảnh: <image>", true, false), "Ảnh: <image>");
        assert_eq!(insert_image_mark("", true, false), "<image>\n");
    }

    #[test]
    fn the_first_marks_are_replaced_and_the_rest_stay() {
        let expanded = expand_images("a<image>b<image>c<image>", &[2, 0]).unwrap();
        assert_eq!(expanded.text, "a<img><IMG_CONTEXT><IMG_CONTEXT></img>b<img></img>c<image>");
        assert_eq!((expanded.image_tokens, expanded.surplus_marks), (2, 1));
        let untouched = expand_images("<image> <image>", &[]).unwrap();
        assert_eq!((untouched.text.as_str(), untouched.surplus_marks), ("<image> <image>", 2));
        assert_eq!(expand_images("", &[]).unwrap().text, "");
    }

    #[test]
    fn a_mark_broken_by_another_mark_is_not_a_mark() {
        let expanded = expand_images("<im<image>age>", &[1]).unwrap();
        assert_eq!(expanded.text, "<im<img><IMG_CONTEXT></img>age>");
        assert!(expand_images("<im<image>age>", &[1, 1]).is_err());
    }

    #[test]
    fn too_few_marks_are_an_error_with_both_counts() {
        let error = expand_images("a<image>", &[1, 1, 1]).unwrap_err();
        assert!(matches!(error, PromptError::ImageMarks { images: 3, marks: 1 }));
        assert!(error.to_string().starts_with("3 image(s) given"));
    }

    #[test]
    fn runs_are_maximal() {
        assert_eq!(runs_of(&[7, 7, 1, 7, 2, 2], 7), [0..2, 3..4]);
        assert_eq!(runs_of(&[], 7), [] as [Range<usize>; 0]);
    }
}
