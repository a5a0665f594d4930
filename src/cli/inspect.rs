//! `vintern inspect`: what the model will see of an image.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::InspectArgs;
use super::error::CliError;
use super::output::print_json;
use super::read_file;
use crate::package::Package;
use crate::preprocess::{self, DecodedImage, Tiling};
use crate::settings::Presets;

/// Side of the model card's tiles in pixels.
const CARD_TILE_SIZE: u32 = 448;

/// Language-model tokens each of them becomes.
const CARD_TOKENS_PER_TILE: usize = 256;

/// What `inspect --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    image: PathBuf,
    format: String,
    color_mode: String,
    width: u32,
    height: u32,
    orientation: OrientationReport,
    exact_pixels: bool,
    grid: GridReport,
    thumbnail: bool,
    tiles: usize,
    tile_size: u32,
    image_tokens: usize,
    files: Vec<PathBuf>,
}

/// The EXIF orientation of the image.
#[derive(Debug, Serialize)]
struct OrientationReport {
    tag: u8,
    applied: bool,
}

/// The grid the image is cut by.
#[derive(Debug, Serialize)]
struct GridReport {
    columns: u32,
    rows: u32,
}

/// Runs the command.
///
/// # Errors
/// When the image or the package cannot be used, or a tile cannot be written.
pub(super) fn run(args: &InspectArgs) -> Result<(), CliError> {
    let package = args.model.as_deref().map(Package::open).transpose()?;
    let manifest = package.as_ref().map(Package::manifest);
    let sizes = manifest.map(|manifest| &manifest.architecture);
    let tile_size = args.tile_size.or(sizes.map(|sizes| sizes.image_size)).unwrap_or(CARD_TILE_SIZE);
    let tokens_per_tile =
        args.tokens_per_tile.or(sizes.map(|sizes| sizes.tokens_per_tile)).unwrap_or(CARD_TOKENS_PER_TILE);
    let presets = Presets::new(package.as_ref())?.choose(args.preset.as_deref())?;
    let options = args.tiling.resolve(tile_size, presets.of_call(true))?;
    let bytes = read_file("image", &args.image)?;
    let failed = |source| CliError::Image { file: args.image.clone(), source };
    let decoded = preprocess::decode(&bytes, &options.decode).map_err(failed)?;
    let tiling = preprocess::tile(&decoded.rgb, &options.tiling).map_err(failed)?;
    let files = args.output.as_deref().map_or(Ok(Vec::new()), |folder| write_tiles(&tiling, folder))?;
    let report = report(args.image.clone(), &decoded, &tiling, tile_size, tokens_per_tile, files);
    if args.json {
        print_json(&report)?;
    } else {
        print(&report, &mut std::io::stdout().lock())?;
    }
    Ok(())
}

fn report(
    image: PathBuf,
    decoded: &DecodedImage,
    tiling: &Tiling,
    tile_size: u32,
    tokens_per_tile: usize,
    files: Vec<PathBuf>,
) -> Report {
    Report {
        image,
        format: decoded.format.to_string(),
        color_mode: decoded.color_mode.clone(),
        width: decoded.rgb.width(),
        height: decoded.rgb.height(),
        orientation: OrientationReport { tag: decoded.orientation_tag, applied: decoded.orientation_applied },
        exact_pixels: decoded.exact,
        grid: GridReport { columns: tiling.grid.columns, rows: tiling.grid.rows },
        thumbnail: tiling.thumbnail,
        tiles: tiling.tiles.len(),
        tile_size,
        image_tokens: tiling.tiles.len() * tokens_per_tile,
        files,
    }
}

/// Writes each tile as `tile-01.png`, …, the thumbnail as `thumbnail.png`.
fn write_tiles(tiling: &Tiling, folder: &Path) -> Result<Vec<PathBuf>, CliError> {
    std::fs::create_dir_all(folder).map_err(|source| CliError::Write { file: folder.to_path_buf(), source })?;
    let last = tiling.tiles.len() - 1;
    let mut files = Vec::with_capacity(tiling.tiles.len());
    for (index, tile) in tiling.tiles.iter().enumerate() {
        let is_thumbnail = tiling.thumbnail && index == last;
        let name = if is_thumbnail { "thumbnail.png".to_owned() } else { format!("tile-{:02}.png", index + 1) };
        let file = folder.join(name);
        tile.save(&file)
            .map_err(|error| CliError::Write { file: file.clone(), source: std::io::Error::other(error) })?;
        files.push(file);
    }
    Ok(files)
}

fn print(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{}: {} {}, {} x {} pixels",
        report.image.display(),
        report.format,
        report.color_mode,
        report.width,
        report.height
    )?;
    let applied = if report.orientation.applied { "applied" } else { "not applied" };
    match report.orientation.tag {
        1 => writeln!(out, "orientation   upright")?,
        tag => writeln!(out, "orientation   EXIF tag {tag}, {applied}")?,
    }
    if !report.exact_pixels {
        writeln!(out, "pixels        in this coding of its samples the reference reads other ones")?;
    }
    let thumbnail = if report.thumbnail { " + thumbnail" } else { "" };
    writeln!(
        out,
        "grid          {} x {} (columns x rows) of {} pixels{thumbnail}",
        report.grid.columns, report.grid.rows, report.tile_size
    )?;
    writeln!(out, "tiles         {}", report.tiles)?;
    writeln!(out, "image tokens  {}", report.image_tokens)?;
    for file in &report.files {
        writeln!(out, "wrote         {}", file.display())?;
    }
    Ok(())
}
