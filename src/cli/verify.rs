//! `vintern verify`: is the package whole, and do its graphs compute here what they should?

use std::io::Write;
use std::path::Path;

use ndarray::{ArrayView1, ArrayViewD, Axis, IxDyn, s};
use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use super::args::PackageArgs;
use super::error::CliError;
use super::output::{note, print_json};
use super::progress::Progress;
use super::read_file;
use crate::graph::Interrupt;
use crate::graph::onnx::Library;
use crate::model::{Model, ModelError};
use crate::package::{Component, FileEntry, Package};

/// Largest accepted difference, relative to the largest value of the reference, by precision of the graph.
fn tolerance(precision: &str) -> f64 {
    match precision {
        "fp32" => 1e-4,
        "fp16" => 3e-2,
        // Quantised: activations are rounded to 8 bits at every matrix. What the exporter accepts is accepted here.
        _ => 2e-1,
    }
}

/// What `verify --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    package: String,
    files: usize,
    bytes: u64,
    parity: Vec<Difference>,
}

/// How far a graph is from the recorded results.
#[derive(Debug, Serialize)]
struct Difference {
    component: &'static str,
    precision: String,
    max_abs: f64,
    max_relative: f64,
    tolerance: f64,
    passed: bool,
}

/// Runs the command.
///
/// # Errors
/// When a file differs from its hash, or a graph's results from the recorded ones.
pub(super) fn run(args: &PackageArgs) -> Result<(), CliError> {
    let package = Package::open(&args.model)?;
    let progress = Progress::new();
    let (files, bytes) = check_hashes(&package, &progress)?;
    let parity = match &package.manifest().parity {
        Some(parity) => {
            let providers = args.runtime.providers()?;
            let library = Library::load(&args.runtime.library_options())?;
            let loaded = Model::load(&package, &library, &providers, |component| progress.loading(component));
            progress.clear();
            check_parity(&package, &mut loaded?, &parity.file)?
        }
        None => Vec::new(),
    };
    let report = Report { package: args.model.display().to_string(), files, bytes, parity };
    if args.json {
        print_json(&report)?;
    } else {
        print(&report, &mut std::io::stdout().lock())?;
    }
    let failed: Vec<&str> =
        report.parity.iter().filter(|difference| !difference.passed).map(|difference| difference.component).collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(CliError::Check(format!("{} differ(s) from the recorded results", failed.join(", "))))
    }
}

fn check_hashes(package: &Package, progress: &Progress) -> Result<(usize, u64), CliError> {
    let total = package.manifest().files().map(|file| file.size).sum();
    let mut done = 0;
    let mut wrong = package.verify_hashes(|bytes| {
        done += bytes;
        progress.count("hashing", "bytes", done, total);
    });
    progress.clear();
    // The last one becomes the error of the command; the others are told as well.
    let last = wrong.pop();
    for error in wrong {
        note(&format!("error: {error}"));
    }
    last.map_or(Ok((package.manifest().files().count(), total)), |error| Err(error.into()))
}

fn check_parity(package: &Package, model: &mut Model, entry: &FileEntry) -> Result<Vec<Difference>, CliError> {
    let file = package.path(entry);
    let bytes = read_file("file of recorded results", &file)?;
    let recorded = Recorded::parse(&bytes, &file)?;
    let mut differences = Vec::new();
    let mut compare = |component: Component, found: ArrayViewD<'_, f32>, expected: ArrayViewD<'_, f32>| {
        let precision = package.variants(component).first().map_or("", |variant| variant.precision.as_str());
        differences.push(difference(component.name(), precision, &found, &expected));
    };
    let interrupt = Interrupt::new();
    let pixels = recorded.array("pixel_values")?;
    let pixels = pixels.into_dimensionality().map_err(|error| recorded.broken(&error.to_string()))?;
    let features = model.vision.encode(pixels.view(), &interrupt)?;
    let expected_features = recorded.array("features")?;
    compare(Component::VisionEncoder, features.view().into_dyn(), expected_features.view());
    let expected_features =
        expected_features.into_dimensionality().map_err(|error| recorded.broken(&error.to_string()))?;
    let embeds = model.vision.project(&expected_features, &interrupt)?;
    compare(Component::Projector, embeds.view().into_dyn(), recorded.array("image_embeds")?.view());
    let logits = last_logits(model, &recorded.ids("input_ids")?)?;
    compare(Component::Decoder, ArrayView1::from(&logits).into_dyn(), recorded.array("logits")?.view());
    Ok(differences)
}

/// Logits after a text prompt: all but its last token prefilled at once, the last one as a decode step, so that both
/// ways through the cache are looked at.
fn last_logits(model: &mut Model, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
    let hidden_size = model.embeddings.hidden_size();
    let mut embeds = ndarray::Array2::zeros((ids.len(), hidden_size));
    for (id, mut row) in ids.iter().zip(embeds.rows_mut()) {
        model.embeddings.lookup(*id, row.as_slice_mut().unwrap_or_default())?;
    }
    model.decoder.reserve(1, ids.len(), &[])?;
    let last = ids.len().saturating_sub(1);
    let interrupt = Interrupt::new();
    if last > 0 {
        model.decoder.prefill(0, 0, embeds.slice(s![..last, ..]), &interrupt)?;
    }
    let logits = model.decoder.prefill(0, last, embeds.slice(s![last.., ..]), &interrupt)?;
    Ok(logits.index_axis(Axis(0), 0).to_vec())
}

fn difference(
    component: &'static str,
    precision: &str,
    found: &ArrayViewD<'_, f32>,
    expected: &ArrayViewD<'_, f32>,
) -> Difference {
    let tolerance = tolerance(precision);
    let mut max_abs = if found.shape() == expected.shape() { 0.0 } else { f64::INFINITY };
    for (found, expected) in found.iter().zip(expected) {
        let difference = (f64::from(*found) - f64::from(*expected)).abs();
        // A comparison with NaN is false either way; NaN must not pass.
        max_abs = if difference <= max_abs { max_abs } else { difference };
    }
    let scale = expected.iter().fold(0.0_f64, |scale, value| scale.max(f64::from(value.abs())));
    let max_relative = max_abs / scale.max(f64::MIN_POSITIVE);
    let passed = max_relative <= tolerance;
    Difference { component, precision: precision.to_owned(), max_abs, max_relative, tolerance, passed }
}

/// The recorded inputs and results.
struct Recorded<'a> {
    tensors: SafeTensors<'a>,
    file: &'a Path,
}

impl<'a> Recorded<'a> {
    fn parse(bytes: &'a [u8], file: &'a Path) -> Result<Self, CliError> {
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|error| CliError::Recorded { file: file.to_path_buf(), message: error.to_string() })?;
        Ok(Self { tensors, file })
    }

    fn broken(&self, message: &str) -> CliError {
        CliError::Recorded { file: self.file.to_path_buf(), message: message.to_owned() }
    }

    fn view(&self, name: &str, dtype: Dtype) -> Result<(Vec<usize>, &[u8]), CliError> {
        let view = self.tensors.tensor(name).map_err(|error| self.broken(&error.to_string()))?;
        if view.dtype() != dtype {
            return Err(self.broken(&format!("tensor {name} has dtype {:?}, expected {dtype:?}", view.dtype())));
        }
        Ok((view.shape().to_vec(), view.data()))
    }

    fn array(&self, name: &str) -> Result<ndarray::ArrayD<f32>, CliError> {
        let (shape, data) = self.view(name, Dtype::F32)?;
        let values = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        ndarray::ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|error| self.broken(&error.to_string()))
    }

    fn ids(&self, name: &str) -> Result<Vec<u32>, CliError> {
        let (_, data) = self.view(name, Dtype::I64)?;
        let ids = data.as_chunks::<8>().0.iter().map(|bytes| u32::try_from(i64::from_le_bytes(*bytes)));
        let ids: Vec<u32> = ids.collect::<Result<_, _>>().map_err(|error| self.broken(&error.to_string()))?;
        if ids.is_empty() { Err(self.broken("input_ids is empty")) } else { Ok(ids) }
    }
}

fn print(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    let bytes = super::system::bytes_text(report.bytes);
    writeln!(out, "{}: {} files, {bytes}, hashes right", report.package, report.files)?;
    if report.parity.is_empty() {
        writeln!(out, "no recorded results in the package; `vintern-export verify DIR --record` adds them")?;
    }
    for difference in &report.parity {
        let verdict = if difference.passed { "ok" } else { "FAILED" };
        writeln!(
            out,
            "{:<15} {} max abs {:.2e}, max relative {:.2e} (tolerance {:.0e})  {verdict}",
            difference.component,
            difference.precision,
            difference.max_abs,
            difference.max_relative,
            difference.tolerance
        )?;
    }
    Ok(())
}
