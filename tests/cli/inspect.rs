//! `inspect`: what the model will see.

use std::path::Path;

use image::RgbImage;

use crate::common::golden;
use crate::support::{Transcript, image, json_of, stdout_of, vintern};

#[test]
fn reports() {
    let mut transcript = Transcript::new();
    let file = |name: &str| image(name).to_str().unwrap().to_owned();
    transcript.run(&["inspect", &file("small.png")]);
    transcript.run(&["inspect", &file("small.png"), "--json"]);
    transcript.run(&["inspect", &file("small.png"), "--model", crate::common::tiny_package().to_str().unwrap()]);
    transcript.run(&["inspect", &file("square_448.png"), "--max-tiles", "12", "--no-thumbnail"]);
    transcript.run(&["inspect", &file("tall.png"), "--min-tiles", "3", "--max-tiles", "4"]);
    transcript.run(&["inspect", &file("exif_rot6.jpg")]);
    transcript.run(&["inspect", &file("exif_rot6.jpg"), "--orientation", "ignore"]);
    transcript.run(&["inspect", &file("small.png"), "--tile-size", "0"]);
    transcript.run(&["inspect", &file("small.png"), "--min-tiles", "9"]);
    transcript.check("inspect");
}

#[test]
fn flags_win_over_the_package() {
    let report = json_of(
        vintern()
            .args(["inspect", "--json", "--tile-size", "64", "--tokens-per-tile", "4", "--max-tiles", "1"])
            .arg(image("square_448.png"))
            .env("VINTERN_MODEL", crate::common::tiny_package()),
    );
    assert_eq!((&report["tile_size"], &report["image_tokens"]), (&64.into(), &4.into()));
}

#[test]
fn the_orientation_turns_width_and_height() {
    let size = |orientation: &str| {
        let report =
            json_of(vintern().args(["inspect", "--json", "--orientation", orientation]).arg(image("exif_rot6.jpg")));
        assert_eq!(report["orientation"]["tag"], 6);
        assert_eq!(report["orientation"]["applied"], orientation == "auto");
        (report["width"].clone(), report["height"].clone())
    };
    let (auto, ignore) = (size("auto"), size("ignore"));
    assert_eq!(auto, (ignore.1, ignore.0));
}

/// Tiles the reference saw, stacked, with those `inspect` writes.
#[test]
fn the_tiles_are_the_references() {
    for name in
        ["small.png", "tall.png", "wide.png", "palette.png", "gray16.png", "extreme_3x2000.png", "exif_rot6.jpg"]
    {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("tiles");
        let arguments =
            ["inspect", "--json", "--tile-size", "112", "--max-tiles", "12", "--orientation", "ignore", "--output"];
        let report = json_of(vintern().args(arguments).arg(&output).arg(image(name)));
        let files = report["files"].as_array().unwrap();
        let tiles: Vec<u8> = files.iter().flat_map(|file| read(Path::new(file.as_str().unwrap())).into_raw()).collect();
        let expected = read(&golden("tiles").join(format!("{name}.112.max12.png"))).into_raw();
        assert_eq!(files.len(), report["tiles"], "{name}");
        assert!(tiles == expected, "{name}: the tiles differ");
        assert_eq!(report["thumbnail"], files.last().unwrap().as_str().unwrap().ends_with("thumbnail.png"), "{name}");
    }
}

fn read(file: &Path) -> RgbImage {
    image::open(file).unwrap().into_rgb8()
}

#[test]
fn a_folder_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let mut transcript = Transcript::new();
    transcript.name(folder.path(), "FOLDER");
    transcript.run(&["inspect", image("small.png").to_str().unwrap(), "--output", file.to_str().unwrap()]);
    transcript.check("inspect_output");
}

#[test]
fn no_library_is_needed() {
    let mut command = vintern();
    stdout_of(command.arg("inspect").arg(image("small.png")).env("ORT_DYLIB_PATH", "/nowhere"));
}
