//! Bytes as an answer of Perplexity's agents.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| fuzz::answer::check(weir::config::Dialect::PerplexityAgent, body));
