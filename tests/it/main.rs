//! One test binary; one file a promise.
//!
//! The modules say `cfg(test)`, which holds here anyway, so that the lints that spare tests spare their helpers too.

#[cfg(test)]
mod adapters;
