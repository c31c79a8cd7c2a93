//! Bytes as an answer of Anthropic's.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    fuzz::begin();
    fuzz::checks::answer::check(weir::config::Dialect::Anthropic, body);
});
