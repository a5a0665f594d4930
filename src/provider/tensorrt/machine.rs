//! What of a machine an engine depends on.

use std::ffi::c_int;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Libraries of TensorRT, the newest first. ONNX Runtime 1.31.1 is built with version 10.
const LIBRARIES: &[&str] =
    if cfg!(windows) { &["nvinfer_11.dll", "nvinfer_10.dll"] } else { &["libnvinfer.so.11", "libnvinfer.so.10"] };

/// Where NVIDIA's driver for Linux describes each GPU.
const GPUS: &str = "/proc/driver/nvidia/gpus";

/// The software and the GPUs that engines are built with and for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Machine {
    /// Version of ONNX Runtime.
    pub onnxruntime: String,
    /// Version of TensorRT, where its library is found.
    pub tensorrt: Option<String>,
    /// Names of the GPUs, where the driver tells them.
    pub gpus: Vec<String>,
}

impl Machine {
    /// This machine, with the loaded ONNX Runtime's version.
    pub fn detect(onnxruntime: &str) -> Self {
        Self { onnxruntime: onnxruntime.to_owned(), tensorrt: tensorrt_version(), gpus: gpus_in(Path::new(GPUS)) }
    }
}

fn tensorrt_version() -> Option<String> {
    // SAFETY: loading a library runs its initialisers; those of TensorRT are sound, and the provider loads it as well.
    let library = LIBRARIES.iter().find_map(|name| unsafe { libloading::Library::new(*name) }.ok())?;
    // SAFETY: the function has this signature in every release of TensorRT.
    let version = unsafe {
        let version = library.get::<unsafe extern "C" fn() -> c_int>(b"getInferLibVersion\0").ok()?;
        version()
    };
    // Loaded and unloaded again it would cost the provider's loading as much once more.
    std::mem::forget(library);
    Some(version_text(version))
}

/// `10.13.3` of 101303.
fn version_text(version: c_int) -> String {
    format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100)
}

/// The models named in `GPU/information` files.
fn gpus_in(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let information =
        entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("information")).ok());
    let model = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(line.trim().to_owned())
    };
    let mut gpus: Vec<String> = information.filter_map(model).collect();
    gpus.sort();
    gpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_as_they_are_named() {
        assert_eq!(version_text(101_303), "10.13.3");
        assert_eq!(version_text(110_000), "11.0.0");
    }

    #[test]
    fn gpus_are_those_the_driver_describes() {
        let folder = tempfile::tempdir().unwrap();
        for (bus, text) in
            [("0000:41:00.0", "Model: \t NVIDIA L4\nIRQ: 3\n"), ("0000:01:00.0", "Model: A100\n"), ("x", "")]
        {
            std::fs::create_dir(folder.path().join(bus)).unwrap();
            std::fs::write(folder.path().join(bus).join("information"), text).unwrap();
        }
        assert_eq!(gpus_in(folder.path()), ["A100", "NVIDIA L4"]);
        assert!(gpus_in(Path::new("/nowhere")).is_empty());
    }
}
