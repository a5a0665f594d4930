//! One engine on three networks: scripted, ONNX Runtime's CPU provider, OpenVINO. Every network is loaded into the same three
//! graphs, and everything after that is one function; what it asks of the graphs is written down and compared.

#[path = "common/mod.rs"]
mod common;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use ndarray::{ArrayD, ArrayView2, ArrayView3, IxDyn};
use vintern::engine::{Engine, EngineConfig, Event, Request, TiledImage};
use vintern::generate::{BeamSearch, EarlyStopping, GenerationSettings, Sampling, Strategy};
use vintern::graph::onnx::{Library, LibraryOptions};
use vintern::graph::scripted::ScriptedDecoder;
use vintern::graph::{CachedGraph, CachedRow, Graph, GraphError, Input, Interrupt, Placement};
use vintern::model::{EmbeddingTable, Graphs, Model};
use vintern::package::{Architecture, Package};
use vintern::preprocess::{DecodeOptions, TilingOptions};
use vintern::prompt::{TokenRoles, Tokenizer, Turn};
use vintern::provider::ComponentProviders;

use common::{golden, openvino_library, package};

/// What was answered, token by token.
type Answers = Vec<Vec<u32>>;

fn settings(strategy: Strategy, max_new_tokens: usize) -> GenerationSettings {
    GenerationSettings {
        max_new_tokens,
        min_new_tokens: 0,
        repetition_penalty: 1.5,
        no_repeat_ngram_size: 0,
        num_return_sequences: 1,
        strategy,
    }
}

/// Requests of all kinds: greedy about an image, beams, samples, a second turn.
fn requests(tile_size: u32) -> Vec<Request> {
    let bytes = std::fs::read(golden("images").join("wide.png")).unwrap();
    let tiling = TilingOptions { tile_size, min_tiles: 1, max_tiles: 4, thumbnail: true };
    let image = TiledImage::from_bytes(&bytes, &DecodeOptions::default(), &tiling).unwrap();
    let request = |question: &str, images: &[&TiledImage], settings| Request {
        question: question.to_owned(),
        images: images.iter().map(|image| (*image).clone()).collect(),
        history: None,
        template: None,
        system_message: None,
        settings,
        stop: Vec::new(),
        logprobs: None,
    };
    let beams =
        |num_beams| Strategy::Beam(BeamSearch { num_beams, length_penalty: 1.0, early_stopping: EarlyStopping::False });
    let sampling = Sampling { temperature: 0.8, top_k: 0, top_p: 0.95, min_p: 0.0, seed: 3 };
    let turn =
        Turn { question: "<image>\nBức ảnh chụp gì?".to_owned(), answer: Some("Một con mèo.".to_owned()) };
    vec![
        request("Bức ảnh chụp gì?", &[&image], settings(Strategy::Greedy, 9)),
        request("Thủ đô của Việt Nam là gì?", &[], settings(beams(3), 12)),
        request("Kể một câu chuyện.", &[], settings(Strategy::Sample(sampling), 10)),
        Request { history: Some(vec![turn]), ..request("Nó màu gì?", &[&image], settings(beams(2), 8)) },
    ]
}

/// Runs requests to their ends, side by side.
fn run(engine: &mut Engine, requests: &[Request]) -> Answers {
    let submitted = requests.iter().map(|request| engine.submit(request.clone(), &Interrupt::new()).unwrap());
    let ids: Vec<_> = submitted.collect();
    let mut answers = vec![Vec::new(); ids.len()];
    while !engine.is_idle() {
        engine.step(&mut |event| match event {
            Event::Finished { id, completion } => {
                // One that was cancelled ends here as well.
                if let Some(index) = ids.iter().position(|known| *known == id) {
                    answers[index].clone_from(&completion.answers[0].token_ids);
                }
            }
            Event::Failed { error, .. } => panic!("{error}"),
            Event::Progress { .. } | Event::Text { .. } => (),
        });
    }
    answers
}

/// The calls: each request alone, all together, and one that is cancelled beside another.
fn calls(mut engine: Engine) -> Answers {
    let requests = requests(engine.manifest().architecture.image_size);
    let alone: Answers = requests.iter().flat_map(|request| run(&mut engine, std::slice::from_ref(request))).collect();
    engine.clear_caches();
    assert_eq!(run(&mut engine, &requests), alone, "together");
    let cancelled = Interrupt::new();
    engine.submit(requests[0].clone(), &cancelled).unwrap();
    engine.step(&mut |_| ());
    cancelled.raise();
    assert_eq!(run(&mut engine, &requests[1..2]), alone[1..2], "beside one that was cancelled");
    assert!(alone.iter().all(|answer| !answer.is_empty()));
    alone
}

/// A graph that turns tiles into numbers.
struct PerTile {
    shape: [usize; 2],
    placement: Placement,
}

impl Graph for PerTile {
    fn run(&mut self, inputs: &[Input<'_>], interrupt: &Interrupt) -> Result<ArrayD<f32>, GraphError> {
        if interrupt.is_raised() {
            return Err(GraphError::Interrupted);
        }
        let shape = [inputs[0].values.shape()[0], self.shape[0], self.shape[1]];
        Ok(ArrayD::from_shape_fn(IxDyn(&shape), |at| (2000 + at[1]) as f32))
    }

    fn placement(&self) -> &Placement {
        &self.placement
    }
}

/// What an engine asked of a graph.
#[derive(Clone, Debug, PartialEq)]
enum Call {
    /// Tiles through the vision encoder or the projector.
    Tiles(usize),
    Reserve(usize, usize, Vec<CachedRow>),
    Copy(usize, usize, Range<usize>),
    /// Rows, positions of each, and what each holds.
    Decode(Range<usize>, usize, Vec<usize>),
}

type Calls = Arc<Mutex<Vec<Call>>>;

/// A graph whose calls are written down.
struct Recorded<G: ?Sized> {
    graph: Box<G>,
    calls: Calls,
}

impl<G: ?Sized> Recorded<G> {
    fn note(&self, call: Call) {
        self.calls.lock().unwrap().push(call);
    }
}

impl Graph for Recorded<dyn Graph> {
    fn run(&mut self, inputs: &[Input<'_>], interrupt: &Interrupt) -> Result<ArrayD<f32>, GraphError> {
        self.note(Call::Tiles(inputs[0].values.shape()[0]));
        self.graph.run(inputs, interrupt)
    }

    fn placement(&self) -> &Placement {
        self.graph.placement()
    }
}

impl CachedGraph for Recorded<dyn CachedGraph> {
    fn reserve(&mut self, rows: usize, capacity: usize, keep: &[CachedRow]) -> Result<(), GraphError> {
        self.note(Call::Reserve(rows, capacity, keep.to_vec()));
        self.graph.reserve(rows, capacity, keep)
    }

    fn reserved(&self) -> (usize, usize) {
        self.graph.reserved()
    }

    fn copy(&mut self, from: usize, to: usize, positions: Range<usize>) -> Result<(), GraphError> {
        self.note(Call::Copy(from, to, positions.clone()));
        self.graph.copy(from, to, positions)
    }

    fn run(
        &mut self,
        rows: Range<usize>,
        embeds: ArrayView3<'_, f32>,
        pasts: &[usize],
        interrupt: &Interrupt,
    ) -> Result<ArrayView2<'_, f32>, GraphError> {
        self.note(Call::Decode(rows.clone(), embeds.shape()[1], pasts.to_vec()));
        self.graph.run(rows, embeds, pasts, interrupt)
    }

    fn placement(&self) -> &Placement {
        self.graph.placement()
    }
}

/// Everything after loading: an engine on these graphs, its answers, and what it asked of them.
fn run_on(graphs: Graphs, embeddings: EmbeddingTable, package: &Package) -> (Answers, Vec<Call>) {
    let recorded = Calls::default();
    let manifest = package.manifest();
    let graphs = Graphs {
        vision_encoder: Box::new(Recorded { graph: graphs.vision_encoder, calls: Arc::clone(&recorded) }),
        projector: Box::new(Recorded { graph: graphs.projector, calls: Arc::clone(&recorded) }),
        decoder: Box::new(Recorded { graph: graphs.decoder, calls: Arc::clone(&recorded) }),
    };
    let model = Model::new(graphs, embeddings, &manifest.architecture);
    let roles = TokenRoles::from(&manifest.tokens);
    let tokenizer = Tokenizer::from_file(&package.path(&manifest.tokenizer.file), &roles).unwrap();
    let engine = Engine::new(model, tokenizer, manifest.clone(), EngineConfig::default()).unwrap();
    let answers = calls(engine);
    let recorded = std::mem::take(&mut *recorded.lock().unwrap());
    (answers, recorded)
}

/// Graphs that are a script, of the sizes of a package.
fn scripted(package: &Package) -> (Graphs, EmbeddingTable) {
    let sizes: &Architecture = &package.manifest().architecture;
    let per_tile = |width| Box::new(PerTile { shape: [sizes.tokens_per_tile, width], placement: Placement::default() });
    let hidden = sizes.hidden_size;
    let rows = (0..sizes.embedding_rows * hidden)
        .map(|index| if index.is_multiple_of(hidden) { (index / hidden) as f32 } else { 0.0 });
    let vocabulary = sizes.vocab_size as u32;
    let script = move |row: &[u32]| {
        let hash =
            row.iter().fold(row.len() as u32, |hash, token| hash.wrapping_mul(31) ^ token.wrapping_mul(0x9e37_79b9));
        (0..vocabulary)
            .map(|token| (hash ^ token.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35) as f32 / 1e9)
            .collect()
    };
    let graphs = Graphs {
        vision_encoder: per_tile(sizes.vision_hidden_size),
        projector: per_tile(hidden),
        decoder: Box::new(ScriptedDecoder::new(Box::new(script))),
    };
    (graphs, EmbeddingTable::from_rows(rows.collect(), hidden))
}

/// Graphs on execution providers of a library.
fn on_providers(package: &Package, library: Option<PathBuf>, spec: &str) -> (Graphs, EmbeddingTable) {
    let library = Library::load(&LibraryOptions { path: library, ..LibraryOptions::default() }).unwrap();
    let providers: ComponentProviders = spec.parse().unwrap();
    let graphs = Graphs::load(package, &library, &providers, |_| ()).unwrap();
    (graphs, EmbeddingTable::open(package).unwrap())
}

/// The calls up to the first decode step, which do not depend on what was answered.
fn beginning(calls: &[Call]) -> &[Call] {
    let step = calls.iter().position(|call| matches!(call, Call::Decode(_, 1, _))).unwrap();
    &calls[..step]
}

#[test]
fn the_same_calls_on_three_networks() {
    let package = Package::open(&package("ckpt_b", "fp32")).unwrap();
    let run = |(graphs, embeddings)| run_on(graphs, embeddings, &package);
    let (_, on_script) = run(scripted(&package));
    // One library a process; that of OpenVINO has the CPU provider as well.
    let openvino = openvino_library();
    let on_cpu = run(on_providers(&package, openvino.clone(), "cpu"));
    assert_eq!(beginning(&on_script), beginning(&on_cpu.1));
    assert!(beginning(&on_script).len() > 8, "tiles through two graphs, and a prompt");
    if openvino.is_some() {
        assert!(run(on_providers(&package, openvino, "openvino")) == on_cpu, "other answers or other calls");
    }
}
