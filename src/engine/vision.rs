//! Tiles through the vision tower: in the engine's own thread, or in one beside it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ndarray::{Array3, Array4};

use crate::graph::{GraphError, Interrupt};
use crate::model::{ModelError, VisionTower};

/// How far the thread steps back behind the others, in the system's terms (0 to 19). On two cores a short question's first
/// token took 2.1 times as long beside a tile as alone at 0, 1.4 times at 5, 1.15 times at 10.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// A tile as the language model takes it, and what it took.
pub(super) struct EncodedTile {
    /// `[1, tokens per tile, hidden size]`
    pub(super) embeds: Array3<f32>,
    pub(super) encoder: Duration,
    pub(super) projector: Duration,
}

type Outcome = Result<EncodedTile, ModelError>;

/// The vision tower, wherever it runs.
pub(super) enum Vision {
    Here(Box<VisionTower>),
    Beside(VisionThread),
}

/// A thread that encodes tiles, one after another.
pub(super) struct VisionThread {
    /// None once the thread is told to end.
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    /// `[1, 3, S, S]`
    pixel_values: Array4<f32>,
    interrupt: Interrupt,
    outcome: Sender<Outcome>,
}

/// A tile that is on its way through the tower. Dropping it leaves the tile to its interrupt.
pub(super) enum TileRun {
    Done(Option<Outcome>),
    Running(Receiver<Outcome>),
}

impl Vision {
    /// `beside`: in a thread of its own.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub(super) fn new(tower: VisionTower, beside: bool) -> std::io::Result<Self> {
        if !beside {
            return Ok(Self::Here(Box::new(tower)));
        }
        let (jobs, incoming) = channel();
        let work = move || run(tower, &incoming);
        let thread = std::thread::Builder::new().name("vision".to_owned()).spawn(work)?;
        Ok(Self::Beside(VisionThread { jobs: Some(jobs), thread: Some(thread) }))
    }

    /// Sends a tile of pixel values `[1, 3, S, S]` on its way.
    pub(super) fn start(&mut self, pixel_values: Array4<f32>, interrupt: &Interrupt) -> TileRun {
        match self {
            Self::Here(tower) => TileRun::Done(Some(encode(tower, &pixel_values, interrupt))),
            Self::Beside(thread) => {
                let (sender, outcome) = channel();
                let job = Job { pixel_values, interrupt: interrupt.clone(), outcome: sender };
                // Where the thread is gone, so is the sender, which `wait` finds out.
                let _ = thread.jobs.as_ref().map(|jobs| jobs.send(job));
                TileRun::Running(outcome)
            }
        }
    }
}

impl TileRun {
    /// What became of the tile, once it is done; waits for that no longer than `patience`.
    pub(super) fn wait(&mut self, patience: Duration) -> Option<Outcome> {
        match self {
            Self::Done(outcome) => outcome.take(),
            Self::Running(outcome) => match outcome.recv_timeout(patience) {
                Ok(outcome) => Some(outcome),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => Some(Err(failed("its thread has ended"))),
            },
        }
    }
}

impl Drop for VisionThread {
    fn drop(&mut self) {
        self.jobs = None;
        // It has no panic to tell.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn run(mut tower: VisionTower, jobs: &Receiver<Job>) {
    give_way();
    for job in jobs {
        // A panic, which is told when it happens, is the end of one tile: a tower remembers nothing from one to the next.
        let encode = AssertUnwindSafe(|| encode(&mut tower, &job.pixel_values, &job.interrupt));
        let outcome = catch_unwind(encode).unwrap_or_else(|_| Err(failed("it panicked")));
        // Whoever asked may have left.
        let _ = job.outcome.send(outcome);
    }
}

fn failed(message: &str) -> ModelError {
    GraphError::Run { graph: "the vision encoder".to_owned(), message: message.to_owned() }.into()
}

/// Lets other threads go first where the cores are too few: a step takes a moment, a tile takes long anyway.
fn give_way() {
    // SAFETY: takes numbers alone. On Linux 0 is the calling thread; elsewhere it would be the process. A tile that has no
    // less right than a step is slow to others, and nothing is wrong.
    #[cfg(target_os = "linux")]
    let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
}

fn encode(tower: &mut VisionTower, pixel_values: &Array4<f32>, interrupt: &Interrupt) -> Outcome {
    let started = Instant::now();
    let features = tower.encode(pixel_values.view(), interrupt)?;
    let encoded = Instant::now();
    let embeds = tower.project(&features, interrupt)?;
    Ok(EncodedTile { embeds, encoder: encoded - started, projector: encoded.elapsed() })
}
