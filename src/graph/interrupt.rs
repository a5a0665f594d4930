use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Stop = Box<dyn Fn() + Send>;

/// Stops a graph run from another thread.
///
/// Cheap to clone; all clones are one switch. Once raised it stays raised.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Shared>);

#[derive(Default)]
struct Shared {
    raised: AtomicBool,
    running: Mutex<Option<Stop>>,
}

impl Interrupt {
    /// A switch that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises the switch: the run in progress ends as soon as it can, later ones do not start.
    pub fn raise(&self) {
        self.0.raised.store(true, Ordering::SeqCst);
        if let Some(stop) = &*self.lock() {
            stop();
        }
    }

    /// Whether the switch was raised.
    pub fn is_raised(&self) -> bool {
        self.0.raised.load(Ordering::SeqCst)
    }

    /// Runs `work`; a raise meanwhile calls `stop`, which must make `work` return.
    pub(super) fn guard<T>(&self, stop: Stop, work: impl FnOnce() -> T) -> T {
        *self.lock() = Some(stop);
        // A raise between the caller's last look and the line above found nothing to stop.
        if self.is_raised()
            && let Some(stop) = &*self.lock()
        {
            stop();
        }
        let result = work();
        *self.lock() = None;
        result
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Stop>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interrupt").field("raised", &self.is_raised()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raise_before_the_run_stops_it_too() {
        let interrupt = Interrupt::new();
        interrupt.clone().raise();
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stopped);
        interrupt.guard(Box::new(move || seen.store(true, Ordering::SeqCst)), || ());
        assert!(stopped.load(Ordering::SeqCst));
    }
}
