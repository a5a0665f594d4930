//! What the tests of the kernels share.

use std::convert::Infallible;

use vintern::kernels::{BlockProduct, Tasks};

/// Runs the tasks one after the other, the last first.
pub struct Backwards;

impl Tasks for Backwards {
    type Error = Infallible;

    fn run(&self, count: usize, task: &(dyn Fn(usize) + Sync + Send)) -> Result<(), Infallible> {
        (0..count).rev().for_each(task);
        Ok(())
    }
}

/// The fast kernels of this processor, each kind of instructions by itself; a test of them passes where there are none.
pub fn fast() -> Vec<BlockProduct> {
    let mut found = BlockProduct::all();
    found.retain(|product| *product != BlockProduct::portable());
    if found.is_empty() {
        eprintln!("no fast kernels for this processor: not tested");
    }
    found
}
