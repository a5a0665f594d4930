//! Messages: turns of text, and images in their places.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use url::Url;

use super::ApiError;
use super::fields::{Fields, found, shortened};
use crate::prompt::{IMAGE_MARK, Turn};

/// Base64 with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, decoding());

const fn decoding() -> GeneralPurposeConfig {
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true)
}

/// A conversation as the engine takes it, but for its images, which are files or URLs yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The system message, where the request has one.
    pub system: Option<String>,
    /// Turns before the question; `<image>` marks say where images stand.
    pub history: Vec<Turn>,
    /// The question.
    pub question: String,
    /// Images in the order of their marks.
    pub images: Vec<ImageFile>,
}

/// An image of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Where it stands, such as `messages[0].content[1].image_url`.
    pub path: String,
    /// Where its file is.
    pub source: ImageSource,
}

/// Where the file of an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// Here: its bytes.
    Bytes(Vec<u8>),
    /// At another server, by http or https.
    Url(Url),
}

/// One message.
struct Message {
    path: String,
    role: String,
    text: String,
    /// Images it shows.
    shown: usize,
}

/// Reads `messages`: a system message or none, then questions and answers in turn, a question last.
///
/// # Errors
/// The first message that does not fit, an image that cannot be had, or a mark that is for no image of its message.
pub(super) fn conversation(messages: Value) -> Result<Conversation, ApiError> {
    let Value::Array(messages) = messages else {
        return Err(ApiError::field("messages", format!("expected a list, found {}", found(&messages))));
    };
    let mut conversation = Conversation::default();
    let (mut open, mut strayed) = (None, None);
    for (index, value) in messages.into_iter().enumerate() {
        let message = message(value, format!("messages[{index}]"), &mut conversation.images)?;
        if message.text.matches(IMAGE_MARK).count() != message.shown {
            strayed.get_or_insert_with(|| format!("{}.content", message.path));
        }
        match (message.role.as_str(), open.take()) {
            ("system" | "developer", None) if index == 0 => conversation.system = Some(message.text),
            ("user", None) => open = Some(message.text),
            ("assistant", Some(question)) => {
                conversation.history.push(Turn { question, answer: Some(message.text) });
            }
            (role, question) => {
                let expected = match (index, question) {
                    (_, Some(_)) => "assistant: the message before it is a question",
                    (0, None) => "system or user: it is the first message",
                    (_, None) => "user: the message before it is an answer",
                };
                let problem = format!("expected the role {expected}; found {:?}", shortened(role));
                return Err(ApiError::field(format!("{}.role", message.path), problem));
            }
        }
    }
    // The first mark of all gets the first image, whichever message shows it.
    if let Some(path) = strayed.filter(|_| !conversation.images.is_empty()) {
        let message =
            format!("the text has {IMAGE_MARK} marks, and the images are shown elsewhere; leave the marks out");
        return Err(ApiError::field(path, message));
    }
    conversation.question =
        open.ok_or_else(|| ApiError::field("messages", "the last message must be a question, of role user"))?;
    Ok(conversation)
}

fn message(value: Value, path: String, images: &mut Vec<ImageFile>) -> Result<Message, ApiError> {
    let mut fields = Fields::new(value, &path)?;
    let role = fields.text(&["role"])?;
    let role = role.ok_or_else(|| ApiError::field(fields.path("role"), "a message needs a role"))?;
    let (content_path, before) = (fields.path("content"), images.len());
    let text = match fields.take(&["content"])? {
        Some((_, Value::String(text))) => text,
        Some((_, Value::Array(parts))) => parts_of(parts, &content_path, role == "user", images)?,
        Some((_, other)) => {
            let message = format!("expected a string or a list of parts, found {}", found(&other));
            return Err(ApiError::field(content_path, message));
        }
        None => return Err(ApiError::field(content_path, "a message needs content")),
    };
    fields.text(&["name"])?;
    fields.neutral("refusal", |_| false, "answers are text")?;
    let empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    fields.neutral("tool_calls", empty, "the model calls no tools")?;
    fields.finish()?;
    Ok(Message { path, role, text, shown: images.len() - before })
}

/// The text of a list of parts. An image becomes a mark, parted from its neighbours by line breaks: an image before a
/// question makes the prompt of the model card. Where the texts hold as many marks as there are images, these say where the
/// images stand.
fn parts_of(parts: Vec<Value>, path: &str, may_show: bool, images: &mut Vec<ImageFile>) -> Result<String, ApiError> {
    let (mut texts, mut with_marks, before) = (Vec::new(), Vec::new(), images.len());
    for (index, part) in parts.into_iter().enumerate() {
        let mut fields = Fields::new(part, format!("{path}[{index}]"))?;
        let kind = fields.text(&["type"])?.unwrap_or_default();
        match kind.as_str() {
            "text" => {
                let text = fields.text(&["text"])?;
                let text = text.ok_or_else(|| ApiError::field(fields.path("text"), "a text part needs its text"))?;
                with_marks.push(text.clone());
                texts.push(text);
            }
            "image_url" if may_show => {
                let value = fields.take(&["image_url"])?;
                let (path, value) = value
                    .ok_or_else(|| ApiError::field(fields.path("image_url"), "an image part needs its image_url"))?;
                images.push(image(value, path)?);
                with_marks.push(IMAGE_MARK.to_owned());
            }
            "image_url" => {
                return Err(ApiError::field(fields.path("type"), "only messages of role user show images"));
            }
            kind => {
                let message = format!("expected text or image_url, found {:?}", shortened(kind));
                return Err(ApiError::field(fields.path("type"), message));
            }
        }
        fields.finish()?;
    }
    let text = texts.join("\n");
    let (shown, marks) = (images.len() - before, text.matches(IMAGE_MARK).count());
    match (shown, marks) {
        (0, _) => Ok(text),
        (_, 0) => Ok(with_marks.join("\n")),
        (shown, marks) if shown == marks => Ok(text),
        (shown, marks) => {
            let message = format!(
                "the text has {marks} {IMAGE_MARK} mark(s) for {shown} image(s); write one for each image, or none"
            );
            Err(ApiError::field(path, message))
        }
    }
}

/// `{"url": "data:image/png;base64,…", "detail": "auto"}`, or the URL alone. The detail is looked at and changes nothing: how
/// many tiles an image becomes is `max_tiles`.
///
/// # Errors
/// When it is no URL, or one of a kind that no image is to be had from.
pub(super) fn image(value: Value, path: String) -> Result<ImageFile, ApiError> {
    let url = match value {
        Value::String(url) => url,
        value => {
            let mut fields = Fields::new(value, &path)?;
            let url = fields.text(&["url"])?;
            let url = url.ok_or_else(|| ApiError::field(fields.path("url"), "an image needs its URL"))?;
            let details = ["auto", "low", "high", "original"];
            fields.read(&["detail"], "auto, low or high", |value| {
                value.as_str().filter(|detail| details.contains(detail)).map(|_| ())
            })?;
            fields.neutral("format", Value::is_string, "the format is read off the file")?;
            fields.finish()?;
            url
        }
    };
    let Some(data) = url.strip_prefix("data:") else {
        let remote = Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let expected = || {
            let found = shortened(&url);
            format!("expected a data URL (data:image/png;base64,…), or an http or https URL; found {found:?}")
        };
        let url = remote.ok_or_else(|| ApiError::field(&path, expected()))?;
        return Ok(ImageFile { path, source: ImageSource::Url(url) });
    };
    let Some((kind, payload)) = data.split_once(',') else {
        return Err(ApiError::field(path, "the data URL has no comma before its data"));
    };
    if !kind.to_ascii_lowercase().ends_with(";base64") {
        return Err(ApiError::field(path, "the data URL is not base64: expected data:image/…;base64,…"));
    }
    let payload: String = payload.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let bytes = BASE64
        .decode(payload)
        .map_err(|error| ApiError::field(path.clone(), format!("the data of the URL is not base64: {error}")))?;
    Ok(ImageFile { path, source: ImageSource::Bytes(bytes) })
}
