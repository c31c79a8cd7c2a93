//! The checks of the fuzz targets, without a fuzzer: the fixtures, and what a seed makes of them.
//!
//! The same seed makes the same bytes. `WEIR_FUZZ_SEED` tries another one, `WEIR_FUZZ_RUNS` more of each; a finding
//! is printed with both, and as it is. `fuzz/run` looks further, because it sees where the bytes lead.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use weir::config::Dialect;

use crate::support::virtual_weir::Dice;

#[path = "../../fuzz/src/checks/mod.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets are crates of their own")]
mod checks;

const SEED: u64 = 1;
/// Of each dialect.
const RUNS: u64 = 2_000;
/// Beyond that, bytes say nothing new, and slowly.
const LEN_MAX: usize = 16 * 1024;
/// Changes of one input.
const CHANGES_MAX: u64 = 6;

/// What breaks readers, wherever it stands.
const BREAKERS: [&[u8]; 24] = [
    b"\n\n",
    b"\r",
    b"\r\n\r\n",
    b"data: ",
    b"event: error\n",
    b"[DONE]",
    b": \n",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xf0\x9f\xa6",
    b"\0",
    b"\\u0000",
    b"\\ud83d",
    b"null",
    b"-1",
    b"1e999",
    b"NaN",
    b"18446744073709551616",
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\",
];

/// The inputs that a check begins with.
fn seeds(folders: &[&str]) -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = { folders.iter() }
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "events"))
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Checks every seed as it is, and then what becomes of them.
#[expect(clippy::disallowed_methods, reason = "whoever looks further says so in the environment")]
fn fuzz(folders: &[&str], check: impl Fn(&[u8])) {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().expect(name));
    let (seed, runs) = (number("WEIR_FUZZ_SEED", SEED), number("WEIR_FUZZ_RUNS", RUNS));
    println!("WEIR_FUZZ_SEED={seed} WEIR_FUZZ_RUNS={runs}");
    let seeds = seeds(folders);
    let words = words(&seeds);
    let dice = Dice::new(seed);
    let made = (0..runs).map(|_| mutated(&seeds, &words, &dice));
    for input in seeds.iter().cloned().chain(made) {
        if let Err(finding) = catch_unwind(AssertUnwindSafe(|| check(&input))) {
            println!("{}", input.escape_ascii());
            resume_unwind(finding);
        }
    }
}

/// What stands in quotes in the seeds: bytes at random rarely spell a name.
fn words(seeds: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let quoted = |seed: &Vec<u8>| {
        let parts = seed.split(|byte| *byte == b'"').skip(1).step_by(2);
        parts.filter(|part| (1..40).contains(&part.len())).map(|part| [b"\"", part, b"\""].concat()).collect::<Vec<_>>()
    };
    let mut words: Vec<_> = seeds.iter().flat_map(quoted).collect();
    words.sort();
    words.dedup();
    words.extend(BREAKERS.map(<[u8]>::to_vec));
    words
}

/// One seed with a few changes.
fn mutated(seeds: &[Vec<u8>], words: &[Vec<u8>], dice: &Dice) -> Vec<u8> {
    let mut bytes = dice.pick(seeds).clone();
    for _ in 0..=dice.below(CHANGES_MAX) {
        change(&mut bytes, seeds, words, dice);
        bytes.truncate(LEN_MAX);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[Vec<u8>], dice: &Dice) {
    let below = |bound: usize| usize::try_from(dice.below(bound.max(1) as u64)).unwrap();
    let (one, other) = (below(bytes.len() + 1), below(bytes.len() + 1));
    let (from, to) = (one.min(other), one.max(other));
    match dice.below(8) {
        0 => bytes.truncate(from),
        1 => drop(bytes.drain(from..to.min(from + 200))),
        2 => drop(bytes.splice(from..from, dice.pick(words).iter().copied())),
        3 => {
            // One word in place of another.
            let end = bytes[from..].iter().position(|byte| b",:}]\n".contains(byte)).map_or(from, |len| from + len);
            drop(bytes.splice(from..end, dice.pick(words).iter().copied()));
        }
        4 => {
            let again = bytes[from..to.min(from + 2_000)].to_vec();
            drop(bytes.splice(to..to, again));
        }
        5 => {
            let another = dice.pick(seeds);
            bytes.truncate(from);
            bytes.extend_from_slice(&another[below(another.len())..]);
        }
        6 if from < bytes.len() => bytes[from] = u8::try_from(dice.below(256)).unwrap(),
        _ => {
            // Frames in another order.
            let mut frames: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let (one, other) = (below(frames.len()), below(frames.len()));
            if one != other {
                frames.swap(one, other);
            }
            *bytes = frames.concat();
        }
    }
}

fn answers(dialect: Dialect) {
    fuzz(&[&format!("tests/fixtures/{dialect}")], |body| checks::answer::check(dialect, body));
}

#[test]
fn any_bytes_are_an_answer_or_a_failure_in_openai_chat() {
    answers(Dialect::OpenaiChat);
}

#[test]
fn any_bytes_are_an_answer_or_a_failure_in_openai_responses() {
    answers(Dialect::OpenaiResponses);
}

#[test]
fn any_bytes_are_an_answer_or_a_failure_in_perplexity_agent() {
    answers(Dialect::PerplexityAgent);
}

#[test]
fn any_bytes_are_an_answer_or_a_failure_in_perplexity_sonar() {
    answers(Dialect::PerplexitySonar);
}

#[test]
fn any_bytes_are_an_answer_or_a_failure_in_gemini() {
    answers(Dialect::Gemini);
}

#[test]
fn any_bytes_are_an_answer_or_a_failure_in_openrouter() {
    answers(Dialect::Openrouter);
}

#[test]
fn any_bytes_are_an_answer_or_a_failure_in_anthropic() {
    answers(Dialect::Anthropic);
}

#[test]
fn any_bytes_are_an_answer_or_a_failure_in_ollama() {
    answers(Dialect::Ollama);
}

#[test]
fn any_bytes_are_the_same_frames_however_they_are_cut() {
    fuzz(&["tests/fixtures/openai_chat", "tests/fixtures/anthropic", "tests/fixtures/ollama"], checks::frames::check);
}

#[test]
fn any_refusal_is_told_in_words_of_our_own() {
    fuzz(&["fuzz/seeds/failure"], checks::failure::check);
}
