//! Execution providers that this machine's library does not have: never a quiet fall back.

use std::path::Path;

use crate::common::{golden, gpu_library, profiled_nodes, repository, tiny_package};
use crate::support::{Transcript, json_of, text, vintern};

#[test]
fn providers_that_cannot_be_had() {
    let mut transcript = Transcript::new();
    for spec in [
        "cuda",
        "tensorrt",
        "vision=tensorrt,decoder=cpu",
        "openvino:device=CPU",
        "rocm",
        "cuda;tensorrt",
        "tensort",
        "tensorrt:fp61=true",
        "cuda;cuda",
        "vision=cpu,vision=cuda",
        "tensorrt:fp16",
        "tensorrt:engine_cache=\"a",
    ] {
        transcript.chat(&["--provider", spec, "question"]);
    }
    transcript.check("providers_refused");
}

/// The next of the list is used, and one line says so.
#[test]
fn a_list_goes_on_with_the_next_provider() {
    let package = tiny_package();
    for (spec, skipped) in [("cuda;cpu", &["cuda"][..]), ("tensorrt:fp16=true;cuda;cpu", &["tensorrt", "cuda"])] {
        let arguments = ["chat", "--json", "--max-new-tokens", "2", "--provider", spec, "--model"];
        let output = vintern().args(arguments).arg(&package).arg("xin chào").output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let lines: Vec<String> = text(&output.stderr).lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), skipped.len(), "{lines:?}");
        for (line, provider) in lines.iter().zip(skipped) {
            assert!(line.starts_with(&format!("provider {provider} is not used: ")), "{line}");
        }
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["provider"]["decoder"], "cpu");
    }
    let report = json_of(vintern().args(["doctor", "--json", "--provider", "cuda;cpu", "--model"]).arg(&package));
    assert_eq!(report["placement"][0]["providers"]["skipped"][0]["provider"], "cuda");
    // What the three graphs have in common is said once.
    let checks = report["checks"].as_array().unwrap().iter();
    assert_eq!(checks.filter(|check| check["name"] == "provider" && check["state"] == "warning").count(), 1);
}

/// ONNX Runtime's own record: every node of every call, with its provider.
#[test]
fn a_profile_for_each_graph() {
    let folder = tempfile::tempdir().unwrap();
    let profiles = folder.path().join("new/profiles");
    let words = ["chat", "--max-new-tokens", "3", "--min-new-tokens", "3", "--ort-profile"];
    let mut command = vintern();
    command.args(words).arg(&profiles).arg("--image").arg(golden("images").join("wide.png"));
    command.arg("--model").arg(tiny_package()).arg("q");
    assert!(command.output().unwrap().status.success());
    for (graph, calls) in [("vision_encoder", 1), ("projector", 1), ("decoder", 3)] {
        let nodes = profiled_nodes(&profiles, graph);
        assert!(nodes.len() >= calls, "{graph}: {nodes:?}");
        assert!(nodes.iter().all(|(provider, _)| provider == "CPUExecutionProvider"), "{graph}: {nodes:?}");
    }
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let output =
        vintern().args(["chat", "--ort-profile"]).arg(&file).arg("--model").arg(tiny_package()).arg("q").output();
    let output = output.unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("for profiles cannot be made"), "{message}");
}

/// Three things can be wrong with a plugin library, and each has words of its own.
#[test]
fn plugin_libraries() {
    let mut transcript = Transcript::new();
    let folder = tempfile::tempdir().unwrap();
    let no_library = folder.path().join("provider.so");
    std::fs::write(&no_library, "no library").unwrap();
    transcript.name(folder.path(), "FOLDER");
    let missing = format!("mine={}", folder.path().join("nothing.so").display());
    transcript.chat(&["--provider-library", &missing, "--provider", "mine", "question"]);
    transcript.chat(&["--provider-library", "mine", "--provider", "mine", "question"]);
    transcript.check("plugin_libraries");
    let run = |path: &Path| {
        let plugin = format!("mine={}", path.display());
        let arguments = ["chat", "--provider-library", &plugin, "--provider", "mine", "--model"];
        let output = vintern().args(arguments).arg(tiny_package()).arg("hi").output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (code, message) = run(&no_library);
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains("provider.so cannot be used as the provider mine: "), "{message}");
    assert!(message.contains("it must be a plugin library for this ONNX Runtime"), "{message}");
    let plugin = repository().join(".venv/plugin/onnxruntime_ep_webgpu/libonnxruntime_providers_webgpu.so");
    if plugin.exists() {
        // It needs a graphics processor; where there is one it runs.
        let (code, message) = run(&plugin);
        assert!(code == Some(0) || message.contains("offers no device on this machine"), "{message}");
    } else {
        eprintln!("there is no plugin library: not tested");
    }
}

/// From the environment; a flag comes before it.
#[test]
fn the_environment_names_providers() {
    let run = |arguments: &[&str]| {
        let mut command = vintern();
        command.env("VINTERN_PROVIDER", "cuda").args(["doctor", "--model"]).arg(tiny_package()).args(arguments);
        command.output().unwrap().status.code()
    };
    assert_eq!(run(&[]), Some(3));
    assert_eq!(run(&["--provider", "cpu"]), Some(0));
}

/// The GPU wheel's library has the providers built in, but not what they need: `make test-gpu-library`.
#[test]
#[ignore = "needs the library of the onnxruntime-gpu wheel and a machine without CUDA"]
fn the_gpu_library_without_a_gpu() {
    let library = gpu_library();
    let run = |spec: &str| {
        let arguments = ["chat", "--max-new-tokens", "2", "--provider", spec, "--ort-library"];
        let output =
            vintern().args(arguments).arg(&library).arg("--model").arg(tiny_package()).arg("hi").output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    for (spec, provider, missing) in [
        ("cuda", "cuda", "libcublasLt"),
        ("tensorrt", "tensorrt", "libcublas"),
        ("vision=tensorrt,decoder=cpu", "tensorrt", "libcublas"),
    ] {
        let (code, message) = run(spec);
        assert_eq!(code, Some(3), "{message}");
        let begin = format!("error: the execution provider {provider} cannot be had: Failed to load library ");
        assert!(message.starts_with(&begin) && message.contains(missing) && message.contains("hint: "), "{message}");
    }
    let (code, message) = run("cuda;cpu");
    assert_eq!(code, Some(0), "{message}");
    assert!(message.starts_with("provider cuda is not used: ") && message.lines().count() == 1, "{message}");
    let report = json_of(vintern().args(["doctor", "--json", "--ort-library"]).arg(&library));
    let providers = report["providers"].as_array().unwrap();
    let failing = providers.iter().filter(|provider| provider["state"] == "fails");
    assert_eq!(failing.map(|provider| provider["name"].as_str().unwrap()).collect::<Vec<_>>(), ["cuda", "tensorrt"]);
}
