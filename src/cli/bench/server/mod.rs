//! Workloads of a running server with an OpenAI-compatible API.

mod client;
mod report;
mod workload;

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{TILES, expanded, round_label};
use crate::cli::args::BenchArgs;
use crate::cli::error::CliError;
use crate::cli::output::print_json;
use crate::cli::progress::Progress;
use crate::cli::read_file;
use crate::preprocess::ImageFormat;

use client::Client;
use report::{LevelReport, ProbeReport, Report, SecondQuestionReport};
use workload::{Requests, Shown, Workload, data_url};

/// Fields that a request of the bench has for itself.
const OWN_FIELDS: [&str; 4] = ["model", "messages", "stream", "stream_options"];

/// What is to be measured.
struct Plan {
    workloads: Vec<Workload>,
    levels: Vec<usize>,
    /// Requests at each level, where that was said.
    requests: Option<usize>,
    question: Option<String>,
    shown: Shown,
    max_new_tokens: u32,
    extra: Map<String, Value>,
    tiles: u32,
    rounds: u32,
    interval: Duration,
}

/// Measures and reports.
///
/// # Errors
/// When flags contradict each other, the server cannot be asked, or a request failed.
pub(super) fn run(url: &str, args: &BenchArgs) -> Result<(), CliError> {
    let plan = Plan::new(args)?;
    let mut fields = plan.extra.clone();
    for (name, value) in [("max_tokens", plan.max_new_tokens.into()), ("temperature", Value::from(0))] {
        fields.entry(name).or_insert(value);
    }
    let most = plan.levels.iter().copied().max().unwrap_or(1).max(2);
    let (key, model) = (args.server.api_key.as_deref(), args.server.server_model.as_deref());
    let client = Client::new(url, key, model, fields, most)?;
    let progress = Progress::new();
    let outcome = plan.measure(&client, &progress);
    progress.clear();
    let report = outcome?;
    if args.json {
        print_json(&report)?;
    } else {
        report.print(&mut std::io::stdout().lock())?;
    }
    match report.failed() {
        (0, _) => Ok(()),
        (failed, of) => Err(CliError::Check(format!("{failed} of {of} requests failed"))),
    }
}

impl Plan {
    fn new(args: &BenchArgs) -> Result<Self, CliError> {
        let server = &args.server;
        let workloads = match args.workload.as_slice() {
            [] => vec![Workload::Load],
            asked => {
                let read = |name: &str| Workload::ALL.into_iter().find(|workload| workload.name() == name);
                let known = "the workloads of a server are load, probe, second-question and all";
                expanded(asked, &Workload::ALL, read, known)?
            }
        };
        check_use(args, &workloads)?;
        let levels = match server.concurrency.as_slice() {
            [] => vec![1, 2, 4, 8],
            levels => levels.iter().copied().map(usize::from).collect(),
        };
        let shown = match (server.images.as_slice(), args.tiles) {
            ([], None) => Shown::Nothing,
            ([], Some(tiles)) => Shown::Generated(tiles),
            (files, _) => Shown::Files(files.iter().map(|file| read_image(file)).collect::<Result<_, _>>()?),
        };
        Ok(Self {
            workloads,
            levels,
            requests: server.requests.map(|requests| requests as usize),
            question: server.question.clone(),
            shown,
            max_new_tokens: server.max_new_tokens.unwrap_or(64),
            extra: server.extra_body.as_deref().map_or(Ok(Map::new()), extra_body)?,
            tiles: args.tiles.unwrap_or(TILES),
            rounds: args.repeats,
            interval: Duration::from_millis(server.probe_interval.unwrap_or(100).into()),
        })
    }

    fn measure(&self, client: &Client, progress: &Progress) -> Result<Report, CliError> {
        let requests = Requests::new();
        let mut report = Report::new(client, self.max_new_tokens, self.rounds);
        for workload in &self.workloads {
            match workload {
                Workload::Load => report.load = Some(self.load(client, &requests, progress)?),
                Workload::Probe => {
                    let rounds = self.rounds(*workload, progress, || {
                        workload::probe(client, &requests, self.tiles, self.interval)
                    })?;
                    if rounds.iter().all(|round| round.during.is_empty()) {
                        return Err(CliError::Check(format!(
                            "no short question came while the prompt of an image was computed\nhint: raise --tiles \
                             (now {}), or lower --probe-interval (now {} ms)",
                            self.tiles,
                            self.interval.as_millis()
                        )));
                    }
                    report.probe = Some(ProbeReport::new(&rounds));
                }
                Workload::SecondQuestion => {
                    let ask = || workload::second_question(client, &requests, self.tiles);
                    report.second_question = Some(SecondQuestionReport::new(&self.rounds(*workload, progress, ask)?));
                }
            }
        }
        Ok(report)
    }

    fn load(&self, client: &Client, requests: &Requests, progress: &Progress) -> Result<Vec<LevelReport>, CliError> {
        let mut made = 0;
        let mut body = || {
            made += 1;
            client.body(requests.of_load(&self.shown, made - 1, self.question.as_deref()))
        };
        progress.show_work(&round_label(0, 0, Workload::Load.name()));
        // A server that refuses the first request refuses all of them.
        client.ask(&body()).map_err(|message| failed(Workload::Load, &message))?;
        let level = |&concurrency: &usize| {
            let bodies: Vec<_> = (0..self.requests.unwrap_or(4 * concurrency)).map(|_| body()).collect();
            let message = format!("concurrency {concurrency}");
            let on_progress = |done: usize| progress.count(&message, "requests", done as u64, bodies.len() as u64);
            on_progress(0);
            LevelReport::new(&workload::load(client, &bodies, concurrency, &on_progress))
        };
        Ok(self.levels.iter().map(level).collect())
    }

    /// One round that is not counted, and those that are.
    fn rounds<T>(
        &self,
        workload: Workload,
        progress: &Progress,
        run: impl Fn() -> Result<T, String>,
    ) -> Result<Vec<T>, CliError> {
        let mut counted = Vec::new();
        for round in 0..=self.rounds {
            progress.show_work(&round_label(round, self.rounds, workload.name()));
            let found = run().map_err(|message| failed(workload, &message))?;
            if round > 0 {
                counted.push(found);
            }
        }
        Ok(counted)
    }
}

fn failed(workload: Workload, message: &str) -> CliError {
    CliError::Check(format!("{}: a request failed: {message}", workload.name()))
}

/// Refuses flags of workloads that are not asked for.
fn check_use(args: &BenchArgs, workloads: &[Workload]) -> Result<(), CliError> {
    let server = &args.server;
    for (flag, given, of) in [
        ("concurrency", !server.concurrency.is_empty(), Workload::Load),
        ("requests", server.requests.is_some(), Workload::Load),
        ("question", server.question.is_some(), Workload::Load),
        ("image", !server.images.is_empty(), Workload::Load),
        ("probe-interval", server.probe_interval.is_some(), Workload::Probe),
    ] {
        if given && !workloads.contains(&of) {
            let name = of.name();
            return Err(CliError::usage(
                format!("--{flag} is for the workload {name}, which is not among those asked for"),
                format!("add {name} to --workload, or leave --{flag} out"),
            ));
        }
    }
    Ok(())
}

fn read_image(file: &Path) -> Result<String, CliError> {
    let bytes = read_file("image", file)?;
    let format = ImageFormat::of(&bytes).map_err(|source| CliError::Image { file: file.to_path_buf(), source })?;
    Ok(data_url(&format.to_string().to_lowercase(), &bytes))
}

fn extra_body(text: &str) -> Result<Map<String, Value>, CliError> {
    let refused = |message: String| CliError::usage(message, "pass one JSON object, such as {\"num_beams\": 3}");
    let fields = serde_json::from_str::<Map<String, Value>>(text)
        .map_err(|error| refused(format!("--extra-body is no JSON object: {error}")))?;
    match OWN_FIELDS.iter().find(|name| fields.contains_key(**name)) {
        Some(name) => Err(refused(format!("--extra-body has {name}, which the bench fills in itself"))),
        None => Ok(fields),
    }
}
