//! Bytes as an answer of OpenAI's chat completions.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    fuzz::begin();
    fuzz::checks::answer::check(weir::config::Dialect::OpenaiChat, body);
});
