//! The same package on another execution provider: the reference's ids, and the truth about where the nodes ran.

use std::path::PathBuf;

use serde_json::Value;

use crate::chat::{answer_with, cases, check};
use crate::common::{exported, golden, openvino_library, package, vintern};

/// Every case of a checkpoint, all on `spec`; `providers` are those of vision encoder, projector and decoder.
fn check_all(checkpoint: &str, spec: &str, providers: [&str; 3]) {
    let Some(library) = openvino_library() else { return };
    let package = package(checkpoint, "fp32");
    for case in cases(checkpoint) {
        let answer = answer_with(&case, &package, &["--ort-library", library.to_str().unwrap(), "--provider", spec]);
        check(&case, &answer);
        let ran = ["vision", "projector", "decoder"].map(|graph| answer["provider"][graph].as_str().unwrap());
        assert_eq!(ran, providers, "{}", case["id"]);
    }
}

#[test]
fn ckpt_a_on_openvino() {
    check_all("ckpt_a", "openvino", ["openvino"; 3]);
}

#[test]
fn ckpt_b_on_openvino() {
    check_all("ckpt_b", "openvino", ["openvino"; 3]);
}

#[test]
fn vision_on_openvino_and_the_decoder_on_the_cpu_provider() {
    check_all("ckpt_a", "vision=openvino,decoder=cpu", ["openvino", "openvino", "cpu"]);
}

/// ONNX Runtime's kernels alone. What the other tests run is ours where the processor has the instructions: the attention of
/// the decoder.
#[test]
fn with_the_kernels_of_onnx_runtime() {
    for checkpoint in ["ckpt_a", "ckpt_b"] {
        let package = package(checkpoint, "fp32");
        for case in cases(checkpoint) {
            check(&case, &answer_with(&case, &package, &["--provider", "cpu:kernels=onnxruntime"]));
        }
    }
}

/// A package of standard graphs; `both` variants, or those alone.
fn standard(checkpoint: &str, variant: &str) -> PathBuf {
    exported(&format!("{checkpoint}-{variant}"), |exporter, folder| {
        exporter.arg(golden(checkpoint)).arg(folder).args(["--variant", variant]);
    })
}

#[test]
fn standard_graphs_of_ckpt_a_on_the_cpu_provider() {
    check_standard("ckpt_a", "standard", &[], "cpu");
}

#[test]
fn standard_graphs_of_ckpt_b_on_the_cpu_provider() {
    check_standard("ckpt_b", "standard", &[], "cpu");
}

/// Not a node is left to the CPU provider.
#[test]
fn standard_graphs_of_ckpt_a_on_openvino_alone() {
    let Some(library) = openvino_library() else { return };
    let library = library.to_str().unwrap();
    check_standard("ckpt_a", "both", &["--ort-library", library, "--provider", "openvino", "--strict"], "openvino");
}

#[test]
fn standard_graphs_of_ckpt_b_on_openvino_alone() {
    let Some(library) = openvino_library() else { return };
    let library = library.to_str().unwrap();
    check_standard("ckpt_b", "standard", &["--ort-library", library, "--provider", "openvino", "--strict"], "openvino");
}

fn check_standard(checkpoint: &str, variant: &str, more: &[&str], provider: &str) {
    let package = standard(checkpoint, variant);
    for case in cases(checkpoint) {
        let answer = answer_with(&case, &package, more);
        check(&case, &answer);
        assert_eq!(answer["provider"]["decoder"], provider, "{}", case["id"]);
    }
}

/// The runtime picks by provider and says which.
#[test]
fn a_package_of_both_variants() {
    let package = standard("ckpt_a", "both");
    let variants = |more: &[&str]| {
        let mut command = vintern();
        command.args(["doctor", "--json", "--model"]).arg(&package).args(more);
        let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let placement = report["placement"].as_array().unwrap().iter();
        placement.map(|graph| graph["providers"]["variant"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(variants(&[]), ["fused"; 3]);
    if let Some(library) = openvino_library() {
        let library = library.to_str().unwrap();
        assert_eq!(variants(&["--ort-library", library, "--provider", "openvino"]), ["standard"; 3]);
        let mixed = variants(&["--ort-library", library, "--provider", "vision=openvino,decoder=cpu"]);
        assert_eq!(mixed, ["standard", "standard", "fused"]);
    }
}

/// Every graph has nodes on it; those it leaves are named where none may be left.
#[test]
fn placement_tells_what_openvino_took_and_what_it_left() {
    let Some(library) = openvino_library() else { return };
    let doctor = |more: &[&str]| {
        let mut command = vintern();
        command.args(["doctor", "--json", "--provider", "openvino", "--ort-library"]).arg(&library);
        let output = command.args(more).arg("--model").arg(package("ckpt_a", "fp32")).output().unwrap();
        (output.status.code(), serde_json::from_slice::<Value>(&output.stdout).unwrap())
    };
    let (code, report) = doctor(&[]);
    assert_eq!(code, Some(0));
    for graph in report["placement"].as_array().unwrap() {
        let providers = graph["providers"]["providers"].as_array().unwrap();
        let openvino = providers.iter().find(|entry| entry["provider"] == "OpenVINOExecutionProvider");
        assert!(openvino.is_some_and(|entry| entry["nodes"].as_u64() > Some(0)), "{graph}");
    }
    let (code, report) = doctor(&["--strict"]);
    assert_eq!(code, Some(3));
    let failed = report["checks"].as_array().unwrap().iter().find(|check| check["state"] == "failed").unwrap();
    assert!(failed["detail"].as_str().unwrap().contains("to the CPU provider: "), "{failed}");
}
