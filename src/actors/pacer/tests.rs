//! What the pacer promises.
