//! The engine's thread: requests come in through a channel, what the engine tells goes to each request's own.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::body::BodyShare;
use super::metrics::Metrics;
use crate::engine::{Completion, Engine, EngineError, Event, Request, RequestId, Stage};
use crate::generate::TokenLogprob;
use crate::graph::Interrupt;

/// What is told of a request.
#[derive(Debug)]
pub(super) enum Update {
    /// The engine has taken it on.
    Accepted,
    /// More of the answer is settled, and the log-probabilities that go with it.
    Text(String, Vec<TokenLogprob>),
    /// It is done.
    Finished(Box<Completion>),
    /// It was refused or failed.
    Failed(EngineError),
}

/// A request on its way to the engine.
struct Job {
    request: Request,
    interrupt: Interrupt,
    updates: UnboundedSender<Update>,
    /// Its place among those the server has taken on.
    place: Place,
    /// The memory of the body it was made of.
    _share: BodyShare,
}

/// Hands requests to the engine's thread.
#[derive(Clone)]
pub(super) struct Worker {
    jobs: UnboundedSender<Job>,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// The updates of a request. Dropping it ends the request.
pub(super) struct Running {
    updates: UnboundedReceiver<Update>,
    interrupt: Interrupt,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.interrupt.raise();
    }
}

impl Running {
    /// The next update; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }
}

/// A place among the requests the server has taken on, and works on until it is dropped.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.in_progress.dec();
    }
}

impl Worker {
    /// Starts the thread. It ends when every worker is dropped and nothing runs any more, and then tells `stop`: a server
    /// without its engine is of no use. `places`: requests taken on at once.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub(super) fn start(
        engine: Engine,
        places: usize,
        metrics: Arc<Metrics>,
        stop: Arc<Notify>,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (jobs, incoming) = mpsc::unbounded_channel();
        let counted = Arc::clone(&metrics);
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            // Dropped by a panic as well.
            let _end = TellAtEnd(stop);
            Loop { engine, incoming, running: HashMap::new(), metrics: counted }.run();
        })?;
        Ok((Self { jobs, places: Arc::new(Semaphore::new(places)), metrics }, thread))
    }

    /// A place for one more request, if there is one.
    pub(super) fn place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        self.metrics.in_progress.inc();
        Some(Place { _permit: permit, metrics: Arc::clone(&self.metrics) })
    }

    /// Waits until none of the `places` is taken.
    pub(super) async fn idle(&self, places: usize) {
        // An error would mean that the semaphore was closed, which nobody does.
        let _ = self.places.acquire_many(places as u32).await;
    }

    /// Hands a request over; `None` when the engine's thread is gone.
    pub(super) fn submit(&self, request: Request, place: Place, share: BodyShare) -> Option<Running> {
        let (sender, updates) = mpsc::unbounded_channel();
        let interrupt = Interrupt::new();
        let job = Job { request, interrupt: interrupt.clone(), updates: sender, place, _share: share };
        self.jobs.send(job).ok().map(|()| Running { updates, interrupt })
    }
}

struct TellAtEnd(Arc<Notify>);

impl Drop for TellAtEnd {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A request that the engine works on.
struct Followed {
    updates: UnboundedSender<Update>,
    _place: Place,
}

struct Loop {
    engine: Engine,
    incoming: UnboundedReceiver<Job>,
    running: HashMap<RequestId, Followed>,
    metrics: Arc<Metrics>,
}

impl Loop {
    fn run(mut self) {
        loop {
            if self.engine.is_idle() {
                match self.incoming.blocking_recv() {
                    Some(job) => self.accept(job),
                    None => return,
                }
            }
            while let Ok(job) = self.incoming.try_recv() {
                self.accept(job);
            }
            let (running, metrics) = (&mut self.running, &self.metrics);
            self.engine.step(&mut |event| tell(running, metrics, event));
            metrics.waiting.set(self.engine.waiting() as i64);
            metrics.cache.set(self.engine.cache_bytes() as i64);
        }
    }

    fn accept(&mut self, job: Job) {
        match self.engine.submit(job.request, &job.interrupt) {
            Ok(id) => {
                let _ = job.updates.send(Update::Accepted);
                let followed = Followed { updates: job.updates, _place: job.place };
                self.running.insert(id, followed);
            }
            // Whoever asked may have left: then nobody hears of it.
            Err(error) => drop(job.updates.send(Update::Failed(error))),
        }
    }
}

fn tell(running: &mut HashMap<RequestId, Followed>, metrics: &Metrics, event: Event) {
    match event {
        Event::Progress { stage: Stage::Vision, .. } => metrics.tiles_encoded.inc(),
        Event::Progress { .. } => (),
        Event::Text { id, text, logprobs } => {
            if let Some(followed) = running.get(&id) {
                let _ = followed.updates.send(Update::Text(text, logprobs));
            }
        }
        Event::Finished { id, completion } => {
            metrics.finished(&completion);
            if let Some(followed) = running.remove(&id) {
                let _ = followed.updates.send(Update::Finished(completion));
            }
        }
        Event::Failed { id, error } => {
            if let Some(followed) = running.remove(&id) {
                let _ = followed.updates.send(Update::Failed(error));
            }
        }
    }
}
