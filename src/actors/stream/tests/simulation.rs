//! Clients, operators and a provider at random, thousands of steps in virtual time; afterwards everything must add up.
//!
//! A seed fixes who asks what and when, and what the provider does. `WEIR_SIM_SEEDS=1000` runs more of them,
//! `WEIR_SIM_SEEDS=37..38` one of them.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use super::support::{Plan, in_a_world, route};
use super::*;
use crate::actors::coalescer::Whose;
use crate::actors::pacer;
use crate::chat::{OrgId, RequestId, Role};
use crate::config::OnCancel;
use crate::providers::upstream::TransportError;

const SEEDS: std::ops::Range<u64> = 0..12;
const STEPS: usize = 400;
const TEXTS: [&str; 4] = ["who", "what", "where", "why"];

/// Numbers that look random and are the same for the same seed.
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[usize::try_from(self.roll(items.len() as u64)).unwrap()]
    }
}

/// What the provider does next: mostly it answers, now and then it does not.
fn improvise(dice: &mut Dice) -> Script {
    let mut body = vec![Step::Wait(dice.roll(200)), Step::Line(r#"{"id":"run"}"#), Step::Echo];
    for index in 0..dice.roll(8) {
        body.push(Step::Wait(dice.roll(300)));
        body.push(Step::Text(format!(" {index}")));
    }
    let mut script = Script { head_ms: dice.roll(300), ..Script::new([]) };
    let cut = usize::try_from(dice.roll(body.len() as u64 + 1)).unwrap();
    match dice.roll(60) {
        0 => script.head = Err(TransportError::Connect),
        1 => script.head = Err(TransportError::Lost),
        2 => script.head = Ok(400),
        3 => script.head = Ok(503),
        4 => script = Script { head: Ok(429), ..script }.retry_after_ms(dice.roll(4_000)),
        5 => script.head_ms = 20_000,
        6 => body.truncate(cut),
        7 => body.insert(cut, Step::Lose),
        8 => body.insert(cut, Step::Wait(20_000)),
        9 => body.insert(cut, Step::Line("<html>")),
        10 => body.insert(cut, Step::Line(r#"{"panic":true}"#)),
        11 => body.insert(cut, Step::Panic),
        _ => {}
    }
    body.push(Step::End);
    Script { body, ..script }
}

fn plan(dice: &mut Dice) -> Plan {
    let mut plan = Plan::default();
    plan.pace.rps = [1.0, 5.0, 50.0][dice.roll(3) as usize];
    plan.pace.concurrency = 1 + dice.roll(6) as usize;
    plan.pace.burst = 1 + dice.roll(5) as u32;
    plan.pace.queue_max = dice.roll(12) as usize;
    plan.provider.queue_wait_max_ms = 5_000;
    plan.provider.headers_timeout_ms = 10_000;
    plan.provider.idle_timeout_ms = 8_000;
    plan.limits.retained_bytes_max = 200_000;
    if dice.one_in(2) {
        plan.on_disconnect = OnDisconnect::CancelAfter(millis(dice.roll(2_000)));
    }
    if dice.one_in(2) {
        plan.provider.on_cancel = OnCancel::Drain;
        plan.provider.drain_max_ms = 1_000;
    }
    if dice.one_in(2) {
        plan.provider.fallback = vec![route("second"), route("third")];
        plan.backup_pace = pacer::schedule::Limits { concurrency: 1 + dice.roll(3) as usize, ..plan.pace };
    }
    // An open breaker keeps much from happening.
    plan.provider.breaker_failures = [0, 0, 3][dice.roll(3) as usize];
    plan.provider.breaker_open_ms = 500;
    plan
}

/// What became of one request that a client sent.
enum Fate {
    Refused(Code),
    Heard(Heard),
    /// The client went away.
    Left,
}

/// What the clients have seen.
#[derive(Default)]
struct Book {
    asks: Vec<Ask>,
    fates: Vec<(Ask, Fate)>,
    /// Every subscription that anybody was given.
    subscriptions: Vec<Arc<Subscription>>,
    under_way: usize,
}

async fn client(house: Rc<House>, book: Rc<RefCell<Book>>, ask: Ask, stays: Option<u64>) {
    let fate = match house.ask(&ask).await {
        Err(failure) => Fate::Refused(failure.code),
        Ok(listener) => {
            let subscription = listener.attachment.as_ref().unwrap().subscription().clone();
            book.borrow_mut().subscriptions.push(subscription);
            match stays {
                None => Fate::Heard(listener.heard().await),
                Some(stays) => {
                    sleep(millis(stays)).await;
                    drop(listener);
                    Fate::Left
                }
            }
        }
    };
    let mut book = book.borrow_mut();
    book.fates.push((ask, fate));
    book.under_way -= 1;
}

async fn simulate(seed: u64) {
    let mut dice = Dice(seed);
    let plan = plan(&mut dice);
    let pace = plan.pace;
    let house = Rc::new(House::build(plan));
    let mut author = Dice(seed ^ 0x5EED);
    *house.provider.author.borrow_mut() = Some(Box::new(move || improvise(&mut author)));
    for (index, backup) in house.backups.iter().enumerate() {
        let mut author = Dice(seed ^ (0xBACC + index as u64));
        *backup.provider.author.borrow_mut() = Some(Box::new(move || improvise(&mut author)));
    }
    let orgs = [OrgId::new("one"), OrgId::new("two")];
    let mut threads = Vec::new();
    for index in 0..6 {
        threads.push((orgs[index % 2].clone(), house.thread_of(&orgs[index % 2]).await));
    }
    let book = Rc::new(RefCell::new(Book::default()));
    for _ in 0..STEPS {
        step(&house, &book, &threads, &mut dice).await;
        assert!(house.provider.live() <= house.permits.get(), "a call without a permit");
        assert!(house.permits.get() <= pace.concurrency, "more permits than allowed");
        let backups = &mut house.backups.iter();
        assert!(backups.all(|backup| backup.provider.live() <= backup.permits.get()), "a call without a permit");
    }
    while book.borrow().under_way > 0 {
        sleep(millis(1_000)).await;
    }
    house.is_quiet().await;
    check_pace(&house, pace);
    let book = book.take();
    check_ends(&book, &house);
    check_content(&book);
    for (org, thread) in &threads {
        check_thread(&house, &book, org, thread).await;
    }
    drop(book);
    house.forgets_everything().await;
}

async fn step(house: &Rc<House>, book: &Rc<RefCell<Book>>, threads: &[(OrgId, ThreadId)], dice: &mut Dice) {
    let (org, thread) = dice.pick(threads).clone();
    let known = |dice: &mut Dice| {
        let asks = &book.borrow().asks;
        let recent = asks.len().saturating_sub(8);
        (!asks.is_empty()).then(|| dice.pick(&asks[recent..]).clone())
    };
    match dice.roll(16) {
        0..8 => {
            let mut ask = Ask::of(&org, &format!("{org} {}", dice.pick(&TEXTS)));
            ask.thread = (!dice.one_in(3)).then_some(thread);
            ask.shares = !dice.one_in(8);
            if dice.one_in(10) {
                ask = known(dice).unwrap_or(ask);
            }
            let stays = dice.one_in(4).then(|| dice.roll(1_500));
            book.borrow_mut().asks.push(ask.clone());
            book.borrow_mut().under_way += 1;
            tokio::task::spawn_local(client(house.clone(), book.clone(), ask, stays));
        }
        8..11 => {
            let unknown = RequestId::generate(org);
            let request = known(dice).map_or(unknown, |ask| ask.request);
            let house = house.clone();
            tokio::task::spawn_local(async move { house.cancel(&request).await });
        }
        11 => {
            let whose = if dice.one_in(20) { Whose::Everybody } else { Whose::Thread(thread) };
            let house = house.clone();
            tokio::task::spawn_local(async move { house.stop(whose, Status::Cancelled).await });
        }
        12 => {
            for _ in 0..dice.roll(6) {
                tokio::task::yield_now().await;
            }
        }
        _ => sleep(millis(dice.roll(250))).await,
    }
}

/// Calls began no faster than the bucket allows.
fn check_pace(house: &House, pace: pacer::schedule::Limits) {
    assert!(house.provider.live_max.get() <= pace.concurrency);
    let calls = house.provider.calls.borrow();
    for (index, from) in calls.iter().enumerate() {
        for (count, to) in calls.iter().skip(index).enumerate() {
            let allowed = f64::from(pace.burst) + pace.rps * (*to - *from).as_secs_f64();
            assert!((count + 1) as f64 <= allowed + 0.01, "{} calls within {:?}", count + 1, *to - *from);
        }
    }
}

/// Whoever joined has one end, and every request is counted once.
fn check_ends(book: &Book, house: &House) {
    let mut ended = HashSet::new();
    for subscription in &book.subscriptions {
        let end = subscription.end().expect("every subscription ends");
        // What is to be asked again does not count. A request that was sent twice may have found it meanwhile.
        if !end.outcome.asks_again() {
            ended.insert(Arc::as_ptr(subscription));
        }
    }
    let counted = house.report()["window"]["count"].as_u64().unwrap();
    assert!(counted >= ended.len() as u64, "{counted} are counted, {} have ended", ended.len());
    assert!(counted <= book.asks.len() as u64, "{counted} are counted, {} were asked", book.asks.len());
    for (ask, fate) in &book.fates {
        if let Fate::Heard(heard) = fate {
            assert_eq!(heard.done["request_id"], ask.request.as_str());
            assert!(heard.timings <= 1 && (heard.timings == 1) != heard.frames.is_empty());
        }
        if let Fate::Refused(code) = fate {
            assert_ne!(*code, Code::Internal, "a defect");
        }
    }
}

/// Listeners of one stream have heard the same, up to where they were cut; nobody has heard what is not theirs.
fn check_content(book: &Book) {
    let mut longest: HashMap<&str, &[u8]> = HashMap::new();
    let by_request: HashMap<_, _> = book
        .subscriptions
        .iter()
        .map(|subscription| (&subscription.facts.request, &subscription.facts.stream))
        .collect();
    let heard = || {
        book.fates
            .iter()
            .filter_map(|(ask, fate)| if let Fate::Heard(heard) = fate { Some((ask, heard)) } else { None })
    };
    for (ask, heard) in heard() {
        let known = longest.entry(by_request[&ask.request].as_str()).or_default();
        if heard.frames.len() > known.len() {
            *known = &heard.frames;
        }
        assert!(heard.text.is_empty() || heard.text.starts_with(&ask.text), "{:?} answers {:?}", heard.text, ask.text);
    }
    for (ask, heard) in heard() {
        let whole = longest[by_request[&ask.request].as_str()];
        assert!(whole.starts_with(&heard.frames), "two listeners of one stream have heard different things");
        assert!(heard.status() != "complete" || whole == heard.frames);
    }
}

/// A thread has two messages for each turn, all of them settled, with the text that was delivered.
async fn check_thread(house: &House, book: &Book, org: &OrgId, thread: &ThreadId) {
    let messages = house.messages(org, thread).await;
    for (index, message) in messages.iter().enumerate() {
        let role = [Role::User, Role::Assistant][index % 2];
        assert_eq!((message.role, message.sequence), (role, index as i64));
        assert_ne!(message.status, Status::Streaming, "left running");
    }
    let kept: HashMap<_, _> = messages.iter().map(|message| (message.id.as_str(), message)).collect();
    for (ask, fate) in &book.fates {
        if ask.thread.as_ref() != Some(thread) {
            continue;
        }
        let stored = house.stored(&ask.request).await;
        assert_ne!(stored.map(|stored| stored.status), Some(Status::Streaming), "left running");
        let Fate::Heard(heard) = fate else { continue };
        if heard.code() == "turn_in_progress" {
            continue; // Sent twice, and the first of them was told to ask again.
        }
        let Some(message) = heard.done["message_id"].as_str().and_then(|id| kept.get(id)) else {
            // Cancelled or refused before the turn was opened; the latter is heard by those who sent the request twice.
            let was_begun = heard.status() != "cancelled" && heard.code() != "provider_busy";
            assert!(heard.text.is_empty() && !was_begun, "not kept: {heard:?}");
            continue;
        };
        let text = message.content.text();
        assert!(text.starts_with(&heard.text), "{text:?} is kept, {:?} was delivered", heard.text);
        if heard.status() != "cancelled" {
            assert_eq!((message.status.as_str(), &*text), (heard.status(), heard.text.as_str()));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "nothing but the number of runs depends on it")]
fn seeds() -> std::ops::Range<u64> {
    let Ok(wanted) = std::env::var("WEIR_SIM_SEEDS") else { return SEEDS };
    let number = |text: &str| text.parse().expect("WEIR_SIM_SEEDS is a number, or two with .. between them");
    match wanted.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => 0..number(&wanted),
    }
}

#[test]
fn whatever_happens_everything_adds_up() {
    for seed in seeds() {
        println!("seed {seed}");
        in_a_world(simulate(seed));
    }
}
