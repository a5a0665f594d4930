//! The same weights in other forms: the transformers-native layout, and half precision.

use std::path::PathBuf;

use serde_json::Value;

use crate::chat::{answer, cases};
use crate::common::{exported, golden, golden_json, package, python, repository};

/// Copies a golden checkpoint with the pixel shuffle the native layout always means, then converts the copy.
const CONVERT: &str = "
import sys; from pathlib import Path; from support.checkpoints import copy_checkpoint, to_transformers_layout
source, target = Path(sys.argv[1]), Path(sys.argv[2])
copy_checkpoint(source, target / 'original', lambda config: config.update(ps_version='v2'))
to_transformers_layout(target / 'original', target / 'native')
";

/// The same weights in both layouts: folders `original` and `native`.
fn both_layouts(checkpoint: &str) -> PathBuf {
    exported(&format!("{checkpoint}-layouts"), |command, folder| {
        // Made by the converter of the exporter's tests, not by the exporter.
        *command = python();
        command.current_dir(repository().join("export/tests"));
        command.args(["-c", CONVERT]).arg(golden(checkpoint)).arg(folder);
    })
}

fn layout_package(checkpoint: &str, layout: &str) -> PathBuf {
    let checkpoints = both_layouts(checkpoint);
    let config: Value = golden_json(&format!("{checkpoint}/config.json"));
    exported(&format!("{checkpoint}-{layout}"), |exporter, folder| {
        exporter.arg(checkpoints.join(layout)).arg(folder).args(["--precision", "fp32"]);
        // The native layout has no place for them.
        exporter.args(["--template", config["template"].as_str().unwrap()]);
        if let Value::String(message) = &config["system_message"] {
            exporter.args(["--system", message]);
        }
    })
}

#[test]
fn the_native_layout_of_ckpt_a_gives_the_reference_ids() {
    let package = layout_package("ckpt_a", "native");
    for case in cases("ckpt_a") {
        let answer = answer(&case, &package);
        assert_eq!(answer["token_ids"], case["output_ids"], "{}", case["id"]);
        assert_eq!(answer["text"], case["response"], "{}", case["id"]);
    }
}

/// `ckpt_b` has pixel shuffle v1, which the native layout cannot express; with v2 both layouts must still agree.
#[test]
fn both_layouts_of_ckpt_b_give_the_same_ids() {
    let [original, native] = ["original", "native"].map(|layout| layout_package("ckpt_b", layout));
    for case in cases("ckpt_b") {
        let [original, native] = [answer(&case, &original), answer(&case, &native)];
        assert_eq!(original["token_ids"], native["token_ids"], "{}", case["id"]);
        if case["images"].as_array().unwrap().is_empty() {
            assert_eq!(native["token_ids"], case["output_ids"], "{}", case["id"]);
        }
    }
}

/// Half precision may flip a choice between two nearly equal tokens, so only wide margins are asked for.
#[test]
fn half_precision_agrees_where_the_margin_is_wide() {
    const WIDE: f64 = 0.05;
    for checkpoint in ["ckpt_a", "ckpt_b"] {
        let package = package(checkpoint, "fp16");
        let wide = cases(checkpoint).into_iter().filter(|case| case["min_margin"].as_f64().unwrap() > WIDE);
        for case in wide {
            let answer = answer(&case, &package);
            assert_eq!(answer["token_ids"], case["output_ids"], "{checkpoint} {}", case["id"]);
        }
    }
}
