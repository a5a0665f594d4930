//! What the tests of the kernels share.

use std::convert::Infallible;

use vintern::kernels::Tasks;

/// Runs the tasks one after the other, the last first.
pub struct Backwards;

impl Tasks for Backwards {
    type Error = Infallible;

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync + Send)) -> Result<(), Infallible> {
        (0..count).rev().for_each(task);
        Ok(())
    }
}
