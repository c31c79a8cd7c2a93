//! What the coalescer promises: its tables under random load. The actor is tested with its streams.

mod tables;
mod turns;
