//! load: the command line of the verification tool.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use load::mock::{Mock, Rate, faults};

/// Verifies a running weir, and plays its provider.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Plays an OpenAI-shaped provider that behaves as the model's name asks for, until it is interrupted.
    Mock(MockArguments),
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

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments.command)),
        Err(error) => Err(format!("cannot start: {error}")),
    };
    match outcome {
        Ok(code) => code,
        Err(why) => {
            say_why(&why);
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Mock(arguments) => play_provider(arguments).await,
    }
}

async fn play_provider(arguments: MockArguments) -> Result<ExitCode, String> {
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
    tokio::signal::ctrl_c().await.map_err(|error| format!("cannot wait for the interrupt: {error}"))?;
    let stats = mock.stats().to_string();
    say(&stats);
    if let Some(path) = arguments.json_stats {
        std::fs::write(&path, stats).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "the command line's own output")]
fn say(line: &str) {
    println!("{line}");
}

#[expect(clippy::print_stderr, reason = "the command line's own output")]
fn say_why(why: &str) {
    eprintln!("load: {why}");
}
