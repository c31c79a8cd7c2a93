//! Burst: many identical sends to one thread at once are one turn and one upstream call.

use std::collections::HashSet;

use futures_util::future::join_all;
use serde_json::Value;

use super::seen;
use crate::client::{ClientError, Events};
use crate::mock::expected_text;
use crate::report::Report;
use crate::target::{Answer, Api, ApiError, MOCK, Settings, Target, TargetArguments, TargetError};

/// Sends the same message many times at once to one thread.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// How many sends.
    #[arg(short, default_value_t = 50)]
    n: usize,
    /// The model.
    #[arg(long, default_value = "text@tokens=50,gap_ms=10")]
    model: String,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let target = Target::start(&arguments.target, Settings::default()).await?;
    let (n, content) = (arguments.n, "what does the river say?");
    let thread = target.api.create_thread().await?;
    target.mock.reset();

    let answers = send_at_once(&target, &thread, &arguments.model, content, n).await;
    let counts = seen(&target, |counts| counts.streams_live == 0).await.unwrap_or_else(|| target.mock.counts());
    let messages = target.api.thread(&thread).await?["messages"].clone();
    let performance = target.api.performance(n).await?;

    let mut report = Report::new("burst");
    report.value("sends", n);
    let (answered, failed): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let answered: Vec<_> = answered.into_iter().flatten().collect();
    let failures: HashSet<_> = failed.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    if !failures.is_empty() {
        report.value("failures", failures);
    }
    report_answers(&mut report, arguments, &answered, content);
    report.value("upstream_calls", counts.calls_started);
    report.check("one upstream call", counts.calls_started == 1);
    report_messages(&mut report, &messages, &answered);
    report_performance(&mut report, &performance, n);
    Ok(report)
}

/// All connections are open before the first request is written.
async fn send_at_once(
    target: &Target,
    thread: &str,
    model: &str,
    content: &str,
    n: usize,
) -> Vec<Result<Answer, ApiError>> {
    let client = target.api.client();
    let connections = join_all((0..n).map(|_| client.connect())).await;
    let request = client.complete(Api::message(thread, MOCK, model, content));
    let answers = connections.into_iter().map(async |connection: Result<_, ClientError>| {
        let mut events = Events::open(connection?, &request).await?;
        Answer::read(&mut events).await
    });
    join_all(answers).await
}

fn report_answers(report: &mut Report, arguments: &Arguments, answers: &[Answer], content: &str) {
    let complete = answers.iter().filter(|answer| answer.status() == "complete").count();
    let defects: HashSet<_> = answers.iter().filter_map(Answer::defect).collect();
    let distinct: HashSet<_> = answers.iter().map(|answer| &answer.content).collect();
    let expected = expected_text(&arguments.model, content);
    report.value("complete", complete);
    report.value("distinct_contents", distinct.len());
    let leaders = answers.iter().filter(|answer| answer.role == "leader").count();
    let followers = answers.iter().filter(|answer| answer.role == "follower").count();
    report.value("leaders", leaders);
    report.value("followers", followers);
    report.check("every send is answered completely", complete == arguments.n);
    report.check("every stream ends in one `done`, and nothing follows it", defects.is_empty());
    report.check("all contents are the same, byte for byte", distinct.len() == 1);
    report.check("the text is the provider's", answers.iter().all(|answer| answer.text == expected));
    report.check("one leader, the rest follow", leaders == 1 && followers + 1 == arguments.n);
}

fn report_messages(report: &mut Report, messages: &Value, answers: &[Answer]) {
    let messages = messages.as_array().map(Vec::as_slice).unwrap_or_default();
    report.value("messages", messages.len());
    let roles: Vec<_> = messages.iter().filter_map(|message| message["role"].as_str()).collect();
    report.check("two messages in the thread", roles == ["user", "assistant"]);
    let text = answers.first().map(|answer| answer.text.as_str());
    let kept = messages.last().and_then(|message| message["content"].as_str());
    report.check("the text that is kept is the text that was sent", text.is_some() && text == kept);
}

fn report_performance(report: &mut Report, performance: &Value, n: usize) {
    let error_rate = &performance["error_rate"];
    report.value("error_rate", error_rate);
    report.value("queue_wait_p95_ms", &performance["queue_wait_ms"]["p95"]);
    report.value("ttft_p95_ms", &performance["ttft_ms"]["p95"]);
    report.value("coalesce", &performance["coalesce"]);
    report.check("weir counts no errors", error_rate.as_f64() == Some(0.0));
    let counted = (performance["coalesce"]["leaders"].as_u64(), performance["coalesce"]["followers"].as_u64());
    let expected = (Some(1), Some(n as u64 - 1));
    report.check("weir counts one leader and the followers", counted == expected);
}
