//! Files that are no image, broken images, images at the limits.

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use crate::common::png::chunk;
use crate::support::{Transcript, chat, image, json_of};

/// An 8-bit gray PNG of this size whose rows are `rows`.
fn gray_png(width: u32, height: u32, rows: &[u8]) -> Vec<u8> {
    let header: Vec<u8> =
        [width.to_be_bytes(), height.to_be_bytes()].concat().into_iter().chain([8, 0, 0, 0, 0]).collect();
    let mut deflated = ZlibEncoder::new(Vec::new(), Compression::fast());
    deflated.write_all(rows).unwrap();
    let pixels = deflated.finish().unwrap();
    let chunks = [chunk(*b"IHDR", &header), chunk(*b"IDAT", &pixels), chunk(*b"IEND", &[])].concat();
    [b"\x89PNG\r\n\x1a\n".as_slice(), &chunks].concat()
}

fn write(folder: &Path, name: &str, content: &[u8]) -> String {
    let file = folder.join(name);
    std::fs::write(&file, content).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn what_is_no_image_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::new();
    transcript.name(folder.path(), "FOLDER");
    let half = |name: &str| {
        let whole = std::fs::read(image(name)).unwrap();
        write(folder.path(), &format!("half-{name}"), &whole[..whole.len() / 2])
    };
    let (png, jpeg) = (half("photo_landscape.png"), half("baseline_444.jpg"));
    let empty = write(folder.path(), "empty.png", b"");
    let text = write(folder.path(), "text.png", b"not an image at all\n");
    let pdf = write(folder.path(), "scan.jpg", b"%PDF-1.7\n");
    let missing = folder.path().join("missing.png");
    for file in
        ["missing.png", missing.to_str().unwrap(), folder.path().to_str().unwrap(), &empty, &text, &pdf, &png, &jpeg]
    {
        transcript.chat(&["--image", file, "question"]);
    }
    transcript.run(&["inspect", &text]);
    transcript.check("images_refused");
}

#[test]
fn a_huge_image_is_refused_before_it_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::new();
    transcript.name(folder.path(), "FOLDER");
    // Sixteen bytes of pixels: a decoder that got to see them would call the image truncated.
    let huge = write(folder.path(), "huge.png", &gray_png(30_000, 30_000, &[0; 16]));
    transcript.chat(&["--image", &huge, "question"]);
    transcript.run(&["inspect", &huge]);
    let small = image("small.png");
    let small = small.to_str().unwrap();
    transcript.run(&["inspect", small, "--max-image-pixels", "31407"]);
    transcript.run(&["inspect", small, "--max-image-pixels", "31408"]);
    transcript.check("images_too_large");
}

#[test]
fn the_smallest_and_the_narrowest_image_work() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<u8> = (0..20_000_u32).flat_map(|row| [0, (row / 100) as u8]).collect();
    let narrow = write(folder.path(), "narrow.png", &gray_png(1, 20_000, &rows));
    let tiles = |file: &Path| {
        let answer = json_of(chat().arg("--image").arg(file).args(["--json", "--max-new-tokens", "2", "question"]));
        answer["usage"]["tiles"].as_u64().unwrap()
    };
    assert_eq!(tiles(&image("one_pixel.png")), 1);
    assert_eq!(tiles(Path::new(&narrow)), 7, "a column of six and the thumbnail");
}
