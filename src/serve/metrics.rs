//! Counters for Prometheus.

use std::time::Duration;

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use crate::engine::Completion;
use crate::generate::FinishReason;

/// Everything the server counts.
pub(super) struct Metrics {
    registry: Registry,
    /// Responses by status.
    pub(super) requests: IntCounterVec,
    /// Requests that were taken on and have not ended.
    pub(super) in_progress: IntGauge,
    /// Requests among them that wait for rows or memory.
    pub(super) waiting: IntGauge,
    /// Bytes the cache takes.
    pub(super) cache: IntGauge,
    /// Bytes the cache may take.
    pub(super) cache_budget: IntGauge,
    /// Images that were decoded, or found decoded.
    pub(super) images: IntCounter,
    /// Those that were found.
    pub(super) cached_images: IntCounter,
    /// Tiles that went through the vision encoder.
    pub(super) tiles_encoded: IntCounter,
    tiles: IntCounter,
    prompt_tokens: IntCounter,
    cached_tokens: IntCounter,
    completion_tokens: IntCounter,
    first_token: Histogram,
    inter_token: Histogram,
    duration: Histogram,
}

impl Metrics {
    /// All at zero.
    ///
    /// # Errors
    /// When a name is taken twice, which a test would find.
    pub(super) fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("vintern_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(format!("vintern_{name}"), help).buckets(buckets.to_vec());
            let histogram = Histogram::with_opts(options)?;
            registry.register(Box::new(histogram.clone()))?;
            Ok::<_, prometheus::Error>(histogram)
        };
        let requests = Opts::new("vintern_requests_total", "Responses to chat completion requests, by status");
        let requests = IntCounterVec::new(requests, &["status"])?;
        registry.register(Box::new(requests.clone()))?;
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("vintern_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let seconds = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0];
        let steps = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        Ok(Self {
            requests,
            in_progress: gauge("requests_in_progress", "Requests taken on that have not ended")?,
            waiting: gauge(
                "requests_waiting",
                "Requests that wait for their turn, or for rows or memory of the cache",
            )?,
            cache: gauge("cache_bytes", "Memory the cache of keys and values takes")?,
            cache_budget: gauge("cache_budget_bytes", "Memory the cache may take")?,
            images: counter("images_total", "Images of requests, decoded or cached")?,
            cached_images: counter("cached_images_total", "Images of requests whose tiles were still in the cache")?,
            tiles_encoded: counter("tiles_encoded_total", "Tiles that went through the vision encoder")?,
            tiles: counter("tiles_total", "Tiles of all images of finished requests, encoded or cached")?,
            prompt_tokens: counter("prompt_tokens_total", "Prompt tokens of finished requests")?,
            cached_tokens: counter("cached_prompt_tokens_total", "Prompt tokens that were still in the cache")?,
            completion_tokens: counter("completion_tokens_total", "Generated tokens of the best answers")?,
            first_token: histogram(
                "time_to_first_token_seconds",
                "From the engine's queue to the first token",
                &seconds,
            )?,
            inter_token: histogram("inter_token_seconds", "One decode step", &steps)?,
            duration: histogram("request_duration_seconds", "Finished requests, images included", &seconds)?,
            registry,
        })
    }

    /// Counts a finished request; one that was given up is none.
    pub(super) fn finished(&self, completion: &Completion) {
        if completion.answers.iter().any(|answer| answer.finish == FinishReason::Cancelled) {
            return;
        }
        let (usage, timings) = (completion.usage, &completion.timings);
        for (counter, count) in [
            (&self.tiles, usage.tiles),
            (&self.prompt_tokens, usage.prompt_tokens),
            (&self.cached_tokens, usage.cached_tokens),
            (&self.completion_tokens, usage.completion_tokens),
        ] {
            counter.inc_by(count as u64);
        }
        self.first_token.observe(timings.first_token.as_secs_f64());
        timings.steps.iter().map(Duration::as_secs_f64).for_each(|step| self.inter_token.observe(step));
        self.duration.observe(timings.total.as_secs_f64());
    }

    /// The text format of Prometheus.
    ///
    /// # Errors
    /// What the encoder says.
    pub(super) fn text(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}
