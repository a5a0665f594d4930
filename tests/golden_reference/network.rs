//! The stages of the network against the reference's tensors: vision tower, projector, logits.

use std::fs::File;
use std::path::Path;

use ndarray::{Array1, Array2, Array3, Array4, ArrayView1, ArrayView2, Axis, s};
use ndarray_npy::NpzReader;
use serde_json::Value;
use vintern::graph::Interrupt;
use vintern::graph::onnx::{Library, LibraryOptions};
use vintern::model::Model;
use vintern::package::Package;
use vintern::preprocess::{DecodeOptions, Orientation, TilingOptions, decode, normalise, tile};
use vintern::provider::ComponentProviders;

use crate::common::{golden, golden_json, package};

/// Largest accepted difference of a hidden state or logit.
const TOLERANCE: f32 = 1e-3;

struct Golden {
    model: Model,
    package: Package,
    cases: Value,
    arrays: NpzReader<File>,
}

impl Golden {
    fn open(checkpoint: &str) -> Self {
        let package = Package::open(&package(checkpoint, "fp32")).unwrap();
        let library = Library::load(&LibraryOptions::default()).unwrap();
        let model = Model::load(&package, &library, &ComponentProviders::default(), |_| ()).unwrap();
        let arrays = NpzReader::new(File::open(golden(&format!("{checkpoint}.arrays.npz"))).unwrap()).unwrap();
        Self { model, package, cases: golden_json(&format!("{checkpoint}.cases.json")), arrays }
    }

    fn floats<D: ndarray::Dimension>(&mut self, name: &str) -> ndarray::Array<f32, D> {
        self.arrays.by_name(name).unwrap()
    }

    fn ids(&mut self, name: &str) -> Vec<u32> {
        let ids: Array1<i32> = self.arrays.by_name(name).unwrap();
        ids.iter().map(|id| u32::try_from(*id).unwrap()).collect()
    }

    /// Normalised tiles of an image, thumbnail included.
    fn pixel_values(&self, image: &str, max_tiles: u64) -> Array4<f32> {
        let manifest = self.package.manifest();
        let bytes = std::fs::read(golden("images").join(Path::new(image))).unwrap();
        let options = DecodeOptions { orientation: Orientation::Ignore, ..DecodeOptions::default() };
        let tiling = TilingOptions {
            tile_size: manifest.architecture.image_size,
            min_tiles: 1,
            max_tiles: u32::try_from(max_tiles).unwrap(),
            thumbnail: true,
        };
        let tiles = tile(&decode(&bytes, &options).unwrap().rgb, &tiling).unwrap().tiles;
        normalise(&tiles, manifest.tiling.mean, manifest.tiling.std)
    }

    /// The embeddings of a prompt with the image embeddings in their places.
    fn embeds(&self, ids: &[u32], images: &[Array3<f32>]) -> Array2<f32> {
        let mut image_rows = images
            .iter()
            .flat_map(|image| image.outer_iter())
            .flat_map(|tile| tile.outer_iter().map(|row| row.to_vec()).collect::<Vec<_>>());
        let mut embeds = Array2::zeros((ids.len(), self.model.embeddings.hidden_size()));
        for (id, mut row) in ids.iter().zip(embeds.rows_mut()) {
            if *id == self.package.manifest().tokens.image_context && !images.is_empty() {
                row.assign(&ArrayView1::from(&image_rows.next().unwrap()));
            } else {
                self.model.embeddings.lookup(*id, row.as_slice_mut().unwrap()).unwrap();
            }
        }
        assert!(image_rows.next().is_none());
        embeds
    }
}

fn assert_close<D: ndarray::Dimension>(
    found: &ndarray::ArrayView<'_, f32, D>,
    expected: &ndarray::ArrayView<'_, f32, D>,
    what: &str,
) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let difference = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
    assert!(difference < TOLERANCE, "{what}: {difference}");
}

fn vision_and_projector(checkpoint: &str) {
    let mut golden = Golden::open(checkpoint);
    for entry in golden.cases["vision"].as_array().unwrap().clone() {
        let key = entry["key"].as_str().unwrap();
        let pixels = golden.pixel_values(entry["image"].as_str().unwrap(), entry["max_num"].as_u64().unwrap());
        assert_eq!(pixels.shape()[0] as u64, entry["n_tiles"].as_u64().unwrap());
        let features = golden.model.vision.encode(pixels.view(), &Interrupt::new()).unwrap();
        // The stored hidden state has the class token first, which the graph drops.
        let expected: Array2<f32> = golden.floats(&format!("{key}.vit_tile0"));
        let expected = expected.slice(s![1.., ..]);
        let found = features.index_axis(Axis(0), 0);
        assert_close(&found.slice(s![..expected.nrows(), ..]), &expected, &format!("{key} vision"));
        let embeds = golden.model.vision.project(&features, &Interrupt::new()).unwrap();
        let expected: Array3<f32> = golden.floats(&format!("{key}.projector"));
        let last = embeds.shape()[0] - 1;
        let found = match entry["projector_tiles"].as_str().unwrap() {
            "all" => embeds,
            _ => embeds.select(Axis(0), &[0, last]),
        };
        assert_close(&found.view(), &expected.view(), &format!("{key} projector"));
    }
}

/// The logits after each position of a text, three ways: token by token, in one call, in chunks with a past.
fn text_logits(checkpoint: &str) {
    let mut golden = Golden::open(checkpoint);
    let ids = golden.ids("lm_text.input_ids");
    let expected: Array2<f32> = golden.floats("lm_text.logits");
    let embeds = golden.embeds(&ids, &[]);
    let decoder = &mut golden.model.decoder;
    decoder.reserve(2, ids.len(), &[]).unwrap();
    let prefill = |decoder: &mut vintern::model::Decoder, row, past: usize, embeds: ArrayView2<'_, f32>| {
        decoder.prefill(row, past, embeds, &Interrupt::new()).unwrap().to_owned()
    };
    for position in 0..ids.len() {
        let logits = prefill(decoder, 0, position, embeds.slice(s![position..=position, ..]));
        assert_close(&logits.row(0), &expected.row(position), &format!("position {position}, step by step"));
    }
    let last = ids.len() - 1;
    let whole = prefill(decoder, 1, 0, embeds.view());
    assert_close(&whole.row(0), &expected.row(last), "one call");
    let half = ids.len() / 2;
    prefill(decoder, 1, 0, embeds.slice(s![..half, ..]));
    let rest = prefill(decoder, 1, half, embeds.slice(s![half.., ..]));
    assert_close(&rest.row(0), &expected.row(last), "two chunks");
    // Two rows with pasts of different length in one call.
    let rows = ndarray::stack![Axis(0), embeds.row(last), embeds.row(half)];
    let both = decoder.step(0..2, &[last, half], rows.view()).unwrap();
    assert_close(&both.row(0), &expected.row(last), "row 0 of 2");
    assert_close(&both.row(1), &expected.row(half), "row 1 of 2");
}

fn first_step_logits(checkpoint: &str) {
    let mut golden = Golden::open(checkpoint);
    for case in golden.cases["cases"].as_array().unwrap().clone() {
        let id = case["id"].as_str().unwrap();
        let images: Vec<Array3<f32>> = case["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|image| {
                let pixels = golden.pixel_values(image.as_str().unwrap(), case["max_num"].as_u64().unwrap());
                let features = golden.model.vision.encode(pixels.view(), &Interrupt::new()).unwrap();
                golden.model.vision.project(&features, &Interrupt::new()).unwrap()
            })
            .collect();
        let ids = golden.ids(&format!("{id}.input_ids"));
        let expected: Array1<f32> = golden.floats(&format!("{id}.first_step_logits"));
        let embeds = golden.embeds(&ids, &images);
        golden.model.decoder.reserve(1, ids.len(), &[]).unwrap();
        let logits = golden.model.decoder.prefill(0, 0, embeds.view(), &Interrupt::new()).unwrap();
        assert_close(&logits.row(0), &expected.view(), id);
    }
}

#[test]
fn vision_and_projector_of_ckpt_a() {
    vision_and_projector("ckpt_a");
}

#[test]
fn vision_and_projector_of_ckpt_b() {
    vision_and_projector("ckpt_b");
}

#[test]
fn text_logits_of_ckpt_a_at_every_position() {
    text_logits("ckpt_a");
}

#[test]
fn text_logits_of_ckpt_b_at_every_position() {
    text_logits("ckpt_b");
}

#[test]
fn first_step_logits_of_every_case_of_ckpt_a() {
    first_step_logits("ckpt_a");
}

#[test]
fn first_step_logits_of_every_case_of_ckpt_b() {
    first_step_logits("ckpt_b");
}
