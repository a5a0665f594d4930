//! A chat completion request.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::ApiError;
use super::content::{Conversation, conversation};
use super::fields::{Fields, whole};
use crate::generate::EarlyStopping;
use crate::preprocess::Orientation;
use crate::settings::{GenerationChoices, ImageChoices};

/// Names of fields that change nothing for this server: who asks, and how the request is kept or billed elsewhere.
pub(in crate::serve) const WITHOUT_EFFECT: [&str; 6] =
    ["user", "metadata", "service_tier", "safety_identifier", "prompt_cache_key", "request_id"];

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ChatRequest {
    /// Name of the model.
    pub model: Option<String>,
    /// What is asked.
    pub conversation: Conversation,
    /// Whether the answer comes in pieces.
    pub stream: bool,
    /// Whether the last piece tells the usage.
    pub include_usage: bool,
    /// Whether the answer comes with its token ids.
    pub return_token_ids: bool,
    /// Whether it comes with log-probabilities, and of how many of the likeliest tokens at each place.
    pub logprobs: Option<usize>,
    /// Preset to start from.
    pub preset: Option<String>,
    /// How to generate.
    pub generation: GenerationChoices,
    /// How to read images.
    pub images: ImageChoices,
    /// Texts that end the answer.
    pub stop: Vec<String>,
}

impl ChatRequest {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// 400 with the field at fault: one that is unknown, of another type, or that cannot be honoured.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::new(object(body)?, "")?;
        let model = fields.text(&["model"])?;
        let messages = fields.take(&["messages"])?.map(|(_, messages)| messages);
        let messages = messages.ok_or_else(|| ApiError::field("messages", "a request needs messages"))?;
        let conversation = conversation(messages)?;
        let stream = fields.flag(&["stream"])?.unwrap_or(false);
        let include_usage = stream_options(&mut fields, stream)?;
        let return_token_ids = fields.flag(&["return_token_ids"])?.unwrap_or(false);
        let logprobs = logprobs(&mut fields)?;
        let preset = fields.text(&["preset"])?;
        let generation = generation(&mut fields)?;
        let images = images(&mut fields)?;
        let stop = stop(&mut fields)?;
        refuse_others(&mut fields)?;
        fields.finish()?;
        Ok(Self {
            model,
            conversation,
            stream,
            include_usage,
            return_token_ids,
            logprobs,
            preset,
            generation,
            images,
            stop,
        })
    }
}

/// The JSON of a body.
///
/// # Errors
/// 400 when it is none.
pub(super) fn object(body: &[u8]) -> Result<Value, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is not JSON: {error}"))
    })
}

fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some((path, value)) = fields.take(&["stream_options"])? else { return Ok(false) };
    if !stream {
        return Err(ApiError::field(path, "stream_options needs stream: true"));
    }
    let mut options = Fields::new(value, path)?;
    let include_usage = options.flag(&["include_usage"])?.unwrap_or(false);
    options.neutral("include_obfuscation", |value| value == false, "leave it out")?;
    options.neutral("continuous_usage_stats", |value| value == false, "usage comes once, at the end")?;
    options.finish()?;
    Ok(include_usage)
}

/// Most tokens whose log-probabilities are told at each place.
pub(in crate::serve) const MOST_TOP_LOGPROBS: u64 = 20;

/// `logprobs`, and how many `top_logprobs` with them.
fn logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let wanted = fields.flag(&["logprobs"])?.unwrap_or(false);
    let count = |value: &Value| whole(value).filter(|count| *count <= MOST_TOP_LOGPROBS).map(|count| count as usize);
    let expected = format!("a whole number from 0 to {MOST_TOP_LOGPROBS}");
    match (wanted, fields.read(&["top_logprobs"], &expected, count)?.unwrap_or(0)) {
        (true, top) => Ok(Some(top)),
        (false, 0) => Ok(None),
        (false, _) => Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs: true")),
    }
}

fn generation(fields: &mut Fields) -> Result<GenerationChoices, ApiError> {
    let num_return_sequences = fields.count(&["n", "num_return_sequences"])?;
    let num_beams = num_beams(fields, num_return_sequences)?;
    let early = |value: &Value| match value {
        Value::Bool(true) => Some(EarlyStopping::True),
        Value::Bool(false) => Some(EarlyStopping::False),
        value => value.as_str()?.parse().ok(),
    };
    let mut choices = GenerationChoices {
        num_beams,
        num_return_sequences,
        repetition_penalty: fields.number(&["repetition_penalty", "repeat_penalty"])?,
        length_penalty: fields.number(&["length_penalty"])?,
        early_stopping: fields.read(&["early_stopping"], "true, false or \"never\"", early)?,
        no_repeat_ngram_size: fields.count(&["no_repeat_ngram_size"])?,
        max_new_tokens: fields.count(&["max_tokens", "max_completion_tokens", "max_new_tokens"])?,
        min_new_tokens: fields.count(&["min_tokens", "min_new_tokens"])?,
        temperature: fields.number(&["temperature"])?,
        // Other servers write -1 for what is 0 here: all tokens.
        top_k: fields.read(&["top_k"], "a whole number of 0 or more, or -1", |value| match value.as_i64() {
            Some(-1) => Some(0),
            _ => whole(value).and_then(|number| usize::try_from(number).ok()),
        })?,
        top_p: fields.number(&["top_p"])?,
        min_p: fields.number(&["min_p"])?,
        // A seed may be negative elsewhere; any 64 bits will do.
        seed: fields.read(&["seed"], "a whole number", |value| {
            whole(value).or_else(|| value.as_i64().map(i64::cast_unsigned))
        })?,
    };
    drop_neutral_filters(&mut choices);
    Ok(choices)
}

/// Clients send the neutral values of sampling, and a seed, whatever they ask for: these ask for no sampling and are no
/// conflict with a search, which gives the same answer each time anyway.
fn drop_neutral_filters(choices: &mut GenerationChoices) {
    let asks_for_sampling = choices.temperature.is_some_and(|temperature| temperature != 0.0);
    if asks_for_sampling {
        return;
    }
    choices.top_k = choices.top_k.filter(|top_k| *top_k != 0);
    choices.top_p = choices.top_p.filter(|top_p| top_p.total_cmp(&1.0).is_ne());
    choices.min_p = choices.min_p.filter(|min_p| *min_p != 0.0);
    if choices.top_k.is_none() && choices.top_p.is_none() && choices.min_p.is_none() {
        choices.seed = None;
    }
}

/// `num_beams`, or `use_beam_search` with `best_of` or `n` as other servers take it.
fn num_beams(fields: &mut Fields, answers: Option<usize>) -> Result<Option<usize>, ApiError> {
    let num_beams = fields.count(&["num_beams"])?;
    let best_of = fields.count(&["best_of"])?;
    let use_beam_search = fields.flag(&["use_beam_search"])?;
    match (num_beams, use_beam_search) {
        (Some(beams), Some(true)) if best_of.is_some_and(|best_of| best_of != beams) => {
            Err(ApiError::field("best_of", format!("best_of is the number of beams, and num_beams is {beams}")))
        }
        (Some(beams), Some(false)) if beams != 1 => {
            Err(ApiError::field("use_beam_search", format!("use_beam_search is false, and num_beams is {beams}")))
        }
        (None, Some(true)) => match best_of.or(answers) {
            Some(beams) => Ok(Some(beams)),
            None => Err(ApiError::field("use_beam_search", "say how many beams: num_beams, or best_of")),
        },
        (num_beams, _) => {
            let wanted = num_beams.or(answers).unwrap_or(1);
            if use_beam_search != Some(true) && best_of.is_some_and(|best_of| best_of != wanted) {
                return Err(ApiError::field("best_of", "best_of is for beam search; pass use_beam_search: true"));
            }
            // A preset may search with beams.
            Ok(num_beams.or((use_beam_search == Some(false)).then_some(1)))
        }
    }
}

/// The choices for images.
///
/// # Errors
/// The field that cannot be honoured.
pub(super) fn images(fields: &mut Fields) -> Result<ImageChoices, ApiError> {
    let mut processor = match fields.take(&["mm_processor_kwargs"])? {
        Some((path, value)) => Fields::new(value, path)?,
        None => Fields::new(Value::Object(Map::new()), "mm_processor_kwargs")?,
    };
    let orientation = |value: &Value| match value.as_str()? {
        "auto" => Some(Orientation::Auto),
        "ignore" => Some(Orientation::Ignore),
        _ => None,
    };
    let choices = ImageChoices {
        max_tiles: either(tiles(fields, MAX_TILES_NAMES)?, tiles(&mut processor, MAX_TILES_NAMES)?, "max_tiles")?,
        min_tiles: either(tiles(fields, MIN_TILES_NAMES)?, tiles(&mut processor, MIN_TILES_NAMES)?, "min_tiles")?,
        thumbnail: either(fields.flag(&["use_thumbnail"])?, processor.flag(&["use_thumbnail"])?, "use_thumbnail")?,
        orientation: fields.read(&["orientation"], "\"auto\" or \"ignore\"", orientation)?,
    };
    processor.finish()?;
    Ok(choices)
}

const MAX_TILES_NAMES: &[&str] = &["max_tiles", "max_dynamic_patch"];
const MIN_TILES_NAMES: &[&str] = &["min_tiles", "min_dynamic_patch"];

fn tiles(fields: &mut Fields, names: &[&'static str]) -> Result<Option<u32>, ApiError> {
    let most = u64::from(crate::preprocess::MAX_TILES);
    fields.read(names, &format!("a whole number from 1 to {most}"), |value| {
        whole(value).filter(|tiles| (1..=most).contains(tiles)).map(|tiles| tiles as u32)
    })
}

/// What a setting is that may stand in two places.
fn either<T: PartialEq>(first: Option<T>, second: Option<T>, name: &str) -> Result<Option<T>, ApiError> {
    match (first, second) {
        (Some(first), Some(second)) if first != second => {
            Err(ApiError::field(name, format!("{name} and mm_processor_kwargs say different things")))
        }
        (first, second) => Ok(first.or(second)),
    }
}

/// Most stop texts, and most characters of one.
pub(in crate::serve) const MAX_STOPS: usize = 16;
pub(in crate::serve) const MAX_STOP_LENGTH: usize = 256;

/// A text or a list of them.
fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let texts = |value: &Value| match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(texts) => texts.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    let stop = fields.read(&["stop"], "a string or a list of strings", texts)?.unwrap_or_default();
    if stop.iter().any(String::is_empty) {
        return Err(ApiError::field("stop", "an empty text would end every answer at once"));
    }
    // All are looked for in every token that a search considers.
    if stop.len() > MAX_STOPS {
        return Err(ApiError::field("stop", format!("found {} texts; supported: {MAX_STOPS} at most", stop.len())));
    }
    if let Some(length) = stop.iter().map(|text| text.chars().count()).find(|length| *length > MAX_STOP_LENGTH) {
        let message = format!("found a text of {length} characters; supported: {MAX_STOP_LENGTH} at most");
        return Err(ApiError::field("stop", message));
    }
    Ok(stop)
}

/// Fields of the API that only pass where they change nothing.
fn refuse_others(fields: &mut Fields) -> Result<(), ApiError> {
    let zero = |value: &Value| value.as_f64() == Some(0.0);
    let off = |value: &Value| value == false;
    let on = |value: &Value| value == true;
    let empty =
        |value: &Value| value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
    fields.neutral("frequency_penalty", zero, "use repetition_penalty")?;
    fields.neutral("presence_penalty", zero, "use repetition_penalty")?;
    fields.neutral("logit_bias", empty, "leave it out")?;
    fields.neutral("tools", empty, "the model calls no tools")?;
    fields.neutral("functions", empty, "the model calls no functions")?;
    fields.neutral("tool_choice", |value| value == "none" || value == "auto", "the model calls no tools")?;
    fields.neutral("parallel_tool_calls", Value::is_boolean, "the model calls no tools")?;
    let is_text = |value: &Value| value["type"] == "text";
    fields.neutral("response_format", is_text, "ask for the format in the question")?;
    let text_only = |value: &Value| value.as_array().is_some_and(|kinds| kinds.iter().all(|kind| kind == "text"));
    fields.neutral("modalities", text_only, "answers are text")?;
    fields.neutral("store", off, "nothing is stored")?;
    fields.neutral("echo", off, "leave it out")?;
    fields.neutral("ignore_eos", off, "use min_new_tokens")?;
    fields.neutral("skip_special_tokens", on, "answers are text without special tokens")?;
    fields.neutral("add_generation_prompt", on, "the last message is a question")?;
    fields.neutral("continue_final_message", off, "the last message is a question")?;
    WITHOUT_EFFECT.iter().try_for_each(|name| fields.neutral(name, |_| true, ""))
}
