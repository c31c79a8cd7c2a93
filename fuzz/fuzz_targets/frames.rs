//! Bytes as frames.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz::begin();
    fuzz::checks::frames::check(bytes);
});
