//! `vintern bench`: the stages of a call on this machine, greedy and with beams in turn.

use std::io::Write;
use std::time::{Duration, Instant};

use image::RgbImage;
use serde::Serialize;

use super::args::BenchArgs;
use super::error::CliError;
use super::output::{milliseconds, print_json, provider_name};
use super::progress::Progress;
use super::session::load_engine;
use super::settings::check_beams;
use super::system;
use crate::engine::{Completion, Engine, EngineError, Event, Request, TiledImage, Timings};
use crate::generate::{BeamSearch, EarlyStopping, GenerationSettings, Strategy};
use crate::graph::Interrupt;
use crate::package::Package;
use crate::preprocess::TilingOptions;

const QUESTION: &str = "Mô tả hình ảnh một cách chi tiết.";

/// What `bench --json` prints. Times are milliseconds.
#[derive(Debug, Serialize)]
struct Report {
    package: String,
    processor: Option<String>,
    provider: String,
    load: f64,
    tiles: usize,
    prompt_tokens: usize,
    new_tokens: u32,
    repeats: u32,
    greedy: Workload,
    beams: Workload,
    /// Median beam step over median greedy step.
    beam_step_ratio: f64,
    peak_memory_bytes: Option<u64>,
}

/// The stages of one kind of call.
#[derive(Debug, Serialize)]
struct Workload {
    num_beams: u32,
    vision: Spread,
    projector: Spread,
    prefill: Spread,
    prefill_tokens_per_second: f64,
    decode_step: Spread,
    steps_per_second: f64,
    total: Spread,
}

/// Milliseconds over the counted calls.
#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut values: Vec<f64> = durations.into_iter().map(milliseconds).collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let last = values.len().saturating_sub(1);
        Self { min: at(0), median: f64::midpoint(at(last / 2), at(last.div_ceil(2))), max: at(last) }
    }
}

/// Runs the command.
///
/// # Errors
/// When the model cannot be loaded or a call fails.
pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    check_beams(args.num_beams as usize)?;
    let progress = Progress::new();
    let started = Instant::now();
    let package = Package::open(&args.model)?;
    let mut engine = load_engine(&package, &args.runtime, &args.runtime.providers()?, &progress)?;
    let load = milliseconds(started.elapsed());
    let image = synthetic_image(&engine, args.tiles)?;
    let strategies = [Strategy::Greedy, beam_search(args.num_beams)];
    let mut calls: [Vec<Completion>; 2] = [Vec::new(), Vec::new()];
    for repeat in 0..=args.repeats {
        for (strategy, calls) in strategies.iter().zip(&mut calls) {
            let completion = call(&mut engine, &image, strategy, args, &progress)?;
            if repeat > 0 {
                calls.push(completion);
            }
        }
    }
    let prompt_tokens = calls[0].first().map_or(0, |completion| completion.usage.prompt_tokens);
    let [greedy, beams] = [(1, &calls[0]), (args.num_beams, &calls[1])].map(|(beams, calls)| workload(beams, calls));
    let report = Report {
        package: args.model.display().to_string(),
        processor: system::processor(),
        provider: provider_name(engine.model().decoder.placement()),
        load,
        tiles: image.tiles().len(),
        prompt_tokens,
        new_tokens: args.new_tokens,
        repeats: args.repeats,
        beam_step_ratio: beams.decode_step.median / greedy.decode_step.median,
        greedy,
        beams,
        peak_memory_bytes: system::peak_resident(),
    };
    if args.json {
        print_json(&report)?;
    } else {
        print(&report, &mut std::io::stdout().lock())?;
    }
    Ok(())
}

fn beam_search(num_beams: u32) -> Strategy {
    Strategy::Beam(BeamSearch {
        num_beams: num_beams as usize,
        length_penalty: 1.0,
        early_stopping: EarlyStopping::False,
    })
}

/// An image of exactly `tiles` tiles: a smooth gradient, the same each time.
fn synthetic_image(engine: &Engine, tiles: u32) -> Result<TiledImage, CliError> {
    let tile_size = engine.manifest().architecture.image_size;
    let rows = (1..=tiles).filter(|rows| tiles.is_multiple_of(*rows) && rows * rows <= tiles).max().unwrap_or(1);
    let image = RgbImage::from_fn(tiles / rows * tile_size, rows * tile_size, |x, y| {
        image::Rgb([(x / 3) as u8, (y / 2) as u8, ((x + y) / 5) as u8])
    });
    let options = TilingOptions { tile_size, min_tiles: tiles, max_tiles: tiles, thumbnail: true };
    Ok(TiledImage::from_rgb(&image, &options).map_err(EngineError::from)?)
}

/// One whole call, nothing of earlier ones reused, eos kept from ending it early.
fn call(
    engine: &mut Engine,
    image: &TiledImage,
    strategy: &Strategy,
    args: &BenchArgs,
    progress: &Progress,
) -> Result<Completion, CliError> {
    engine.clear_caches();
    let request = request(image, strategy, args);
    let completion = engine.run(request, &Interrupt::new(), |event| {
        if let Event::Progress { stage, done, total, .. } = event {
            progress.prompt(*stage, *done, *total);
        }
    });
    progress.clear();
    Ok(completion?)
}

fn request(image: &TiledImage, strategy: &Strategy, args: &BenchArgs) -> Request {
    let new_tokens = args.new_tokens as usize;
    Request {
        question: QUESTION.to_owned(),
        images: vec![image.clone()],
        history: None,
        template: None,
        system_message: None,
        settings: GenerationSettings {
            max_new_tokens: new_tokens,
            min_new_tokens: new_tokens,
            repetition_penalty: 3.5,
            no_repeat_ngram_size: 0,
            num_return_sequences: 1,
            strategy: strategy.clone(),
        },
        stop: Vec::new(),
    }
}

fn workload(num_beams: u32, calls: &[Completion]) -> Workload {
    let stage = |stage: fn(&Timings) -> Duration| Spread::of(calls.iter().map(|call| stage(&call.timings)));
    let prefill = stage(|timings| timings.prefill);
    let decode_step = Spread::of(calls.iter().flat_map(|call| call.timings.steps.iter().copied()));
    let prompt_tokens = calls.first().map_or(0, |call| call.usage.prompt_tokens);
    Workload {
        num_beams,
        vision: stage(|timings| timings.vision),
        projector: stage(|timings| timings.projector),
        prefill,
        prefill_tokens_per_second: prompt_tokens as f64 / (prefill.median / 1e3),
        decode_step,
        steps_per_second: 1e3 / decode_step.median,
        total: stage(|timings| timings.total),
    }
}

fn print(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "package    {}", report.package)?;
    writeln!(out, "processor  {}", report.processor.as_deref().unwrap_or("unknown"))?;
    writeln!(out, "provider   {}", report.provider)?;
    writeln!(out, "load       {:.1} s", report.load / 1e3)?;
    writeln!(
        out,
        "call       {} tiles, {} prompt tokens, {} new tokens, {} counted calls of each kind",
        report.tiles, report.prompt_tokens, report.new_tokens, report.repeats
    )?;
    writeln!(out, "\n{:<24} {:>10} {:>10} {:>10}   milliseconds", "", "min", "median", "max")?;
    for workload in [&report.greedy, &report.beams] {
        let kind = if workload.num_beams == 1 { "greedy".to_owned() } else { format!("{} beams", workload.num_beams) };
        for (stage, spread) in [
            ("vision", workload.vision),
            ("projector", workload.projector),
            ("prefill", workload.prefill),
            ("decode step", workload.decode_step),
            ("whole call", workload.total),
        ] {
            let label = format!("{kind}, {stage}");
            writeln!(out, "{label:<24} {:>10.1} {:>10.1} {:>10.1}", spread.min, spread.median, spread.max)?;
        }
    }
    writeln!(
        out,
        "\nprefill {:.0} tokens/s, greedy {:.2} steps/s, {} beams {:.2} steps/s",
        report.greedy.prefill_tokens_per_second,
        report.greedy.steps_per_second,
        report.beams.num_beams,
        report.beams.steps_per_second
    )?;
    writeln!(
        out,
        "a step of {} beams costs {:.2} times a greedy step",
        report.beams.num_beams, report.beam_step_ratio
    )?;
    if let Some(peak) = report.peak_memory_bytes {
        writeln!(out, "peak memory {}", system::bytes_text(peak))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_names_the_middle() {
        let spread = |milliseconds: &[u64]| Spread::of(milliseconds.iter().map(|ms| Duration::from_millis(*ms)));
        assert_eq!((spread(&[3, 1, 2]).min, spread(&[3, 1, 2]).median, spread(&[3, 1, 2]).max), (1.0, 2.0, 3.0));
        assert!((spread(&[1, 2]).median - 1.5).abs() < 1e-9);
    }
}
