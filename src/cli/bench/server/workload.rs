//! What a server is asked, and one run of it.

use std::io::Cursor;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::{Value, json};

use super::client::{Answer, Client};
use crate::cli::bench::grid;
use crate::cli::bench::workload::{QUESTION, SECOND_QUESTION, TEXT_QUESTION};

/// Side of the tiles of a generated image: that of Vintern and InternVL.
const TILE_SIZE: u32 = 448;

/// What is measured of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    /// Requests side by side, at one level of concurrency after another.
    Load,
    /// A short question while the prompt of an image is computed.
    Probe,
    /// The second question of a conversation about one image.
    SecondQuestion,
}

impl Workload {
    pub(super) const ALL: [Self; 3] = [Self::Load, Self::Probe, Self::SecondQuestion];

    /// Name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Probe => "probe",
            Self::SecondQuestion => "second-question",
        }
    }
}

/// The image of a request of load.
pub(super) enum Shown {
    Nothing,
    /// These in turn, as data URLs.
    Files(Vec<String>),
    /// One of its own of so many tiles.
    Generated(u32),
}

/// Makes requests none of which begins like another, so that nothing but what is meant to be is taken from a cache.
pub(super) struct Requests {
    /// Differs from run to run: the server may remember the last one.
    salt: u32,
    made: AtomicUsize,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { salt: rand::random(), made: AtomicUsize::new(0) }
    }

    fn number(&self) -> u32 {
        self.salt.wrapping_add(self.made.fetch_add(1, Ordering::Relaxed) as u32)
    }

    /// A question without an image.
    pub(super) fn text(&self, question: Option<&str>) -> Value {
        let question = format!("{}. {}", self.number(), question.unwrap_or(TEXT_QUESTION));
        json!([{"role": "user", "content": question}])
    }

    /// A question about an image.
    fn about(&self, url: &str, question: Option<&str>) -> Value {
        let question = format!("{}. {}", self.number(), question.unwrap_or(QUESTION));
        json!([{"role": "user", "content": [image_part(url), {"type": "text", "text": question}]}])
    }

    /// A question about an image that nobody has seen.
    pub(super) fn about_generated(&self, tiles: u32, question: Option<&str>) -> Value {
        self.about(&generated(tiles, self.number()), question)
    }

    /// Request `index` of load.
    pub(super) fn of_load(&self, shown: &Shown, index: usize, question: Option<&str>) -> Value {
        match shown {
            Shown::Nothing => self.text(question),
            Shown::Files(urls) => self.about(&urls[index % urls.len()], question),
            Shown::Generated(tiles) => self.about_generated(*tiles, question),
        }
    }
}

fn image_part(url: &str) -> Value {
    json!({"type": "image_url", "image_url": {"url": url}})
}

/// An image of the shape that is cut into `tiles` tiles, as a data URL; another one for each `number`. It is of few colours,
/// so that what is measured is not the network.
fn generated(tiles: u32, number: u32) -> String {
    let (columns, rows) = grid(tiles);
    let [_, red, green, blue] = number.wrapping_mul(0x9E37_79B1).to_be_bytes();
    let image = RgbImage::from_fn(columns * TILE_SIZE, rows * TILE_SIZE, |x, y| {
        if (x / 64 + y / 64).is_multiple_of(2) { Rgb([red, green, blue]) } else { Rgb([blue, red, 255 - green]) }
    });
    let mut png = Cursor::new(Vec::new());
    // Memory can be written.
    let _ = image.write_to(&mut png, ImageFormat::Png);
    data_url("png", &png.into_inner())
}

/// An image file as a data URL.
pub(super) fn data_url(kind: &str, bytes: &[u8]) -> String {
    format!("data:image/{kind};base64,{}", STANDARD.encode(bytes))
}

/// What came of some requests side by side.
pub(super) struct Level {
    pub(super) concurrency: usize,
    pub(super) outcomes: Vec<Result<Answer, String>>,
    /// From the first request to the end of the last.
    pub(super) wall: Duration,
}

/// Sends requests, `concurrency` at a time; `on_progress` is told how many are done.
pub(super) fn load(
    client: &Client,
    bodies: &[Vec<u8>],
    concurrency: usize,
    on_progress: &(dyn Fn(usize) + Sync),
) -> Level {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(bodies.len())));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..concurrency.min(bodies.len()) {
            scope.spawn(|| {
                while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = client.ask(body);
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    outcomes.push(outcome);
                    on_progress(outcomes.len());
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    Level { concurrency, outcomes, wall: started.elapsed() }
}

/// One round of probe.
pub(super) struct Probed {
    /// A short question that nothing disturbs.
    pub(super) alone: Answer,
    /// An image that nothing disturbs.
    pub(super) image_alone: Answer,
    /// An image whose prompt is computed while short questions come.
    pub(super) image: Answer,
    /// Those that came while it was.
    pub(super) during: Vec<Answer>,
}

/// One round: each alone, then short questions while the prompt of an image of `tiles` tiles is computed, `interval` apart.
///
/// # Errors
/// What the server or a connection said.
pub(super) fn probe(client: &Client, requests: &Requests, tiles: u32, interval: Duration) -> Result<Probed, String> {
    let alone = client.ask(&client.body(requests.text(None)))?;
    let image_alone = client.ask(&client.body(requests.about_generated(tiles, None)))?;
    let body = client.body(requests.about_generated(tiles, None));
    let answering = AtomicBool::new(false);
    let (image, probes) = std::thread::scope(|scope| {
        let image = scope.spawn(|| {
            let answer = client.follow(&body, || answering.store(true, Ordering::SeqCst));
            // Also of a request that failed.
            answering.store(true, Ordering::SeqCst);
            answer
        });
        let mut probes = Vec::new();
        std::thread::sleep(interval);
        while !answering.load(Ordering::SeqCst) {
            probes.push(client.ask(&client.body(requests.text(None))));
            std::thread::sleep(interval);
        }
        (image.join(), probes)
    });
    let image = image.unwrap_or_else(|_| Err("the request was not followed".to_owned()))?;
    let probes = probes.into_iter().collect::<Result<Vec<Answer>, String>>()?;
    let during = probes.into_iter().filter(|probe| probe.sent < image.first()).collect();
    Ok(Probed { alone, image_alone, image, during })
}

/// A question about an image of `tiles` tiles, and a second one in the same conversation.
///
/// # Errors
/// What the server or a connection said.
pub(super) fn second_question(client: &Client, requests: &Requests, tiles: u32) -> Result<[Answer; 2], String> {
    let mut messages = requests.about_generated(tiles, None);
    let first = client.ask(&client.body(messages.clone()))?;
    if let Value::Array(messages) = &mut messages {
        messages.push(json!({"role": "assistant", "content": first.text}));
        messages.push(json!({"role": "user", "content": SECOND_QUESTION}));
    }
    let second = client.ask(&client.body(messages))?;
    Ok([first, second])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_request_is_like_another() {
        let requests = Requests::new();
        assert_ne!(requests.text(None), requests.text(None));
        assert_ne!(generated(2, 1), generated(2, 2));
        let files = Shown::Files(vec!["data:a".to_owned(), "data:b".to_owned()]);
        let third = requests.of_load(&files, 2, Some("?"));
        assert_eq!(third[0]["content"][0]["image_url"]["url"], "data:a");
    }

    #[test]
    fn a_generated_image_is_small_and_has_its_tiles() {
        let url = generated(6, 7);
        assert!(url.len() < 50_000, "{}", url.len());
        let png = STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        let image = image::load_from_memory(&png).unwrap();
        assert_eq!((image.width(), image.height()), (3 * TILE_SIZE, 2 * TILE_SIZE));
    }
}
