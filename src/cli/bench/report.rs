//! What `bench` prints.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::spread::Spread;
use super::workload::{Measured, Workload};
use crate::cli::args::BenchArgs;
use crate::cli::error::CliError;
use crate::cli::system;
use crate::engine::{Engine, Timings};
use crate::graph::Placement;
use crate::graph::onnx::Library;

/// What `bench --json` prints. Times are milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    package: String,
    precision: Precision,
    machine: Machine,
    library: String,
    placement: GraphPlacements,
    load: f64,
    /// Most memory the process had resident until the model was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    load_peak_memory_bytes: Option<u64>,
    new_tokens: u32,
    repeats: u32,
    workloads: Vec<WorkloadReport>,
    /// Median step of the `beams` workload over that of `greedy`, where both were measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    beam_step_ratio: Option<f64>,
}

/// What loading took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub milliseconds: f64,
    /// Most memory the process had resident, bytes, where the system tells.
    pub peak_memory: Option<u64>,
}

/// What the graphs compute in.
#[derive(Debug, Serialize)]
struct Precision {
    vision_encoder: String,
    projector: String,
    decoder: String,
}

/// Where the graphs run.
#[derive(Debug, Serialize)]
struct GraphPlacements {
    vision_encoder: Placement,
    projector: Placement,
    decoder: Placement,
}

#[derive(Debug, Serialize)]
struct Machine {
    #[serde(skip_serializing_if = "Option::is_none")]
    processor: Option<String>,
    threads: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_bytes: Option<u64>,
}

/// The stages of one workload.
#[derive(Debug, Serialize)]
struct WorkloadReport {
    name: String,
    num_beams: usize,
    /// Requests side by side; the stages are those of the last one.
    groups: usize,
    tiles: usize,
    prompt_tokens: usize,
    cached_tokens: usize,
    vision: Spread,
    projector: Spread,
    prefill: Spread,
    /// Prompt tokens that were not cached over the median prefill.
    prefill_tokens_per_second: f64,
    first_token: Spread,
    decode_step: Spread,
    steps_per_second: f64,
    /// Of all requests together.
    tokens_per_second: f64,
    total: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_memory_bytes: Option<u64>,
}

impl WorkloadReport {
    fn new(workload: &Workload, rounds: &[Measured]) -> Self {
        let stage = |stage: fn(&Timings) -> Duration| Spread::of(rounds.iter().map(|round| stage(&round.timings)));
        let first = rounds.first();
        let usage = first.map(|round| round.usage).unwrap_or_default();
        let groups = first.map_or(1, |round| round.groups);
        let prefill = stage(|timings| timings.prefill);
        let decode_step = Spread::of(rounds.iter().flat_map(|round| round.timings.steps.iter().copied()));
        let steps_per_second = 1e3 / decode_step.median;
        Self {
            name: workload.to_string(),
            num_beams: first.map_or(1, |round| round.num_beams),
            groups,
            tiles: usage.tiles,
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            vision: stage(|timings| timings.vision),
            projector: stage(|timings| timings.projector),
            prefill,
            prefill_tokens_per_second: (usage.prompt_tokens - usage.cached_tokens) as f64 / (prefill.median / 1e3),
            first_token: stage(|timings| timings.decode_image + timings.first_token),
            decode_step,
            steps_per_second,
            tokens_per_second: steps_per_second * groups as f64,
            total: Spread::of(rounds.iter().map(|round| round.total)),
            peak_memory_bytes: rounds.iter().filter_map(|round| round.peak_memory).max(),
        }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let beams = if self.num_beams == 1 { String::new() } else { format!(", {} beams", self.num_beams) };
        let groups = if self.groups == 1 { String::new() } else { format!(", {} requests side by side", self.groups) };
        let cached =
            if self.cached_tokens == 0 { String::new() } else { format!(", {} of them cached", self.cached_tokens) };
        writeln!(
            out,
            "\n{}: {} tiles, {} prompt tokens{cached}{beams}{groups}",
            self.name, self.tiles, self.prompt_tokens
        )?;
        writeln!(out, "  {:<14} {:>10} {:>10} {:>10}   milliseconds", "", "min", "median", "max")?;
        for (stage, spread) in [
            ("vision", self.vision),
            ("projector", self.projector),
            ("prefill", self.prefill),
            ("first token", self.first_token),
            ("decode step", self.decode_step),
            ("whole call", self.total),
        ] {
            if spread.max > 0.0 {
                writeln!(out, "  {stage:<14} {:>10.1} {:>10.1} {:>10.1}", spread.min, spread.median, spread.max)?;
            }
        }
        write!(
            out,
            "  prefill {:.0} tokens/s, {:.2} steps/s, {:.2} tokens/s",
            self.prefill_tokens_per_second, self.steps_per_second, self.tokens_per_second
        )?;
        end_with_memory(out, self.peak_memory_bytes)
    }
}

/// Ends a line with the most memory that was resident, where the system tells.
fn end_with_memory(out: &mut impl Write, peak: Option<u64>) -> std::io::Result<()> {
    match peak {
        Some(peak) => writeln!(out, ", peak memory {}", system::bytes_text(peak)),
        None => writeln!(out),
    }
}

impl Report {
    /// The report of all workloads with their rounds.
    pub(super) fn new<'a>(
        package: &Path,
        args: &BenchArgs,
        load: Load,
        engine: &Engine,
        measured: impl Iterator<Item = (&'a Workload, &'a Vec<Measured>)>,
    ) -> Result<Self, CliError> {
        let options = args.runtime.library_options();
        let library = Library::load(&options)?;
        let workloads: Vec<_> = measured.map(|(workload, rounds)| WorkloadReport::new(workload, rounds)).collect();
        let step = |workload: Workload| {
            let name = workload.to_string();
            workloads.iter().find(|report| report.name == name).map(|report| report.decode_step.median)
        };
        let graphs = &engine.manifest().graphs;
        let precision = |variants: &[crate::package::GraphVariant]| {
            variants.first().map(|variant| variant.precision.clone()).unwrap_or_default()
        };
        let [vision_encoder, projector, decoder] = engine.placements().clone().map(|(_, placement)| placement);
        Ok(Self {
            package: package.display().to_string(),
            precision: Precision {
                vision_encoder: precision(&graphs.vision_encoder),
                projector: precision(&graphs.projector),
                decoder: precision(&graphs.decoder),
            },
            machine: Machine {
                processor: system::processor(),
                threads: options.threads(),
                memory_bytes: system::memory().map(|(total, _)| total),
            },
            library: format!("ONNX Runtime {}", library.version()),
            placement: GraphPlacements { vision_encoder, projector, decoder },
            load: load.milliseconds,
            load_peak_memory_bytes: load.peak_memory,
            new_tokens: args.new_tokens,
            repeats: args.repeats,
            beam_step_ratio: step(Workload::Beams).zip(step(Workload::Greedy)).map(|(beams, greedy)| beams / greedy),
            workloads,
        })
    }

    /// Prints the report for people.
    pub(super) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Precision { vision_encoder, projector, decoder } = &self.precision;
        writeln!(
            out,
            "package    {} (vision {vision_encoder}, projector {projector}, decoder {decoder})",
            self.package
        )?;
        let Machine { processor, threads, .. } = &self.machine;
        writeln!(out, "processor  {}, {threads} threads", processor.as_deref().unwrap_or("unknown"))?;
        writeln!(out, "library    {}", self.library)?;
        writeln!(out, "decoder    {}", self.placement.decoder)?;
        write!(out, "load       {:.1} s", self.load / 1e3)?;
        end_with_memory(out, self.load_peak_memory_bytes)?;
        writeln!(
            out,
            "rounds     {}, after one that is not counted; {} new tokens a call",
            self.repeats, self.new_tokens
        )?;
        for workload in &self.workloads {
            workload.print(out)?;
        }
        if let Some(ratio) = self.beam_step_ratio {
            writeln!(out, "\na step of beams costs {ratio:.2} times a greedy step")?;
        }
        Ok(())
    }
}
