//! `verify`: hashes and recorded results.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::common::{package, recorded, tiny_package};
use crate::support::{PackageCopy, Transcript, image, json_of, stdout_of, text, vintern};

#[test]
fn a_whole_package_passes() {
    let report = json_of(vintern().args(["verify", "--json", "--model"]).arg(tiny_package()));
    let parity = report["parity"].as_array().unwrap();
    let components: Vec<&str> = parity.iter().map(|entry| entry["component"].as_str().unwrap()).collect();
    assert_eq!(components, ["vision_encoder", "projector", "decoder"]);
    for entry in parity {
        assert_eq!(entry["passed"], true, "{entry}");
        assert!(entry["max_relative"].as_f64().unwrap() > 0.0, "two ways of computing never agree to the bit: {entry}");
    }
    let printed = stdout_of(vintern().args(["verify", "--model"]).arg(tiny_package()));
    assert!(printed.lines().filter(|line| line.ends_with("  ok")).count() == 3, "{printed}");
}

/// Exported with 8 and 4 bits: it passes on ONNX Runtime's kernels and on ours, and answers greedily and with beams, the same
/// from weights as they lie in the file and from rearranged ones, which come in amid an answer.
#[test]
fn quantised_packages_pass_and_answer() {
    for precision in ["int8", "int4"] {
        let package = package("ckpt_a", precision);
        recorded(&package);
        for kernels in ["cpu:kernels=auto", "cpu:kernels=onnxruntime"] {
            let report = json_of(vintern().args(["verify", "--json", "--provider", kernels, "--model"]).arg(&package));
            let parity = report["parity"].as_array().unwrap();
            let precisions: Vec<&str> = parity.iter().map(|entry| entry["precision"].as_str().unwrap()).collect();
            assert_eq!(precisions, ["int8", "int8", precision]);
            assert!(parity.iter().all(|entry| entry["passed"] == true), "{kernels}: {report}");
        }
        for beams in ["1", "3"] {
            let limits = ["--num-beams", beams, "--min-new-tokens", "12", "--max-new-tokens", "12"];
            let answer = |provider: &str| {
                let mut command = vintern();
                command.args(["chat", "--json", "--provider", provider, "--model"]).arg(&package).args(limits);
                json_of(command.arg("--image").arg(image("small.png")).arg("Xin chào"))
            };
            let [packed, mapped] = ["cpu", "cpu:prepacking=false"].map(answer);
            assert_eq!(packed["usage"]["completion_tokens"], 12);
            assert_eq!(packed["token_ids"], mapped["token_ids"]);
        }
    }
}

#[test]
fn a_package_without_recorded_results_is_hashed_only() {
    let mut transcript = Transcript::new();
    let package = package("ckpt_a", "fp32");
    transcript.name(&package, "PACKAGE");
    transcript.run(&["verify", "--model", package.to_str().unwrap()]);
    transcript.check("verify_without_parity");
}

/// The recorded results with `change` applied to the values of one tensor.
fn tampered(tensor: &str, change: impl Fn(f32) -> f32) -> PackageCopy {
    let copy = PackageCopy::new();
    let bytes = std::fs::read(copy.file("parity.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let changed: Vec<u8> = tensors
        .tensor(tensor)
        .unwrap()
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .flat_map(|value| change(f32::from_le_bytes(*value)).to_le_bytes())
        .collect();
    let views = tensors.iter().map(|(name, view)| {
        let data = if name == tensor { changed.as_slice() } else { view.data() };
        (name, TensorView::new(view.dtype(), view.shape().to_vec(), data).unwrap())
    });
    let content = safetensors::serialize(views, None).unwrap();
    copy.replace("parity.safetensors", &content);
    copy
}

#[test]
fn other_results_than_recorded_fail() {
    for (tensor, component) in [("features", "vision_encoder"), ("logits", "decoder")] {
        let copy = tampered(tensor, |value| value * 1.01);
        let output = vintern().args(["verify", "--model"]).arg(copy.folder()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let printed = text(&output.stdout);
        let verdict = printed.lines().find(|line| line.starts_with(component)).unwrap();
        assert!(verdict.ends_with("FAILED"), "{printed}");
        assert!(text(&output.stderr).contains(component), "{}", text(&output.stderr));
    }
}

#[test]
fn recorded_results_that_are_not_numbers_fail() {
    let copy = tampered("logits", |_| f32::NAN);
    let output = vintern().args(["verify", "--json", "--model"]).arg(copy.folder()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["parity"][2]["passed"], false);
}

#[test]
fn recorded_results_that_are_damaged() {
    let mut transcript = Transcript::new();
    let mut verify = |content: &[u8]| {
        let copy = PackageCopy::new();
        copy.replace("parity.safetensors", content);
        transcript.name(copy.folder(), "PACKAGE");
        transcript.run(&["verify", "--model", copy.folder().to_str().unwrap()]);
    };
    verify(b"no safetensors");
    let zero = [0_u8; 4];
    let view = TensorView::new(Dtype::F32, vec![1], &zero).unwrap();
    verify(&safetensors::serialize([("pixel_values", view)], None).unwrap());
    let copy = PackageCopy::new();
    copy.flip("parity.safetensors", 2000);
    transcript.name(copy.folder(), "PACKAGE");
    transcript.run(&["verify", "--model", copy.folder().to_str().unwrap()]);
    transcript.check("verify_damaged");
}
