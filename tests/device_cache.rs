//! A cache in a device's memory against one in the host's: the same calls, the same logits, bit by bit. The device is the
//! host's memory that only graphs copy, which needs no GPU; `make test-gpu` makes the calls on one.

#[path = "common/mod.rs"]
mod common;

use std::path::Path;

use ndarray::{Array2, Array3};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use vintern::graph::onnx::{CacheLayout, CacheMemory, Library, LibraryOptions, OnnxCachedGraph, OnnxGraph};
use vintern::graph::{CachedGraph, CachedRow, Interrupt};
use vintern::model::graph_source;
use vintern::package::{Component, Package};
use vintern::provider::ComponentProviders;

use common::{exported, golden, gpu_library, package};

/// The decoder of a package on a provider, with a cache in some memory.
fn decoder(
    package: &Package,
    library: &Library,
    spec: &str,
    memory: impl FnOnce(&OnnxGraph, &CacheLayout) -> CacheMemory,
) -> OnnxCachedGraph {
    let providers: ComponentProviders = spec.parse().unwrap();
    let graph = OnnxGraph::load(library, &graph_source(package, &providers, Component::Decoder).unwrap()).unwrap();
    let layout = CacheLayout::of(&package.manifest().architecture, graph.variant()).unwrap();
    let memory = memory(&graph, &layout);
    OnnxCachedGraph::new(graph, layout, memory).unwrap()
}

/// Calls as an engine makes them, chosen by chance.
struct Calls {
    random: StdRng,
    hidden: usize,
    rows: usize,
    capacity: usize,
    /// Positions of each row that hold something.
    filled: Vec<usize>,
    /// Largest difference of two logits that is accepted.
    tolerance: f32,
}

impl Calls {
    fn embeds(&mut self, rows: usize, positions: usize) -> Array3<f32> {
        Array3::from_shape_fn((rows, positions, self.hidden), |_| self.random.random_range(-1.0..1.0))
    }

    /// Another shape of the cache, in which some rows survive.
    fn reserve(&mut self, graphs: &mut [&mut dyn CachedGraph]) {
        let (rows, capacity) = (self.random.random_range(1..=4), self.random.random_range(16..=40));
        let survivors = self.filled.iter().enumerate().filter(|(row, filled)| *row < rows && **filled > 0);
        let keep: Vec<CachedRow> = survivors
            .map(|(row, filled)| CachedRow { row, positions: *filled.min(&capacity) })
            .filter(|_| self.random.random_bool(0.7))
            .collect();
        for graph in graphs.iter_mut() {
            graph.reserve(rows, capacity, &keep).unwrap();
            assert_eq!(graph.reserved(), (rows, capacity));
        }
        // A cache that has the shape already keeps all.
        if (rows, capacity) != (self.rows, self.capacity) {
            self.filled = vec![0; rows];
            for kept in &keep {
                self.filled[kept.row] = kept.positions;
            }
        }
        (self.rows, self.capacity) = (rows, capacity);
    }

    /// A row becomes what another is, from some position on at which they may differ.
    fn copy(&mut self, graphs: &mut [&mut dyn CachedGraph]) {
        let (from, to) = (self.random.random_range(0..self.rows), self.random.random_range(0..self.rows));
        let start = self.random.random_range(0..=self.filled[from].min(self.filled[to]));
        for graph in graphs.iter_mut() {
            graph.copy(from, to, start..self.filled[from]).unwrap();
        }
        self.filled[to] = self.filled[from];
    }

    /// Several positions for one row, or one for several.
    fn run(&mut self, graphs: &mut [&mut dyn CachedGraph]) -> bool {
        let first = self.random.random_range(0..self.rows);
        let prefill = self.random.random_bool(0.4);
        let count = if prefill { 1 } else { self.random.random_range(1..=self.rows - first) };
        let pasts = self.filled[first..first + count].to_vec();
        let room = self.capacity - pasts.iter().max().unwrap();
        let positions = if prefill { self.random.random_range(1..=9).min(room) } else { room.min(1) };
        if positions == 0 {
            return false;
        }
        let embeds = self.embeds(count, positions);
        let logits: Vec<Array2<f32>> = graphs
            .iter_mut()
            .map(|graph| graph.run(first..first + count, embeds.view(), &pasts, &Interrupt::new()).unwrap().to_owned())
            .collect();
        assert!(logits[0].iter().all(|logit| logit.is_finite()));
        for other in &logits[1..] {
            let differences = logits[0].iter().zip(other).map(|(first, second)| (first - second).abs());
            let most = differences.fold(0.0, f32::max);
            assert!(most <= self.tolerance, "{most} at rows {first}+{count}, {positions} positions after {pasts:?}");
        }
        self.filled[first..first + count].iter_mut().for_each(|filled| *filled += positions);
        true
    }
}

/// Makes the same calls of two decoders.
fn compare(package: &Package, graphs: [&mut dyn CachedGraph; 2], seed: u64, tolerance: f32) {
    let (random, hidden) = (StdRng::seed_from_u64(seed), package.manifest().architecture.hidden_size);
    let mut calls = Calls { random, hidden, rows: 0, capacity: 0, filled: Vec::new(), tolerance };
    let mut graphs = graphs;
    calls.reserve(&mut graphs);
    let mut runs = 0;
    for _ in 0..120 {
        match calls.random.random_range(0..10) {
            0 => calls.reserve(&mut graphs),
            1..4 => calls.copy(&mut graphs),
            _ => runs += usize::from(calls.run(&mut graphs)),
        }
    }
    assert!(runs > 30, "{runs} runs");
}

fn check(folder: &Path, seed: u64) {
    let package = Package::open(folder).unwrap();
    let library = Library::load(&LibraryOptions::default()).unwrap();
    let mut host =
        decoder(&package, &library, "cpu", |graph, layout| CacheMemory::of(&library, graph, layout).unwrap());
    let mut device =
        decoder(&package, &library, "cpu", |_, layout| CacheMemory::host_as_device(&library, layout).unwrap());
    assert_eq!(host.placement().cache, None);
    assert_eq!(device.placement().cache.as_deref(), Some("in the host's memory, copied by a graph"));
    compare(&package, [&mut host, &mut device], seed, 0.0);
}

/// The decoder on CUDA, its cache in the GPU's memory, against the CPU provider.
#[test]
#[ignore = "needs an NVIDIA GPU: make test-gpu"]
fn a_cache_on_the_gpu() {
    for (checkpoint, precision, tolerance) in [("ckpt_a", "fp32", 1e-3), ("ckpt_b", "fp16", 0.1)] {
        let folder = exported(&format!("{checkpoint}-{precision}-device-both"), |exporter, folder| {
            exporter.arg(golden(checkpoint)).arg(folder).args(["--precision", precision, "--variant", "both"]);
        });
        let package = Package::open(&folder).unwrap();
        let options = LibraryOptions { path: Some(gpu_library()), ..LibraryOptions::default() };
        let library = Library::load(&options).unwrap();
        let on =
            |spec| decoder(&package, &library, spec, |graph, layout| CacheMemory::of(&library, graph, layout).unwrap());
        let (mut host, mut device) = (on("cpu"), on("cuda:tf32=0"));
        assert_eq!(device.placement().cache.as_deref(), Some("on CUDA device 0"));
        compare(&package, [&mut host, &mut device], 5, tolerance);
    }
}

#[test]
fn a_cache_that_is_written_in_place() {
    check(&package("ckpt_a", "fp32"), 1);
    check(&package("ckpt_b", "fp16"), 2);
}

#[test]
fn a_cache_whose_new_positions_come_apart() {
    for (checkpoint, precision, seed) in [("ckpt_a", "fp32", 3), ("ckpt_b", "fp16", 4)] {
        let folder = exported(&format!("{checkpoint}-{precision}-device"), |exporter, folder| {
            let words = ["--precision", precision, "--variant", "standard"];
            exporter.arg(golden(checkpoint)).arg(folder).args(words);
        });
        check(&folder, seed);
    }
}

#[test]
fn rows_and_positions_outside_the_cache_are_refused() {
    let package = Package::open(&package("ckpt_a", "fp32")).unwrap();
    let library = Library::load(&LibraryOptions::default()).unwrap();
    let mut graph =
        decoder(&package, &library, "cpu", |_, layout| CacheMemory::host_as_device(&library, layout).unwrap());
    graph.reserve(2, 8, &[]).unwrap();
    assert!(graph.copy(0, 2, 0..4).is_err());
    assert!(graph.copy(0, 1, 0..9).is_err());
    assert!(graph.copy(2, 2, 0..4).is_err());
    assert!(graph.reserve(1, 8, &[CachedRow { row: 1, positions: 4 }]).is_err());
    let embeds = Array3::zeros((1, 9, package.manifest().architecture.hidden_size));
    assert!(graph.run(0..1, embeds.view(), &[0], &Interrupt::new()).is_err());
    assert_eq!(graph.reserved(), (2, 8));
}
