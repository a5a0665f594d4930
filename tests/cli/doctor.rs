//! `doctor` and `bench`.

use std::path::Path;

use serde_json::Value;
use vintern::kernels::BlockProduct;

use crate::common::{exported, golden, package, tiny_package};
use crate::support::{PackageCopy, Transcript, json_of, shape, snapshot, stdout_of, text, vintern};

/// Name and state of each check.
fn states(report: &Value) -> Vec<(String, String)> {
    let checks = report["checks"].as_array().unwrap().iter();
    checks.map(|check| (string(&check["name"]), string(&check["state"]))).collect()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn all_is_well() {
    let report = json_of(vintern().args(["doctor", "--json"]));
    let names: Vec<String> = states(&report).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names[..2], ["library", "providers in it"]);
    let report = json_of(vintern().args(["doctor", "--json", "--model"]).arg(tiny_package()));
    let ok = |name: &str| states(&report).contains(&(name.to_owned(), "ok".to_owned()));
    for name in ["library", "providers in it", "package", "vision_encoder", "projector", "decoder"] {
        assert!(ok(name), "{name}: {report:#}");
    }
    let providers = report["providers"].as_array().unwrap();
    let state = |name: &str| &providers.iter().find(|provider| provider["name"] == name).unwrap()["state"];
    assert_eq!((state("cpu"), state("cuda"), state("qnn")), (&"works".into(), &"absent".into(), &"absent".into()));
    assert!(providers.iter().all(|provider| provider["how_to_get"].as_str().is_some_and(|text| !text.is_empty())));
    let nodes = report["placement"][2]["providers"]["providers"][0]["nodes"].as_u64();
    assert!(nodes.is_some_and(|nodes| nodes > 0), "{report:#}");
    let printed = stdout_of(vintern().args(["doctor", "--model"]).arg(tiny_package()));
    assert!(printed.contains("ok       decoder          CPUExecutionProvider"), "{printed}");
}

/// Ours where the processor and the package allow; never quietly another's when they were asked for.
#[test]
fn which_kernels_run_a_graph() {
    let ours = BlockProduct::detect().map(BlockProduct::name);
    let exact_ours = BlockProduct::detect().map(|product| product.exact().name());
    let quantised = package("ckpt_a", "int4");
    let exact = exported("ckpt_a-int4-exact", |exporter, folder| {
        let options = ["--precision", "int4", "--accuracy-level", "0"];
        exporter.arg(golden("ckpt_a")).arg(folder).args(options);
    });
    let kernels = |package: &Path, spec: &str| {
        let report = json_of(vintern().args(["doctor", "--json", "--provider", spec, "--model"]).arg(package));
        report["placement"][2]["providers"]["kernels"].as_str().map(str::to_owned)
    };
    assert_eq!(kernels(&quantised, "cpu").as_deref(), ours);
    assert_eq!(kernels(&quantised, "cpu:kernels=onnxruntime"), None);
    assert_eq!(kernels(&exact, "cpu"), None);
    assert_eq!(kernels(&package("ckpt_a", "fp16"), "cpu").as_deref(), exact_ours, "products and attention");
    assert_eq!(kernels(&tiny_package(), "cpu").as_deref(), exact_ours, "AMX is for quantised packages");
    assert_eq!(kernels(&quantised, "cpu:amx=false").as_deref(), exact_ours);
    if ours == exact_ours {
        let refused = ["chat", "--provider", "cpu:amx=true", "--model", quantised.to_str().unwrap(), "hi"];
        let output = vintern().args(refused).output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert!(text(&output.stderr).contains("there is no AMX on this machine"), "{}", text(&output.stderr));
    } else {
        assert_eq!(kernels(&quantised, "cpu:amx=true").as_deref(), ours);
    }
    let asked = ["chat", "--provider", "cpu:kernels=vintern", "--model", exact.to_str().unwrap(), "hi"];
    let output = vintern().args(asked).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let expected =
        "vision_encoder.onnx: the package asks for accuracy level 0, the kernels round activations (level 4)";
    assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
}

#[test]
fn what_fails_is_named_and_the_rest_still_looked_at() {
    let copy = PackageCopy::new();
    std::fs::remove_file(copy.file("decoder.onnx")).unwrap();
    let tiny = tiny_package();
    for (arguments, failed, exit_code) in [
        (vec!["--ort-library", "/nowhere.so", "--model", tiny.to_str().unwrap()], vec!["library"], 3),
        (vec!["--model", copy.folder().to_str().unwrap()], vec!["package"], 2),
        (vec!["--ort-library", "/nowhere.so", "--model", "/nowhere"], vec!["library", "package"], 3),
        (vec!["--provider", "cud4"], vec!["--provider"], 2),
        (vec!["--provider", "cuda"], vec!["--provider"], 3),
        (vec!["--provider", "cuda", "--model", tiny.to_str().unwrap()], vec!["graphs"], 3),
    ] {
        let output = vintern().args(["doctor", "--json"]).args(&arguments).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found: Vec<String> =
            states(&report).into_iter().filter(|(_, state)| state == "failed").map(|(name, _)| name).collect();
        assert_eq!(found, failed, "{arguments:?}");
        assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}");
        assert_eq!(text(&output.stderr), format!("error: {} check(s) failed\n", failed.len()));
    }
}

#[test]
fn a_failed_check_says_how_to_mend_it() {
    let mut transcript = Transcript::new();
    let output = transcript.run(&["doctor", "--ort-library", "/nowhere.so", "--model", "/nowhere"]);
    let printed = text(&output.stdout);
    // The line on the memory is another one on each machine.
    let lines: Vec<&str> = printed.lines().filter(|line| !line.contains("memory")).collect();
    snapshot("doctor_failed", &lines.join("\n"));
}

#[test]
fn bench_measures_both_searches() {
    let arguments =
        ["bench", "--json", "--tiles", "2", "--new-tokens", "4", "--repeats", "2", "--num-beams", "2", "--model"];
    let report = json_of(vintern().args(arguments).arg(tiny_package()));
    assert_eq!((&report["new_tokens"], &report["repeats"]), (&4.into(), &2.into()));
    let workloads = report["workloads"].as_array().unwrap();
    let beams: Vec<_> = workloads.iter().map(|workload| (&workload["name"], &workload["num_beams"])).collect();
    assert_eq!(beams, [(&"greedy".into(), &1.into()), (&"beams".into(), &2.into())]);
    for workload in workloads {
        assert_eq!(workload["tiles"], 3);
        for stage in ["vision", "projector", "prefill", "first_token", "decode_step", "total"] {
            let spread = &workload[stage];
            let [min, median, max] = ["min", "median", "max"].map(|name| spread[name].as_f64().unwrap());
            assert!(min > 0.0 && min <= median && median <= max, "{workload} {stage}: {spread}");
        }
    }
    let mut report = shape(&report);
    for optional in ["processor", "memory_bytes"] {
        report["machine"].as_object_mut().unwrap().remove(optional);
    }
    for workload in report["workloads"].as_array_mut().unwrap() {
        workload.as_object_mut().unwrap().remove("peak_memory_bytes");
    }
    report.as_object_mut().unwrap().remove("load_peak_memory_bytes");
    report["placement"] = Value::Null;
    snapshot("bench_shape", &serde_json::to_string_pretty(&report).unwrap());
    let printed = stdout_of(vintern().args(&arguments[..1]).args(&arguments[2..]).arg(tiny_package()));
    assert!(printed.contains("greedy: 3 tiles") && printed.contains("2 beams") && printed.contains("decode step"));
}

/// A second question computes neither the image nor its prompt again; requests side by side share a step.
#[test]
fn bench_measures_every_workload() {
    let arguments = ["bench", "--json", "--workload", "all", "--tiles", "3", "--new-tokens", "3", "--repeats", "1"];
    let report = json_of(vintern().args(arguments).arg("--model").arg(tiny_package()));
    let workloads = report["workloads"].as_array().unwrap();
    let find = |name: &str| workloads.iter().find(|workload| workload["name"] == name).unwrap();
    assert_eq!(workloads.len(), 11);
    let second = find("second-question");
    assert_eq!(second["vision"]["max"], 0.0);
    let number = |workload: &Value, name: &str| workload[name].as_u64().unwrap();
    assert!(number(second, "cached_tokens") > number(find("greedy"), "prompt_tokens"), "{second}");
    assert_eq!((number(find("tiles-12"), "tiles"), number(find("tiles-1"), "tiles")), (13, 1));
    assert_eq!((number(find("parallel-8"), "groups"), number(find("text"), "groups")), (8, 1));
    assert!(workloads.iter().all(|workload| workload["decode_step"]["median"].as_f64().unwrap() > 0.0));
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let mut transcript = Transcript::new();
    let tiny = tiny_package();
    for arguments in [
        ["--tiles", "0"],
        ["--tiles", "300"],
        ["--repeats", "0"],
        ["--num-beams", "1"],
        ["--num-beams", "65"],
        ["--new-tokens", "1"],
        ["--workload", "greedy,quick"],
    ] {
        transcript.run(&[&["bench", "--model", tiny.to_str().unwrap()], &arguments[..]].concat());
    }
    transcript.run(&["bench", "--model", tiny.to_str().unwrap(), "--concurrency", "4"]);
    // Nothing is asked: there is no server at this address.
    for arguments in [
        &["--model", tiny.to_str().unwrap()][..],
        &["--threads", "2"],
        &["--workload", "load,greedy"],
        &["--workload", "probe", "--concurrency", "4"],
        &["--probe-interval", "5"],
        &["--concurrency", "0"],
        &["--tiles", "2", "--image", "a.png"],
        &["--image", "nothing.png"],
        &["--extra-body", "[]"],
        &["--extra-body", "{\"stream\": false}"],
    ] {
        transcript.run(&[&["bench", "--server", "http://127.0.0.1:1"], arguments].concat());
    }
    transcript.run(&["bench", "--server", "https://example.com/v1"]);
    transcript.check("bench_refused");
}
