//! Folders that are no package, packages that are damaged.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{exported, package, tiny_package};
use crate::support::{PackageCopy, Transcript, chat, stdout_of, vintern};

fn chat_with(transcript: &mut Transcript, package: &Path) {
    transcript.run(&["chat", "--model", package.to_str().unwrap(), "question"]);
}

/// Runs `chat` on a copy of the tiny package after `damage`.
fn damaged(transcript: &mut Transcript, damage: impl FnOnce(&PackageCopy)) {
    let copy = PackageCopy::new();
    damage(&copy);
    transcript.name(copy.folder(), "PACKAGE");
    chat_with(transcript, copy.folder());
}

#[test]
fn what_is_no_package() {
    let folder = tempfile::tempdir().unwrap();
    let mut transcript = Transcript::new();
    transcript.name(folder.path(), "FOLDER");
    chat_with(&mut transcript, &folder.path().join("missing"));
    chat_with(&mut transcript, &tiny_package().join("manifest.json"));
    chat_with(&mut transcript, folder.path());
    transcript.check("package_none");
}

#[test]
fn manifests_that_cannot_be_used() {
    let mut transcript = Transcript::new();
    damaged(&mut transcript, |copy| std::fs::write(copy.file("manifest.json"), "{\"format\": ").unwrap());
    damaged(&mut transcript, |copy| std::fs::write(copy.file("manifest.json"), "[]").unwrap());
    let mut edited = |change: fn(&mut Value)| damaged(&mut transcript, |copy| copy.edit(change));
    edited(|manifest| manifest["format"] = "other-package".into());
    edited(|manifest| drop(manifest.as_object_mut().unwrap().remove("format")));
    edited(|manifest| manifest["format_version"] = 2.into());
    edited(|manifest| drop(manifest["architecture"].as_object_mut().unwrap().remove("head_dim")));
    edited(|manifest| manifest["architecture"]["head_dim"] = "sixteen".into());
    edited(|manifest| manifest["architecture"]["image_size"] = 0.into());
    edited(|manifest| manifest["tiling"]["min_tiles"] = 7.into());
    edited(|manifest| manifest["graphs"]["projector"] = json!([]));
    edited(|manifest| manifest["prompt"]["template"] = "vicuna".into());
    edited(|manifest| manifest["tokenizer"]["file"]["name"] = "../tokenizer.json".into());
    edited(|manifest| manifest["tokenizer"]["file"]["name"] = "/etc/passwd".into());
    edited(|manifest| manifest["embed_tokens"]["tensor"] = "wte".into());
    transcript.check("package_manifest");
}

#[test]
fn files_that_are_missing_or_of_another_size() {
    let mut transcript = Transcript::new();
    damaged(&mut transcript, |copy| std::fs::remove_file(copy.file("decoder.onnx")).unwrap());
    damaged(&mut transcript, |copy| std::fs::remove_file(copy.file("tokenizer.json")).unwrap());
    damaged(&mut transcript, |copy| {
        let data = std::fs::read(copy.file("decoder.onnx.data")).unwrap();
        std::fs::write(copy.file("decoder.onnx.data"), &data[..1000]).unwrap();
    });
    damaged(&mut transcript, |copy| {
        std::fs::copy(copy.file("projector.onnx.data"), copy.file("vision_encoder.onnx.data")).unwrap();
    });
    transcript.check("package_files");
}

/// Sizes agree here, so that only what is inside can tell.
#[test]
fn files_of_another_package() {
    let other = package("ckpt_b", "fp32");
    let theirs = |name: &str| std::fs::read(other.join(name)).unwrap();
    let mut transcript = Transcript::new();
    damaged(&mut transcript, |copy| {
        copy.replace("vision_encoder.onnx", &std::fs::read(copy.file("projector.onnx")).unwrap());
    });
    damaged(&mut transcript, |copy| {
        copy.replace("embed_tokens.safetensors", &theirs("embed_tokens.safetensors"));
    });
    damaged(&mut transcript, |copy| copy.replace("embed_tokens.safetensors", b"no safetensors"));
    damaged(&mut transcript, |copy| copy.replace("tokenizer.json", &theirs("tokenizer.json")));
    damaged(&mut transcript, |copy| copy.replace("tokenizer.json", b"{}"));
    transcript.check("package_mixed");
}

#[test]
fn a_graph_that_is_no_graph() {
    let copy = PackageCopy::new();
    copy.replace("projector.onnx", b"not a graph");
    let output = vintern().args(["chat", "question", "--model"]).arg(copy.folder()).output().unwrap();
    let stderr = crate::support::text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(
        stderr.contains("projector.onnx could not be loaded: ") && stderr.contains("hint: `vintern verify`"),
        "{stderr}"
    );
}

/// Weights of the right size with other content cannot be told from the right ones without reading gigabytes: the call
/// works, `verify` finds it.
#[test]
fn a_changed_byte_is_found_by_verify() {
    let copy = PackageCopy::new();
    copy.flip("decoder.onnx.data", 1000);
    stdout_of(vintern().args(["chat", "question", "--max-new-tokens", "2", "--model"]).arg(copy.folder()));
    let mut transcript = Transcript::new();
    transcript.name(copy.folder(), "PACKAGE");
    transcript.run(&["verify", "--model", copy.folder().to_str().unwrap()]);
    transcript.check("package_changed_byte");
}

#[test]
fn logits_that_are_not_numbers_end_the_call() {
    let broken = package_with_nan();
    for beams in ["1", "3"] {
        let mut command = vintern();
        command.args(["chat", "question", "--num-beams", beams, "--model"]).arg(&broken);
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true));
        insta::allow_duplicates! {
            crate::support::snapshot("package_nan", &crate::support::text(&output.stderr));
        }
    }
}

/// The tiny package with NaN in the final norm.
fn package_with_nan() -> std::path::PathBuf {
    tiny_package();
    let source = exported("tiny-checkpoint", |_, _| unreachable!("the tiny package was made from it"));
    let checkpoint = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(source).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), checkpoint.path().join(entry.file_name())).unwrap();
    }
    write_nan(&checkpoint.path().join("model.safetensors"), "language_model.model.norm.weight");
    exported("tiny-nan", |exporter: &mut Command, folder| {
        exporter.arg(checkpoint.path()).arg(folder).args(["--precision", "fp32"]);
    })
}

/// Fills a bfloat16 tensor of a safetensors file with NaN.
fn write_nan(file: &Path, tensor: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let header = 8 + usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let entries: Value = serde_json::from_slice(&bytes[8..header]).unwrap();
    assert_eq!(entries[tensor]["dtype"], "BF16");
    let [start, end] =
        [0, 1].map(|end| usize::try_from(entries[tensor]["data_offsets"][end].as_u64().unwrap()).unwrap());
    for number in bytes[header + start..header + end].chunks_exact_mut(2) {
        number.copy_from_slice(&[0xc0, 0x7f]);
    }
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn the_package_may_be_named_by_the_environment() {
    let answer = |command: &mut Command| stdout_of(command.args(["--max-new-tokens", "4", "question"]));
    let named = answer(vintern().arg("chat").env("VINTERN_MODEL", tiny_package()));
    assert_eq!(named, answer(&mut chat()));
}
