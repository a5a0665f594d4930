//! Workloads of a package on this machine.

use std::path::Path;
use std::time::Instant;

use super::report::{Load, Report};
use super::workload::{Measured, Runner, Workload};
use super::{TILES, expanded, round_label};
use crate::cli::args::BenchArgs;
use crate::cli::error::CliError;
use crate::cli::output::{milliseconds, print_json};
use crate::cli::progress::Progress;
use crate::cli::session::load_engine;
use crate::cli::system;
use crate::engine::EngineConfig;
use crate::package::Package;
use crate::settings::check_rows;

/// Measures and reports.
///
/// # Errors
/// When the model cannot be loaded or a call fails.
pub(super) fn run(folder: &Path, args: &BenchArgs) -> Result<(), CliError> {
    check_rows("num_beams", args.num_beams as usize, EngineConfig::default().max_rows, true)?;
    let workloads = match args.workload.as_slice() {
        [] => vec![Workload::Greedy, Workload::Beams],
        asked => expanded(asked, &Workload::all(), Workload::named, &Workload::known())?,
    };
    let progress = Progress::new();
    let started = Instant::now();
    let package = Package::open(folder)?;
    let engine = load_engine(&package, &args.runtime, &args.runtime.providers()?, &progress)?;
    let load = Load { milliseconds: milliseconds(started.elapsed()), peak_memory: system::peak_resident() };
    let mut runner = Runner::new(engine, args, args.tiles.unwrap_or(TILES));
    let mut measured: Vec<Vec<Measured>> = workloads.iter().map(|_| Vec::new()).collect();
    // In turn, so that a disturbance meets all of them; the first round warms up.
    for round in 0..=args.repeats {
        for (workload, measured) in workloads.iter().zip(&mut measured) {
            progress.show_work(&round_label(round, args.repeats, &workload.to_string()));
            let found = runner.run(workload)?;
            if round > 0 {
                measured.push(found);
            }
        }
    }
    progress.clear();
    let report = Report::new(folder, args, load, runner.engine(), workloads.iter().zip(&measured))?;
    if args.json {
        print_json(&report)?;
    } else {
        report.print(&mut std::io::stdout().lock())?;
    }
    Ok(())
}
