//! Stand-ins for the four parts of the network, and a probe that sees what the engine asks of them.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ndarray::{ArrayD, ArrayView2, ArrayView3, IxDyn};
use vintern::engine::TiledImage;
use vintern::graph::scripted::ScriptedDecoder;
use vintern::graph::{CachedGraph, CachedRow, Graph, GraphError, Input, Interrupt, Placement};

/// Side of a tile in pixels.
pub const TILE: u32 = 8;
/// Language-model tokens a tile becomes.
pub const TOKENS_PER_TILE: usize = 4;
/// Rows of the embedding table, of which row `i` is `[i]`.
pub const EMBEDDINGS: usize = 931;
/// What image embeddings begin at: above every token id.
const IMAGE_BASE: u32 = 2000;

/// Logits from what a row holds of the prompt (token ids, image embeddings) and of the answer.
pub type LanguageModel = Arc<dyn Fn(&[u32], &[u32]) -> Vec<f32> + Send + Sync>;

/// May make a call fail; told the number of the call, counted from 0.
pub type Hook = Box<dyn FnMut(usize) -> Result<(), GraphError> + Send>;

/// One call of the decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub rows: Range<usize>,
    pub positions: usize,
    /// Tokens of the answer that each row held in the end; `None` while its prompt was not complete.
    pub generated: Vec<Option<usize>>,
}

impl Call {
    /// Whether it worked on a prompt.
    pub fn is_prefill(&self) -> bool {
        self.generated.iter().all(|generated| generated.unwrap_or_default() == 0)
    }
}

#[derive(Default)]
pub struct Seen {
    pub calls: Vec<Call>,
    /// Tiles the vision encoder and the projector saw.
    pub tiles: [usize; 2],
    pub on_decoder: Option<Hook>,
    pub on_vision: Option<Hook>,
    pub on_reserve: Option<Hook>,
    /// Prompts that were submitted.
    prompts: Vec<Vec<u32>>,
    reserve_calls: usize,
    generated: Vec<Option<usize>>,
    decoder_calls: usize,
}

impl Seen {
    /// Tells the network of a prompt, so that it can tell half a prompt from a whole one.
    pub fn announce(&mut self, prompt: Vec<u32>) {
        self.prompts.push(prompt);
    }

    /// Prompt and answer of a row, if the prompt is complete.
    fn split<'a>(&self, row: &'a [u32]) -> Option<(&'a [u32], &'a [u32])> {
        if self.prompts.iter().any(|prompt| prompt.len() > row.len() && prompt.starts_with(row)) {
            return None;
        }
        let whole = self.prompts.iter().filter(|prompt| row.starts_with(prompt)).map(Vec::len).max();
        whole.map(|length| row.split_at(length))
    }

    /// Calls that worked on prompts.
    pub fn prefills(&self) -> Vec<&Call> {
        self.calls.iter().filter(|call| call.is_prefill()).collect()
    }

    /// Calls that worked on answers.
    pub fn decodes(&self) -> Vec<&Call> {
        self.calls.iter().filter(|call| !call.is_prefill()).collect()
    }

    /// Prompt positions that were computed.
    pub fn prefilled(&self) -> usize {
        self.prefills().iter().map(|call| call.positions).sum()
    }
}

/// What the network saw, shared by its parts and the test.
#[derive(Clone, Default)]
pub struct Probe(Arc<Mutex<Seen>>, Arc<Gate>);

/// What the vision encoder does before it looks at a tile.
#[derive(Default)]
struct Gate {
    is_closed: AtomicBool,
    is_broken: AtomicBool,
}

impl Probe {
    pub fn look(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    /// Whether tiles stay in the vision encoder until they are let go, or their requests leave.
    pub fn hold_tiles(&self, held: bool) {
        self.1.is_closed.store(held, Ordering::SeqCst);
    }

    /// Whether the vision encoder panics.
    pub fn break_tiles(&self, broken: bool) {
        self.1.is_broken.store(broken, Ordering::SeqCst);
    }

    fn pass(&self, interrupt: &Interrupt) {
        while self.1.is_closed.load(Ordering::SeqCst) && !interrupt.is_raised() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!self.1.is_broken.load(Ordering::SeqCst), "the vision encoder is broken, as it shall be");
    }
}

/// The decoder: the scripted one with a probe.
pub struct Decoder {
    inner: ScriptedDecoder,
    probe: Probe,
}

impl Decoder {
    pub fn new(model: LanguageModel, vocab: usize, probe: Probe) -> Self {
        let notes = probe.clone();
        let script = move |row: &[u32]| {
            let mut seen = notes.look();
            let split = seen.split(row);
            seen.generated.push(split.map(|(_, answer)| answer.len()));
            // Half a prompt: whoever takes what follows it for logits must fail.
            split.map_or_else(|| vec![f32::NAN; vocab], |(prompt, answer)| model(prompt, answer))
        };
        Self { inner: ScriptedDecoder::new(Box::new(script)), probe }
    }
}

impl CachedGraph for Decoder {
    fn reserve(&mut self, rows: usize, capacity: usize, keep: &[CachedRow]) -> Result<(), GraphError> {
        let mut seen = self.probe.look();
        let number = seen.reserve_calls;
        seen.reserve_calls += 1;
        if let Some(hook) = &mut seen.on_reserve {
            hook(number)?;
        }
        drop(seen);
        self.inner.reserve(rows, capacity, keep)
    }

    fn reserved(&self) -> (usize, usize) {
        self.inner.reserved()
    }

    fn copy(&mut self, from: usize, to: usize, positions: Range<usize>) -> Result<(), GraphError> {
        self.inner.copy(from, to, positions)
    }

    fn run(
        &mut self,
        rows: Range<usize>,
        embeds: ArrayView3<'_, f32>,
        pasts: &[usize],
        interrupt: &Interrupt,
    ) -> Result<ArrayView2<'_, f32>, GraphError> {
        {
            let mut seen = self.probe.look();
            let number = seen.decoder_calls;
            seen.decoder_calls += 1;
            if let Some(hook) = &mut seen.on_decoder {
                hook(number)?;
            }
        }
        let positions = embeds.dim().1;
        let logits = self.inner.run(rows.clone(), embeds, pasts, interrupt)?;
        let mut seen = self.probe.look();
        let generated = std::mem::take(&mut seen.generated);
        seen.calls.push(Call { rows, positions, generated });
        Ok(logits)
    }

    fn placement(&self) -> &Placement {
        self.inner.placement()
    }
}

/// Vision encoder or projector: a function of each tile's values.
pub struct PerTile {
    /// 0 for the vision encoder, 1 for the projector.
    stage: usize,
    probe: Probe,
    placement: Placement,
}

impl PerTile {
    /// `pixel_values [tiles, 3, S, S]` to the brightness of the middle pixel, `[tiles, 1, 1]`.
    pub fn encoder(probe: Probe) -> Self {
        Self { stage: 0, probe, placement: Placement::default() }
    }

    /// Brightness to image embeddings `[tiles, T, 1]`.
    pub fn projector(probe: Probe) -> Self {
        Self { stage: 1, probe, placement: Placement::default() }
    }
}

impl Graph for PerTile {
    fn run(&mut self, inputs: &[Input<'_>], interrupt: &Interrupt) -> Result<ArrayD<f32>, GraphError> {
        let values = &inputs[0].values;
        let tiles = values.shape()[0];
        if self.stage == 0 {
            self.probe.pass(interrupt);
        }
        let mut seen = self.probe.look();
        let number = seen.tiles[self.stage];
        seen.tiles[self.stage] += tiles;
        if let Some(hook) = seen.on_vision.as_mut().filter(|_| self.stage == 0) {
            hook(number)?;
        }
        if interrupt.is_raised() {
            return Err(GraphError::Interrupted);
        }
        let middle = TILE as usize / 2;
        Ok(if self.stage == 0 {
            ArrayD::from_shape_fn(IxDyn(&[tiles, 1, 1]), |at| (values[[at[0], 0, middle, middle]] * 255.0).round())
        } else {
            let embedding = |tile: usize, index: usize| image_embedding(values[[tile, 0, 0]] as u32, index) as f32;
            ArrayD::from_shape_fn(IxDyn(&[tiles, TOKENS_PER_TILE, 1]), |at| embedding(at[0], at[1]))
        })
    }

    fn placement(&self) -> &Placement {
        &self.placement
    }
}

fn image_embedding(brightness: u32, index: usize) -> u32 {
    IMAGE_BASE + brightness * TOKENS_PER_TILE as u32 + index as u32
}

/// The embeddings of an image, as encoder and projector together give them.
pub fn image_embeddings(image: &TiledImage) -> Vec<u32> {
    let brightness = |tile: &image::RgbImage| u32::from(tile.get_pixel(TILE / 2, TILE / 2)[0]);
    let tokens = |tile| (0..TOKENS_PER_TILE).map(move |index| image_embedding(brightness(tile), index));
    image.tiles().iter().flat_map(tokens).collect()
}

/// The number that the last question of a prompt is written with: the digits of it.
pub fn number(prompt: &[u32]) -> usize {
    const DIGITS: Range<u32> = 15..25;
    let marker = *prompt.iter().rfind(|token| **token == START_OF_TURN).unwrap();
    let mut turns = prompt.rsplit(|token| *token == marker);
    let question = turns.nth(1).unwrap();
    let digits = question.iter().filter(|token| DIGITS.contains(token));
    digits.fold(0, |number, digit| number * 10 + (digit - DIGITS.start) as usize)
}

/// `<|im_start|>`
pub const START_OF_TURN: u32 = 901;

/// A model in whose logits every token of the row has a say, prompt and answer. Tokens from `words` on have none of the
/// probability, except `eos`.
pub fn remembering(vocab: usize, words: usize, eos: u32) -> LanguageModel {
    Arc::new(move |prompt, answer| {
        let row = prompt.iter().chain(answer).fold(prompt.len() as u64, |hash, token| mix(hash ^ u64::from(*token)));
        let logit = |token: usize| match token {
            token if token < words || token == eos as usize => {
                (mix(row ^ (token as u64) << 32) >> 40) as f32 / (1 << 22) as f32 - 2.0
            }
            _ => -1e4,
        };
        (0..vocab).map(logit).collect()
    })
}

/// Spreads a number over 64 bits (the finaliser of `SplitMix64`).
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
