//! What an engine was built from: a small JSON file beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Machine;
use crate::package::FileEntry;

/// Everything that makes an engine the one it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct EngineRecord {
    /// Name of the graph in the manifest.
    pub graph: String,
    /// Variant and precision of the graph, such as `standard fp16`.
    pub variant: String,
    /// The graph's files, with sizes and hashes as the manifest states them.
    pub files: Vec<FileEntry>,
    /// Options of the provider that shape an engine.
    pub options: BTreeMap<String, String>,
    /// Least, usual and greatest shape of each open input.
    pub shapes: BTreeMap<String, [Vec<u64>; 3]>,
    /// Software and GPUs.
    pub machine: Machine,
}

impl EngineRecord {
    /// Reads a record; `None` when there is none that can be understood.
    pub fn read(file: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }

    /// Writes the record.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        std::fs::write(file, serde_json::to_vec_pretty(self)?)
    }

    /// In what an engine with this record differs from what is `wanted`, in words; empty when it fits.
    pub fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, built: &str, wanted: &str| {
            if built != wanted {
                found.push(format!("{what} {} instead of {}", or_none(built), or_none(wanted)));
            }
        };
        compare("graph", &self.graph, &wanted.graph);
        compare("variant", &self.variant, &wanted.variant);
        compare("ONNX Runtime", &self.machine.onnxruntime, &wanted.machine.onnxruntime);
        let version = |machine: &Machine| machine.tensorrt.clone().unwrap_or_default();
        compare("TensorRT", &version(&self.machine), &version(&wanted.machine));
        compare("GPU", &self.machine.gpus.join(", "), &wanted.machine.gpus.join(", "));
        for name in self.options.keys().chain(wanted.options.keys()).collect::<BTreeSet<_>>() {
            let value = |record: &Self| record.options.get(name).cloned().unwrap_or_default();
            compare(&format!("option {name}"), &value(self), &value(wanted));
        }
        for input in self.shapes.keys().chain(wanted.shapes.keys()).collect::<BTreeSet<_>>() {
            let range = |record: &Self| record.shapes.get(input).map(range_text).unwrap_or_default();
            compare(&format!("shapes of {input}"), &range(self), &range(wanted));
        }
        if self.files != wanted.files {
            let names: Vec<&str> = wanted.files.iter().map(|file| file.name.as_str()).collect();
            found.push(format!("another content of {}", names.join(", ")));
        }
        found
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "(none)" } else { text }
}

/// `1x3x448x448..13x3x448x448`, with the usual shape between where it is another one than the least.
fn range_text(shapes: &[Vec<u64>; 3]) -> String {
    let texts = shapes.each_ref().map(|shape| shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x"));
    let [min, usual, max] = texts;
    if usual == min { format!("{min}..{max}") } else { format!("{min}..{usual}..{max}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> EngineRecord {
        EngineRecord {
            graph: "projector".to_owned(),
            variant: "standard fp16".to_owned(),
            files: vec![FileEntry { name: "projector.onnx".to_owned(), size: 3, sha256: "ab".to_owned() }],
            options: [("trt_fp16_enable".to_owned(), "1".to_owned())].into(),
            shapes: [("features".to_owned(), [vec![1, 64], vec![1, 64], vec![13, 64]])].into(),
            machine: Machine { onnxruntime: "1.31.1".to_owned(), tensorrt: None, gpus: vec!["NVIDIA L4".to_owned()] },
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("projector.json");
        assert_eq!(EngineRecord::read(&file), None);
        record().write(&file).unwrap();
        assert_eq!(EngineRecord::read(&file), Some(record()));
        assert!(record().differences(&record()).is_empty());
        std::fs::write(&file, "{}").unwrap();
        assert_eq!(EngineRecord::read(&file), None);
    }

    #[test]
    fn every_difference_is_told() {
        let change = |change: fn(&mut EngineRecord)| {
            let mut built = record();
            change(&mut built);
            built.differences(&record()).join("; ")
        };
        for (found, expected) in [
            (
                change(|built| built.variant = "standard fp32".to_owned()),
                "variant standard fp32 instead of standard fp16",
            ),
            (change(|built| built.machine.onnxruntime = "1.30.0".to_owned()), "ONNX Runtime 1.30.0 instead of 1.31.1"),
            (change(|built| built.machine.tensorrt = Some("10.9.0".to_owned())), "TensorRT 10.9.0 instead of (none)"),
            (change(|built| built.machine.gpus = vec!["A100".to_owned()]), "GPU A100 instead of NVIDIA L4"),
            (change(|built| built.options.clear()), "option trt_fp16_enable (none) instead of 1"),
            (
                change(|built| built.shapes.get_mut("features").unwrap()[2][0] = 7),
                "shapes of features 1x64..7x64 instead of 1x64..13x64",
            ),
            (
                change(|built| built.shapes.get_mut("features").unwrap()[1][0] = 7),
                "shapes of features 1x64..7x64..13x64 instead of 1x64..13x64",
            ),
            (
                change(|built| drop(built.shapes.insert("more".to_owned(), [vec![1], vec![1], vec![2]]))),
                "shapes of more 1..2 instead of (none)",
            ),
            (change(|built| built.files[0].sha256 = "cd".to_owned()), "another content of projector.onnx"),
        ] {
            assert_eq!(found, expected);
        }
    }
}
