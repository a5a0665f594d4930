//! Clients that go away, and the end of the server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::tiny_package;
use crate::support::{Server, about_receipt, content, with};

const READ: &str = "Đọc toàn bộ chữ trong ảnh.";

/// Nothing is cut off at the end, however slow the machine is.
pub const GRACE: &[&str] = &["-v", "--grace", "600"];

/// A request that is worked on for a while.
fn long(fields: Value) -> Value {
    with(with(about_receipt(READ), json!({"min_tokens": 4000, "max_tokens": 4000})), fields)
}

/// Sends a request and leaves the connection open.
pub fn open(server: &Server, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    stream
}

pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_mins(2), "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_goes_away_frees_its_rows() {
    let server = Server::bundled(&["--max-requests", "2", "--max-rows", "3"]);
    let expected = content(&server.ask(&about_receipt(READ))).to_owned();
    for stream in [true, false] {
        let long = long(json!({"stream": stream, "num_beams": 3}));
        let mut connection = open(&server, &long.to_string());
        if stream {
            let mut some = [0; 300];
            connection.read_exact(&mut some).unwrap();
        }
        wait_for("the request", || server.metric("vintern_requests_in_progress") == 1);
        drop(connection);
        wait_for("its end", || server.metric("vintern_requests_in_progress") == 0);
        assert_eq!(content(&server.ask(&about_receipt(READ))), expected);
    }
}

#[test]
fn a_full_queue_says_come_again() {
    let server = Server::bundled(&["--max-requests", "1"]);
    let long = long(json!({}));
    let connection = open(&server, &long.to_string());
    wait_for("the request", || server.metric("vintern_requests_in_progress") == 1);
    let (status, error) = server.refused(&about_receipt(READ));
    assert_eq!((status, &error["code"]), (429, &json!("queue_full")));
    drop(connection);
    wait_for("its end", || server.metric("vintern_requests_in_progress") == 0);
    server.ask(&about_receipt(READ));
}

#[test]
fn a_request_that_takes_too_long_is_ended() {
    let server = Server::bundled(&["--timeout", "1"]);
    let long = long(json!({"num_beams": 16}));
    let (status, error) = server.refused(&long);
    assert_eq!((status, &error["code"]), (504, &json!("timeout")));
}

/// Half a request neither stops the server from answering others nor from ending.
#[test]
fn half_a_request_disturbs_nobody() {
    let mut server = Server::start(&tiny_package(), &["--grace", "1"]);
    let mut half = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
    half.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{\"mess").unwrap();
    server.ask(&json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}));
    server.terminate();
    assert_eq!(server.wait(), Some(0));
}

/// A stream begins when its request is taken on, not when there is something to tell: a gateway waits for no answer.
#[test]
fn a_stream_begins_before_its_answer() {
    let server = Server::bundled(&[]);
    let long = long(json!({"num_beams": 16}));
    let running = open(&server, &long.to_string());
    wait_for("the first", || server.metric("vintern_requests_in_progress") == 1);
    let question = json!({"messages": [{"role": "user", "content": "?"}], "num_beams": 1, "stream": true});
    let mut waiting = open(&server, &question.to_string());
    let mut head = [0; 15];
    waiting.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    assert_eq!(server.metric("vintern_requests_in_progress"), 2);
    drop(running);
    let mut rest = String::new();
    waiting.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    while !rest.contains("[DONE]") {
        let mut piece = [0; 4096];
        let read = waiting.read(&mut piece).unwrap();
        assert!(read > 0, "{rest}");
        rest += &String::from_utf8_lossy(&piece[..read]);
    }
}

/// As long as something runs, whoever asks is told that the server is shutting down.
#[test]
fn it_is_told_that_the_end_is_near() {
    let mut server = Server::bundled(GRACE);
    let long = long(json!({"num_beams": 8}));
    let mut running = open(&server, &long.to_string());
    wait_for("the request", || server.metric("vintern_requests_in_progress") == 1);
    assert_eq!(server.get("/health/ready").0, 200);
    server.terminate();
    wait_for("the notice", || server.get("/health/ready").0 == 503);
    let (status, error) = server.refused(&about_receipt(READ));
    assert_eq!((status, &error["code"]), (503, &json!("shutting_down")));
    assert_eq!(server.get("/health").0, 200);
    let mut answer = String::new();
    running.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.wait(), Some(0));
}

/// What was accepted is answered; what comes later is not.
#[test]
fn the_end_waits_for_what_runs() {
    let mut server = Server::bundled(GRACE);
    let expected = content(&server.ask(&about_receipt(READ))).to_owned();
    let mut request = about_receipt(READ);
    request["stop"] = json!(["never said"]);
    let body = request.to_string();
    // The first request is answered a moment before it counts as ended.
    wait_for("the end of the first", || server.metric("vintern_requests_in_progress") == 0);
    let mut connections: Vec<TcpStream> = (0..6).map(|_| open(&server, &body)).collect();
    wait_for("the requests", || server.metric("vintern_requests_in_progress") >= 1);
    server.terminate();
    let mut answered = 0;
    for connection in &mut connections {
        let mut answer = Vec::new();
        // One that was not accepted any more finds its connection closed.
        let _ = connection.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        if text.starts_with("HTTP/1.1 200") {
            let whole: serde_json::Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
            assert_eq!(content(&whole), expected);
            answered += 1;
        } else {
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 503"), "{text}");
        }
    }
    assert_eq!(server.wait(), Some(0));
    assert!(answered > 0, "{}", server.told);
}
