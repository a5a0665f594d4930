//! An engine over the scripted network, requests for it, and what it told.

use image::{Rgb, RgbImage};
use serde_json::json;
use vintern::engine::{Completion, Engine, EngineConfig, EngineError, Event, Request, RequestId, TiledImage};
use vintern::generate::{BeamSearch, EarlyStopping, GeneratedSequence, GenerationSettings, Sampling, Strategy};
use vintern::graph::Interrupt;
use vintern::model::{Decoder, EmbeddingTable, Model, VisionTower};
use vintern::package::Manifest;
use vintern::preprocess::TilingOptions;
use vintern::prompt::{TokenRoles, Tokenizer};

use crate::network::{self, EMBEDDINGS, LanguageModel, PerTile, Probe, TILE, TOKENS_PER_TILE, remembering};
use crate::oracle;

/// What the packages of these tests say before each conversation.
pub const SYSTEM_MESSAGE: &str = "s";
/// `<|im_end|>`
pub const END_OF_TURN: u32 = 902;

/// What to build an engine from.
#[derive(Clone)]
pub struct Setup {
    pub model: LanguageModel,
    pub vocab: usize,
    pub eos: u32,
    pub max_length: usize,
    pub config: EngineConfig,
}

impl Setup {
    /// A vocabulary of 14 tokens, of which 3 ends an answer.
    pub fn small(model: LanguageModel) -> Self {
        let config = EngineConfig {
            max_rows: 16,
            prefill_chunk: 5,
            prefill_pause: None,
            image_cache_bytes: 1 << 20,
            spare_rows: 0,
            cache_bytes: None,
            vision_beside: false,
        };
        Self { model, vocab: 14, eos: 3, max_length: 4096, config }
    }

    /// The small vocabulary under a model that knows its whole row.
    pub fn remembering() -> Self {
        Self::small(remembering(14, 14, 3))
    }

    /// The tokenizer's own vocabulary and end of answer.
    pub fn text(model: LanguageModel) -> Self {
        Self { vocab: EMBEDDINGS, eos: END_OF_TURN, ..Self::small(model) }
    }

    pub fn rows(mut self, max_rows: usize) -> Self {
        self.config.max_rows = max_rows;
        self
    }

    pub fn spare(mut self, spare_rows: usize) -> Self {
        self.config.spare_rows = spare_rows;
        self
    }

    /// A cache of so many positions; each takes 8 bytes, two numbers.
    pub fn cache(mut self, positions: usize) -> Self {
        self.config.cache_bytes = Some(8 * positions);
        self
    }

    /// Tiles are encoded beside the decoder.
    pub fn beside(mut self) -> Self {
        self.config.vision_beside = true;
        self
    }

    pub fn chunk(mut self, prefill_chunk: usize) -> Self {
        self.config.prefill_chunk = prefill_chunk;
        self
    }

    fn manifest(&self) -> Manifest {
        let file = json!({"name": "none", "size": 0, "sha256": ""});
        serde_json::from_value(json!({
            "format": "vintern-package",
            "format_version": 1,
            "exporter": {"name": "test", "version": "0"},
            "source": {"name": "scripted", "layout": "internvl_chat", "sha256": ""},
            "architecture": {
                "image_size": TILE, "patch_size": 4, "tokens_per_tile": TOKENS_PER_TILE,
                "vision_hidden_size": 1, "vision_num_hidden_layers": 1, "hidden_size": 1, "num_hidden_layers": 1,
                "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 1,
                "vocab_size": self.vocab, "embedding_rows": EMBEDDINGS, "max_length": self.max_length,
            },
            "tiling": {"min_tiles": 1, "max_tiles": 6, "use_thumbnail": true, "mean": [0, 0, 0], "std": [1, 1, 1]},
            "prompt": {"template": "Hermes-2", "system_message": SYSTEM_MESSAGE},
            "tokens": {
                "eos": self.eos, "pad": 900, "image_start": 922, "image_end": 923, "image_context": 924,
                "skipped_in_text": (900..914).collect::<Vec<_>>(),
            },
            "tokenizer": {"file": file},
            "embed_tokens": {"file": file, "tensor": "embed_tokens.weight", "dtype": "fp32"},
            "graphs": {"vision_encoder": [], "projector": [], "decoder": []},
        }))
        .unwrap()
    }

    pub fn build(&self) -> Lab {
        let manifest = self.manifest();
        let sizes = &manifest.architecture;
        let tokenizer = tokenizer();
        let probe = Probe::default();
        let decoder = network::Decoder::new(self.model.clone(), self.vocab, probe.clone());
        let (encoder, projector) = (PerTile::encoder(probe.clone()), PerTile::projector(probe.clone()));
        let model = Model {
            vision: VisionTower::new(Box::new(encoder), Box::new(projector), sizes),
            embeddings: EmbeddingTable::from_rows((0..EMBEDDINGS).map(|id| id as f32).collect(), 1),
            decoder: Decoder::new(Box::new(decoder), sizes),
        };
        let engine = Engine::new(model, tokenizer, manifest.clone(), self.config.clone()).unwrap();
        Lab { engine, probe, setup: self.clone(), events: Vec::new() }
    }
}

/// The tokenizer of `ckpt_a` with its roles.
pub fn tokenizer() -> Tokenizer {
    let path = crate::reference_data::golden("ckpt_a/tokenizer.json");
    let roles = TokenRoles {
        eos: END_OF_TURN,
        pad: 900,
        image_start: 922,
        image_end: 923,
        image_context: 924,
        skipped_in_text: (900..914).collect(),
    };
    Tokenizer::from_file(&path, &roles).unwrap()
}

/// An engine and all it told so far.
pub struct Lab {
    pub engine: Engine,
    pub probe: Probe,
    pub setup: Setup,
    pub events: Vec<Event>,
}

impl Lab {
    pub fn submit(&mut self, request: Request) -> RequestId {
        self.submit_with_switch(request).0
    }

    /// Takes a request in that the returned switch cancels.
    pub fn submit_with_switch(&mut self, request: Request) -> (RequestId, Interrupt) {
        let switch = Interrupt::new();
        (self.submit_under(request, &switch), switch)
    }

    /// Takes a request in that `switch` cancels.
    pub fn submit_under(&mut self, request: Request, switch: &Interrupt) -> RequestId {
        self.probe.look().announce(oracle::prompt(&request));
        self.engine.submit(request, switch).unwrap()
    }

    pub fn refuse(&mut self, request: Request) -> EngineError {
        self.engine.submit(request, &Interrupt::new()).unwrap_err()
    }

    pub fn step(&mut self) {
        let events = &mut self.events;
        self.engine.step(&mut |event| events.push(event));
    }

    pub fn steps(&mut self, number: usize) {
        (0..number).for_each(|_| self.step());
    }

    /// Steps until `wanted` holds.
    pub fn step_until(&mut self, mut wanted: impl FnMut(&Self) -> bool) {
        for _ in 0..20_000 {
            if wanted(self) {
                return;
            }
            self.step();
        }
        panic!("it never came");
    }

    /// Steps until nothing is left; nothing more may be asked of the network after that.
    pub fn finish(&mut self) {
        self.step_until(|lab| lab.engine.is_idle());
        let calls = self.probe.look().calls.len();
        let events = self.events.len();
        self.step();
        assert_eq!((self.probe.look().calls.len(), self.events.len()), (calls, events), "an idle engine is at work");
    }

    pub fn ask(&mut self, request: Request) -> Completion {
        let id = self.submit(request);
        self.finish();
        self.completion(id).clone()
    }

    /// How a request ended; `None` while it did not.
    pub fn outcome(&self, wanted: RequestId) -> Option<Result<&Completion, &EngineError>> {
        let mut outcomes = self.events.iter().filter_map(|event| match event {
            Event::Finished { id, completion } if *id == wanted => Some(Ok(&**completion)),
            Event::Failed { id, error } if *id == wanted => Some(Err(error)),
            _ => None,
        });
        let outcome = outcomes.next();
        assert!(outcomes.next().is_none(), "{wanted:?} ended twice");
        outcome
    }

    pub fn completion(&self, id: RequestId) -> &Completion {
        self.outcome(id).expect("it ended").expect("it did not fail")
    }

    pub fn error(&self, id: RequestId) -> &EngineError {
        self.outcome(id).expect("it ended").expect_err("it failed")
    }

    /// The pieces of text that were told of a request.
    pub fn pieces(&self, wanted: RequestId) -> Vec<&str> {
        let text = |event| match event {
            &Event::Text { id, ref text, .. } if id == wanted => Some(text.as_str()),
            _ => None,
        };
        self.events.iter().filter_map(text).collect()
    }
}

/// The answers of a completion as the search gave them.
pub fn sequences(completion: &Completion) -> Vec<GeneratedSequence> {
    let sequence = |answer: &vintern::engine::Answer| GeneratedSequence {
        tokens: answer.token_ids.clone(),
        logprobs: Vec::new(),
        score: answer.score,
        finish: answer.finish,
    };
    completion.answers.iter().map(sequence).collect()
}

/// A question answered greedily.
pub fn question(text: impl ToString, settings: GenerationSettings) -> Request {
    Request {
        question: text.to_string(),
        images: Vec::new(),
        history: None,
        template: None,
        system_message: None,
        settings,
        stop: Vec::new(),
        logprobs: None,
    }
}

pub fn greedy(max_new_tokens: usize) -> GenerationSettings {
    GenerationSettings {
        max_new_tokens,
        min_new_tokens: 0,
        repetition_penalty: 1.0,
        no_repeat_ngram_size: 0,
        num_return_sequences: 1,
        strategy: Strategy::Greedy,
    }
}

pub fn beams(num_beams: usize, max_new_tokens: usize) -> GenerationSettings {
    let beam = BeamSearch { num_beams, length_penalty: 1.0, early_stopping: EarlyStopping::False };
    GenerationSettings { strategy: Strategy::Beam(beam), ..greedy(max_new_tokens) }
}

pub fn samples(number: usize, seed: u64, max_new_tokens: usize) -> GenerationSettings {
    let sampling = Sampling { temperature: 1.1, top_k: 0, top_p: 0.95, min_p: 0.0, seed };
    let strategy = Strategy::Sample(sampling);
    GenerationSettings { num_return_sequences: number, strategy, ..greedy(max_new_tokens) }
}

/// The same, and eos only at the length limit.
pub fn to_the_end(settings: GenerationSettings) -> GenerationSettings {
    GenerationSettings { min_new_tokens: settings.max_new_tokens, ..settings }
}

/// An image of one tile for each brightness, side by side, and a thumbnail if there are several.
pub fn picture(brightness: &[u8]) -> TiledImage {
    let width = TILE * brightness.len() as u32;
    let image = RgbImage::from_fn(width, TILE, |x, _| Rgb([brightness[(x / TILE) as usize]; 3]));
    let options = TilingOptions { tile_size: TILE, min_tiles: 1, max_tiles: 12, thumbnail: true };
    TiledImage::from_rgb(&image, &options).unwrap()
}
