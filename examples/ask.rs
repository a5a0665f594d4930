//! Asks a model package one question about an image: `cargo run --example ask -- PACKAGE IMAGE QUESTION`.

use std::path::Path;

use vintern::engine::{Engine, EngineConfig, Event, Request, TiledImage};
use vintern::generate::{GenerationSettings, Strategy};
use vintern::graph::Interrupt;
use vintern::graph::onnx::{Library, LibraryOptions};
use vintern::package::Package;
use vintern::preprocess::{DecodeOptions, TilingOptions};
use vintern::provider::ComponentProviders;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [package, image, question] = arguments.as_slice() else { return Err("PACKAGE IMAGE QUESTION".into()) };
    let package = Package::open(Path::new(package))?;
    let library = Library::load(&LibraryOptions::default())?;
    let mut engine = Engine::load(&package, &library, &ComponentProviders::default(), EngineConfig::default(), |_| ())?;

    let tile_size = engine.manifest().architecture.image_size;
    let tiling = TilingOptions { tile_size, min_tiles: 1, max_tiles: 6, thumbnail: true };
    let request = Request {
        question: question.clone(),
        images: vec![TiledImage::from_bytes(&std::fs::read(image)?, &DecodeOptions::default(), &tiling)?],
        history: None,
        template: None,
        system_message: None,
        settings: GenerationSettings {
            max_new_tokens: 64,
            min_new_tokens: 0,
            repetition_penalty: 1.5,
            no_repeat_ngram_size: 0,
            num_return_sequences: 1,
            strategy: Strategy::Greedy,
        },
        stop: Vec::new(),
        logprobs: None,
    };
    let completion = engine.run(request, &Interrupt::new(), |event| {
        if let Event::Text { text, .. } = event {
            print!("{text}");
        }
    })?;
    println!("\n{:?}", completion.usage);
    Ok(())
}
