//! Registry: which adapter speaks which dialect.

use std::sync::Arc;

use super::Adapter;
use crate::config::Dialect;

/// The adapter of a dialect; `None` when this build does not speak it.
pub fn adapter(dialect: Dialect) -> Option<Arc<dyn Adapter>> {
    let _ = dialect;
    None
}
