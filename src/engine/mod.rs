//! The engine: takes requests, runs them together, tells what happens.
//!
//! A request becomes a sequence group: one prompt and k rows of the cache (beams or samples). Each [`Engine::step`] does
//! one piece of a prompt at hand (a tile, or a chunk of prefill) and one decode step of all live rows of all groups in
//! a single decoder call, after which every group picks its next tokens.
//!
//! ```text
//! submit ─▶ waiting ─▶ preparing: tiles ─▶ prefill ─▶ running: decode steps ─▶ finished
//!                                 │          │
//!                        image cache    cache rows with an equal beginning are not computed again
//! ```

mod budget;
mod error;
mod group;
mod pace;
mod prepare;
mod prompt;
mod request;
mod rows;
mod vision;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::{Array2, ArrayView2, Axis, CowArray, Ix2, s};

use crate::generate::{Advance, NextRow, SearchError};
use crate::graph::onnx::Library;
use crate::graph::{Interrupt, Placement};
use crate::model::{Decoder, EmbeddingTable, Model, ModelError};
use crate::package::{Component, Manifest, Package};
use crate::prompt::{Template, TokenRoles, Tokenizer};
use crate::provider::ComponentProviders;
use crate::recent::Recent;

pub use error::EngineError;
pub use request::{Answer, Completion, Event, Request, RequestId, Stage, TiledImage, Timings, Usage};

use budget::Budget;
use group::{Group, Told};
use pace::Pace;
use rows::{Position, RowContents};
use vision::Vision;

/// Limits of an engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Most cache rows, so most sequences that generate at once.
    pub max_rows: usize,
    /// Prompt tokens a step prefills at most, and at least one; between two chunks running groups make a step.
    pub prefill_chunk: usize,
    /// How long running groups may stand still for a chunk: it is shorter where it would take longer, but not below 64 tokens.
    /// Chunks then depend on how fast the processor is just now. `None`: all chunks are whole.
    pub prefill_pause: Option<Duration>,
    /// Bytes of image embeddings kept for further questions.
    pub image_cache_bytes: usize,
    /// Cache rows beyond those that groups need: they keep what earlier prompts and answers left, so that whoever goes on
    /// from there finds it though others have run since.
    pub spare_rows: usize,
    /// Bytes the cache may take: a request waits until what it needs fits, and spare rows make way for it. `None`: no bound.
    pub cache_bytes: Option<usize>,
    /// Whether the vision encoder runs in a thread of its own, so that answers go on, and short questions are answered, while
    /// a tile is encoded. Each takes longer meanwhile, and what happens in which step is left to chance.
    pub vision_beside: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_rows: 64,
            prefill_chunk: 512,
            prefill_pause: None,
            image_cache_bytes: 256 << 20,
            spare_rows: 0,
            cache_bytes: None,
            vision_beside: false,
        }
    }
}

impl EngineConfig {
    /// Bytes the cache of a package's model takes when every row is as long as it may be.
    pub fn full_cache_bytes(&self, manifest: &Manifest) -> usize {
        // One row more lets a prompt at hand make way for another one.
        let rows = self.max_rows + self.spare_rows + 1;
        rows.saturating_mul(manifest.architecture.max_length).saturating_mul(manifest.cache_position_bytes())
    }

    /// Bytes the cache of a package's model can come to take.
    pub fn most_cache_bytes(&self, manifest: &Manifest) -> usize {
        self.full_cache_bytes(manifest).min(self.cache_bytes.unwrap_or(usize::MAX))
    }
}

/// Runs requests on a model.
pub struct Engine {
    vision: Vision,
    embeddings: EmbeddingTable,
    decoder: Decoder,
    placements: [(Component, Placement); 3],
    tokenizer: Arc<Tokenizer>,
    manifest: Manifest,
    template: Template,
    config: EngineConfig,
    budget: Budget,
    pace: Pace,
    /// Embeddings `[image tokens, hidden size]` by the image's digest: a second question on it does not encode it again.
    images: Recent<u128, Arc<Array2<f32>>>,
    contents: RowContents,
    /// Rows `0..live` belong to running groups.
    live: usize,
    waiting: VecDeque<Group>,
    /// The prompt at hand, and one that overtakes it.
    preparing: Vec<prepare::Preparing>,
    /// Turns the overtaker has had since the other prompt had one.
    overtaker_turns: usize,
    running: Vec<Group>,
    submitted: u64,
}

impl Engine {
    /// Loads a package. `progress` is told which graph comes next.
    ///
    /// # Errors
    /// [`EngineError`] when a graph, the embedding table or the tokenizer cannot be loaded.
    pub fn load(
        package: &Package,
        library: &Library,
        providers: &ComponentProviders,
        config: EngineConfig,
        progress: impl FnMut(Component),
    ) -> Result<Self, EngineError> {
        let manifest = package.manifest();
        // Loading takes long: what can be refused at once is.
        template_of(manifest)?;
        let roles = TokenRoles::from(&manifest.tokens);
        let tokenizer = Tokenizer::from_file(&package.path(&manifest.tokenizer.file), &roles)?;
        let model = Model::load(package, library, providers, progress)?;
        Self::new(model, tokenizer, manifest.clone(), config)
    }

    /// An engine over loaded parts.
    ///
    /// # Errors
    /// [`EngineError::Template`] when the manifest names an unknown template, [`EngineError::Thread`].
    pub fn new(
        model: Model,
        tokenizer: Tokenizer,
        manifest: Manifest,
        config: EngineConfig,
    ) -> Result<Self, EngineError> {
        let template = template_of(&manifest)?;
        Ok(Self {
            images: Recent::new(config.image_cache_bytes),
            budget: Budget::new(manifest.cache_position_bytes(), config.cache_bytes),
            pace: Pace::new(config.prefill_chunk, config.prefill_pause),
            placements: model.placements().map(|(component, placement)| (component, placement.clone())),
            vision: Vision::new(model.vision, config.vision_beside).map_err(EngineError::Thread)?,
            embeddings: model.embeddings,
            decoder: model.decoder,
            tokenizer: Arc::new(tokenizer),
            manifest,
            template,
            config,
            contents: RowContents::default(),
            live: 0,
            waiting: VecDeque::new(),
            preparing: Vec::new(),
            overtaker_turns: 0,
            running: Vec::new(),
            submitted: 0,
        })
    }

    /// The manifest of the package behind the engine.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where the nodes of each graph run.
    pub fn placements(&self) -> &[(Component, Placement); 3] {
        &self.placements
    }

    /// Forgets images and prompts of earlier requests, so that the next one is computed in full.
    pub fn clear_caches(&mut self) {
        self.images = Recent::new(self.config.image_cache_bytes);
        self.forget_idle_rows();
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// Bytes the cache takes now.
    pub fn cache_bytes(&self) -> usize {
        let (rows, capacity) = self.decoder.reserved();
        self.budget.bytes(rows, capacity)
    }

    /// Requests that were taken in and not begun.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a request in. It runs as [`Engine::step`] is called; raising `interrupt` ends it with what it has so far.
    ///
    /// # Errors
    /// [`EngineError`] when the request cannot be honoured: settings, image marks, length.
    pub fn submit(&mut self, request: Request, interrupt: &Interrupt) -> Result<RequestId, EngineError> {
        let id = RequestId(self.submitted);
        let group = self.group(id, request, interrupt)?;
        self.submitted += 1;
        self.waiting.push_back(group);
        Ok(id)
    }

    /// Whether no request is left.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.preparing.is_empty() && self.running.is_empty()
    }

    /// Runs one request to its end.
    ///
    /// # Errors
    /// [`EngineError`] when the request cannot be honoured or fails.
    pub fn run(
        &mut self,
        request: Request,
        interrupt: &Interrupt,
        mut on_event: impl FnMut(&Event),
    ) -> Result<Completion, EngineError> {
        let wanted = self.submit(request, interrupt)?;
        let mut outcome = None;
        while outcome.is_none() {
            self.step(&mut |event| match event {
                Event::Finished { id, completion } if id == wanted => outcome = Some(Ok(*completion)),
                Event::Failed { id, error } if id == wanted => outcome = Some(Err(error)),
                event => on_event(&event),
            });
        }
        outcome.unwrap_or_else(|| unreachable!("the loop ends with an outcome"))
    }

    /// Does one piece of a prompt at hand and one decode step of everything that generates.
    pub fn step(&mut self, on_event: &mut dyn FnMut(Event)) {
        self.drop_cancelled(on_event);
        self.prepare(on_event);
        if !self.running.is_empty() {
            self.decode(on_event);
        }
    }

    /// Ends what was cancelled.
    fn drop_cancelled(&mut self, on_event: &mut dyn FnMut(Event)) {
        let (cancelled, waiting): (VecDeque<_>, _) =
            std::mem::take(&mut self.waiting).into_iter().partition(Group::is_cancelled);
        self.waiting = waiting;
        for group in cancelled {
            self.finish(group, on_event);
        }
        while let Some(index) = self.preparing.iter().position(|preparing| preparing.group.is_cancelled()) {
            let preparing = self.preparing.remove(index);
            self.finish(preparing.group, on_event);
        }
        while let Some(index) = self.running.iter().position(Group::is_cancelled) {
            let group = self.running.remove(index);
            let rows = group.owned_rows();
            self.finish(group, on_event);
            self.release(rows, on_event);
        }
    }

    /// One decoder call for every live row, then one search step of every group.
    fn decode(&mut self, on_event: &mut dyn FnMut(Event)) {
        let started = Instant::now();
        let advances = match self.decode_rows() {
            Ok(advances) => advances,
            Err(error) => return self.fail_running(error, on_event),
        };
        let mut freed = Vec::new();
        for (mut group, advance) in std::mem::take(&mut self.running).into_iter().zip(advances) {
            let outcome = match advance {
                Ok(Advance::Continue(next)) => self.hand_over_rows(&mut group, &next).map(|rows| (true, rows)),
                Ok(Advance::Finished) => Ok((false, group.owned_rows())),
                Err(error) => Err(error.into()),
            };
            group.timings.steps.push(started.elapsed());
            match outcome {
                Ok((goes_on, rows)) => {
                    freed.extend(rows);
                    self.tell(group, goes_on, on_event);
                }
                Err(error) => {
                    freed.extend(group.owned_rows());
                    on_event(Event::Failed { id: group.id, error });
                }
            }
        }
        self.release(freed, on_event);
    }

    /// Feeds every live row its next token and lets every group search the logits of its rows.
    fn decode_rows(&mut self) -> Result<Vec<Result<Advance, SearchError>>, ModelError> {
        let mut embeds = Array2::zeros((self.live, self.embeddings.hidden_size()));
        let mut pasts = vec![0; self.live];
        for group in &self.running {
            for (&row, &token) in group.rows.iter().zip(&group.pending) {
                self.embeddings.lookup(token, embeds.row_mut(row).into_slice().unwrap_or_default())?;
                pasts[row] = self.contents.len(row);
            }
            for &row in &group.spare {
                pasts[row] = self.contents.len(row);
            }
        }
        let logits = self.decoder.step(0..self.live, &pasts, embeds.view())?;
        for group in &self.running {
            for (&row, &token) in group.rows.iter().zip(&group.pending) {
                self.contents.extend(row, [Position::Token(token)]);
            }
        }
        Ok(self.running.iter_mut().map(|group| group.search.advance(rows_of(&logits, &group.rows).view())).collect())
    }

    /// Lets the rows of a group change hands for its next step; returns those it no longer needs.
    fn hand_over_rows(&mut self, group: &mut Group, next: &[NextRow]) -> Result<Vec<usize>, EngineError> {
        let mut change = rows::reassign(next, &group.rows, &group.spare, &self.contents);
        for (from, to) in change.copies {
            self.copy_row(from, to)?;
        }
        group.rows = change.rows;
        group.pending = next.iter().map(|row| row.token).collect();
        if group.keeps_rows {
            group.spare = std::mem::take(&mut change.freed);
        }
        Ok(change.freed)
    }

    /// Makes row `to` hold what row `from` holds, copying only where they differ.
    fn copy_row(&mut self, from: usize, to: usize) -> Result<(), ModelError> {
        self.copy_start(from, to, self.contents.len(from))
    }

    /// Makes row `to` hold the first `positions` of row `from`, copying only what differs.
    fn copy_start(&mut self, from: usize, to: usize, positions: usize) -> Result<(), ModelError> {
        let differing = self.contents.copy(from, to, positions);
        let start = differing.start;
        // What was not copied is not there.
        self.decoder.copy(from, to, differing).inspect_err(|_| self.contents.truncate(to, start))
    }

    /// Tells settled text, and the end of a group that does not go on.
    fn tell(&mut self, mut group: Group, goes_on: bool, on_event: &mut dyn FnMut(Event)) {
        if !goes_on {
            return self.finish(group, on_event);
        }
        if let Some(Told { text, logprobs }) = group.settled_text() {
            on_event(Event::Text { id: group.id, text, logprobs });
        }
        self.running.push(group);
    }

    fn finish(&self, mut group: Group, on_event: &mut dyn FnMut(Event)) {
        let (Told { text, logprobs }, completion) = group.complete(&self.tokenizer);
        if !text.is_empty() {
            on_event(Event::Text { id: group.id, text, logprobs });
        }
        on_event(Event::Finished { id: group.id, completion: Box::new(completion) });
    }

    /// Gives rows back. The live rows stay `0..live`: the last ones move into the gaps.
    fn release(&mut self, mut freed: Vec<usize>, on_event: &mut dyn FnMut(Event)) {
        freed.sort_unstable_by_key(|row| std::cmp::Reverse(*row));
        for row in freed {
            self.live -= 1;
            if row == self.live {
                continue;
            }
            // The row that moves leaves a copy of itself, which nobody needs.
            let moved = self.keep_elsewhere(row, &(0..self.live + 1)).and_then(|()| self.copy_row(self.live, row));
            if let Err(error) = moved {
                return self.fail_running(error, on_event);
            }
            self.contents.truncate(self.live, 0);
            let owned = self.running.iter_mut().flat_map(|group| group.rows.iter_mut().chain(&mut group.spare));
            for moved in owned.filter(|owned| **owned == self.live) {
                *moved = row;
            }
        }
    }

    /// A decoder call failed: nothing that took part in it can go on. Prompts at hand can: their rows were not live.
    fn fail_running(&mut self, error: ModelError, on_event: &mut dyn FnMut(Event)) {
        let error = Arc::new(error);
        for group in std::mem::take(&mut self.running) {
            on_event(Event::Failed { id: group.id, error: EngineError::Step(Arc::clone(&error)) });
        }
        self.live = 0;
        self.forget_idle_rows();
    }

    /// Forgets what rows hold that no group works on.
    fn forget_idle_rows(&mut self) {
        let in_use: Vec<usize> = (0..self.live).chain(self.preparing.iter().map(|preparing| preparing.row)).collect();
        self.contents.resize(self.decoder.reserved().0, &in_use);
    }
}

fn template_of(manifest: &Manifest) -> Result<Template, EngineError> {
    manifest.prompt.template.parse().map_err(|source| EngineError::Template { source })
}

/// The logits of a group's rows in the order of its beams, without a copy where the rows lie that way.
fn rows_of<'a>(logits: &'a ArrayView2<'_, f32>, rows: &[usize]) -> CowArray<'a, f32, Ix2> {
    let first = rows.first().copied().unwrap_or_default();
    if rows.iter().enumerate().all(|(index, row)| *row == first + index) {
        logits.slice(s![first..first + rows.len(), ..]).into()
    } else {
        logits.select(Axis(0), rows).into()
    }
}
