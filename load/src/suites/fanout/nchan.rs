//! Nchan: the same events to the same number of listeners, by nginx: one publisher, and subscribers of an event stream.

use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::round::{Round, Rounds};
use super::{Arguments, TEXT_LEN};
use crate::client::{Client, ClientError, Connection, Request};
use crate::clock::{STAMP, now_ns};
use crate::report::Report;
use crate::samples::rounded;
use crate::suites::beside::{LISTEN, Nginx, PUBLISH, each_us, ratio};
use crate::suites::cpu::REST;
use crate::suites::tap::Tally;
use crate::target::TargetError;

/// How long messages are published to nobody, to learn what that costs.
const PUBLISHING: Duration = Duration::from_secs(3);

/// A running nginx with nchan.
#[derive(Debug)]
pub(super) struct Nchan {
    nginx: Nginx,
    client: Client,
}

impl Nchan {
    /// The nchan of this nginx.
    pub(super) fn new(nginx: Nginx) -> Result<Self, ClientError> {
        let client = nginx.client("")?;
        Ok(Self { nginx, client })
    }

    /// How many processes of it there are.
    pub(super) fn workers(&self) -> Result<usize, TargetError> {
        self.nginx.workers().map_err(TargetError::Usage)
    }

    /// One round: the listeners of one channel.
    pub(super) async fn listen(&self, arguments: &Arguments) -> Result<Round, TargetError> {
        let (mut readers, tally) = (JoinSet::new(), Tally::new(arguments.listeners));
        for n in 0..arguments.listeners {
            let events = self.client.open(Request::get(LISTEN).header("accept", "text/event-stream")).await?;
            readers.spawn(tally.clone().count(n, events));
        }
        let publisher = publish_evenly(self.client.clone(), arguments.gap());
        let publisher = tokio::spawn(publisher);
        let round = Round::measure(|| self.cpu_time(), &tally, arguments.wall()).await;
        let has_failed = publisher.is_finished();
        publisher.abort();
        let mut round = round?;
        round.broken = (0..).map_while(|_| readers.try_join_next()).count();
        round.require("nchan: everything is published", !has_failed);
        readers.shutdown().await;
        sleep(REST).await;
        Ok(round)
    }

    /// Tells what a delivery costs without the publishing, which is nginx's as well.
    pub(super) async fn report_publishing(
        &self,
        report: &mut Report,
        weir: &Rounds,
        nchan: &Rounds,
        listeners: usize,
    ) -> Result<(), TargetError> {
        let mut connection = self.client.connect().await?;
        let (start, cpu, mut published) = (Instant::now(), self.cpu_time()?, 0);
        while start.elapsed() < PUBLISHING {
            publish(&mut connection).await?;
            published += 1;
        }
        let publishing_us = each_us(self.cpu_time()? - cpu, published);
        report.value("nchan_cpu_us_per_publish", publishing_us.map(rounded));
        let alone = nchan.each_us().zip(publishing_us).map(|(all, publishing)| all - publishing / listeners as f64);
        report.value("nchan_cpu_us_per_event_alone", alone.map(rounded));
        report.value("ratio_alone", ratio(weir.each_us(), alone));
        Ok(())
    }

    fn cpu_time(&self) -> Result<Duration, TargetError> {
        self.nginx.cpu_time().map_err(TargetError::Usage)
    }
}

/// Publishes at a rate until it fails.
async fn publish_evenly(client: Client, gap: Duration) -> Result<(), ClientError> {
    let mut connection = client.connect().await?;
    let mut due = interval(gap);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        due.tick().await;
        publish(&mut connection).await?;
    }
}

/// Publishes one event, with the data that weir's have.
async fn publish(connection: &mut Connection) -> Result<(), ClientError> {
    let stamp = format!("{STAMP}{}", now_ns());
    let data = json!({"type": "delta", "delta": format!("{stamp:.<TEXT_LEN$}")});
    let request = Request::new("POST", PUBLISH).header("x-eventsource-event", "delta").body(data.to_string());
    let head = connection.send(&request).await?;
    let response = connection.whole(head).await?;
    match response.status() {
        200..300 => Ok(()),
        _ => Err(ClientError::Refused(Box::new(response))),
    }
}

#[cfg(test)]
mod with_nchan {
    use std::path::Path;

    use super::*;
    use crate::suites::beside::Site;

    #[tokio::test]
    async fn what_is_published_reaches_every_listener_in_the_form_of_weirs_events() {
        let nginx = Nginx::start(Path::new("nginx"), Site::Nchan).await;
        let nginx = nginx.expect("nchan is installed (Debian: libnginx-mod-nchan)");
        let nchan = Nchan::new(nginx).unwrap();
        let listen = || nchan.client.open(Request::get(LISTEN).header("accept", "text/event-stream"));
        let mut listeners = [listen().await.unwrap(), listen().await.unwrap()];

        // Who has just come may miss what is published at that moment.
        let publisher = tokio::spawn(publish_evenly(nchan.client.clone(), Duration::from_millis(10)));
        for listener in &mut listeners {
            let event = listener.next_named("delta").await.unwrap().event;
            assert_eq!(event.json()["type"], "delta");
            assert!(event.json()["delta"].as_str().unwrap().starts_with(STAMP), "{event:?}");
            assert!(event.id.is_some());
        }
        assert!(!publisher.is_finished());
        publisher.abort();
        assert!(nchan.cpu_time().is_ok());
    }
}
