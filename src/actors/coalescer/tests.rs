//! What the coalescer promises.
