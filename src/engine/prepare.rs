//! From an admitted group to its first tokens: reuse of the cache, tiles through the vision tower, prefill in chunks.
//!
//! Two prompts at most are worked on in turn: the one that came first, and one of less work that overtakes it and has most
//! turns, so that a short question need not wait for a page of tiles. A third has to wait: it may begin like one of the two.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ndarray::{Array2, ArrayViewMut2, Axis, s};

use super::budget::Need;
use super::group::Group;
use super::request::{Event, Stage, TiledImage};
use super::rows::Position;
use super::vision::{EncodedTile, TileRun};
use super::{Engine, EngineError};
use crate::generate::Advance;
use crate::graph::{CachedRow, GraphError};
use crate::model::ModelError;
use crate::preprocess;

/// How long a step waits for a tile when there is nothing else to do: whoever makes the steps has to look for new requests.
const PATIENCE: Duration = Duration::from_millis(5);

/// Turns of a prompt that overtakes for one of the prompt that it overtook.
const OVERTAKER_TURNS: usize = 3;

/// A group whose prompt is being worked on.
pub(super) struct Preparing {
    pub(super) group: Group,
    /// Cache row that takes the prompt, not live yet.
    pub(super) row: usize,
    /// Positions of the prompt that the row holds.
    filled: usize,
    /// Embeddings of the image at hand, as far as its tiles are done.
    encoding: Option<Encoding>,
    tiles_done: usize,
    tiles_total: usize,
}

struct Encoding {
    image: usize,
    tile: usize,
    /// The tile that is on its way.
    run: Option<TileRun>,
    embeds: Array2<f32>,
}

impl Engine {
    /// Does one piece of a prompt at hand; admits a group before that, if there is one to admit.
    pub(super) fn prepare(&mut self, on_event: &mut dyn FnMut(Event)) {
        if let Some((group, shape)) = self.next_group() {
            let id = group.id;
            match self.admit(group, shape) {
                Ok(preparing) => self.preparing.push(preparing),
                Err(error) => return on_event(Event::Failed { id, error: error.into() }),
            }
        }
        if self.preparing.is_empty() {
            return;
        }
        let index = usize::from(self.is_overtakers_turn());
        self.overtaker_turns = if index == 1 { self.overtaker_turns + 1 } else { 0 };
        let mut preparing = self.preparing.remove(index);
        match self.prepare_piece(&mut preparing, on_event) {
            Ok(None) => self.preparing.insert(index, preparing),
            Ok(Some(advance)) => self.start(preparing, advance, on_event),
            Err(EngineError::Model(ModelError::Graph(GraphError::Interrupted))) => {
                self.finish(preparing.group, on_event);
            }
            Err(error) => on_event(Event::Failed { id: preparing.group.id, error }),
        }
    }

    /// Whether the prompt that overtakes goes on. It has most turns: its work is little. A tile it waits for takes none away.
    fn is_overtakers_turn(&self) -> bool {
        let turns = |overtaker: &Preparing| if overtaker.waits_for_a_tile() { 1 } else { OVERTAKER_TURNS };
        self.preparing.get(1).is_some_and(|overtaker| self.overtaker_turns < turns(overtaker))
    }

    /// The group to admit: the first that waits, or, while one is worked on, the first of the shortest if that is less work
    /// than what is left of it. None overtakes a group that waits for rows or memory once the prompt at hand is done. With it
    /// the rows and positions of the cache it needs.
    fn next_group(&mut self) -> Option<(Group, (usize, usize))> {
        let index = match self.preparing.as_slice() {
            [] => 0,
            [at_hand] => {
                let tiles_left = at_hand.tiles_total - at_hand.tiles_done;
                let left = self.work(tiles_left, at_hand.group.prompt.len() - at_hand.filled);
                let work = |group: &Group| {
                    let tiles = group.images.iter().map(|image| image.tiles().len()).sum();
                    self.work(tiles, group.prompt.len())
                };
                // Who asks about an image that is being read waits for it.
                let other = |group: &&Group| {
                    let mut images = group.images.iter().map(TiledImage::digest);
                    images.all(|image| at_hand.group.images.iter().all(|at_hand| at_hand.digest() != image))
                };
                let others = self.waiting.iter().enumerate().filter(|(_, group)| other(group));
                let (index, shortest) =
                    others.map(|(index, group)| (index, work(group))).min_by_key(|(_, work)| *work)?;
                (shortest < left).then_some(index)?
            }
            _ => return None,
        };
        let group = self.waiting.get(index).filter(|group| self.rows_with(group) <= self.config.max_rows)?;
        let shape = self.shape_with(group)?;
        self.waiting.remove(index).map(|group| (group, shape))
    }

    /// Rows that generate once the prompts at hand and this group do.
    fn rows_with(&self, group: &Group) -> usize {
        let promised: usize = self.preparing.iter().map(|preparing| preparing.group.max_rows).sum();
        self.live + promised + group.max_rows
    }

    /// Rows and positions of a cache that has room for the groups at work and this one, if memory allows it.
    fn shape_with(&self, group: &Group) -> Option<(usize, usize)> {
        let at_work = self.running.iter().chain(self.preparing.iter().map(|preparing| &preparing.group));
        let need = Need {
            // One more for each other prompt at hand: it may have to make way, see `fill_rows`.
            rows: self.rows_with(group) + self.preparing.len(),
            spare: self.config.spare_rows,
            capacity: at_work.map(|group| group.capacity).fold(group.capacity, usize::max),
        };
        self.budget.shape(self.decoder.reserved(), need)
    }

    /// Work of so many tiles and positions, in positions: a tile takes about as long as the positions that come of it.
    fn work(&self, tiles: usize, positions: usize) -> usize {
        tiles * self.manifest.architecture.tokens_per_tile + positions
    }

    /// Gives the cache the shape a group needs and finds what of its prompt the cache holds already.
    fn admit(&mut self, mut group: Group, (rows, capacity): (usize, usize)) -> Result<Preparing, ModelError> {
        self.reserve(rows, capacity)?;
        // The last position must run in any case: its logits are the first ones needed.
        let source = self.contents.longest_match(&group.prompt[..group.prompt.len() - 1]);
        let (row, filled) = match source {
            // What is left of the row's contents would be lost.
            Some((source, shared)) if self.is_idle_row(source) && 2 * shared >= self.contents.len(source) => {
                (source, shared)
            }
            Some((source, shared)) => {
                let row = self.idle_row();
                self.copy_start(source, row, shared)?;
                (row, shared)
            }
            None => (self.idle_row(), 0),
        };
        self.contents.truncate(row, filled);
        group.usage.cached_tokens = filled;
        let mut preparing = Preparing { group, row, filled, encoding: None, tiles_done: 0, tiles_total: 0 };
        self.find_embeddings(&mut preparing);
        Ok(preparing)
    }

    /// Gives the cache a shape; what it holds survives where there is room for it.
    fn reserve(&mut self, rows: usize, capacity: usize) -> Result<(), ModelError> {
        let before = self.decoder.reserved();
        self.clear_rows(rows..before.0)?;
        for row in 0..rows.min(before.0) {
            if self.contents.len(row) > capacity {
                self.contents.truncate(row, capacity);
            }
        }
        let keep: Vec<CachedRow> = (0..rows.min(before.0))
            .map(|row| CachedRow { row, positions: self.contents.len(row) })
            .filter(|kept| kept.positions > 0)
            .collect();
        let reserved = self.decoder.reserve(rows, capacity, &keep);
        if self.decoder.reserved() != before {
            // A cache that could not grow may be gone altogether.
            let kept = keep.iter().filter(|_| reserved.is_ok()).map(|kept| kept.row).collect::<Vec<_>>();
            self.contents.resize(self.decoder.reserved().0, &kept);
        }
        reserved
    }

    /// Moves what is needed of the last rows, which are about to go, to rows before them.
    fn clear_rows(&mut self, last: Range<usize>) -> Result<(), ModelError> {
        for index in 0..self.preparing.len() {
            let from = self.preparing[index].row;
            let idle = (self.live..last.start).filter(|row| self.is_idle_row(*row));
            if let Some(to) = idle.min_by_key(|row| self.contents.last_use(*row)).filter(|_| last.contains(&from)) {
                self.copy_row(from, to)?;
                self.contents.truncate(from, 0);
                self.preparing[index].row = to;
            }
        }
        last.clone().try_for_each(|row| self.keep_elsewhere(row, &last))
    }

    /// Whether no group works on a row.
    fn is_idle_row(&self, row: usize) -> bool {
        row >= self.live && self.preparing.iter().all(|preparing| preparing.row != row)
    }

    /// An idle row whose contents are missed least. As many rows are reserved as groups may need, so there is one.
    fn idle_row(&self) -> usize {
        let idle = (self.live..self.decoder.reserved().0).filter(|row| self.is_idle_row(*row));
        idle.min_by_key(|row| self.contents.last_use(*row)).unwrap_or(self.live)
    }

    /// Takes from the image cache what it holds, and counts the tiles that must be encoded.
    fn find_embeddings(&mut self, preparing: &mut Preparing) {
        for index in 0..preparing.group.images.len() {
            let cached = self.images.get(&preparing.group.images[index].digest());
            preparing.group.embeds[index] = cached;
        }
        preparing.tiles_total = (0..preparing.group.images.len())
            .filter(|index| preparing.is_needed(*index))
            .map(|index| preparing.group.images[index].tiles().len())
            .sum();
    }

    /// One tile or one chunk of prefill; the first tokens once the prompt is done.
    fn prepare_piece(
        &mut self,
        preparing: &mut Preparing,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Option<Advance>, EngineError> {
        let next = preparing.encoding.as_ref().map(|encoding| encoding.image);
        let next = next.or_else(|| (0..preparing.group.images.len()).find(|index| preparing.is_needed(*index)));
        if let Some(image) = next {
            if self.encode_tile(preparing, image)? {
                let (done, total) = (preparing.tiles_done, preparing.tiles_total);
                on_event(Event::Progress { id: preparing.group.id, stage: Stage::Vision, done, total });
            }
            return Ok(None);
        }
        let advance = self.prefill_chunk(preparing)?;
        let (done, total) = (preparing.filled, preparing.group.prompt.len());
        on_event(Event::Progress { id: preparing.group.id, stage: Stage::Prefill, done, total });
        Ok(advance)
    }

    /// Sends the next tile of an image through the vision tower, or looks after the one that is there; whether one is done.
    fn encode_tile(&mut self, preparing: &mut Preparing, image: usize) -> Result<bool, EngineError> {
        let has_others = !self.running.is_empty() || self.preparing.iter().any(|other| !other.waits_for_a_tile());
        let patience = if has_others { Duration::ZERO } else { PATIENCE };
        let group = &mut preparing.group;
        let tiles = group.images[image].tiles();
        let rows_per_tile = self.manifest.architecture.tokens_per_tile;
        let encoding = preparing.encoding.get_or_insert_with(|| Encoding {
            image,
            tile: 0,
            run: None,
            embeds: Array2::zeros((tiles.len() * rows_per_tile, self.embeddings.hidden_size())),
        });
        let run = encoding.run.get_or_insert_with(|| {
            let tiling = &self.manifest.tiling;
            let tile = std::slice::from_ref(&tiles[encoding.tile]);
            self.vision.start(preprocess::normalise(tile, tiling.mean, tiling.std), &group.interrupt)
        });
        let Some(outcome) = run.wait(patience) else { return Ok(false) };
        encoding.run = None;
        let EncodedTile { embeds, encoder, projector } = outcome?;
        group.timings.vision += encoder;
        group.timings.projector += projector;
        let start = encoding.tile * rows_per_tile;
        encoding.embeds.slice_mut(s![start..start + rows_per_tile, ..]).assign(&embeds.index_axis(Axis(0), 0));
        encoding.tile += 1;
        preparing.tiles_done += 1;
        if encoding.tile == tiles.len()
            && let Some(done) = preparing.encoding.take()
        {
            let embeds = Arc::new(done.embeds);
            let bytes = embeds.len() * size_of::<f32>();
            self.images.insert(group.images[image].digest(), Arc::clone(&embeds), bytes);
            group.embeds[image] = Some(embeds);
        }
        Ok(true)
    }

    /// Runs the next positions of the prompt through the decoder; the search's first choice after the last ones.
    fn prefill_chunk(&mut self, preparing: &mut Preparing) -> Result<Option<Advance>, EngineError> {
        let started = Instant::now();
        let group = &mut preparing.group;
        let end = group.prompt.len().min(preparing.filled + self.pace.positions());
        let positions = &group.prompt[preparing.filled..end];
        let mut embeds = Array2::zeros((positions.len(), self.embeddings.hidden_size()));
        self.embed(positions, &group.images, &group.embeds, embeds.view_mut())?;
        let logits = self.decoder.prefill(preparing.row, preparing.filled, embeds.view(), &group.interrupt)?;
        let advance = (end == group.prompt.len()).then(|| group.search.advance(logits)).transpose()?;
        self.contents.extend(preparing.row, positions.iter().copied());
        preparing.filled = end;
        let took = started.elapsed();
        self.pace.took(positions.len(), took);
        group.timings.prefill += took;
        Ok(advance)
    }

    /// Writes the embedding of each position into `out`, `[positions, hidden size]`.
    fn embed(
        &self,
        positions: &[Position],
        images: &[TiledImage],
        embeds: &[Option<Arc<Array2<f32>>>],
        mut out: ArrayViewMut2<'_, f32>,
    ) -> Result<(), ModelError> {
        for (position, mut row) in positions.iter().zip(out.rows_mut()) {
            match *position {
                Position::Token(id) => self.embeddings.lookup(id, row.as_slice_mut().unwrap_or_default())?,
                Position::Image { digest, index } => {
                    let image = images.iter().position(|image| image.digest() == digest);
                    if let Some(embeds) = image.and_then(|image| embeds[image].as_ref()) {
                        row.assign(&embeds.row(index));
                    }
                }
            }
        }
        Ok(())
    }

    /// The prompt is done: gives the group its rows and lets it run.
    fn start(&mut self, preparing: Preparing, advance: Advance, on_event: &mut dyn FnMut(Event)) {
        let started = Instant::now();
        let Preparing { mut group, row: prompt_row, .. } = preparing;
        group.timings.first_token = group.submitted.elapsed();
        let Advance::Continue(next) = advance else { return self.finish(group, on_event) };
        let wanted = if group.keeps_rows { group.max_rows } else { next.len() };
        let rows = self.live..self.live + wanted;
        if let Err(error) = self.fill_rows(&rows, prompt_row) {
            return on_event(Event::Failed { id: group.id, error: error.into() });
        }
        self.live = rows.end;
        group.rows = rows.collect();
        group.spare = group.rows.split_off(next.len());
        group.pending = next.iter().map(|row| row.token).collect();
        group.timings.prefill += started.elapsed();
        self.tell(group, true, on_event);
    }

    /// Makes `rows`, which come after the live ones, hold what `prompt_row` holds. A prompt at hand moves out of the way.
    fn fill_rows(&mut self, rows: &Range<usize>, prompt_row: usize) -> Result<(), ModelError> {
        if let Some(index) = self.preparing.iter().position(|other| rows.contains(&other.row)) {
            let mut idle = (rows.end..self.decoder.reserved().0).filter(|row| *row != prompt_row);
            let to = idle.next().unwrap_or(rows.end);
            self.copy_row(self.preparing[index].row, to)?;
            self.preparing[index].row = to;
        }
        for row in rows.clone().filter(|row| *row != prompt_row) {
            self.keep_elsewhere(row, rows)?;
            self.copy_row(prompt_row, row)?;
        }
        Ok(())
    }

    /// Saves what a row left by an earlier group holds before it is overwritten: in the idle row outside `taken` that is
    /// missed least, unless that one was used later, or another idle row holds nearly the same.
    pub(super) fn keep_elsewhere(&mut self, row: usize, taken: &Range<usize>) -> Result<(), ModelError> {
        let length = self.contents.len(row);
        let rows = self.decoder.reserved().0;
        let idle = || (self.live..rows).filter(|other| !taken.contains(other) && self.is_idle_row(*other));
        if length == 0 || idle().any(|other| 8 * self.contents.shared(row, other) >= 7 * length) {
            return Ok(());
        }
        let missed_least = idle().min_by_key(|other| self.contents.last_use(*other));
        match missed_least.filter(|other| self.contents.last_use(*other) < self.contents.last_use(row)) {
            Some(other) => self.copy_row(row, other),
            None => Ok(()),
        }
    }
}

impl Preparing {
    /// Whether a tile is on its way, until which there is nothing to do.
    fn waits_for_a_tile(&self) -> bool {
        self.encoding.as_ref().is_some_and(|encoding| encoding.run.is_some())
    }

    /// Whether the embeddings of an image are missing and some of its positions are yet to be computed. An image that is
    /// there twice is needed once: positions take the embeddings of the first image of their digest.
    fn is_needed(&self, image: usize) -> bool {
        let wanted = self.group.images[image].digest();
        self.group.embeds[image].is_none()
            && self.group.images[..image].iter().all(|earlier| earlier.digest() != wanted)
            && self.group.prompt[self.filled..]
                .iter()
                .any(|position| matches!(position, Position::Image { digest, .. } if *digest == wanted))
    }
}
