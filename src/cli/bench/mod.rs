//! `vintern bench`: named workloads in turn, of a package on this machine or of a running server.

mod local;
mod report;
mod server;
mod spread;
mod workload;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _};

use super::args::{BenchArgs, Cli};
use super::error::CliError;

/// Flags that say what a server is asked, by their ids.
const OF_A_SERVER: [&str; 9] = [
    "server_model",
    "api_key",
    "concurrency",
    "requests",
    "max_new_tokens",
    "question",
    "images",
    "extra_body",
    "probe_interval",
];

/// Flags of both.
const OF_BOTH: [&str; 5] = ["server", "tiles", "workload", "repeats", "json"];

/// Tiles of an image where nothing else is asked for.
const TILES: u32 = 6;

/// Runs the command.
///
/// # Errors
/// When flags contradict each other, the model cannot be loaded or the server not be reached, or a call fails.
pub(super) fn run(args: &BenchArgs, matches: &ArgMatches) -> Result<(), CliError> {
    check_place(args.server.server.is_some(), matches)?;
    match (&args.server.server, &args.model) {
        (Some(url), _) => server::run(url, args),
        (None, Some(package)) => local::run(package, args),
        (None, None) => unreachable!("clap asks for one of them"),
    }
}

/// Refuses flags that mean nothing where the bench runs. What the environment says is for other commands as well.
fn check_place(of_a_server: bool, matches: &ArgMatches) -> Result<(), CliError> {
    let program = Cli::command();
    let flags = program.find_subcommand("bench").into_iter().flat_map(clap::Command::get_arguments);
    let misplaced = flags.filter(|flag| !OF_BOTH.contains(&flag.get_id().as_str())).find(|flag| {
        let id = flag.get_id().as_str();
        OF_A_SERVER.contains(&id) != of_a_server && matches.value_source(id) == Some(ValueSource::CommandLine)
    });
    let Some(flag) = misplaced.and_then(clap::Arg::get_long) else { return Ok(()) };
    Err(if of_a_server {
        CliError::usage(
            format!("--{flag} is for a package on this machine, and --server asks a server that runs already"),
            "leave one of them out",
        )
    } else {
        CliError::usage(format!("--{flag} is for a running server"), "pass --server URL, or leave it out")
    })
}

/// The workloads of a list, each once; `all` is read as `everything`.
///
/// # Errors
/// When there is no workload of a name; `known` says which there are.
fn expanded<T: Clone + PartialEq>(
    asked: &[String],
    everything: &[T],
    read: impl Fn(&str) -> Option<T>,
    known: &str,
) -> Result<Vec<T>, CliError> {
    let mut list = Vec::new();
    for name in asked {
        let named = if name == "all" { everything.to_vec() } else { read(name).into_iter().collect() };
        if named.is_empty() {
            return Err(CliError::usage(format!("--workload: there is no workload {name:?} here"), known));
        }
        for workload in named {
            if !list.contains(&workload) {
                list.push(workload);
            }
        }
    }
    Ok(list)
}

/// What is being measured, in which round; the first is not counted.
fn round_label(round: u32, rounds: u32, workload: &str) -> String {
    if round == 0 { format!("warm-up: {workload}") } else { format!("round {round} of {rounds}: {workload}") }
}

/// Columns and rows of the grid of so many tiles that is nearest to a square.
fn grid(tiles: u32) -> (u32, u32) {
    let rows = (1..=tiles).filter(|rows| tiles.is_multiple_of(*rows) && rows * rows <= tiles).max().unwrap_or(1);
    (tiles / rows, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_measured_once() {
        let read = |name: &str| name.parse::<u32>().ok();
        let list = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            expanded(&names, &[1, 2, 3], read, "numbers").ok()
        };
        assert_eq!(list(&["2", "all", "2", "7"]), Some(vec![2, 1, 3, 7]));
        assert_eq!(list(&["2", "x"]), None);
    }

    #[test]
    fn a_grid_is_as_square_as_it_can_be() {
        assert_eq!([1, 4, 6, 7, 12].map(grid), [(1, 1), (2, 2), (3, 2), (7, 1), (4, 3)]);
    }
}
