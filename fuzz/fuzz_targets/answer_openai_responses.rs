//! Bytes as an answer of OpenAI's responses.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    fuzz::begin();
    fuzz::checks::answer::check(weir::config::Dialect::OpenaiResponses, body);
});
