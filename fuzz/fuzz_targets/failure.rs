//! Bytes as an answer that is no success.

#![no_main]

libfuzzer_sys::fuzz_target!(|answer: &[u8]| {
    fuzz::begin();
    fuzz::checks::failure::check(answer);
});
