//! Clients and bodies that are broken, slow or hostile: each is refused or cut off, and nobody else notices.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::json;

use crate::common::png::chunk;
use crate::life::{open, wait_for};
use crate::support::{Server, about_receipt, content, data_url, showing};

const QUESTION: &str = "Tổng cộng là bao nhiêu?";

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    stream
}

/// What comes until the connection ends.
fn rest_of(mut stream: TcpStream) -> String {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    String::from_utf8_lossy(&rest).into_owned()
}

/// Asks about the receipt again and again while `disturb` is at work.
fn undisturbed(server: &Server, disturb: impl FnOnce()) {
    let expected = content(&server.ask(&about_receipt(QUESTION))).to_owned();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                assert_eq!(content(&server.ask(&about_receipt(QUESTION))), expected);
            }
        });
        disturb();
        done.store(true, Ordering::SeqCst);
    });
    wait_for("the end of all", || server.metric("vintern_requests_in_progress") == 0);
    assert_eq!(content(&server.ask(&about_receipt(QUESTION))), expected);
}

/// A grey PNG that claims a size; its data is `zeros` zeros, and a compressed text of `text` zeros stands before it.
fn png(width: u32, height: u32, zeros: usize, text: usize) -> Vec<u8> {
    let squeezed = |bytes: usize| {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        let piece = vec![0; 1 << 20];
        (0..bytes >> 20).for_each(|_| encoder.write_all(&piece).unwrap());
        encoder.write_all(&piece[..bytes & 0xf_ffff]).unwrap();
        encoder.finish().unwrap()
    };
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    let comment = [&b"Comment\0\0"[..], &squeezed(text)].concat();
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(*b"IHDR", &header),
        chunk(*b"zTXt", &comment),
        chunk(*b"IDAT", &squeezed(zeros)),
        chunk(*b"IEND", &[]),
    ]
    .concat()
}

/// Little files that claim to be large, or become large: the memory they take is bounded, and so is the time.
#[test]
fn images_that_are_larger_than_they_look() {
    let server = Server::bundled(&["--max-image-pixels", "1000000"]);
    undisturbed(&server, || {
        let before = server.resident();
        let claims = png(60_000, 60_000, 1000, 0);
        let most = png(1000, 1000, 1000, 0);
        let inflates = png(10, 10, 512 << 20, 0);
        let comment = png(10, 10, 110, 512 << 20);
        for (name, image) in [("claims", claims), ("cut short", most)] {
            let (status, error) = server.refused(&showing(&data_url(&image)));
            assert_eq!((status, &error["code"]), (400, &json!("invalid_image")), "{name}: {error}");
        }
        for (name, image) in [("inflates", inflates), ("comment", comment)] {
            let (status, answer) = server.post(showing(&data_url(&image)).to_string().as_bytes(), &[]);
            assert!([200, 400].contains(&status), "{name}: {answer}");
        }
        let grown = server.resident().saturating_sub(before) >> 20;
        assert!(grown < 200, "{grown} MiB more");
    });
}

/// Bodies of 100 MB, with their length told or not, from many clients at once.
#[test]
fn bodies_that_are_too_large_take_no_memory() {
    let server = Server::bundled(&["--max-body", "2"]);
    undisturbed(&server, || {
        let before = server.resident();
        std::thread::scope(|scope| {
            for client in 0..12 {
                let server = &server;
                scope.spawn(move || {
                    let mut stream = connect(server);
                    let piece = vec![b' '; 1 << 16];
                    let (length, piece, end) = if client % 2 == 0 {
                        ("content-length: 100007936", piece, "")
                    } else {
                        ("transfer-encoding: chunked", [b"10000\r\n", &piece[..], b"\r\n"].concat(), "0\r\n\r\n")
                    };
                    let head = format!("host: a\r\nconnection: close\r\n{length}");
                    write!(stream, "POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
                    (0..1526).for_each(|_| stream.write_all(&piece).unwrap());
                    stream.write_all(end.as_bytes()).unwrap();
                    let answer = rest_of(stream);
                    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("larger than 2 MiB"), "{answer}");
                });
            }
        });
        let grown = server.resident().saturating_sub(before) >> 20;
        assert!(grown < 100, "{grown} MiB more");
    });
    // A client that asks before it sends is told at once.
    let mut stream = connect(&server);
    let asking = "content-length: 100000000\r\nexpect: 100-continue\r\n\r\n";
    write!(stream, "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n{asking}").unwrap();
    let answer = rest_of(stream);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

/// Large bodies that are slow to come take a bounded memory; small ones are let in beside them.
#[test]
fn large_bodies_share_a_bounded_memory() {
    let server = Server::bundled(&["--max-body", "1"]);
    let length = (1 << 20) - 1;
    let begin = || {
        let mut stream = connect(&server);
        let head = format!("host: a\r\nconnection: close\r\ncontent-length: {length}");
        write!(stream, "POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        stream.write_all(&vec![b' '; length - 1]).unwrap();
        stream
    };
    let whole = showing("data:image/png;base64,").to_string() + &" ".repeat(length / 4 * 3);
    let status = || server.post(whole.as_bytes(), &[]).0;
    assert_eq!(status(), 400, "an image without bytes");
    let mut held: Vec<TcpStream> = (0..10).map(|_| begin()).collect();
    wait_for("a full memory", || {
        // One that was asked about too early may have taken the place of one of these.
        held.push(begin());
        status() == 429
    });
    assert_eq!(server.post(whole.as_bytes(), &[]).1["error"]["code"], "queue_full");
    server.ask(&json!({"messages": [{"role": "user", "content": "xin chào"}], "max_tokens": 2}));
    drop(held);
    wait_for("room", || status() == 400);
}

/// Clients that send nonsense, half a request, or leave in the middle of an answer, while others ask.
#[test]
fn broken_clients_disturb_nobody() {
    let server = Server::bundled(&[]);
    let mut long = about_receipt("Đọc toàn bộ chữ trong ảnh.");
    long["stream"] = json!(true);
    let long = long.to_string();
    undisturbed(&server, || {
        std::thread::scope(|scope| {
            for client in 0..8 {
                let (server, long) = (&server, &long);
                scope.spawn(move || {
                    for round in 0..6_usize {
                        match (client + round) % 4 {
                            // Leaves after so many bytes of the answer.
                            0 => {
                                let mut stream = open(server, long);
                                let _ = stream.read_exact(&mut vec![0; 1 + 300 * round]);
                            }
                            // Leaves in the middle of the body.
                            1 => {
                                let mut stream = connect(server);
                                let head = format!("content-length: {}\r\n\r\n", long.len());
                                let half = &long[..long.len() / (2 + round)];
                                write!(stream, "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n{head}{half}")
                                    .unwrap();
                            }
                            2 => {
                                let broken = &long[..long.len() - 1 - round];
                                assert_eq!(server.post(broken.as_bytes(), &[]).1["error"]["code"], "invalid_json");
                            }
                            _ => {
                                let url = format!("data:image/png;base64,{}*", "AAAA".repeat(round));
                                assert_eq!(server.refused(&showing(&url)).0, 400);
                            }
                        }
                    }
                });
            }
        });
    });
}

/// A client that takes too long over the head of a request, its body, or the next request is cut off.
#[test]
fn slow_senders_are_cut_off() {
    let server = Server::bundled(&["--client-timeout", "2"]);
    undisturbed(&server, || {
        let begun = Instant::now();
        let mut head = connect(&server);
        head.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n").unwrap();
        let mut body = connect(&server);
        body.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{").unwrap();
        let mut next = connect(&server);
        next.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        // A byte now and then does not help.
        let mut drip = connect(&server);
        while begun.elapsed() < Duration::from_secs(20) && drip.write_all(b"G").is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "a head of one letter after another is not cut off");
        let (head, body, next) = (rest_of(head), rest_of(body), rest_of(next));
        assert!(head.is_empty() || head.starts_with("HTTP/1.1 4"), "{head}");
        assert!(body.starts_with("HTTP/1.1 408") && body.contains("within 2 s"), "{body}");
        assert!(next.starts_with("HTTP/1.1 200") && next.matches("HTTP/1.1").count() == 1, "{next}");
    });
}

/// A client that does not take its answers is cut off, and the server keeps no more of them than the connection holds.
#[test]
fn slow_readers_are_cut_off() {
    let server = Server::bundled(&["--client-timeout", "2"]);
    undisturbed(&server, || {
        let before = server.resident();
        let asked = 200_000_usize;
        let readers: Vec<TcpStream> = (0..4).map(|_| connect(&server)).collect();
        let writers: Vec<_> = readers
            .iter()
            .map(|reader| {
                let mut writer = reader.try_clone().unwrap();
                std::thread::spawn(move || {
                    let requests = b"GET /page/app.js HTTP/1.1\r\nhost: a\r\n\r\n".repeat(100);
                    (0..asked / 100).position(|_| writer.write_all(&requests).is_err())
                })
            })
            .collect();
        for writer in writers {
            assert!(writer.join().unwrap().is_some(), "the connection took all requests");
        }
        for reader in readers {
            let answers = rest_of(reader).matches("HTTP/1.1 200").count();
            assert!(answers < asked / 2, "{answers} answers");
        }
        let grown = server.resident().saturating_sub(before) >> 20;
        assert!(grown < 64, "{grown} MiB more");
    });
}

/// A stream that is not read holds nobody up: its answer is made, and its rows go to others.
#[test]
fn a_stream_that_nobody_reads_holds_nobody_up() {
    let server = Server::bundled(&["--max-rows", "3"]);
    let mut long = about_receipt("Đọc toàn bộ chữ trong ảnh.");
    long["stream"] = json!(true);
    let long = long.to_string();
    undisturbed(&server, || {
        let unread: Vec<TcpStream> = (0..6).map(|_| open(&server, &long)).collect();
        wait_for("their answers", || server.metric("vintern_requests_total{status=\"200\"}") >= 7);
        // What was not read is still there.
        for stream in unread {
            stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
            let mut stream = std::io::BufReader::new(stream);
            let mut line = String::new();
            while !line.contains("[DONE]") {
                line.clear();
                assert!(std::io::BufRead::read_line(&mut stream, &mut line).unwrap() > 0, "it ended before its end");
            }
        }
    });
}
