//! `vintern bench --server` against a server of ours, and against what is none.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Output;

use serde_json::Value;

use crate::common::{repository, vintern};
use crate::support::Server;

fn bench(url: &str, arguments: &[&str]) -> Output {
    vintern().args(["bench", "--server", url]).args(arguments).output().unwrap()
}

fn report(url: &str, arguments: &[&str]) -> Value {
    let output = bench(url, &[&["--json"], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn ascends(tail: &Value) -> bool {
    let [min, median, p95, max] = ["min", "median", "p95", "max"].map(|name| tail[name].as_f64().unwrap());
    0.0 < min && min <= median && median <= p95 && p95 <= max
}

/// Counts are those of the server's own metrics: tokens are not counted by chunks.
#[test]
fn a_sweep_counts_what_the_server_counts() {
    let server = Server::bundled(&[]);
    let before = server.metric("vintern_completion_tokens_total");
    let arguments = ["--concurrency", "1,3", "--requests", "5", "--max-new-tokens", "6", "--extra-body"];
    let found = report(&server.address, &[&arguments[..], &["{\"min_tokens\": 6}"]].concat());
    assert_eq!((&found["model"], &found["max_new_tokens"]), (&"vintern-tiny".into(), &6.into()));
    let levels = found["load"].as_array().unwrap();
    assert_eq!([&levels[0]["concurrency"], &levels[1]["concurrency"]], [&1, &3]);
    for level in levels {
        assert_eq!((&level["answered"], &level["failed"], &level["output_tokens"]), (&5.into(), &0.into(), &30.into()));
        assert!(["first_token", "inter_token", "total"].iter().all(|name| ascends(&level[*name])), "{level}");
        assert!(level["output_tokens_per_second"].as_f64().unwrap() > level["requests_per_second"].as_f64().unwrap());
        let [prompt, cached] = ["prompt_tokens", "cached_tokens"].map(|name| level[name].as_u64().unwrap());
        assert!(cached < prompt, "the questions differ: {level}");
    }
    // The one that warms up is not counted.
    assert_eq!(server.metric("vintern_completion_tokens_total") - before, 66);
}

#[test]
fn images_are_shown_in_turn() {
    let server = Server::bundled(&[]);
    let receipt = repository().join("models/demo/receipt.png");
    let small = crate::common::golden("images").join("small.png");
    let files = ["--image", receipt.to_str().unwrap(), "--image", small.to_str().unwrap()];
    let rest = ["--question", "Tổng cộng?", "--concurrency", "2", "--requests", "4", "--max-new-tokens", "2"];
    let found = report(&server.address, &[&files[..], &rest].concat());
    // The first was shown by the request that warms up.
    let tiles = found["load"][0]["tiles"].as_u64().unwrap();
    assert_eq!(tiles, 2 * server.metric("vintern_tiles_encoded_total"));
}

#[test]
fn a_short_question_is_answered_while_an_image_is_read() {
    let server = Server::bundled(&["--prefill-chunk", "16"]);
    let arguments = ["--workload", "probe,second-question", "--probe-interval", "5", "--max-new-tokens", "8"];
    let found = report(&server.address, &[&arguments[..], &["--repeats", "2"]].concat());
    let probe = &found["probe"];
    assert_eq!(probe["tiles"], 7);
    assert!(probe["probes"].as_u64().unwrap() > 0);
    assert!(
        ["alone", "during", "image_alone", "image_with_probes"].iter().all(|name| ascends(&probe[*name])),
        "{probe}"
    );
    let questions = &found["second_question"];
    let [cached, first] = ["second_cached_tokens", "first_prompt_tokens"].map(|name| questions[name].as_u64().unwrap());
    assert!(cached >= first, "{questions}");
    assert!(questions["ratio"].as_f64().unwrap() < 1.0, "{questions}");
}

/// What fails is counted by its reason, and the rest still measured.
#[test]
fn requests_that_fail_are_told() {
    let server = Server::bundled(&["--max-requests", "1"]);
    let arguments = ["--concurrency", "4", "--requests", "12", "--max-new-tokens", "20"];
    let output = bench(&server.address, &arguments);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("× HTTP 429: 1 requests are being worked on or wait"), "{printed}");
    assert!(printed.contains("output tokens/s"), "{printed}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: ") && said.contains("of 12 requests failed"), "{said}");
}

#[test]
fn a_server_with_keys_is_asked_with_one() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "secret\n").unwrap();
    let server = Server::bundled(&["--api-key-file", keys.path().to_str().unwrap()]);
    let small = ["--concurrency", "1", "--requests", "1", "--max-new-tokens", "2"];
    let output = bench(&server.address, &small);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("HTTP 401: this server needs a key"));
    report(&server.address, &[&small[..], &["--api-key", "secret"]].concat());
}

/// Answers every request with the same bytes, once for each connection.
fn canned(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 65_536];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

#[test]
fn what_is_no_server_is_told() {
    let small = ["--concurrency", "1", "--requests", "1"];
    let page = canned("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>");
    let without_usage =
        canned("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ndata: {\"choices\": []}\n\ndata: [DONE]\n\n");
    for (url, arguments, code, reason) in [
        (page.as_str(), &[][..], 3, "it lists no model"),
        (&page, &["--server-model", "a"], 1, "the stream ended before its [DONE]"),
        (&without_usage, &["--server-model", "a"], 1, "the stream tells no usage"),
        ("http://127.0.0.1:1", &[], 3, "cannot be asked"),
    ] {
        let output = bench(url, &[&small[..], arguments].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}
