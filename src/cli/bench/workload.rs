//! The workloads and how one round of them is run.

use std::time::{Duration, Instant};

use image::RgbImage;

use super::grid;
use crate::cli::args::BenchArgs;
use crate::cli::error::CliError;
use crate::cli::system;
use crate::engine::{Completion, Engine, EngineError, Event, Request, RequestId, TiledImage, Timings, Usage};
use crate::generate::{BeamSearch, EarlyStopping, GenerationSettings, Strategy};
use crate::graph::Interrupt;
use crate::preprocess::{MAX_TILES, TilingOptions};
use crate::prompt::Turn;

pub(super) const QUESTION: &str = "Mô tả hình ảnh một cách chi tiết.";
pub(super) const SECOND_QUESTION: &str = "Tổng cộng là bao nhiêu?";
pub(super) const TEXT_QUESTION: &str = "Thủ đô của Việt Nam là thành phố nào? Hãy kể ba điều về thành phố ấy.";

/// Repetition penalty of beam search, the model card's; what is greedy has none.
const BEAMS_PENALTY: f32 = 3.5;

/// Most requests that run side by side.
const MAX_PARALLEL: usize = 16;

/// What is measured. Everything is computed anew in each round, except where the workload says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// One question about an image, greedy search.
    Greedy,
    /// The same with beam search and [`BEAMS_PENALTY`].
    Beams,
    /// The second question of a conversation about one image: what the first one left in the caches is used.
    SecondQuestion,
    /// A question without an image, greedy search.
    Text,
    /// As [`Workload::Greedy`] with another number of tiles.
    Tiles(u32),
    /// So many different questions without an image side by side.
    Parallel(usize),
}

impl Workload {
    /// All that are named in the help, with the usual numbers.
    pub(super) fn all() -> Vec<Self> {
        let tiles = [1, 4, 12].map(Self::Tiles);
        let parallel = [1, 2, 4, 8].map(Self::Parallel);
        let named = [Self::Greedy, Self::Beams, Self::SecondQuestion, Self::Text];
        named.into_iter().chain(tiles).chain(parallel).collect()
    }

    /// The workload of a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let number = |prefix: &str| name.strip_prefix(prefix).and_then(|number| number.parse::<u32>().ok());
        let tiles = || number("tiles-").filter(|tiles| (1..=MAX_TILES).contains(tiles)).map(Self::Tiles);
        let parallel = || number("parallel-").filter(|groups| (1..=MAX_PARALLEL as u32).contains(groups));
        match name {
            "greedy" => Some(Self::Greedy),
            "beams" => Some(Self::Beams),
            "second-question" => Some(Self::SecondQuestion),
            "text" => Some(Self::Text),
            _ => tiles().or_else(|| parallel().map(|groups| Self::Parallel(groups as usize))),
        }
    }

    /// Which names there are.
    pub(super) fn known() -> String {
        format!(
            "the workloads of a package are greedy, beams, second-question, text, tiles-N (N 1 to {MAX_TILES}), \
             parallel-N (N 1 to {MAX_PARALLEL}) and all"
        )
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Greedy => f.write_str("greedy"),
            Self::Beams => f.write_str("beams"),
            Self::SecondQuestion => f.write_str("second-question"),
            Self::Text => f.write_str("text"),
            Self::Tiles(tiles) => write!(f, "tiles-{tiles}"),
            Self::Parallel(groups) => write!(f, "parallel-{groups}"),
        }
    }
}

/// One round of a workload.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    /// Beams of the search.
    pub num_beams: usize,
    /// Requests side by side.
    pub groups: usize,
    /// Counts of the request; of the last one where there are several.
    pub usage: Usage,
    /// Its durations.
    pub timings: Timings,
    /// From the first request to the end of the last.
    pub total: Duration,
    /// Most memory the process had resident during the round, where the system tells.
    pub peak_memory: Option<u64>,
}

/// Runs workloads on one engine.
pub(super) struct Runner<'a> {
    engine: Engine,
    args: &'a BenchArgs,
    /// Tiles of an image where the workload does not say.
    tiles: u32,
}

impl<'a> Runner<'a> {
    pub(super) fn new(engine: Engine, args: &'a BenchArgs, tiles: u32) -> Self {
        Self { engine, args, tiles }
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// One round.
    pub(super) fn run(&mut self, workload: &Workload) -> Result<Measured, CliError> {
        self.engine.clear_caches();
        system::reset_peak_resident();
        match workload {
            Workload::Beams => self.about_an_image(self.tiles, beam_search(self.args.num_beams)),
            Workload::Tiles(tiles) => self.about_an_image(*tiles, Strategy::Greedy),
            Workload::SecondQuestion => self.second_question(),
            Workload::Text => self.side_by_side(1),
            Workload::Parallel(groups) => self.side_by_side(*groups),
            Workload::Greedy => self.about_an_image(self.tiles, Strategy::Greedy),
        }
    }

    fn about_an_image(&mut self, tiles: u32, strategy: Strategy) -> Result<Measured, CliError> {
        let image = synthetic_image(&self.engine, tiles)?;
        let num_beams = num_beams(&strategy);
        let request = self.request(QUESTION, vec![image], strategy, 0);
        Ok(measured(num_beams, 1, self.answer(request)?))
    }

    fn second_question(&mut self) -> Result<Measured, CliError> {
        let image = synthetic_image(&self.engine, self.tiles)?;
        let first = self.answer(self.request(QUESTION, vec![image.clone()], Strategy::Greedy, 0))?;
        let mut second = self.request(SECOND_QUESTION, vec![image], Strategy::Greedy, 0);
        let answer = first.answers.into_iter().next().map(|answer| answer.text);
        second.history = Some(vec![Turn { question: first.question, answer }]);
        Ok(measured(1, 1, self.answer(second)?))
    }

    /// Requests with different questions, all greedy, that end together: those that begin earlier answer longer.
    fn side_by_side(&mut self, groups: usize) -> Result<Measured, CliError> {
        let started = Instant::now();
        let mut last = None;
        for group in 0..groups {
            let question = format!("{}. {TEXT_QUESTION}", group + 1);
            let request = self.request(&question, Vec::new(), Strategy::Greedy, groups - 1 - group);
            last = Some(self.engine.submit(request, &Interrupt::new())?);
        }
        let mut outcome: Option<Completion> = None;
        let mut failed = None;
        while !self.engine.is_idle() {
            self.engine.step(&mut |event| match event {
                Event::Finished { id, completion } if Some::<RequestId>(id) == last => outcome = Some(*completion),
                Event::Failed { error, .. } => failed = Some(error),
                _ => {}
            });
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        let completion = outcome.unwrap_or_else(|| unreachable!("the last request ends like the others"));
        Ok(Measured { total: started.elapsed(), ..measured(1, groups, completion) })
    }

    fn answer(&mut self, request: Request) -> Result<Completion, CliError> {
        Ok(self.engine.run(request, &Interrupt::new(), |_| {})?)
    }

    /// A request whose answer has exactly the length asked for, and `more` tokens.
    fn request(&self, question: &str, images: Vec<TiledImage>, strategy: Strategy, more: usize) -> Request {
        let new_tokens = self.args.new_tokens as usize + more;
        let repetition_penalty = if matches!(strategy, Strategy::Greedy) { 1.0 } else { BEAMS_PENALTY };
        Request {
            question: question.to_owned(),
            images,
            history: None,
            template: None,
            system_message: None,
            settings: GenerationSettings {
                max_new_tokens: new_tokens,
                min_new_tokens: new_tokens,
                repetition_penalty,
                no_repeat_ngram_size: 0,
                num_return_sequences: 1,
                strategy,
            },
            stop: Vec::new(),
            logprobs: None,
        }
    }
}

fn measured(num_beams: usize, groups: usize, completion: Completion) -> Measured {
    let Completion { usage, timings, .. } = completion;
    Measured { num_beams, groups, usage, total: timings.total, timings, peak_memory: system::peak_resident() }
}

fn num_beams(strategy: &Strategy) -> usize {
    if let Strategy::Beam(beams) = strategy { beams.num_beams } else { 1 }
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
    let (columns, rows) = grid(tiles);
    let image = RgbImage::from_fn(columns * tile_size, rows * tile_size, |x, y| {
        image::Rgb([(x / 3) as u8, (y / 2) as u8, ((x + y) / 5) as u8])
    });
    let options = TilingOptions { tile_size, min_tiles: tiles, max_tiles: tiles, thumbnail: true };
    Ok(TiledImage::from_rgb(&image, &options).map_err(EngineError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_printed() {
        for workload in Workload::all() {
            assert_eq!(Workload::named(&workload.to_string()), Some(workload));
        }
        for unknown in ["", "beam", "tiles-0", "tiles-x", "parallel-17", "tiles-"] {
            assert_eq!(Workload::named(unknown), None, "{unknown}");
        }
    }
}
