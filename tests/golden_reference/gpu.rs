//! The same packages on an NVIDIA GPU: `make test-gpu`, which puts the library and what it needs in place.

use std::path::Path;

use assert_cmd::Command;
use serde_json::Value;

use crate::chat::{answer_with, cases, check};
use crate::common::{exported, golden, gpu_library, profiled_nodes, recorded, vintern};

/// float32 as it is: CUDA rounds factors to 10 bits of mantissa unless it is told not to.
const EXACT: &str = "cuda:tf32=0";

/// A golden checkpoint in both variants.
fn both_variants(checkpoint: &str, precision: &str) -> std::path::PathBuf {
    let folder = exported(&format!("{checkpoint}-{precision}-gpu"), |exporter, folder| {
        exporter.arg(golden(checkpoint)).arg(folder).args(["--precision", precision, "--variant", "both"]);
    });
    recorded(&folder);
    folder
}

fn on_gpu(words: &[&str], package: &Path, spec: &str) -> Command {
    let mut command = vintern();
    command.args(words).arg("--ort-library").arg(gpu_library());
    command.arg("--model").arg(package).args(["--provider", spec]);
    command
}

fn json_of(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What `doctor` says of a graph.
fn placement<'a>(report: &'a Value, graph: &str) -> &'a Value {
    let entries = report["placement"].as_array().unwrap();
    &entries.iter().find(|entry| entry["graph"] == graph).unwrap()["providers"]
}

#[test]
#[ignore = "needs an NVIDIA GPU: make test-gpu"]
fn every_case_in_fp32_on_cuda() {
    let library = gpu_library();
    for checkpoint in ["ckpt_a", "ckpt_b"] {
        let package = both_variants(checkpoint, "fp32");
        for case in cases(checkpoint) {
            let more = ["--ort-library", library.to_str().unwrap(), "--provider", EXACT];
            check(&case, &answer_with(&case, &package, &more));
        }
    }
}

/// Nothing of a graph is left to the CPU provider, and the cache stays where the graph reads it.
#[test]
#[ignore = "needs an NVIDIA GPU: make test-gpu"]
fn the_cache_and_every_node_on_cuda() {
    for (precision, variant) in [("fp16", "fused"), ("fp32", "standard")] {
        let report = json_of(&mut on_gpu(&["doctor", "--json"], &both_variants("ckpt_a", precision), EXACT));
        let decoder = placement(&report, "decoder");
        assert_eq!(decoder["variant"], variant, "{report:#}");
        assert_eq!(decoder["cache"], "on CUDA device 0", "{report:#}");
        for graph in ["vision_encoder", "projector", "decoder"] {
            let providers = placement(&report, graph)["providers"].as_array().unwrap();
            let names: Vec<&str> = providers.iter().map(|entry| entry["provider"].as_str().unwrap()).collect();
            assert_eq!(names, ["CUDAExecutionProvider"], "{graph}: {report:#}");
            let copies =
                providers[0]["operators"].as_object().unwrap().keys().filter(|name| name.starts_with("Memcpy"));
            assert_eq!(copies.count(), 0, "{graph}: {report:#}");
        }
    }
}

/// No call copies the cache, or anything else, between the host and the device inside a graph, as ONNX Runtime records it.
#[test]
#[ignore = "needs an NVIDIA GPU: make test-gpu"]
fn no_call_copies_between_host_and_device() {
    for precision in ["fp16", "fp32"] {
        let folder = tempfile::tempdir().unwrap();
        let words = ["bench", "--workload", "greedy,beams", "--repeats", "1", "--new-tokens", "8"];
        let mut command = on_gpu(&words, &both_variants("ckpt_a", precision), EXACT);
        command.arg("--ort-profile").arg(folder.path()).assert().success();
        for graph in ["vision_encoder", "projector", "decoder"] {
            let nodes = profiled_nodes(folder.path(), graph);
            let elsewhere = nodes
                .iter()
                .filter(|(provider, operator)| provider != "CUDAExecutionProvider" || operator.starts_with("Memcpy"));
            assert!(!nodes.is_empty() && elsewhere.count() == 0, "{graph}: {nodes:?}");
        }
    }
}

/// Graphs in 16 bits, within the tolerance of their recorded results.
#[test]
#[ignore = "needs an NVIDIA GPU: make test-gpu"]
fn recorded_results_in_fp16() {
    for spec in ["cuda", "tensorrt", "vision=tensorrt,decoder=cuda"] {
        for checkpoint in ["ckpt_a", "ckpt_b"] {
            on_gpu(&["verify"], &both_variants(checkpoint, "fp16"), spec).assert().success();
        }
    }
}

/// An engine is built once, and what it was built for is known.
#[test]
#[ignore = "needs an NVIDIA GPU: make test-gpu"]
fn engines_are_built_once() {
    let package = both_variants("ckpt_a", "fp16");
    let folder = tempfile::tempdir().unwrap();
    let spec = format!("tensorrt:engine_cache={}", folder.path().display());
    let engines = || {
        let files = std::fs::read_dir(folder.path()).unwrap().flatten();
        let engines = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "engine"));
        let mut found: Vec<_> =
            engines.map(|file| (file.file_name(), file.metadata().unwrap().modified().unwrap())).collect();
        found.sort();
        found
    };
    on_gpu(&["engine", "build"], &package, &spec).assert().success();
    let built = engines();
    assert!(built.len() >= 3, "{built:?}");
    let case = &cases("ckpt_a")[0];
    let library = gpu_library();
    let more = ["--ort-library", library.to_str().unwrap(), "--provider", &spec];
    answer_with(case, &package, &more);
    assert_eq!(engines(), built, "an engine was built anew");
    let other = format!("{spec},rows=7");
    let refused = on_gpu(&["chat", "--max-new-tokens", "2", "hi"], &package, &other).output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{message}");
    assert!(message.contains("was built for something else"), "{message}");
}

/// Times by provider, printed; nothing is asked of them.
#[test]
#[ignore = "needs an NVIDIA GPU: make test-gpu"]
fn times_by_provider() {
    let package = both_variants("ckpt_a", "fp16");
    for spec in ["cuda", "vision=tensorrt,decoder=cuda", "tensorrt"] {
        let words = ["bench", "--workload", "greedy,beams", "--repeats", "3", "--new-tokens", "16", "--tiles", "1"];
        let output = on_gpu(&words, &package, spec).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        println!("{spec}\n{}", String::from_utf8_lossy(&output.stdout));
    }
}
