//! Kill: whatever the moment at which weir is killed, what it has acknowledged is there when it starts again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::prompt;
use crate::mock::expected_text;
use crate::report::Report;
use crate::samples::Samples;
use crate::target::{Answer, Api, ApiError, MOCK, Settings, Target, TargetArguments, TargetError};

/// Kills weir in the middle of answers, again and again, and looks what it still knows.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// How often.
    #[arg(short, default_value_t = 50)]
    n: usize,
    /// Answers that run at each kill.
    #[arg(long, default_value_t = 6)]
    streams: usize,
    /// Chooses the moments [default: by chance].
    #[arg(long)]
    seed: Option<u64>,
}

/// An answer takes a quarter of a second, so that a kill meets it in every phase, and some are complete.
const MODEL: &str = "text@tokens=50,gap_ms=5";
const KILL_WITHIN_MS: u64 = 400;
const DATABASE: &str = "weir.db";

/// A message that was sent, and what came of it before the kill.
#[derive(Debug)]
struct Turn {
    prompt: String,
    answer: Answer,
    /// The request was answered with something else than a stream.
    refused: Option<String>,
}

/// Everything that was sent, by thread.
type Sent = BTreeMap<String, Vec<Turn>>;

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let mut target = Target::start(&arguments.target, Settings::default()).await?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut rng = Rng::with_seed(seed);
    let (mut sent, mut found, mut starts) = (Sent::new(), Findings::default(), Samples::default());
    for round in 0..arguments.n {
        let touched = start_and_kill(&mut target, arguments, &mut rng, round, &mut sent).await?;
        let weir = target.weir.as_mut().ok_or(TargetError::NoProcess)?;
        found.check_database(weir.directory()).await;
        let killed = Instant::now();
        weir.restart().await?;
        target.api = Api::new(weir.client());
        starts.add(killed.elapsed());
        for thread in touched {
            found.check_thread(&target.api, &thread, &sent[&thread]).await?;
        }
    }
    for (thread, turns) in &sent {
        found.check_thread(&target.api, thread, turns).await?;
    }

    let mut report = Report::new("kill");
    report.value("seed", seed.to_string());
    report.value("kills", arguments.n);
    report.value("threads", sent.len());
    report.value("turns", sent.values().map(Vec::len).sum::<usize>());
    report.value("restart", starts.summary());
    found.report(&mut report);
    Ok(report)
}

/// Sends messages to new and known threads and kills weir at a random moment. Returns the threads.
async fn start_and_kill(
    target: &mut Target,
    arguments: &Arguments,
    rng: &mut Rng,
    round: usize,
    sent: &mut Sent,
) -> Result<BTreeSet<String>, TargetError> {
    let mut threads: BTreeSet<String> = BTreeSet::new();
    for _ in 0..arguments.streams {
        let known = (rng.bool() && !sent.is_empty()).then(|| sent.keys().nth(rng.usize(..sent.len())).cloned());
        threads.insert(match known.flatten() {
            Some(thread) => thread,
            None => target.api.create_thread().await?,
        });
    }
    let mut running = JoinSet::new();
    for (n, thread) in threads.iter().cloned().enumerate() {
        let (api, prompt) = (target.api.clone(), prompt("survive", format_args!("{round}.{n}")));
        running.spawn(async move { (send(&api, &thread, prompt).await, thread) });
    }
    sleep(Duration::from_millis(rng.u64(..KILL_WITHIN_MS))).await;
    let weir = target.weir.as_mut().ok_or(TargetError::NoProcess)?;
    weir.kill().await.map_err(TargetError::Usage)?;
    while let Some(ended) = running.join_next().await {
        if let Ok((turn, thread)) = ended {
            sent.entry(thread).or_default().push(turn);
        }
    }
    Ok(threads)
}

async fn send(api: &Api, thread: &str, prompt: String) -> Turn {
    let mut answer = Answer::default();
    let refused = match api.send(thread, MOCK, MODEL, &prompt).await {
        Ok(mut stream) => {
            answer.read_on(&mut stream).await;
            None
        }
        Err(ApiError::Client(error)) => error.refusal().map(|_| error.to_string()),
        Err(error) => Some(error.to_string()),
    };
    Turn { prompt, answer, refused }
}

/// What the checks after the kills have shown.
#[derive(Debug, Default)]
struct Findings {
    statuses: BTreeMap<String, u64>,
    acknowledged: u64,
    corrupt: Vec<String>,
    lost: Vec<String>,
    wrong: Vec<String>,
    refused: Vec<String>,
}

impl Findings {
    /// Looks at a copy of the database, before anybody repairs it.
    async fn check_database(&mut self, directory: &Path) {
        let directory = directory.to_owned();
        let checked = tokio::task::spawn_blocking(move || integrity(&directory)).await;
        match checked {
            Ok(Ok(said)) if said == "ok" => {}
            Ok(Ok(said)) => self.corrupt.push(said),
            Ok(Err(error)) => self.corrupt.push(error),
            Err(error) => self.corrupt.push(error.to_string()),
        }
    }

    async fn check_thread(&mut self, api: &Api, thread: &str, turns: &[Turn]) -> Result<(), ApiError> {
        let found = api.thread(thread).await?;
        let messages = found["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let sequences = messages.iter().map(|message| message["sequence"].as_u64());
        if !sequences.eq((0..).take(messages.len()).map(Some)) || messages.len() % 2 != 0 {
            self.wrong.push(format!("{thread}: the sequence has a gap, or half a turn"));
        }
        if !found["active_request_id"].is_null() {
            self.wrong.push(format!("{thread}: an answer runs that nobody gives"));
        }
        let mut pairs = messages.chunks_exact(2);
        for turn in turns {
            self.refused.extend(turn.refused.clone());
            // The terminal event and the first piece of an answer acknowledge the message before them.
            let acknowledged = turn.answer.ttft.is_some() || !turn.answer.dones.is_empty();
            self.acknowledged += u64::from(acknowledged);
            let mut rest = pairs.clone();
            match rest.find(|pair| pair[0]["content"] == turn.prompt.as_str()) {
                Some(pair) => {
                    self.check_turn(thread, turn, pair);
                    pairs = rest;
                }
                None if acknowledged => self.lost.push(format!("{thread}: {}", turn.prompt)),
                None => {}
            }
        }
        Ok(())
    }

    fn check_turn(&mut self, thread: &str, turn: &Turn, pair: &[Value]) {
        let (user, assistant) = (&pair[0], &pair[1]);
        let (status, kept) = (assistant["status"].as_str().unwrap_or_default(), assistant["content"].as_str());
        *self.statuses.entry(status.to_owned()).or_default() += 1;
        let (kept, whole) = (kept.unwrap_or_default(), expected_text(MODEL, &turn.prompt));
        let wrong = if user["role"] != "user" || assistant["role"] != "assistant" {
            "the roles are mixed up".to_owned()
        } else if !matches!(status, "complete" | "interrupted") {
            format!("the status is {status:?}")
        } else if !whole.starts_with(kept) {
            "the text is not what the provider said".to_owned()
        } else if status == "complete" && kept != whole {
            "a complete answer lacks text".to_owned()
        } else if turn.answer.status() == "complete" && status != "complete" {
            format!("the client was told that it is complete, it is {status}")
        } else {
            return;
        };
        self.wrong.push(format!("{thread}: {wrong}"));
    }

    fn report(self, report: &mut Report) {
        report.value("checked_answers", &self.statuses);
        report.value("checked_acknowledged", self.acknowledged);
        report.check("the database is intact after every kill", self.corrupt.is_empty());
        report.check("no acknowledged message is lost", self.lost.is_empty());
        report.check("answers are complete, or interrupted with the text so far", self.wrong.is_empty());
        report.check("threads take new messages afterwards", self.refused.is_empty());
        report.check("some answers were cut by a kill", self.statuses.contains_key("interrupted"));
        for (name, mut defects) in
            [("corrupt", self.corrupt), ("lost", self.lost), ("wrong", self.wrong), ("refused", self.refused)]
        {
            defects.truncate(10);
            if !defects.is_empty() {
                report.value(name, defects);
            }
        }
    }
}

/// What SQLite says about a copy of the database.
fn integrity(directory: &Path) -> Result<String, String> {
    let copy = tempfile::tempdir().map_err(|error| error.to_string())?;
    for name in [DATABASE.to_owned(), format!("{DATABASE}-wal")] {
        let from = directory.join(&name);
        if from.exists() {
            std::fs::copy(from, copy.path().join(name)).map_err(|error| error.to_string())?;
        }
    }
    let database = rusqlite::Connection::open(copy.path().join(DATABASE)).map_err(|error| error.to_string())?;
    let check = database.query_row("PRAGMA integrity_check", [], |row| row.get(0));
    check.map_err(|error| error.to_string())
}
