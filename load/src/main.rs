//! load: the command line of the verification tool.

use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use load::checks::{alerts, compare, diagnose, profile, smoke, suite};
use load::guardrail::{self, relay};
use load::mock::{Mock, Rate, faults};
use load::report::Report;
use load::suites::{burst, cancel, cpu, fanout, idle, junk, kill, soak, ttft};
use load::target::TargetError;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// Verifies a running weir, and plays its provider.
///
/// Every measurement starts a weir of its own, unless --url names one, and ends with 0 only if everything was as it
/// must be.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays an OpenAI-shaped provider that behaves as the model's name asks for, until it is interrupted.
    Mock(MockArguments),
    /// Signs a running weir off: time to first token, cancel, queue, sharing.
    Suite(Measurement<suite::Arguments>),
    /// Looks at one stream of a running weir: headers, first bytes, frames, end.
    Smoke(Measurement<smoke::Arguments>),
    /// Says where the time goes between here and a running weir's first token, and whether something buffers.
    Diagnose(Measurement<diagnose::Arguments>),
    /// Asks a running weir for its alerts; ends with 1 while there are any.
    Alerts(Measurement<alerts::Arguments>),
    /// Switches a running weir's pacers to a profile of its configuration.
    Profile(Measurement<profile::Arguments>),
    /// Compares the times to the first token of two running weirs, in turns.
    Compare(Measurement<compare::Arguments>),
    /// Sends the same message many times at once to one thread: one turn, one upstream call.
    Burst(Measurement<burst::Arguments>),
    /// Compares the time to the first token with and without weir, and how far apart tokens stay.
    Ttft(Measurement<ttft::Arguments>),
    /// Measures how fast a cancel reaches the provider, in every phase of an answer.
    Cancel(Measurement<cancel::Arguments>),
    /// Measures the processor time of one chunk that is relayed.
    Cpu(Measurement<cpu::Arguments>),
    /// Measures the processor time of one event that is delivered to one of many listeners.
    Fanout(Measurement<fanout::Arguments>),
    /// Measures the memory of an open stream.
    Idle(Measurement<idle::Arguments>),
    /// Sends what clients can make up; nothing of it may stay in weir's metrics or memory.
    Junk(Measurement<junk::Arguments>),
    /// Kills weir in the middle of answers, again and again, and looks what it still knows.
    Kill(Measurement<kill::Arguments>),
    /// Mixes answers, cancels, faults, slow readers and resumes for a while, and looks what is left.
    Soak(Measurement<soak::Arguments>),
    /// Compares weir's figures with those of its baseline; ends with 1 if it has become slower, with 2 if that cannot be
    /// told.
    Check(Measurement<guardrail::Arguments>),
    /// The bare relay that `check` measures beside weir.
    #[command(hide = true)]
    Relay(relay::Arguments),
}

/// The arguments of a measurement, and how its report is printed.
#[derive(Debug, clap::Args)]
struct Measurement<A: clap::Args> {
    #[command(flatten)]
    arguments: A,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct MockArguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:0")]
    bind: SocketAddr,
    /// Answers calls beyond this rate with 429.
    #[arg(long)]
    rps: Option<f64>,
    /// Calls that may come at once after a pause.
    #[arg(long, default_value_t = 1)]
    burst: u32,
    /// Lists the models instead, each with what it reaches.
    #[arg(long)]
    list: bool,
    /// Where to write the counts at the end.
    #[arg(long, value_name = "PATH")]
    json_stats: Option<PathBuf>,
}

/// How everything ends that was not as it must be, or not done.
const FAILED: u8 = 1;
/// How `check` ends when it has not compared: only what is slower fails.
const CANNOT_TELL: u8 = 2;

impl Command {
    /// How it ends when it could not do its work, or was interrupted.
    fn undone(&self) -> u8 {
        if matches!(self, Command::Check(_)) { CANNOT_TELL } else { FAILED }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    raise_file_limit();
    let runtime = match arguments.command {
        // What it costs should not depend on how many threads look for something to do.
        Command::Relay(_) => Builder::new_current_thread().enable_all().build(),
        _ => Builder::new_multi_thread().enable_all().build(),
    };
    let undone = arguments.command.undone();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run_unless_interrupted(arguments.command)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match outcome {
        Ok(code) => code,
        Err(why) => {
            say_why(&why);
            ExitCode::from(undone)
        }
    }
}

/// An interrupt drops what runs, and with it the processes that were started.
async fn run_unless_interrupted(command: Command) -> Result<ExitCode, String> {
    let interrupted = interrupted()?;
    match command {
        // They have something to do when they are interrupted.
        Command::Suite(measurement) => {
            Ok(show(&suite::run(&measurement.arguments, interrupted).await, measurement.json))
        }
        Command::Mock(arguments) => play_provider(arguments, interrupted).await,
        command => tokio::select! {
            biased;
            outcome = run(command) => outcome,
            interrupted = interrupted => interrupted.and(Err("interrupted".to_owned())),
        },
    }
}

async fn run(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Mock(arguments) => play_provider(arguments, pending()).await,
        Command::Suite(measurement) => Ok(show(&suite::run(&measurement.arguments, pending()).await, measurement.json)),
        Command::Smoke(measurement) => print(smoke::run(&measurement.arguments).await, measurement.json),
        Command::Diagnose(measurement) => print(diagnose::run(&measurement.arguments).await, measurement.json),
        Command::Alerts(measurement) => print(alerts::run(&measurement.arguments).await, measurement.json),
        Command::Profile(measurement) => print(profile::run(&measurement.arguments).await, measurement.json),
        Command::Compare(measurement) => print(compare::run(&measurement.arguments).await, measurement.json),
        Command::Burst(measurement) => print(burst::run(&measurement.arguments).await, measurement.json),
        Command::Ttft(measurement) => print(ttft::run(&measurement.arguments).await, measurement.json),
        Command::Cancel(measurement) => print(cancel::run(&measurement.arguments).await, measurement.json),
        Command::Cpu(measurement) => print(cpu::run(&measurement.arguments).await, measurement.json),
        Command::Fanout(measurement) => print(fanout::run(&measurement.arguments).await, measurement.json),
        Command::Idle(measurement) => print(idle::run(&measurement.arguments).await, measurement.json),
        Command::Junk(measurement) => print(junk::run(&measurement.arguments).await, measurement.json),
        Command::Kill(measurement) => print(kill::run(&measurement.arguments).await, measurement.json),
        Command::Soak(measurement) => print(soak::run(&measurement.arguments).await, measurement.json),
        Command::Check(measurement) => {
            let compared = guardrail::run(&measurement.arguments).await;
            Ok(show(&compared.map_err(|error| error.to_string())?, measurement.json))
        }
        Command::Relay(arguments) => {
            let relayed = relay::run(&arguments, |url| say(&format!("listening on {url}"))).await;
            relayed.map(|()| ExitCode::SUCCESS).map_err(|error| format!("cannot relay: {error}"))
        }
    }
}

fn print(outcome: Result<Report, TargetError>, json: bool) -> Result<ExitCode, String> {
    Ok(show(&outcome.map_err(|error| error.to_string())?, json))
}

fn show(report: &Report, json: bool) -> ExitCode {
    say(&if json { report.json().to_string() } else { report.to_string() });
    if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

async fn play_provider(
    arguments: MockArguments,
    interrupted: impl Future<Output = Result<(), String>>,
) -> Result<ExitCode, String> {
    if arguments.list {
        for behaviour in faults::ALL {
            say(&format!("{:<16}{}", behaviour.name, behaviour.reaches.trim()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let rate = arguments.rps.map(|rps| Rate { rps, burst: arguments.burst });
    let mock = Mock::bind(arguments.bind, rate).await;
    let mock = mock.map_err(|error| format!("cannot listen on {}: {error}", arguments.bind))?;
    say(&format!("listening on {}", mock.url()));
    interrupted.await?;
    let stats = mock.stats().to_string();
    say(&stats);
    if let Some(path) = arguments.json_stats {
        std::fs::write(&path, stats).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits for SIGINT or SIGTERM, from this call on and not only from the first look at what it returns.
fn interrupted() -> Result<impl Future<Output = Result<(), String>>, String> {
    let on = |kind| signal(kind).map_err(|error| format!("cannot wait for signals: {error}"));
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

/// A thousand streams are some thousand files; the default limit is lower, and a child inherits it.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, the measurement that needs it says so by failing.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

#[expect(clippy::print_stdout, reason = "the command line's own output")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "the command line's own output")]
fn say_why(why: &str) {
    eprintln!("load: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_was_interrupted_has_found_nothing_slower() {
        let undone = |words: &[&str]| Arguments::parse_from(["load"].iter().chain(words)).command.undone();

        assert_eq!(undone(&["check"]), CANNOT_TELL);
        assert_eq!(undone(&["check", "--slow-ms", "5"]), CANNOT_TELL);
        assert_eq!(undone(&["kill"]), FAILED);
    }
}
