//! What this crate itself computes, apart from the graphs: `cargo bench --bench micro`.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use half::f16;
use image::RgbImage;
use ndarray::{Array2, s};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use vintern::generate::{Advance, BeamSearch, EarlyStopping, GenerationSettings, Strategy, start};
use vintern::kernels::{
    BlockFormat, BlockMatrix, BlockProduct, BlockTable, Element, GroupedCache, GroupedInputs, GroupedShape,
    PackedCodes, SharedStart, Tasks,
};
use vintern::package::Package;
use vintern::preprocess::{DecodeOptions, TilingOptions, decode, tile};
use vintern::prompt::{TokenRoles, Tokenizer};

/// Vocabulary of Vintern-3B.
const VOCABULARY: usize = 151_674;

fn main() {
    divan::main();
}

/// A photo of 12 megapixels with some detail.
fn photo() -> RgbImage {
    RgbImage::from_fn(4000, 3000, |x, y| {
        let wave = ((x * y) / 977) as u8;
        image::Rgb([(x / 16) as u8 ^ wave, (y / 12) as u8, wave])
    })
}

/// Six tiles and a thumbnail of a photo.
#[divan::bench]
fn tile_12_megapixels(bencher: Bencher) {
    let photo = photo();
    let options = TilingOptions { tile_size: 448, min_tiles: 1, max_tiles: 6, thumbnail: true };
    bencher.bench_local(|| tile(black_box(&photo), &options).unwrap());
}

/// The same from its JPEG file.
#[divan::bench]
fn decode_and_tile_12_megapixels(bencher: Bencher) {
    let photo = photo();
    let mut compress = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    compress.set_size(photo.width() as usize, photo.height() as usize);
    compress.set_quality(90.0);
    compress.set_fastest_defaults();
    let mut compress = compress.start_compress(Vec::new()).unwrap();
    compress.write_scanlines(&photo).unwrap();
    let jpeg = compress.finish().unwrap();
    let options = TilingOptions { tile_size: 448, min_tiles: 1, max_tiles: 6, thumbnail: true };
    bencher.bench_local(|| {
        let decoded = decode(black_box(&jpeg), &DecodeOptions::default()).unwrap();
        tile(&decoded.rgb, &options).unwrap()
    });
}

/// A page of text to tokens.
#[divan::bench]
fn tokenize(bencher: Bencher) {
    let package = Package::open(concat!(env!("CARGO_MANIFEST_DIR"), "/models/vintern-tiny").as_ref()).unwrap();
    let roles = TokenRoles::from(&package.manifest().tokens);
    let tokenizer = Tokenizer::from_file(&package.path(&package.manifest().tokenizer.file), &roles).unwrap();
    let text = "Hóa đơn số 638, ngày 27/10/2032: tổng cộng 4.322.000 đồng. ".repeat(50);
    bencher.counter(ItemsCount::new(text.chars().count())).bench_local(|| tokenizer.encode(black_box(&text)).unwrap());
}

fn settings(strategy: Strategy) -> GenerationSettings {
    GenerationSettings {
        max_new_tokens: 100_000,
        min_new_tokens: 0,
        repetition_penalty: 3.5,
        no_repeat_ngram_size: 0,
        num_return_sequences: 1,
        strategy,
    }
}

/// One step of a search over the whole vocabulary, the repetition penalty included.
#[divan::bench(args = [1, 3, 5])]
fn search_step(bencher: Bencher, beams: usize) {
    let mut random = StdRng::seed_from_u64(1);
    let logits = Array2::from_shape_simple_fn((beams, VOCABULARY), || random.random_range(-8.0..8.0_f32));
    let strategy = match beams {
        1 => Strategy::Greedy,
        num_beams => {
            Strategy::Beam(BeamSearch { num_beams, length_penalty: 1.0, early_stopping: EarlyStopping::False })
        }
    };
    let eos = VOCABULARY as u32 + 7;
    let begin = || {
        let mut search = start(&settings(strategy.clone()), eos, None).unwrap();
        search.advance(logits.slice(s![..1, ..])).unwrap();
        search
    };
    bencher.with_inputs(begin).bench_local_values(|mut search| {
        let advance = search.advance(black_box(logits.view())).unwrap();
        assert!(matches!(advance, Advance::Continue(_)));
        search
    });
}

/// The tasks one after the other: times are those of one core.
struct OneCore;

impl Tasks for OneCore {
    type Error = Infallible;

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync + Send)) -> Result<(), Infallible> {
        (0..count).for_each(task);
        Ok(())
    }
}

/// The tasks side by side on all cores.
struct AllCores;

impl Tasks for AllCores {
    type Error = Infallible;

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync + Send)) -> Result<(), Infallible> {
        let next = AtomicUsize::new(0);
        let work = || while_next(&next, count, task);
        std::thread::scope(|scope| {
            let others = std::thread::available_parallelism().map_or(1, usize::from) - 1;
            (0..others).for_each(|_| drop(scope.spawn(work)));
            work();
        });
        Ok(())
    }
}

/// Runs the tasks that nobody has taken yet.
fn while_next(next: &AtomicUsize, count: usize, task: &(dyn Fn(usize) + Sync + Send)) {
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        if index >= count {
            return;
        }
        task(index);
    }
}

/// A matrix of Vintern-3B's feed-forward layers, 4 bits in blocks of 32 with zero points.
struct FeedForward {
    codes: Vec<u8>,
    table: BlockTable,
    /// Packed codes, where this processor's kernels read such.
    packed: Option<PackedCodes>,
}

impl FeedForward {
    const OUTPUTS: usize = 11_008;
    const INPUTS: usize = 2_048;
    const BLOCK: usize = 32;

    fn random(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let (values, blocks) = (Self::OUTPUTS * Self::INPUTS, Self::OUTPUTS * Self::INPUTS / Self::BLOCK);
        let codes: Vec<u8> = (0..values / 2).map(|_| random.random()).collect();
        let zero_points: Vec<u8> = (0..blocks / 2).map(|_| random.random()).collect();
        let (format, scales) = (BlockFormat::new(4, Self::BLOCK).unwrap(), vec![1.0 / 64.0; blocks]);
        let table = BlockTable::new(format, (Self::OUTPUTS, Self::INPUTS), &scales, Some(&zero_points)).unwrap();
        let mut packed = None;
        if BlockProduct::detect().is_some_and(BlockProduct::reads_packed) {
            let memory = packed.insert(PackedCodes::zeroed(&table).unwrap());
            let Ok(()) = memory.fill(&BlockMatrix::new(&codes, &table).unwrap(), &AllCores);
        }
        Self { codes, table, packed }
    }

    fn matrix(&self) -> BlockMatrix<'_> {
        match &self.packed {
            Some(packed) => BlockMatrix::packed(packed, &self.table),
            None => BlockMatrix::new(&self.codes, &self.table),
        }
        .unwrap()
    }

    /// Bytes that a product reads: the codes, and 12 bits for each block.
    fn bytes(&self) -> usize {
        self.codes.len() + Self::OUTPUTS * Self::INPUTS / Self::BLOCK * 3 / 2
    }

    /// Activations of some rows.
    fn activations(rows: usize) -> Vec<f32> {
        let mut random = StdRng::seed_from_u64(0);
        (0..rows * Self::INPUTS).map(|_| random.random_range(-1.0..1.0)).collect()
    }
}

/// One matrix again and again, on one core.
#[divan::bench(args = [1, 3, 8, 64, 512])]
fn block_product_11008_x_2048(bencher: Bencher, rows: usize) {
    let Some(product) = BlockProduct::detect() else {
        return;
    };
    let weights = FeedForward::random(1);
    let (matrix, values) = (weights.matrix(), FeedForward::activations(rows));
    let mut out = vec![0.0; rows * FeedForward::OUTPUTS];
    let operations = 2 * rows * FeedForward::OUTPUTS * FeedForward::INPUTS;
    bencher.counter(ItemsCount::new(operations)).bench_local(|| {
        let Ok(()) = product.run(black_box(&values), &matrix, None, &mut out, &OneCore);
    });
}

/// As many of them in turn as no cache holds, on all cores: what decoding waits for.
#[divan::bench(args = [1, 2, 3, 4, 8, 12, 16], sample_count = 20)]
fn block_products_from_memory(bencher: Bencher, rows: usize) {
    let Some(product) = BlockProduct::detect() else {
        return;
    };
    let weights: Vec<_> = (0..24).map(FeedForward::random).collect();
    let matrices: Vec<_> = weights.iter().map(FeedForward::matrix).collect();
    let values = FeedForward::activations(rows);
    let mut out = vec![0.0; rows * FeedForward::OUTPUTS];
    let bytes: usize = weights.iter().map(FeedForward::bytes).sum();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        for matrix in &matrices {
            let Ok(()) = product.run(black_box(&values), matrix, None, &mut out, &AllCores);
        }
    });
}

/// The nearest elements of numbers.
fn narrowed<E: Element>(values: &[f32]) -> Vec<E> {
    let mut elements = vec![E::default(); values.len()];
    E::narrow(values, &mut elements);
    elements
}

/// Rows of a decode step, and whether they begin alike.
#[derive(Clone, Copy, Debug)]
enum Rows {
    Apart(usize),
    Beams(usize),
}

/// Attention of a decode step of Vintern-3B after 1,900 positions, in a third of its layers and on all cores.
#[divan::bench(
    types = [f32, f16],
    args = [Rows::Apart(1), Rows::Beams(3), Rows::Apart(8)],
    sample_count = 20,
)]
fn attention_over_the_cache<E: Element>(bencher: Bencher, rows: Rows) {
    const LAYERS: usize = 12;
    const PAST: usize = 1900;
    let Some(product) = BlockProduct::detect() else {
        return;
    };
    let (rows, shared) = match rows {
        Rows::Apart(rows) => (rows, Vec::new()),
        Rows::Beams(rows) => (rows, vec![SharedStart { rows: (0..rows).collect(), positions: PAST }]),
    };
    let shape = GroupedShape { rows, positions: 1, heads: 16, shared_heads: 2, head_size: 128, capacity: PAST + 84 };
    let mut random = StdRng::seed_from_u64(4);
    let values: Vec<f32> = (0..1 << 16).map(|_| random.random_range(-1.0..1.0)).collect();
    let pattern: Vec<E> = narrowed(&values);
    let elements = |count: usize| -> Vec<E> { pattern.iter().copied().cycle().take(count).collect() };
    let mut caches: Vec<_> = (0..LAYERS).map(|_| [shape.cache_len(); 2].map(elements)).collect();
    let packed = elements(rows * shape.packed_width());
    let [cosines, sines] = [shape.capacity * shape.head_size / 2; 2].map(elements);
    let (pasts, mut out) = (vec![PAST; rows], vec![E::default(); rows * shape.width()]);
    bencher.bench_local(|| {
        for [keys, values] in &mut caches {
            let inputs = GroupedInputs {
                packed: black_box(&packed),
                pasts: &pasts,
                cosines: &cosines,
                sines: &sines,
                scale: 0.088,
                shared: &shared,
            };
            let Ok(()) = product.grouped_attention(shape, inputs, GroupedCache { keys, values }, &mut out, &AllCores);
        }
    });
}

/// As many matrices of float32 or float16 in turn as no cache holds, on all cores.
#[divan::bench(types = [f32, f16], args = [1, 2, 3, 4, 8, 16, 384], sample_count = 10)]
fn dense_products_from_memory<E: Element>(bencher: Bencher, rows: usize) {
    let Some(product) = BlockProduct::detect() else {
        return;
    };
    let (inputs, outputs) = (FeedForward::INPUTS, FeedForward::OUTPUTS);
    let matrices: Vec<Vec<E>> = (0..4).map(|_| narrowed(&FeedForward::activations(outputs))).collect();
    let (values, mut out) = (narrowed(&FeedForward::activations(rows)), vec![E::default(); rows * outputs]);
    bencher.counter(BytesCount::new(matrices.len() * inputs * outputs * size_of::<E>())).bench_local(|| {
        for matrix in &matrices {
            let Ok(()) = product.dense(black_box(&values), matrix, (inputs, outputs), &mut out, &AllCores);
        }
    });
}
