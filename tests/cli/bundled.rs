//! The bundled model, whose answers mean something: the receipt of `make demo`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::common::{exported, repository};
use crate::conversation::converse;
use crate::support::{json_of, stdout_of, text, vintern};

const READ: &str = "Đọc toàn bộ chữ trong ảnh.";
const TOTAL: &str = "Tổng cộng là bao nhiêu?";
const DATE: &str = "Ngày trên hóa đơn?";
const EXTRACT: &str = "Trích xuất hóa đơn thành JSON.";
const RECEIPT: &str = "\
Quán cơm Tấm Mai
237 Trĩnh Trốc
ĐT: 0817.589.854
Số: CX#638
Ngày 27/10/2032
- Phở bò tái gao 172.000
- Rau muống xào 1.825.000
- Lẩu thái 2.325.000
TỔNG 4.322.000
Thank you!";

fn bundled() -> PathBuf {
    repository().join("models/vintern-tiny")
}

/// The bundled checkpoint exported with another precision.
fn other_precision(precision: &str) -> PathBuf {
    exported(&format!("vintern-tiny-{precision}"), |exporter, folder| {
        exporter.arg(repository().join("models/checkpoints/vintern-tiny")).arg(folder).args(["--precision", precision]);
    })
}

/// `vintern chat` with a package, about the receipt.
fn chat(package: PathBuf) -> Command {
    let mut command = vintern();
    command.args(["chat", "--model"]).arg(package).args(["--image", "models/demo/receipt.png"]);
    command
}

fn answer(arguments: &[&str], question: &str) -> Value {
    json_of(chat(bundled()).arg("--json").args(arguments).arg(question))
}

/// What `make demo` asks first, with the preset it names and with the package's default.
#[test]
fn it_reads_the_receipt() {
    for preset in [&["--preset", "describe"][..], &["--preset", "read"], &[]] {
        let answer = answer(preset, READ);
        assert_eq!(answer["text"], RECEIPT, "{preset:?}");
        assert_eq!(answer["finish_reason"], "stop");
    }
}

#[test]
fn what_is_streamed_is_the_answer() {
    for beams in ["1", "3"] {
        assert_eq!(stdout_of(chat(bundled()).args(["--num-beams", beams, READ])), format!("{RECEIPT}\n"));
    }
}

#[test]
fn it_finds_a_field() {
    assert_eq!(answer(&["--preset", "ask"], TOTAL)["text"], "4.322.000");
    assert_eq!(answer(&["--preset", "ask"], DATE)["text"], "27/10/2032");
}

/// Of the items it may miss some; what it gives is on the receipt.
#[test]
fn it_extracts_json() {
    let answer = answer(&["--preset", "extract"], EXTRACT);
    let extracted: Value = serde_json::from_str(answer["text"].as_str().unwrap()).unwrap();
    assert_eq!(extracted["shop"], "Quán cơm Tấm Mai");
    assert_eq!(extracted["date"], "27/10/2032");
    assert_eq!(extracted["total"], 4_322_000);
    let item = |name: &str, price: u64| json!({"name": name, "price": price});
    let printed = [item("Phở bò tái gao", 172_000), item("Rau muống xào", 1_825_000), item("Lẩu thái", 2_325_000)];
    let items = extracted["items"].as_array().unwrap();
    assert!(!items.is_empty() && items.iter().all(|item| printed.contains(item)), "{extracted}");
}

#[test]
fn a_second_question_about_the_image_is_answered_from_the_cache() {
    let output = converse(chat(bundled()).args(["--preset", "ask", "-v"]), &format!("{TOTAL}\n{DATE}\n"));
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(text(&output.stdout), "4.322.000\n27/10/2032\n");
    let second = stderr.lines().filter(|line| line.starts_with("prompt: ")).nth(1).unwrap();
    assert!(second.contains(" 0 of them encoded") && !second.contains(" 0 of them cached"), "{stderr}");
}

#[test]
fn a_stop_text_ends_it_after_a_line() {
    for beams in ["1", "3"] {
        let first = answer(&["--num-beams", beams, "--stop", "\n"], READ);
        assert_eq!(first["text"], RECEIPT.lines().next().unwrap());
        assert_eq!(first["finish_reason"], "stop");
    }
}

/// Why the package has presets of its own: what the card's call forbids to say twice, a page says twice.
#[test]
fn a_penalty_spoils_a_transcription() {
    assert_ne!(answer(&["--preset", "read", "--repetition-penalty", "3.5"], READ)["text"], RECEIPT);
}

#[test]
fn other_precisions_of_its_checkpoint_answer_alike() {
    for precision in ["fp32", "int8"] {
        let mut command = chat(other_precision(precision));
        assert_eq!(json_of(command.args(["--json", READ]))["text"], RECEIPT, "{precision}");
    }
}
