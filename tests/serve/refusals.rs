//! What cannot be honoured is refused, with the field at fault and a reason.

use serde_json::{Value, json};

use crate::common::tiny_package;
use crate::support::{Server, data_url, showing, with};

fn asking(fields: Value) -> Value {
    with(json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}), fields)
}

#[test]
fn a_field_that_cannot_be_honoured_is_named() {
    let server = Server::start(&tiny_package(), &[]);
    for (request, param, reason) in [
        (asking(json!({"tempreature": 1})), "tempreature", "the nearest known name is temperature"),
        (asking(json!({"frequency_penalty": 0.5})), "frequency_penalty", "use repetition_penalty"),
        (asking(json!({"num_beams": "3"})), "num_beams", "expected a whole number of 0 or more, found \"3\""),
        (asking(json!({"max_new_tokens": 3})), "max_new_tokens", "with different values"),
        (asking(json!({"temperature": 1, "num_beams": 2})), "temperature", "one call cannot do both"),
        (asking(json!({"num_beams": 1, "length_penalty": 2})), "length_penalty", "has no effect with num_beams 1"),
        (asking(json!({"num_beams": 17})), "num_beams", "it must be at most 16"),
        (asking(json!({"n": 2})), "n", "greedy search returns at most 1; ask for fewer sequences"),
        (asking(json!({"repetition_penalty": 0})), "repetition_penalty", "it must be a finite number above 0"),
        (asking(json!({"preset": "descrbe"})), "preset", "the nearest name is describe"),
        (asking(json!({"max_tiles": 0})), "max_tiles", "expected a whole number from 1"),
        (asking(json!({"stop": [""]})), "stop", "would end every answer at once"),
        (asking(json!({"stream_options": {"include_usage": true}})), "stream_options", "needs stream: true"),
        (asking(json!({"response_format": {"type": "json_object"}})), "response_format", "cannot be honoured"),
        (asking(json!({"messages": []})), "messages", "the last message must be a question"),
        (json!({}), "messages", "a request needs messages"),
        (showing("https://example.com/a.png"), "messages[0].content[0].image_url", "--allow-image-host example.com"),
        (showing("file:///a.png"), "messages[0].content[0].image_url", "expected a data URL"),
        (showing("data:image/png;base64,@@"), "messages[0].content[0].image_url", "is not base64"),
        (showing("data:image/png;base64,aGVsbG8="), "messages[0].content[0].image_url", "image"),
    ] {
        let (status, error) = server.refused(&request);
        assert_eq!((status, &error["param"]), (400, &json!(param)), "{error}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let (status, error) = server.refused(&asking(json!({"model": "gpt-5"})));
    assert_eq!((status, &error["code"]), (404, &json!("model_not_found")));
}

#[test]
fn a_preset_of_more_beams_than_there_are_rows_is_named() {
    let server = Server::start(&tiny_package(), &["--max-rows", "2"]);
    let (status, error) = server.refused(&asking(json!({"preset": "describe"})));
    assert_eq!((status, &error["param"]), (400, &json!("num_beams")));
    let expected = "num_beams is 3 (the preset's); it must be at most 2; pass num_beams 2 or less, or another preset";
    assert_eq!(error["message"], expected);
    server.ask(&asking(json!({"preset": "describe", "num_beams": 2})));
}

#[test]
fn bodies_that_are_no_request() {
    let server = Server::start(&tiny_package(), &["--max-body", "1", "--max-image-pixels", "100"]);
    let large = vec![b' '; (1 << 20) + 1];
    for (body, status, code) in [
        (&b"{\"messages\": ["[..], 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b"[]", 400, "invalid_value"),
        (&large, 413, "body_too_large"),
        ("[".repeat(100_000).as_bytes(), 400, "invalid_json"),
    ] {
        let (found, answer) = server.post(body, &[]);
        assert_eq!((found, &answer["error"]["code"]), (status, &json!(code)), "{answer}");
    }
    // Larger in pixels than in bytes.
    let file = crate::common::golden("images").join("tiny_square.png");
    let (status, error) = server.refused(&showing(&data_url(&std::fs::read(&file).unwrap())));
    assert_eq!((status, &error["code"]), (400, &json!("invalid_image")), "{error}");
    assert_eq!(server.ask(&asking(json!({})))["object"], "chat.completion");
}

#[test]
fn many_messages_are_a_prompt_that_is_too_long() {
    let server = Server::start(&tiny_package(), &[]);
    let turn =
        |index: usize| json!({"role": if index.is_multiple_of(2) { "user" } else { "assistant" }, "content": "a"});
    let messages: Vec<Value> = (0..10_001).map(turn).collect();
    let (status, error) = server.refused(&json!({"messages": messages}));
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")), "{error}");
    let (status, error) = server.refused(&json!({"messages": messages[..10_000]}));
    assert_eq!((status, &error["param"]), (400, &json!("messages")), "{error}");
    // Counting the tokens of this would take a while.
    let (status, error) = server.refused(&json!({"messages": [{"role": "user", "content": "a".repeat(20 << 20)}]}));
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")), "{error}");
}

#[test]
fn a_key_opens_the_server() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "# keys\none\n\ntwo\n").unwrap();
    let server = Server::start(&tiny_package(), &["--api-key-file", keys.path().to_str().unwrap()]);
    let request = asking(json!({})).to_string();
    for (key, status) in [(None, 401), (Some("Bearer three"), 401), (Some("Bearer two"), 200)] {
        let headers: Vec<(&str, &str)> = key.iter().map(|key| ("authorization", *key)).collect();
        assert_eq!(server.post(request.as_bytes(), &headers).0, status, "{key:?}");
    }
    assert_eq!(server.get("/v1/models").0, 401);
    assert_eq!(server.get("/health").0, 200);
}

/// Allowed names are asked at public addresses only; a server of these tests has none.
#[test]
fn images_come_from_allowed_hosts_at_public_addresses() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let here = format!("localhost:{}", listener.local_addr().unwrap().port());
    let hosts = ["--allow-image-host", &here, "--allow-image-host", "images.invalid"];
    let server = Server::start(&tiny_package(), &hosts);
    for (url, code, reason) in [
        (format!("http://{here}/a.png"), "image_url_not_allowed", "has no public address"),
        (
            format!("http://127.0.0.1{}/a.png", here.trim_start_matches("localhost")),
            "image_url_not_allowed",
            "127.0.0.1",
        ),
        ("http://169.254.169.254/latest".to_owned(), "image_url_not_allowed", "not fetched from 169.254.169.254"),
        ("https://images.invalid:8443/".to_owned(), "image_url_not_allowed", "not fetched from images.invalid:8443"),
        ("https://me@images.invalid/".to_owned(), "image_url_not_allowed", "user name"),
        ("https://images.invalid/".to_owned(), "image_not_fetched", "was not found"),
    ] {
        let (status, error) = server.refused(&showing(&url));
        assert_eq!((status, &error["code"]), (400, &json!(code)), "{url}: {error}");
        assert_eq!(error["param"], "messages[0].content[0].image_url");
        assert!(error["message"].as_str().unwrap().contains(reason), "{url}: {error}");
    }
    // What is wrong with the rest of a request is found before its image is asked for.
    for (field, value) in [("model", json!("another")), ("temperature", json!(-1)), ("max_tiles", json!(0))] {
        let mut request = showing("https://images.invalid/");
        request[field] = value;
        assert_eq!(server.refused(&request).1["param"], field);
    }
    let inspect = json!({"image": "https://images.invalid/", "max_tiles": 0}).to_string();
    assert_eq!(server.post_to("/v1/inspect", inspect.as_bytes(), &[]).1["error"]["param"], "max_tiles");
    let inspect = json!({"image": format!("http://{here}/a.png")}).to_string();
    let (status, answer) = server.post_to("/v1/inspect", inspect.as_bytes(), &[]);
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("image")), "{answer}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "something was connected to");
}
