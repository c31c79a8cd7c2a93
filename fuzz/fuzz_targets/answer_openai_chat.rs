//! Bytes as an answer of OpenAI's chat completions.

#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| fuzz::answer::check(weir::config::Dialect::OpenaiChat, body));
