//! The JSON object `chat --json` prints.

use std::time::Duration;

use serde::Serialize;

use crate::engine::{Completion, Engine, Usage};
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
        let timings = &completion.timings;
        let steps = timings.steps.len();
        Self {
            text: answer.map(|answer| answer.text.clone()).unwrap_or_default(),
            token_ids: answer.map(|answer| answer.token_ids.clone()).unwrap_or_default(),
            finish_reason: answer.map_or("cancelled", |answer| finish_reason(answer.finish)),
            sequence_score: answer.and_then(|answer| answer.score),
            usage: completion.usage,
            timings_ms: TimingsMs {
                decode_image: milliseconds(timings.decode_image),
                vision: milliseconds(timings.vision),
                projector: milliseconds(timings.projector),
                prefill: milliseconds(timings.prefill),
                decode: milliseconds(timings.decode),
                total: milliseconds(timings.total),
            },
            tokens_per_second: if steps == 0 { 0.0 } else { steps as f64 / timings.decode.as_secs_f64() },
            provider: ProviderNames::of(engine),
            seed,
        }
    }
}

impl ProviderNames {
    fn of(engine: &Engine) -> Self {
        let [vision, projector] = engine.model().vision.placements();
        let decoder = engine.model().decoder.placement();
        Self { vision: provider_name(vision), projector: provider_name(projector), decoder: provider_name(decoder) }
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
    use std::io::Write as _;
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, value)?;
    writeln!(stdout)
}
