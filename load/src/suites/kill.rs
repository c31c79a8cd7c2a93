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

impl Turn {
    /// The first piece of an answer, or its terminal event, acknowledges the message before it.
    fn is_acknowledged(&self) -> bool {
        self.answer.ttft.is_some() || !self.answer.dones.is_empty()
    }
}

/// Everything that was sent, by thread.
type Sent = BTreeMap<String, Vec<Turn>>;

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    if arguments.target.url.is_some() {
        return Err(TargetError::NotOwn);
    }
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
    // The last look at all of them is the one whose answers are counted.
    found.statuses.clear();
    for (thread, turns) in &sent {
        found.check_thread(&target.api, thread, turns).await?;
    }

    let mut report = Report::new("kill");
    report.value("seed", seed.to_string());
    report.value("kills", arguments.n);
    report.value("threads", sent.len());
    found.report(&mut report, &sent);
    report.value("restart", starts.summary());
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

/// What the checks after the kills have shown. A thread is looked at after each kill that it has met, and at the end
/// again: what is found of it more than once is one thing.
#[derive(Debug, Default)]
struct Findings {
    statuses: BTreeMap<String, u64>,
    corrupt: BTreeSet<String>,
    lost: BTreeSet<String>,
    wrong: BTreeSet<String>,
    refused: BTreeSet<String>,
}

impl Findings {
    /// Looks at a copy of the database, before anybody repairs it.
    async fn check_database(&mut self, directory: &Path) {
        let directory = directory.to_owned();
        let checked = tokio::task::spawn_blocking(move || integrity(&directory)).await;
        match checked {
            Ok(Ok(said)) if said == "ok" => {}
            Ok(Ok(said) | Err(said)) => self.corrupt.extend([said]),
            Err(error) => self.corrupt.extend([error.to_string()]),
        }
    }

    async fn check_thread(&mut self, api: &Api, thread: &str, turns: &[Turn]) -> Result<(), ApiError> {
        self.check_turns(thread, &api.thread(thread).await?, turns);
        Ok(())
    }

    /// Looks whether what weir has of a thread is what it was sent.
    fn check_turns(&mut self, thread: &str, found: &Value, turns: &[Turn]) {
        let messages = found["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
        let sequences = messages.iter().map(|message| message["sequence"].as_u64());
        if !sequences.eq((0..).take(messages.len()).map(Some)) || !messages.len().is_multiple_of(2) {
            self.wrong.extend([format!("{thread}: the sequence has a gap, or half a turn")]);
        }
        if !found["active_request_id"].is_null() {
            self.wrong.extend([format!("{thread}: an answer runs that nobody gives")]);
        }
        let mut pairs = messages.chunks_exact(2);
        for turn in turns {
            self.refused.extend(turn.refused.clone());
            let mut rest = pairs.clone();
            match rest.find(|pair| pair[0]["content"] == turn.prompt.as_str()) {
                Some(pair) => {
                    self.check_turn(thread, turn, pair);
                    pairs = rest;
                }
                None if turn.is_acknowledged() => self.lost.extend([format!("{thread}: {}", turn.prompt)]),
                None => {}
            }
        }
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
        self.wrong.extend([format!("{thread}: {wrong}")]);
    }

    fn report(self, report: &mut Report, sent: &Sent) {
        let turns = || sent.values().flatten();
        report.value("messages_sent", turns().count());
        report.value("messages_acknowledged", turns().filter(|turn| turn.is_acknowledged()).count());
        report.value("messages_lost", self.lost.len());
        report.value("answers_kept", &self.statuses);
        report.check("the database is intact after every kill", self.corrupt.is_empty());
        report.check("no acknowledged message is lost", self.lost.is_empty());
        report.check("answers are complete, or interrupted with the text so far", self.wrong.is_empty());
        report.check("threads take new messages afterwards", self.refused.is_empty());
        report.check("some answers were cut by a kill", self.statuses.contains_key("interrupted"));
        for (name, defects) in
            [("corrupt", self.corrupt), ("lost", self.lost), ("wrong", self.wrong), ("refused", self.refused)]
        {
            if !defects.is_empty() {
                report.value(name, defects.into_iter().take(10).collect::<Vec<_>>());
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn turn(prompt: &str, is_acknowledged: bool) -> Turn {
        let ttft = is_acknowledged.then_some(Duration::from_millis(1));
        Turn { prompt: prompt.to_owned(), answer: Answer { ttft, ..Answer::default() }, refused: None }
    }

    fn kept(prompts: &[&str]) -> Value {
        let messages = prompts.iter().flat_map(|prompt| {
            let answer = expected_text(MODEL, prompt);
            [
                json!({"role": "user", "content": prompt}),
                json!({"role": "assistant", "status": "interrupted", "content": answer[..4]}),
            ]
        });
        let messages = messages.enumerate().map(|(sequence, mut message)| {
            message["sequence"] = json!(sequence);
            message
        });
        json!({"messages": messages.collect::<Vec<_>>()})
    }

    #[test]
    fn a_message_counts_once_however_often_its_thread_is_looked_at() {
        let sent = Sent::from([("t_1".to_owned(), vec![turn("a", true), turn("b", false), turn("c", true)])]);
        let mut found = Findings::default();
        for _ in 0..3 {
            found.statuses.clear();
            found.check_turns("t_1", &kept(&["a"]), &sent["t_1"]);
        }
        let mut report = Report::new("kill");

        found.report(&mut report, &sent);

        let values = &report.json()["values"];
        assert_eq!((&values["messages_sent"], &values["messages_acknowledged"]), (&json!(3), &json!(2)), "{report}");
        assert_eq!(values["messages_lost"], 1, "{report}");
        assert_eq!(values["answers_kept"], json!({"interrupted": 1}), "{report}");
        assert!(!report.holds());
    }

    #[tokio::test]
    async fn a_weir_that_runs_elsewhere_is_refused_before_it_is_asked_anything() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: Arguments,
        }
        let Line { arguments } = clap::Parser::parse_from(["load", "--url", "http://127.0.0.1:1"]);

        let refused = run(&arguments).await;

        assert!(matches!(refused, Err(TargetError::NotOwn)), "{refused:?}");
    }
}
