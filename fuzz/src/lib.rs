//! What the fuzz targets share: the checks, and how much memory one input may take.

pub mod checks;

use std::alloc::System;

use cap::Cap;

/// What one input may take, in bytes, all of its readings and the notes about them together. Inputs are small; who
/// needs more than this for one has lost count of something.
const MEMORY_MAX: usize = 32 * 1024 * 1024;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// From here on the next input counts. Whoever exceeds its memory ends the process where he does.
pub fn begin() {
    let raised = MEMORY.set_limit(MEMORY.allocated() + MEMORY_MAX);
    raised.expect("the limit is above what is allocated");
}
