//! `vintern bench`: named workloads on this machine, in turn.

mod report;
mod workload;

use std::time::Instant;

use super::args::BenchArgs;
use super::error::CliError;
use super::output::{milliseconds, print_json};
use super::progress::Progress;
use super::session::load_engine;
use crate::engine::EngineConfig;
use crate::package::Package;
use crate::settings::check_rows;

pub(super) use workload::Workload;

use report::Report;
use workload::{Measured, Runner};

/// Runs the command.
///
/// # Errors
/// When the model cannot be loaded or a call fails.
pub(super) fn run(args: &BenchArgs) -> Result<(), CliError> {
    check_rows("num_beams", args.num_beams as usize, EngineConfig::default().max_rows)?;
    let workloads = Workload::expanded(&args.workload);
    let progress = Progress::new();
    let started = Instant::now();
    let package = Package::open(&args.model)?;
    let engine = load_engine(&package, &args.runtime, &args.runtime.providers()?, &progress)?;
    let load = milliseconds(started.elapsed());
    let mut runner = Runner::new(engine, args);
    let mut measured: Vec<Vec<Measured>> = workloads.iter().map(|_| Vec::new()).collect();
    // In turn, so that a disturbance meets all of them; the first round warms up.
    for round in 0..=args.repeats {
        for (workload, measured) in workloads.iter().zip(&mut measured) {
            let label = if round == 0 { "warm-up".to_owned() } else { format!("round {round} of {}", args.repeats) };
            progress.show_work(&format!("{label}: {workload}"));
            let found = runner.run(workload)?;
            if round > 0 {
                measured.push(found);
            }
        }
    }
    progress.clear();
    let report = Report::new(args, load, runner.engine(), workloads.iter().zip(&measured))?;
    if args.json {
        print_json(&report)?;
    } else {
        report.print(&mut std::io::stdout().lock())?;
    }
    Ok(())
}
