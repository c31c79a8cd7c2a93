//! Benchmarks of weir's parts, each small enough to be measured alone: the cost of a chunk, of a delivery, of a decision.
//!
//! One set of cases, measured in two ways. `cargo bench` measures time, by criterion. `benches/count` counts
//! instructions, by callgrind: they are the same on a busy machine, and on the next day.

mod adapters;
mod answers;
mod coalescer;
mod frames;
mod key;
mod log;
mod pacer;

use std::process::ExitCode;

use criterion::{Criterion, Throughput};

/// Something that can be done again and again.
struct Case {
    /// The part and what it does, with a slash between them.
    name: String,
    /// How many things one run does.
    things: u64,
    run: Box<dyn FnMut()>,
}

impl Case {
    fn new(name: impl Into<String>, things: usize, run: impl FnMut() + 'static) -> Self {
        Self { name: name.into(), things: things as u64, run: Box::new(run) }
    }
}

fn cases() -> Vec<Case> {
    let parts = [frames::cases, adapters::cases, log::cases, coalescer::cases, pacer::cases, key::cases];
    parts.into_iter().flat_map(|cases| cases()).collect()
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--names"] => cases().iter().for_each(|case| say(&format!("{} {}", case.name, case.things))),
        ["--count", name] => match cases().into_iter().find(|case| case.name == *name) {
            Some(mut case) => {
                // Tables and buffers have grown as they will be.
                (case.run)();
                counted(&mut *case.run);
            }
            None => return ExitCode::FAILURE,
        },
        _ => time(cases()),
    }
    ExitCode::SUCCESS
}

/// What callgrind collects: `benches/count` knows it by this name.
#[inline(never)]
fn counted(run: &mut dyn FnMut()) {
    run();
}

fn time(cases: Vec<Case>) {
    let mut criterion = Criterion::default().configure_from_args();
    for Case { name, things, mut run } in cases {
        let (part, what) = name.split_once('/').unwrap_or((&name, ""));
        let mut group = criterion.benchmark_group(part);
        group.throughput(Throughput::Elements(things));
        group.bench_function(what, |bencher| bencher.iter(&mut run));
        group.finish();
    }
    criterion.final_summary();
}

#[expect(clippy::print_stdout, reason = "what was asked for on the command line")]
fn say(line: &str) {
    println!("{line}");
}
