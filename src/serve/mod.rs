//! `vintern serve`: an OpenAI-compatible server on the engine.
//!
//! ```text
//! HTTP ─ routes ─ api (fields, messages, images) ─ settings ─▶ worker: the engine's thread
//!                                                                 │ updates of each request
//! JSON, or server-sent events ◀───────────────────────────────────┘
//! ```

pub mod api;
mod auth;
mod body;
mod chat;
mod fetch;
mod inspect;
mod listen;
mod metrics;
mod openapi;
mod page;
mod reader;
mod routes;
mod tile_cache;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::engine::{Engine, EngineConfig};
use crate::prompt::Tokenizer;
use crate::settings::Presets;

use api::{ApiError, ImageFile, shortened};
use auth::Keys;
use body::BodyMemory;
use fetch::Fetcher;
use metrics::Metrics;
use tile_cache::TileCache;
use worker::Worker;

pub use fetch::ImageHost;
pub use reader::{Limits, RequestReader};

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where to listen.
    pub address: SocketAddr,
    /// Name of the model in requests and responses.
    pub model: String,
    /// Keys of which a request needs one; none: requests need no key.
    pub keys: Vec<String>,
    /// Requests taken on at once, waiting ones included; more are told to come again.
    pub max_requests: usize,
    /// Time a request may take.
    pub timeout: Duration,
    /// Time a client is given to send the head of a request, its body, and to take a piece of the answer.
    pub client_timeout: Duration,
    /// Largest body of a request, bytes.
    pub max_body: usize,
    /// Most pixels of an image.
    pub max_image_pixels: u64,
    /// Most bytes of the tiles of images that are kept for further questions.
    pub tile_cache_bytes: usize,
    /// Hosts that images may be fetched from; none: images are data URLs.
    pub image_hosts: Vec<ImageHost>,
    /// Time that running requests are given at the end.
    pub grace: Duration,
}

/// Time for which the server says at least that it is shutting down, before it takes in no more connections.
const NOTICE: Duration = Duration::from_secs(1);

/// What all handlers share.
struct Shared {
    options: ServeOptions,
    reader: RequestReader,
    tokenizer: Arc<Tokenizer>,
    keys: Keys,
    metrics: Arc<Metrics>,
    worker: Worker,
    /// Where images may be fetched.
    fetcher: Option<Fetcher>,
    bodies: BodyMemory,
    /// Images are decoded a few at a time: each may take much memory.
    decoding: Arc<tokio::sync::Semaphore>,
    draining: AtomicBool,
}

impl Shared {
    /// Refuses a model that is not the one served.
    ///
    /// # Errors
    /// 404.
    fn check_model(&self, name: &str) -> Result<(), ApiError> {
        let served = &self.options.model;
        if name == served {
            return Ok(());
        }
        let message = format!("the model {:?} does not exist; this server has {served:?}", shortened(name));
        Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message))
    }

    /// Fetches the images that are at other servers, where that is allowed at all; else the reader refuses them.
    ///
    /// # Errors
    /// 400 with the image that is not to be had.
    async fn fetch(&self, images: &mut [ImageFile]) -> Result<(), ApiError> {
        match &self.fetcher {
            Some(fetcher) => fetcher.fetch_all(images).await,
            None => Ok(()),
        }
    }
}

/// Serves until `stop` is told; then takes on nothing more, and ends when what runs is done or its grace time is over.
/// `on_ready` is told the address.
///
/// # Errors
/// When the address cannot be listened on, or the engine's thread ends by itself.
pub fn serve(
    engine: Engine,
    presets: Presets,
    config: &EngineConfig,
    options: ServeOptions,
    stop: &Arc<Notify>,
    on_ready: impl FnOnce(SocketAddr),
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let tokenizer = Arc::clone(engine.tokenizer());
    let limits = Limits::new(engine.manifest(), config.max_rows, options.max_image_pixels);
    let metrics = Arc::new(Metrics::new().map_err(std::io::Error::other)?);
    metrics.cache_budget.set(config.most_cache_bytes(engine.manifest()) as i64);
    let fetcher = (!options.image_hosts.is_empty())
        .then(|| Fetcher::new(options.image_hosts.clone(), options.max_body, options.timeout))
        .transpose()
        .map_err(std::io::Error::other)?;
    let (worker, thread) = Worker::start(engine, options.max_requests, Arc::clone(&metrics), Arc::clone(stop))?;
    let tiles = TileCache::new(options.tile_cache_bytes, metrics.images.clone(), metrics.cached_images.clone());
    let shared = Arc::new(Shared {
        keys: Keys::new(&options.keys),
        reader: RequestReader::new(presets, limits).with_cache(tiles),
        tokenizer,
        metrics,
        worker,
        fetcher,
        bodies: BodyMemory::new(options.max_body),
        decoding: Arc::new(tokio::sync::Semaphore::new(2)),
        draining: AtomicBool::new(false),
        options,
    });
    let outcome = runtime.block_on(listen(&shared, stop, on_ready));
    // What still runs is dropped with its connections, which interrupts it; then the engine's thread has nothing left.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(shared);
    if thread.join().is_err() {
        return Err(std::io::Error::other("the engine's thread panicked"));
    }
    outcome
}

async fn listen(shared: &Arc<Shared>, stop: &Arc<Notify>, on_ready: impl FnOnce(SocketAddr)) -> std::io::Result<()> {
    let listener = TcpListener::bind(shared.options.address).await?;
    on_ready(listener.local_addr()?);
    let (draining, waiting) = (Arc::clone(shared), Arc::clone(stop));
    let drained = Arc::new(Notify::new());
    let begun = Arc::clone(&drained);
    let stopped = async move {
        waiting.notified().await;
        draining.draining.store(true, Ordering::SeqCst);
        tracing::info!("no more requests are taken on");
        begun.notify_one();
        // Whoever asks meanwhile is told so: a gateway finds out before nobody answers any more.
        tokio::time::sleep(NOTICE).await;
        draining.worker.idle(draining.options.max_requests).await;
    };
    let router = routes::router(Arc::clone(shared));
    let server = listen::serve(listener, router, shared.options.client_timeout, stopped);
    let grace = async {
        drained.notified().await;
        tokio::time::sleep(shared.options.grace).await;
    };
    tokio::select! {
        () = server => (),
        () = grace => tracing::warn!("the grace time is over; what still runs is cut off"),
    }
    Ok(())
}
