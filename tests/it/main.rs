//! The tests of weir as a whole: one binary, one module a promise.
//!
//! The modules say `cfg(test)`, which holds here anyway, so that the lints that spare tests spare their helpers too.

#[cfg(test)]
mod adapters;
#[cfg(test)]
mod burst;
#[cfg(test)]
mod cancel;
#[cfg(test)]
mod disconnect;
#[cfg(test)]
mod fallback;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod idempotency;
#[cfg(test)]
mod input;
#[cfg(test)]
mod pacing;
#[cfg(test)]
mod process;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod support;
#[cfg(test)]
mod survival;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod tidy;
