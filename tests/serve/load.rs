//! Many requests: none lost, none wrong, memory flat; and the end under load.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::life::{GRACE, wait_for};
use crate::support::{Server, agent};

/// Kinds of small requests.
const KINDS: usize = 60;

/// A small request: greedy search, beams and samples by turns, of one or two new tokens.
fn request(kind: usize) -> Value {
    let settings = [json!({"num_beams": 1}), json!({"num_beams": 2}), json!({"temperature": 1, "seed": 5})];
    let mut request = settings[kind % 3].clone();
    request["messages"] = json!([
        {"role": "system", "content": "s"},
        {"role": "user", "content": format!("{}", kind / 3)},
    ]);
    request["max_tokens"] = json!(1 + kind % 2);
    request["return_token_ids"] = json!(true);
    request
}

/// The answer to each kind, asked one by one.
fn expected(server: &Server) -> Vec<Value> {
    (0..KINDS).map(|kind| server.ask(&request(kind))["choices"].clone()).collect()
}

/// Asks requests `from..to` at a concurrency of 32, each over a connection that is kept.
fn ask_all(server: &Server, expected: &[Value], from: usize, to: usize) {
    let next = AtomicUsize::new(from);
    let url = server.url("/v1/chat/completions");
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                let agent = agent();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= to {
                        return;
                    }
                    let mut response = agent.post(&url).send_json(request(index % KINDS)).unwrap();
                    let answer: Value = response.body_mut().read_json().unwrap();
                    assert_eq!(answer["choices"], expected[index % KINDS], "request {index}: {answer}");
                }
            });
        }
    });
}

#[test]
fn ten_thousand_small_requests() {
    let server = Server::bundled(&[]);
    let expected = expected(&server);
    let start = server.resident();
    ask_all(&server, &expected, 0, 5_000);
    let middle = server.resident();
    ask_all(&server, &expected, 5_000, 10_000);
    let end = server.resident();
    let [start, middle, end] = [start, middle, end].map(|bytes| bytes >> 20);
    eprintln!("resident: {start} MiB at the start, {middle} after 5000 requests, {end} after 10000");
    assert!(end < middle + 32, "{start} MiB at the start, {middle} in the middle, {end} in the end");
    wait_for("the last end", || server.metric("vintern_requests_in_progress") == 0);
    assert_eq!(server.metric("vintern_requests_total{status=\"200\"}"), 10_000 + KINDS as u64);
}

/// What is sent and comes back on one connection, which the server may close; nothing where it answered nothing.
fn exchange(stream: &mut TcpStream, body: &str) -> Option<String> {
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).ok()?;
    let mut response = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&response).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.to_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(usize::MAX) {
                return Some(text);
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) if response.is_empty() => return None,
            Ok(0) | Err(_) => panic!("half an answer: {text}"),
            Ok(read) => response.extend_from_slice(&piece[..read]),
        }
    }
}

/// The server ends while 16 clients ask without pause: every answer that it made was received whole, and was right.
#[test]
fn the_end_under_load_loses_no_answer() {
    let mut server = Server::bundled(GRACE);
    let expected = expected(&server);
    let (answered, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let address = server.address.trim_start_matches("http://").to_owned();
    std::thread::scope(|scope| {
        for client in 0..16 {
            let (answered, ended, expected, address) = (&answered, &ended, &expected, &address);
            scope.spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                for kind in (0..KINDS).cycle().skip(client) {
                    let Some(response) = exchange(&mut stream, &request(kind).to_string()) else { break };
                    if response.starts_with("HTTP/1.1 200") {
                        let answer: Value = serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap();
                        assert_eq!(answer["choices"], expected[kind], "kind {kind}");
                        answered.fetch_add(1, Ordering::Relaxed);
                    } else {
                        assert!(response.starts_with("HTTP/1.1 503"), "{response}");
                    }
                }
                assert!(ended.load(Ordering::SeqCst), "a connection was closed before the end");
            });
        }
        wait_for("answers", || answered.load(Ordering::Relaxed) >= 60);
        ended.store(true, Ordering::SeqCst);
        server.terminate();
    });
    assert_eq!(server.wait(), Some(0));
    let told = server.told.lines().filter(|line| line.contains("answered")).count();
    assert_eq!(told, answered.into_inner() + KINDS);
}

/// A server that was killed under load leaves nothing behind that keeps the next one from the same place.
#[test]
fn a_killed_server_comes_up_again() {
    let mut server = Server::bundled(&[]);
    let expected = expected(&server);
    let address = server.address.trim_start_matches("http://").to_owned();
    let port = address.rsplit(':').next().unwrap().to_owned();
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let (answered, address) = (&answered, &address);
            scope.spawn(move || {
                // The server may be killed before the last of the clients comes.
                let Ok(mut stream) = TcpStream::connect(address) else { return };
                for kind in (0..KINDS).cycle().skip(client) {
                    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length";
                    let body = request(kind).to_string();
                    let sent = stream.write_all(format!("{head}: {}\r\n\r\n{body}", body.len()).as_bytes());
                    let mut piece = [0; 4096];
                    if sent.is_err() || !matches!(stream.read(&mut piece), Ok(1..)) {
                        return;
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        wait_for("answers", || answered.load(Ordering::Relaxed) >= 40);
        server.kill();
    });
    let server = Server::bundled(&["--port", &port]);
    assert!(server.address.ends_with(&port));
    let again: HashMap<usize, Value> =
        (0..6).map(|kind| (kind, server.ask(&request(kind))["choices"].clone())).collect();
    assert!(again.iter().all(|(kind, choices)| *choices == expected[*kind]));
}
