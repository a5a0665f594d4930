//! What commands print: lines on stderr, the JSON object and the summary of a call.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use crate::engine::{Completion, Engine, Timings, Usage};
use crate::generate::FinishReason;
use crate::graph::Placement;

/// What `chat --json` prints.
#[derive(Debug, Serialize)]
pub(super) struct ChatOutput {
    text: String,
    token_ids: Vec<u32>,
    finish_reason: &'static str,
    sequence_score: Option<f32>,
    usage: Usage,
    timings_ms: TimingsMs,
    tokens_per_second: f64,
    provider: ProviderNames,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
}

/// Milliseconds of each stage.
#[derive(Debug, Serialize)]
pub(super) struct TimingsMs {
    decode_image: f64,
    vision: f64,
    projector: f64,
    prefill: f64,
    decode: f64,
    total: f64,
}

/// The execution provider most nodes of a graph were given.
#[derive(Debug, Serialize)]
pub(super) struct ProviderNames {
    vision: String,
    projector: String,
    decoder: String,
}

impl ChatOutput {
    /// The object of a finished call; `seed` if it sampled.
    pub(super) fn new(completion: &Completion, engine: &Engine, seed: Option<u64>) -> Self {
        let answer = completion.answers.first();
        Self {
            text: answer.map(|answer| answer.text.clone()).unwrap_or_default(),
            token_ids: answer.map(|answer| answer.token_ids.clone()).unwrap_or_default(),
            finish_reason: answer.map_or("cancelled", |answer| finish_reason(answer.finish)),
            sequence_score: answer.and_then(|answer| answer.score),
            usage: completion.usage,
            timings_ms: TimingsMs::of(&completion.timings),
            tokens_per_second: tokens_per_second(&completion.timings),
            provider: ProviderNames::of(engine),
            seed,
        }
    }
}

impl ProviderNames {
    fn of(engine: &Engine) -> Self {
        let [vision, projector, decoder] =
            engine.placements().each_ref().map(|(_, placement)| provider_name(placement));
        Self { vision, projector, decoder }
    }
}

/// The name of a finish reason in JSON.
pub(super) fn finish_reason(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Eos | FinishReason::StopRule => "stop",
        FinishReason::Length => "length",
        FinishReason::Cancelled => "cancelled",
    }
}

/// One line on stderr. That nobody reads it is no reason to fail.
pub(super) fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Counts and durations of a call in two lines; `encoded` is the number of tiles that went through the vision encoder.
pub(super) fn summary(completion: &Completion, encoded: usize, seed: Option<u64>) -> String {
    let Usage { prompt_tokens, image_tokens, tiles, completion_tokens, cached_tokens } = completion.usage;
    let finish = completion.answers.first().map_or("cancelled", |answer| finish_reason(answer.finish));
    let seed = seed.map_or(String::new(), |seed| format!(", seed {seed}"));
    let times = TimingsMs::of(&completion.timings);
    format!(
        "prompt: {prompt_tokens} tokens, {cached_tokens} of them cached; {image_tokens} from {tiles} tiles, {encoded} \
         of them encoded; answer: {completion_tokens} tokens ({finish}){seed}\n\
         time: {:.1} ms image, {:.1} vision, {:.1} projector, {:.1} prefill, {:.1} decode ({:.1} tokens/s), {:.1} total",
        times.decode_image,
        times.vision,
        times.projector,
        times.prefill,
        times.decode,
        tokens_per_second(&completion.timings),
        times.total
    )
}

impl TimingsMs {
    fn of(timings: &Timings) -> Self {
        Self {
            decode_image: milliseconds(timings.decode_image),
            vision: milliseconds(timings.vision),
            projector: milliseconds(timings.projector),
            prefill: milliseconds(timings.prefill),
            decode: milliseconds(timings.decode),
            total: milliseconds(timings.total),
        }
    }
}

fn tokens_per_second(timings: &Timings) -> f64 {
    let steps = timings.steps.len();
    if steps == 0 { 0.0 } else { steps as f64 / timings.decode.as_secs_f64() }
}

/// `cpu` of `CPUExecutionProvider`.
pub(super) fn provider_name(placement: &Placement) -> String {
    let name = placement.main_provider().unwrap_or("unknown");
    name.strip_suffix("ExecutionProvider").unwrap_or(name).to_lowercase()
}

/// Milliseconds, to the microsecond.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Prints an object as JSON on stdout.
///
/// # Errors
/// When stdout cannot be written.
pub(super) fn print_json(value: &impl Serialize) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, value)?;
    writeln!(stdout)
}
