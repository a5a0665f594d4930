//! Asks a model package one question about an image: `cargo run --example ask -- PACKAGE IMAGE QUESTION`.

use std::path::Path;

use vintern::engine::{Engine, EngineConfig, Event, Request, TiledImage};
use vintern::graph::Interrupt;
use vintern::graph::onnx::{Library, LibraryOptions};
use vintern::package::Package;
use vintern::preprocess::DEFAULT_MAX_PIXELS;
use vintern::provider::ComponentProviders;
use vintern::settings::{GenerationChoices, ImageChoices, Presets};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [package, image, question] = arguments.as_slice() else { return Err("PACKAGE IMAGE QUESTION".into()) };
    let package = Package::open(Path::new(package))?;
    let library = Library::load(&LibraryOptions::default())?;
    let config = EngineConfig::default();
    let max_rows = config.max_rows;
    let mut engine = Engine::load(&package, &library, &ComponentProviders::default(), config, |_| ())?;

    // The package's own settings; a choice that is made here goes before them.
    let presets = Presets::new(Some(&package))?.choose(None)?;
    let preset = presets.of_call(true);
    let tile_size = package.manifest().architecture.image_size;
    let reading = ImageChoices::default().resolve(tile_size, DEFAULT_MAX_PIXELS, preset)?;
    let request = Request {
        question: question.clone(),
        images: vec![TiledImage::from_bytes(&std::fs::read(image)?, &reading.decode, &reading.tiling)?],
        history: None,
        template: None,
        system_message: None,
        settings: GenerationChoices { max_new_tokens: Some(64), ..Default::default() }.resolve(preset, max_rows)?,
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
