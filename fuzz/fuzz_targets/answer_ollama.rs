//! Bytes as an answer of Ollama's.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    fuzz::begin();
    fuzz::checks::answer::check(weir::config::Dialect::Ollama, body);
});
