//! What a bench of a server prints.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::client::{Answer, Client};
use super::workload::{Level, Probed};
use crate::cli::bench::spread::Tail;

/// What `bench --server URL --json` prints. Times are milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    server: String,
    model: String,
    max_new_tokens: u32,
    repeats: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) load: Option<Vec<LevelReport>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probe: Option<ProbeReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) second_question: Option<SecondQuestionReport>,
}

/// Requests at one level of concurrency. Counts and times are of those that were answered.
#[derive(Debug, Serialize)]
pub(super) struct LevelReport {
    concurrency: usize,
    answered: usize,
    failed: usize,
    /// How many failed for which reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failures: BTreeMap<String, usize>,
    prompt_tokens: u64,
    /// Of the prompt tokens; nothing where the server does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    cached_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tiles: Option<u64>,
    output_tokens: u64,
    requests_per_second: f64,
    output_tokens_per_second: f64,
    first_token: Tail,
    /// Of each request the mean time between its tokens after the first.
    inter_token: Tail,
    /// Of each request the longest time between two pieces of text.
    longest_gap: Tail,
    total: Tail,
    wall: f64,
}

/// Times to the first token of short questions.
#[derive(Debug, Serialize)]
pub(super) struct ProbeReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    tiles: Option<u64>,
    image_prompt_tokens: u64,
    probes: usize,
    alone: Tail,
    during: Tail,
    /// `during` over `alone`, medians.
    ratio: f64,
    image_alone: Tail,
    image_with_probes: Tail,
}

/// Times to the first token of two questions about one image.
#[derive(Debug, Serialize)]
pub(super) struct SecondQuestionReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    tiles: Option<u64>,
    first_prompt_tokens: u64,
    second_prompt_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    second_cached_tokens: Option<u64>,
    first: Tail,
    second: Tail,
    /// `second` over `first`, medians.
    ratio: f64,
}

impl LevelReport {
    pub(super) fn new(level: &Level) -> Self {
        let answers: Vec<&Answer> = level.outcomes.iter().flatten().collect();
        let mut failures = BTreeMap::new();
        for message in level.outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            *failures.entry(message.clone()).or_default() += 1;
        }
        let sum = |count: fn(&Answer) -> u64| answers.iter().map(|answer| count(answer)).sum::<u64>();
        let told = |count: fn(&Answer) -> Option<u64>| answers.iter().map(|answer| count(answer)).sum::<Option<u64>>();
        let seconds = level.wall.as_secs_f64();
        let output_tokens = sum(|answer| answer.usage.completion_tokens);
        Self {
            concurrency: level.concurrency,
            answered: answers.len(),
            failed: level.outcomes.len() - answers.len(),
            failures,
            prompt_tokens: sum(|answer| answer.usage.prompt_tokens),
            cached_tokens: told(|answer| answer.usage.cached_tokens),
            tiles: told(|answer| answer.usage.tiles),
            output_tokens,
            requests_per_second: answers.len() as f64 / seconds,
            output_tokens_per_second: output_tokens as f64 / seconds,
            first_token: first_tokens(answers.iter().copied()),
            inter_token: Tail::of(answers.iter().filter_map(|answer| answer.inter_token())),
            longest_gap: Tail::of(answers.iter().filter_map(|answer| answer.longest_gap())),
            total: Tail::of(answers.iter().map(|answer| answer.ended.duration_since(answer.sent))),
            wall: seconds * 1e3,
        }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let tiles = self.tiles.filter(|tiles| *tiles > 0).map_or(String::new(), |tiles| format!(", {tiles} tiles"));
        let cached = cached_text(self.cached_tokens);
        writeln!(
            out,
            "\nconcurrency {}: {} answered, {} failed; {} prompt tokens{cached}{tiles}, {} output tokens",
            self.concurrency, self.answered, self.failed, self.prompt_tokens, self.output_tokens
        )?;
        print_head(out)?;
        for (name, tail) in [
            ("first token", self.first_token),
            ("inter-token", self.inter_token),
            ("longest gap", self.longest_gap),
            ("whole answer", self.total),
        ] {
            print_tail(out, name, tail)?;
        }
        writeln!(
            out,
            "  {:.2} output tokens/s, {:.3} requests/s",
            self.output_tokens_per_second, self.requests_per_second
        )?;
        for (message, count) in &self.failures {
            writeln!(out, "  failed: {count} × {message}")?;
        }
        Ok(())
    }
}

impl ProbeReport {
    pub(super) fn new(rounds: &[Probed]) -> Self {
        let image = rounds.first().map(|round| round.image.usage).unwrap_or_default();
        let (alone, during) = (
            first_tokens(rounds.iter().map(|round| &round.alone)),
            first_tokens(rounds.iter().flat_map(|round| &round.during)),
        );
        Self {
            tiles: image.tiles,
            image_prompt_tokens: image.prompt_tokens,
            probes: rounds.iter().map(|round| round.during.len()).sum(),
            alone,
            during,
            ratio: during.median / alone.median,
            image_alone: first_tokens(rounds.iter().map(|round| &round.image_alone)),
            image_with_probes: first_tokens(rounds.iter().map(|round| &round.image)),
        }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let tiles = tiles_text(self.tiles);
        writeln!(
            out,
            "\nprobe: first tokens, of short questions alone and of {} while an image ({tiles}{} prompt tokens) was read",
            self.probes, self.image_prompt_tokens
        )?;
        print_head(out)?;
        print_tail(out, "text alone", self.alone)?;
        print_tail(out, "text meanwhile", self.during)?;
        print_tail(out, "image alone", self.image_alone)?;
        print_tail(out, "image probed", self.image_with_probes)?;
        writeln!(out, "  a short question waits {:.2} times as long while an image is read", self.ratio)
    }
}

impl SecondQuestionReport {
    pub(super) fn new(rounds: &[[Answer; 2]]) -> Self {
        let usage = |index: usize| rounds.first().map(|round| round[index].usage).unwrap_or_default();
        let [first, second] = [0, 1].map(|index| first_tokens(rounds.iter().map(|round| &round[index])));
        Self {
            tiles: usage(0).tiles,
            first_prompt_tokens: usage(0).prompt_tokens,
            second_prompt_tokens: usage(1).prompt_tokens,
            second_cached_tokens: usage(1).cached_tokens,
            first,
            second,
            ratio: second.median / first.median,
        }
    }

    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let tiles = tiles_text(self.tiles);
        let cached = cached_text(self.second_cached_tokens);
        writeln!(
            out,
            "\nsecond-question: first tokens of two questions about an image: {tiles}{} and {} prompt tokens{cached}",
            self.first_prompt_tokens, self.second_prompt_tokens
        )?;
        print_head(out)?;
        print_tail(out, "first question", self.first)?;
        print_tail(out, "second question", self.second)?;
        writeln!(out, "  the second question waits {:.3} times as long as the first", self.ratio)
    }
}

impl Report {
    /// A report of nothing yet.
    pub(super) fn new(client: &Client, max_new_tokens: u32, repeats: u32) -> Self {
        Self {
            server: client.base().to_owned(),
            model: client.model().to_owned(),
            max_new_tokens,
            repeats,
            load: None,
            probe: None,
            second_question: None,
        }
    }

    /// Requests of load that failed, and all of them.
    pub(super) fn failed(&self) -> (usize, usize) {
        let levels = self.load.iter().flatten();
        levels.fold((0, 0), |(failed, all), level| (failed + level.failed, all + level.failed + level.answered))
    }

    /// Prints the report for people.
    pub(super) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "server     {}", self.server)?;
        writeln!(out, "model      {}, at most {} new tokens an answer", self.model, self.max_new_tokens)?;
        self.load.iter().flatten().try_for_each(|level| level.print(out))?;
        self.probe.iter().try_for_each(|probe| probe.print(out))?;
        self.second_question.iter().try_for_each(|questions| questions.print(out))
    }
}

fn first_tokens<'a>(answers: impl Iterator<Item = &'a Answer>) -> Tail {
    Tail::of(answers.map(Answer::first_token))
}

/// Tiles of an image, before what else there is to say of it; nothing where the server does not tell.
fn tiles_text(tiles: Option<u64>) -> String {
    tiles.map_or(String::new(), |tiles| format!("{tiles} tiles, "))
}

/// Cached tokens, after those they are part of; nothing where the server does not tell.
fn cached_text(cached: Option<u64>) -> String {
    cached.map_or(String::new(), |cached| format!(" ({cached} of them cached)"))
}

fn print_head(out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "  {:<15} {:>10} {:>10} {:>10} {:>10}   milliseconds", "", "min", "median", "p95", "max")
}

fn print_tail(out: &mut impl Write, name: &str, tail: Tail) -> std::io::Result<()> {
    let Tail { min, median, p95, max } = tail;
    if max == 0.0 {
        // Answers of one token have no time between tokens.
        return Ok(());
    }
    writeln!(out, "  {name:<15} {min:>10.1} {median:>10.1} {p95:>10.1} {max:>10.1}")
}
