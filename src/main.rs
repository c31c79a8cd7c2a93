//! The program: arguments, logging, signals, exit code.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};
use weir::app::{self, App};
use weir::config::{Config, FreshKey, Origin, Role, Secret};
use weir::doctor;
use weir::http::{Api, files};

/// A streaming backend for LLM chat.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration; else WEIR_CONFIG, else ./config.toml if it is there, else the defaults
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Serves other machines although no keys are configured
    #[arg(long)]
    insecure: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints the effective configuration without secrets, or what is wrong with it
    Check,
    /// Checks the configuration, keys, providers, database, and with --url what clients get through the proxy; ends
    /// with 1 when something is wrong
    Doctor(DoctorArguments),
    /// Keys of clients
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Debug, Args)]
struct DoctorArguments {
    /// The address that clients use, by way of the proxy: looks at a weir that runs, too
    #[arg(long)]
    url: Option<String>,
    /// A client's key for it. In the environment it is seen by fewer than on the command line
    #[arg(long, env = "WEIR_API_KEY", hide_env_values = true, value_parser = secret)]
    key: Option<Secret>,
    /// Who answers there, which may cost money [default: the demo, which costs nothing]
    #[arg(long)]
    provider: Option<String>,
    /// What answers there [default: the provider's]
    #[arg(long)]
    model: Option<String>,
    /// PEM certificates to trust there beside the public roots
    #[arg(long)]
    ca_file: Option<PathBuf>,
    /// How long each answer there may take
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout_ms: u64,
    /// Prints one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Prints a new key, this once, and its table for the configuration
    New {
        /// The client's name in logs [default: from the key's digest]
        #[arg(long)]
        id: Option<String>,
        /// The organisation that it belongs to; "*", for an admin: all
        #[arg(long, default_value = "org_demo")]
        org: String,
        /// What it may do
        #[arg(long, default_value = "user", value_parser = role)]
        role: Role,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let logging = weir::logging::start();
    let ended = logging.map_err(Into::into).and_then(|_logging| run(arguments));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "weir: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(Command::Key(KeyCommand::New { id, org, role })) = arguments.command {
        write!(std::io::stdout(), "{}", FreshKey::draw(id, org, role)?)?;
        return Ok(());
    }
    let environment: Vec<_> =
        std::env::vars_os().filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok())).collect();
    let is_quiet = !environment.iter().any(|(name, _)| name == "RUST_LOG");
    let mut origin = Origin::new(arguments.config, environment);
    if let Some(Command::Doctor(doctor)) = arguments.command {
        // What it finds it says itself.
        if is_quiet {
            log::set_max_level(log::LevelFilter::Off);
        }
        return check_up(doctor, origin, arguments.insecure);
    }
    let config = origin.load()?;
    if let Some(Command::Check) = arguments.command {
        write!(std::io::stdout(), "{}", config.to_toml())?;
        return Ok(());
    }
    if !arguments.insecure {
        config.refuse_open()?;
    }
    actix_web::rt::System::new().block_on(serve(config, origin))
}

fn check_up(arguments: DoctorArguments, origin: Origin, insecure: bool) -> Result<(), Box<dyn std::error::Error>> {
    let DoctorArguments { url, key, provider, model, ca_file, timeout_ms, json } = arguments;
    let wait_max = Duration::from_millis(timeout_ms);
    let site = url.map(|url| doctor::Site { url, key, provider, model, ca_file, wait_max });
    let looking = doctor::check_up(doctor::Options { origin, insecure, site });
    let findings = actix_web::rt::System::new().block_on(looking);
    match json {
        true => writeln!(std::io::stdout(), "{}", findings.json())?,
        false => write!(std::io::stdout(), "{findings}")?,
    }
    if findings.are_well() { Ok(()) } else { Err("something is wrong".into()) }
}

fn secret(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

fn role(text: &str) -> Result<Role, String> {
    let found = Role::ALL.iter().copied().find(|role| role.as_str() == text);
    found.ok_or_else(|| "expected user or admin".to_owned())
}

/// Serves until a signal comes, then ends in order; a second signal ends at once.
async fn serve(config: Config, origin: Origin) -> Result<(), Box<dyn std::error::Error>> {
    let mut stop = signals(&[SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()])?;
    let hangup = signal(SignalKind::hangup())?;
    for (kind, name) in [(SignalKind::user_defined1(), "SIGUSR1"), (SignalKind::user_defined2(), "SIGUSR2")] {
        actix_web::rt::spawn(ignore(signal(kind)?, name));
    }
    files::raise_limit(&config);
    let mut app = App::start(config, origin, Arc::new(app::transport)).await?;
    actix_web::rt::spawn(reload_at(hangup, app.api()));
    writeln!(std::io::stdout(), "weir {} listening on http://{}", env!("CARGO_PKG_VERSION"), app.address)?;
    let gave_up = tokio::select! {
        () = any(&mut stop) => false,
        () = app.given_up() => true,
    };
    app.stop(any(&mut stop)).await;
    if gave_up { Err("actors kept dying; see the log".into()) } else { Ok(()) }
}

fn signals(kinds: &[SignalKind]) -> std::io::Result<Vec<Signal>> {
    kinds.iter().map(|kind| signal(*kind)).collect()
}

/// Waits for the next of these signals.
async fn any(signals: &mut [Signal]) {
    poll_fn(|cx| match signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Reads the configuration again whenever the signal comes.
async fn reload_at(mut signal: Signal, api: Arc<Api>) {
    while signal.recv().await.is_some() {
        // The log has said how it went.
        let _ = api.clone().reload().await;
    }
}

/// Lets a signal do nothing: by itself it would end the process in the middle of its answers.
async fn ignore(mut signal: Signal, name: &'static str) {
    while signal.recv().await.is_some() {
        log::info!("{name} is ignored");
    }
}
