//! The tests of weir as a whole: one binary, one module a promise.

mod tidy;
