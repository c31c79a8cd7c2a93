//! A house with everything that a stream lives among, and clients that talk to it as HTTP does.

use std::collections::{BTreeMap, HashMap};
use std::task::Poll;

use super::provider::{Dialect, Provider};
use super::*;
use crate::actors::coalescer::{
    self, Cancel, Coalescer, Find, FindTurn, Load, Settings, Streams, Weigh, Whose, tables,
};
use crate::actors::guardian::Link;
use crate::actors::pacer::breaker::BreakerSettings;
use crate::actors::pacer::{self, InFlight, Pacer};
use crate::chat::{
    ChatMessage, Content, OrgId, Principal, Priority, ProviderName, RequestId, RequestKey, Role, Scope, ThreadId, View,
};
use crate::config;
use crate::fanout::{Cursor, End, Fallback, Next};
use crate::metrics::Exposition;
use crate::store::Message;
use crate::store::{NewThread, NewUserMessage, StoreOptions, StoredRequest};

pub(super) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Everything that a stream lives among.
pub(super) struct House {
    pub(super) coalescer: Addr<Coalescer>,
    pub(super) pacer: Addr<Pacer>,
    pub(super) store: Store,
    pub(super) metrics: Arc<Metrics>,
    pub(super) provider: Rc<Provider>,
    pub(super) permits: InFlight,
    /// Providers that nobody asks unless `Plan::provider` falls back to them, `second` and `third`.
    pub(super) backups: Vec<Backup>,
    streams: Streams,
    target: Rc<Target>,
    environment: Rc<Environment>,
}

/// Another provider.
pub(super) struct Backup {
    pub(super) provider: Rc<Provider>,
    pub(super) pacer: Addr<Pacer>,
    pub(super) permits: InFlight,
    target: Rc<Target>,
}

impl Backup {
    fn build(name: &str, plan: &Plan, pace: pacer::schedule::Limits) -> Self {
        let mut config = plan.provider.clone();
        (config.name, config.fallback) = (ProviderName::new(name), vec![route("demo")]);
        let (provider, permits, pacers) = (Rc::new(Provider::default()), InFlight::default(), Address::default());
        let breaker = BreakerSettings::of(&config);
        let pacer = Pacer::new(config.name.clone(), pace, breaker, permits.clone(), Link::default()).start();
        pacers.set(pacer.clone());
        let target = Rc::new(Target::new(config, Arc::new(Dialect), provider.clone(), pacers));
        Self { provider, pacer, permits, target }
    }
}

/// A way to another provider, with its default model.
pub(super) fn route(provider: &str) -> config::Route {
    config::Route { provider: ProviderName::new(provider), model: None }
}

/// How a house differs from the usual one.
pub(super) struct Plan {
    pub(super) provider: config::Provider,
    pub(super) pace: pacer::schedule::Limits,
    /// Of the other providers.
    pub(super) backup_pace: pacer::schedule::Limits,
    pub(super) limits: tables::Limits,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) answer_bytes_max: usize,
    pub(super) log_bytes_max: usize,
}

impl Default for Plan {
    fn default() -> Self {
        let mut provider = config::Config::default().providers["demo"].clone();
        provider.retries_max = 2;
        let pace = pacer::schedule::Limits { rps: 1_000.0, concurrency: 100, burst: 100, tpm: 0, queue_max: 100 };
        Self {
            provider,
            pace,
            backup_pace: pace,
            limits: tables::Limits {
                streams_max: 1_000,
                listeners_max: 1_000,
                requests_max: 10_000,
                error_ttl: millis(2_000),
                retain: millis(60_000),
                retained_bytes_max: 1 << 30,
                cancel_intent: millis(10_000),
            },
            on_disconnect: OnDisconnect::Continue,
            answer_bytes_max: 1 << 20,
            log_bytes_max: 1 << 20,
        }
    }
}

/// What a client asks for.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) org: OrgId,
    pub(super) thread: Option<ThreadId>,
    pub(super) text: String,
    pub(super) request: RequestId,
    pub(super) idempotency_key: Option<String>,
    pub(super) shares: bool,
    pub(super) unspeakable: bool,
    pub(super) has_tools: bool,
}

impl Ask {
    /// A question of the usual organisation, without a thread.
    pub(super) fn new(text: &str) -> Self {
        Self::of(&OrgId::new("org"), text)
    }

    pub(super) fn of(org: &OrgId, text: &str) -> Self {
        Self {
            org: org.clone(),
            thread: None,
            text: text.to_owned(),
            request: RequestId::generate(org.clone()),
            idempotency_key: None,
            shares: true,
            unspeakable: false,
            has_tools: false,
        }
    }

    /// The same question within a thread.
    pub(super) fn within(thread: &ThreadId, text: &str) -> Self {
        Self { thread: Some(thread.clone()), ..Self::new(text) }
    }

    fn identity(&self) -> Identity {
        let mut body_digest = [0; 32];
        let bytes = self.text.as_bytes();
        body_digest[..bytes.len().min(32)].copy_from_slice(&bytes[..bytes.len().min(32)]);
        Identity { idempotency_key: self.idempotency_key.clone(), body_digest }
    }
}

/// What a client has heard when its stream has ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Heard {
    /// The frames of all content events.
    pub(super) frames: Vec<u8>,
    pub(super) text: String,
    /// The data of `done`.
    pub(super) done: Value,
    /// How often the timings were said.
    pub(super) timings: usize,
    /// How often a place in the queue was told.
    pub(super) places: usize,
    /// Who was said to answer instead, in order.
    pub(super) fallbacks: Vec<Fallback>,
}

impl Heard {
    pub(super) fn status(&self) -> &str {
        self.done["status"].as_str().unwrap()
    }

    pub(super) fn code(&self) -> &str {
        self.done["error"]["code"].as_str().unwrap_or("")
    }
}

/// A client that listens; dropping it is a disconnect.
pub(super) struct Listener {
    pub(super) attachment: Option<Attachment>,
    task: tokio::task::JoinHandle<Heard>,
}

impl Listener {
    pub(super) fn new(attachment: Attachment) -> Self {
        let task = tokio::task::spawn_local(listen(attachment.subscription().clone()));
        Self { attachment: Some(attachment), task }
    }

    /// Listens to the end.
    pub(super) async fn heard(mut self) -> Heard {
        let heard = (&mut self.task).await.expect("listeners do not panic");
        self.attachment = None;
        heard
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a subscription as the body of an HTTP response does.
async fn listen(subscription: Arc<Subscription>) -> Heard {
    let mut cursor = Cursor::new(subscription.log.clone(), 0);
    let mut heard = Heard {
        frames: Vec::new(),
        text: String::new(),
        done: Value::Null,
        timings: 0,
        places: 0,
        fallbacks: Vec::new(),
    };
    let end = std::future::poll_fn(|cx| {
        subscription.wake_at_end(cx.waker());
        loop {
            let end = subscription.end();
            match cursor.next(end.map_or(u64::MAX, |end| end.last_seq), cx.waker()) {
                Next::Frames { frames, .. } => heard.frames.extend_from_slice(&frames),
                Next::FirstContent(_) => {
                    subscription.first_piece();
                    heard.timings += 1;
                }
                Next::Queue(_) => heard.places += 1,
                Next::Fallback(fallback) => heard.fallbacks.push(fallback),
                Next::Gap { .. } => panic!("the log of a test is large enough"),
                Next::Nothing => return end.map_or(Poll::Pending, Poll::Ready),
            }
        }
    });
    let End { frame, .. } = end.await;
    heard.text = text_of(&heard.frames);
    let frame = std::str::from_utf8(frame).unwrap();
    let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    heard.done = serde_json::from_str(data).unwrap();
    heard
}

/// Runs in a world of its own: nothing of the one before lives on in it.
pub(super) fn in_a_world<T>(run: impl Future<Output = T>) -> T {
    actix::System::new().block_on(run)
}

impl House {
    /// In paused time.
    pub(super) fn paused() -> Self {
        Self::build(Plan::default())
    }

    pub(super) fn build(plan: Plan) -> Self {
        tokio::time::pause();
        let store = Store::inline(&StoreOptions::default()).unwrap();
        let metrics = Arc::new(Metrics::new(&config::Metrics::default()).counting(["demo", "second", "third"]));
        let provider = Rc::new(Provider::default());
        let (name, permits) = (ProviderName::new("demo"), InFlight::default());
        let (pacers, coalescers) = (Address::default(), Address::default());
        let breaker = BreakerSettings::of(&plan.provider);
        let pacer = Pacer::new(name.clone(), plan.pace, breaker, permits.clone(), Link::default()).start();
        pacers.set(pacer.clone());
        let backups = Vec::from(["second", "third"].map(|name| Backup::build(name, &plan, plan.backup_pace)));
        let target = Rc::new(Target::new(plan.provider, Arc::new(Dialect), provider.clone(), pacers));
        let mut targets = BTreeMap::from([(name, target.clone())]);
        targets.extend(backups.iter().map(|backup| (backup.target.provider.name.clone(), backup.target.clone())));
        let targets = Rc::new(targets);
        let environment = Rc::new(Environment {
            store: store.clone(),
            metrics: metrics.clone(),
            coalescer: coalescers.clone(),
            targets: targets.clone(),
            on_disconnect: plan.on_disconnect,
            write_wait_max: millis(10_000),
            checkpoints: Checkpoints::every(millis(1_000)),
            answer_bytes_max: plan.answer_bytes_max,
        });
        let settings = Settings { limits: plan.limits, log_bytes_max: plan.log_bytes_max };
        let (settings, streams) = (Rc::new(settings), Streams::default());
        let coalescer =
            Coalescer::new(targets, environment.clone(), settings, streams.clone(), Link::default()).start();
        coalescers.set(coalescer.clone());
        Self { coalescer, pacer, store, metrics, provider, permits, backups, streams, target, environment }
    }

    pub(super) async fn thread(&self) -> ThreadId {
        self.thread_of(&OrgId::new("org")).await
    }

    pub(super) async fn thread_of(&self, org: &OrgId) -> ThreadId {
        let new = NewThread { org: org.clone(), title: "t".into(), description: None, user_id: None };
        self.store.create_thread(new).await.unwrap().id
    }

    /// The message that asks, with the history read now.
    pub(super) async fn join(&self, ask: &Ask, reply: JoinReply) -> coalescer::Join {
        let mut messages = Vec::new();
        let mut turn = None;
        if let Some(thread) = &ask.thread {
            let history = self.store.history(&ask.org, thread, 50, None).await.unwrap();
            messages
                .extend(history.messages.iter().map(|message| ChatMessage::text(message.role, message.content.text())));
            let content = Content::Text(ask.text.clone());
            let user = NewUserMessage { id: MessageId::generate(), content, meta: Value::Null, replaces: None };
            turn = Some(NewTurn {
                thread: thread.clone(),
                expected_sequence: Some(history.next_sequence),
                user_message: Some(user.id.clone()),
                user: Some(user),
                answer: MessageId::generate(),
            });
        }
        messages.push(ChatMessage::text(Role::User, ask.text.as_str()));
        let mut extra = serde_json::Map::new();
        if ask.unspeakable {
            extra.insert("unspeakable".into(), Value::Bool(true));
        }
        let chat = ChatRequest {
            provider: ProviderName::new("demo"),
            model: "demo".into(),
            system: None,
            messages,
            temperature: None,
            max_tokens: None,
            tools: if ask.has_tools { vec![Value::Null] } else { Vec::new() },
            extra,
        };
        let scope = Scope::Principal(ask.org.clone(), Principal::new("somebody"));
        let twin = (!ask.has_tools).then(|| RequestKey::new(&scope, &chat));
        let key = twin.clone().filter(|_| ask.shares);
        let (request, identity, arrived) = (ask.request.clone(), ask.identity(), Instant::now());
        let (org, principal) = (ask.org.clone(), Principal::new("somebody"));
        let asker = Asker { org, principal, priority: Priority::User };
        let ticket = Ok(Ticket::default());
        coalescer::Join { request, identity, key, twin, turn, chat, asker, ticket, arrived, reply }
    }

    /// Asks once; the answer says what came of it.
    pub(super) async fn ask_once(&self, ask: &Ask) -> oneshot::Receiver<Result<Attachment, NotJoined>> {
        let (reply, answer) = oneshot::channel();
        let join = self.join(ask, reply).await;
        self.coalescer.send(join).await.unwrap();
        answer
    }

    /// Asks as HTTP does: again at once when it is told to.
    pub(super) async fn ask(&self, ask: &Ask) -> Result<Listener, Failure> {
        for _ in 0..4 {
            match self.ask_once(ask).await.await.expect("every join is answered") {
                Ok(attachment) => return Ok(Listener::new(attachment)),
                Err(NotJoined::Failed(failure)) => return Err(failure),
                Err(NotJoined::SequenceMoved | NotJoined::JustEnded) => {}
                Err(NotJoined::TurnEnding(former)) => {
                    if let Some(former) = self.coalescer.send(Find(former)).await.unwrap() {
                        former.0.ended().await;
                    }
                }
            }
        }
        panic!("asked again and again");
    }

    /// Asks and listens to the end.
    pub(super) async fn hear(&self, ask: &Ask) -> Heard {
        self.ask(ask).await.expect("joins").heard().await
    }

    pub(super) async fn cancel(&self, request: &RequestId) -> Cancellation {
        let (reply, answer) = oneshot::channel();
        let cancel = Cancel { request: request.clone(), asked: Instant::now(), reply };
        self.coalescer.send(cancel).await.unwrap();
        answer.await.expect("every cancel is answered")
    }

    pub(super) async fn stop(&self, whose: Whose, status: Status) -> usize {
        let (reply, answer) = oneshot::channel();
        self.coalescer.send(coalescer::Stop { whose, status, reply }).await.unwrap();
        answer.await.expect("every stop is answered")
    }

    pub(super) async fn find_turn(&self, thread: &ThreadId) -> Option<Attachment> {
        let find = FindTurn { org: OrgId::new("org"), thread: thread.clone() };
        self.coalescer.send(find).await.unwrap().map(|found| Attachment::new(found.0).unwrap())
    }

    /// The actor of a running stream.
    pub(super) fn stream(&self, stream: &StreamId) -> Addr<Stream> {
        self.streams.borrow()[stream].addr().clone()
    }

    /// Asks, and gives the new stream before it has come any further. To be spawned: the body of a test hears of
    /// nothing in time.
    pub(super) fn begin(&self, join: coalescer::Join) -> impl Future<Output = Addr<Stream>> + use<> {
        let (coalescer, streams) = (self.coalescer.clone(), self.streams.clone());
        async move {
            coalescer.send(join).await.unwrap();
            streams.borrow().values().next().expect("a stream begins").addr().clone()
        }
    }

    pub(super) async fn messages(&self, org: &OrgId, thread: &ThreadId) -> Vec<Message> {
        self.store.thread(org, thread, 1_000, None).await.unwrap().unwrap().1
    }

    pub(super) async fn answers(&self, thread: &ThreadId) -> Vec<(&'static str, String)> {
        let messages = self.messages(&OrgId::new("org"), thread).await;
        let answers = messages.into_iter().filter(|message| message.role == Role::Assistant);
        answers.map(|message| (message.status.as_str(), message.content.text().into_owned())).collect()
    }

    pub(super) async fn stored(&self, request: &RequestId) -> Option<StoredRequest> {
        self.store.request(request).await.unwrap()
    }

    pub(super) async fn load(&self) -> Load {
        self.coalescer.send(Weigh).await.unwrap()
    }

    pub(super) fn report(&self) -> Value {
        serde_json::to_value(self.metrics.performance(&View::Everything, 100_000)).unwrap()
    }

    /// The tokens that the totals say have come out of the provider.
    pub(super) fn tokens_spent(&self) -> u64 {
        let mut out = Exposition::default();
        self.metrics.write_totals(&mut out);
        let text = out.into_text();
        let line = r#"weir_tokens_total{provider="demo",type="output"} "#;
        text.lines().find_map(|found| found.strip_prefix(line)).unwrap().parse().unwrap()
    }

    /// Nothing in the store looks as if it still ran.
    pub(super) async fn all_is_settled(&self, threads: &[&ThreadId], asks: &[&Ask]) {
        for thread in threads {
            let org = OrgId::new("org");
            for message in self.messages(&org, thread).await {
                assert_ne!(message.status, Status::Streaming, "a message of {thread} was left running");
            }
        }
        for ask in asks {
            let stored = self.stored(&ask.request).await;
            assert_ne!(stored.map(|stored| stored.status), Some(Status::Streaming), "{} was left running", ask.request);
        }
    }

    /// Waits until nothing runs; then nothing may be left of what ran.
    pub(super) async fn is_quiet(&self) {
        let mut waited = 0;
        let permits = || self.permits.get() + self.backups.iter().map(|backup| backup.permits.get()).sum::<usize>();
        while self.load().await.running + permits() > 0 {
            sleep(millis(500)).await;
            waited += 1;
            assert!(waited < 10_000, "something runs for ever");
        }
        sleep(millis(100)).await;
        let status = self.pacer.send(pacer::Snapshot).await.unwrap();
        assert_eq!((status.in_flight, status.queued), (0, 0), "permits and places are back");
        assert_eq!(self.provider.live(), 0, "no upstream call is left");
        for backup in &self.backups {
            let status = backup.pacer.send(pacer::Snapshot).await.unwrap();
            assert_eq!((status.in_flight, status.queued, backup.provider.live()), (0, 0, 0), "nothing is left there");
            assert_eq!(Rc::strong_count(&backup.target), 2, "no attempt is left");
        }
        assert_eq!(Rc::strong_count(&self.target), 2, "no stream and no attempt is left");
        assert_eq!(Rc::strong_count(&self.environment), 2, "no stream is left");
        assert_eq!(Arc::strong_count(&self.metrics), 2, "no subscriber is left");
    }

    /// Waits until what has ended is forgotten; then the tables are empty.
    pub(super) async fn forgets_everything(&self) {
        self.is_quiet().await;
        sleep(millis(120_000)).await;
        assert_eq!(self.load().await, Load { running: 0, retained: 0, requests: 0 });
    }
}

/// How many there are of each.
pub(super) fn tally<T: std::hash::Hash + Eq>(items: impl IntoIterator<Item = T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    items.into_iter().for_each(|item| *counts.entry(item).or_default() += 1);
    counts
}
