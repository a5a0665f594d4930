//! The same package on another execution provider: the reference's ids, and the truth about where the nodes ran.

use serde_json::Value;

use crate::chat::{answer_with, cases, check};
use crate::common::{openvino_library, package, vintern};

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
