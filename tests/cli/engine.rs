//! `vintern engine` on a machine without TensorRT: everything but the building itself.

use std::path::PathBuf;

use serde_json::Value;

use crate::common::{exported, golden, tiny_package};
use crate::support::{Transcript, json_of, snapshot, stdout_of, vintern};

/// A package with graphs of the standard variant.
fn standard() -> PathBuf {
    exported("ckpt_a-standard", |exporter, folder| {
        exporter.arg(golden("ckpt_a")).arg(folder).args(["--variant", "standard"]);
    })
}

/// The graphs `engine show` tells of.
fn shown(spec: &str) -> Vec<Value> {
    let report = json_of(vintern().args(["engine", "show", "--json", "--provider", spec, "--model"]).arg(standard()));
    report["graphs"].as_array().unwrap().clone()
}

#[test]
fn shapes_follow_from_the_package_and_options_change_them() {
    let graphs = shown("tensorrt");
    let names: Vec<&str> = graphs.iter().map(|graph| graph["graph"].as_str().unwrap()).collect();
    assert_eq!(names, ["vision_encoder", "projector", "decoder"]);
    let size = |graphs: &[Value], axis: &str| {
        let mut sizes = graphs.iter().flat_map(|graph| graph["sizes"].as_array().unwrap());
        let found = sizes.find(|sizes| sizes["axis"] == axis).unwrap();
        ["min", "usual", "max"].map(|name| found[name].as_u64().unwrap())
    };
    let manifest: Value = serde_json::from_slice(&std::fs::read(standard().join("manifest.json")).unwrap()).unwrap();
    let most = manifest["tiling"]["max_tiles"].as_u64().unwrap() + 1;
    assert_eq!(size(&graphs, "tiles"), [1, 1, most]);
    assert_eq!((size(&graphs, "rows"), size(&graphs, "positions")), ([1, 3, 3], [1, 1, 512]));
    assert!(graphs.iter().all(|graph| graph["longest_option"].as_u64() < Some(4096)));
    let graphs = shown("vision=tensorrt:tiles=2,decoder=tensorrt:rows=8,capacity=700");
    assert_eq!((size(&graphs, "tiles"), size(&graphs, "rows")), ([1, 1, 2], [1, 3, 8]));
    assert_eq!(size(&graphs, "capacity"), [1, 700, 700]);
    assert_eq!(shown("vision=tensorrt,decoder=cpu").len(), 2);
}

/// Of each package in a folder of its own among the user's caches, or where the spec says.
#[test]
fn where_engines_are_kept() {
    let cache = tempfile::tempdir().unwrap();
    let folder = |spec: &str| {
        let mut command = vintern();
        command.env("XDG_CACHE_HOME", cache.path()).args(["engine", "show", "--json", "--provider", spec, "--model"]);
        PathBuf::from(json_of(command.arg(standard()))["graphs"][0]["folder"].as_str().unwrap())
    };
    let kept = folder("tensorrt");
    assert_eq!(kept.parent().unwrap(), cache.path().join("vintern/engines"));
    assert!(kept.file_name().unwrap().to_str().unwrap().starts_with("ckpt_a-"), "{}", kept.display());
    assert_eq!(folder("tensorrt:engine_cache=/mine"), PathBuf::from("/mine"));
    assert!(!kept.exists(), "looking makes no folder");
}

#[test]
fn an_engine_of_unknown_origin_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("projector-fp32_x_1_0_sm89.engine"), "engine").unwrap();
    let graphs = shown(&format!("tensorrt:engine_cache={}", folder.path().display()));
    let states: Vec<&str> = graphs.iter().map(|graph| graph["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["missing", "no record", "missing"]);
    assert_eq!(graphs[1]["engines"][0]["bytes"], 6);
}

#[test]
fn what_cannot_be_built() {
    let mut transcript = Transcript::new();
    let (standard, tiny) = (standard(), tiny_package());
    let (standard, tiny) = (standard.to_str().unwrap(), tiny.to_str().unwrap());
    transcript.name(standard.as_ref(), "STANDARD");
    for spec in
        ["tensorrt", "vision=tensorrt;cuda,decoder=cpu", "cpu", "cuda;tensorrt", "tensorrt:rows=many", "tensorrt:row=2"]
    {
        transcript.run(&["engine", "build", "--model", standard, "--provider", spec]);
    }
    transcript.run(&["engine", "show", "--model", tiny, "--provider", "tensorrt"]);
    transcript.run(&["engine", "show", "--model", "nowhere", "--provider", "tensorrt"]);
    transcript.check("engine_refused");
}

#[test]
fn what_is_shown() {
    let mut command = vintern();
    command.args(["engine", "show", "--provider", "tensorrt:engine_cache=engines", "--model"]).arg(standard());
    let said = stdout_of(&mut command);
    // The first line is the machine's.
    let graphs: Vec<&str> = said.lines().skip(2).collect();
    snapshot("engine_shown", &graphs.join("\n"));
}
