//! A bound of the cache's memory.

use serde_json::{Value, json};

use crate::common::vintern;
use crate::support::{Server, content};

/// One position of the bundled model's cache takes 2 KiB, so a cache of 1 MiB has 512.
const ONE: &[&str] = &["--cache-memory", "1"];

fn question(number: usize, fields: &Value) -> Value {
    let mut request = json!({"messages": [{"role": "user", "content": format!("{number}. Xin chào")}]});
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request
}

#[test]
fn what_could_never_fit_is_refused() {
    let server = Server::bundled(ONE);
    let told = "cache: 2.0 KiB a position, 4 MiB a row of 2048; all 16 rows and 4 to spare would take 84 MiB; bounded to 1 MiB";
    assert_eq!(server.told.trim(), told);
    assert_eq!(server.metric("vintern_cache_budget_bytes"), 1 << 20);
    for fields in [json!({"max_tokens": 2000}), json!({"max_tokens": 200, "num_beams": 4})] {
        let (status, error) = server.refused(&question(1, &fields));
        assert_eq!((status, &error["code"], &error["param"]), (400, &json!("cache_too_small"), &json!("max_tokens")));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("row(s) of") && message.contains("the cache has 1 MiB; ask for"), "{message}");
    }
    server.ask(&question(1, &json!({"max_tokens": 200})));
}

/// More requests than fit: all are answered, as if each were alone, in the memory there is.
#[test]
fn what_does_not_fit_now_waits() {
    let server = Server::bundled(ONE);
    let fields = json!({"max_tokens": 60, "min_tokens": 60, "return_token_ids": true});
    let request = |number: usize| question(number, &fields);
    let expected: Vec<Value> = (0..6).map(|number| server.ask(&request(number))["choices"].clone()).collect();
    std::thread::scope(|scope| {
        for client in 0..12 {
            let (server, expected) = (&server, &expected);
            scope.spawn(move || {
                for number in 0..6 {
                    let number = (number + client) % 6;
                    assert_eq!(server.ask(&request(number))["choices"], expected[number], "request {number}");
                    assert!(server.metric("vintern_cache_bytes") <= 1 << 20);
                }
            });
        }
    });
    assert_eq!(server.metric("vintern_requests_waiting"), 0);
    assert!(!content(&server.ask(&request(0))).is_empty());
}

/// Many short rows, one long one, many again: the cache changes its shape within its memory, and the answers stay the same.
#[test]
fn long_and_wide_requests_take_turns() {
    let server = Server::bundled(ONE);
    let shapes = [
        json!({"max_tokens": 8, "min_tokens": 8, "num_beams": 3}),
        json!({"max_tokens": 300, "min_tokens": 300}),
        json!({"max_tokens": 6, "min_tokens": 6, "temperature": 1, "seed": 5, "n": 3}),
    ];
    let expected: Vec<Value> =
        shapes.iter().map(|fields| server.ask(&question(1, fields))["choices"].clone()).collect();
    for round in 0..6 {
        assert_eq!(server.ask(&question(1, &shapes[round % 3]))["choices"], expected[round % 3]);
        assert!(server.metric("vintern_cache_bytes") <= 1 << 20);
    }
}

#[test]
fn no_memory_is_no_bound() {
    let output = vintern().args(["serve", "--model", "x", "--cache-memory", "0"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
