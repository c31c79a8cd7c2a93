//! Requests that join at the wrong moment, and streams that break under them.

use super::support::{Plan, in_a_world};
use super::*;
use crate::actors::coalescer::{self, Find, Whose};
use crate::chat::OrgId;

async fn steps(count: usize) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}

/// Sends an identical request so many steps after the terminator of the first one's answer.
async fn check_at_the_end(count: usize, in_same_thread: bool) {
    let house = House::paused();
    let (one, two) = (house.thread().await, house.thread().await);
    let first = Ask::within(&one, "hi");
    let listener = house.ask(&first).await.unwrap();
    // Its history is read while the first turn runs, as a client's second click is.
    let second = Ask::within(if in_same_thread { &one } else { &two }, "hi");
    let (reply, answer) = oneshot::channel();
    let join = house.join(&second, reply).await;
    while house.provider.recycled.get() == 0 {
        sleep(millis(1)).await;
    }
    steps(count).await;

    house.coalescer.send(join).await.unwrap();
    let second_heard = match answer.await.unwrap() {
        Ok(attachment) => Listener::new(attachment).heard().await,
        Err(NotJoined::SequenceMoved | NotJoined::JustEnded | NotJoined::TurnEnding(_)) => house.hear(&second).await,
        Err(NotJoined::Failed(failure)) => panic!("{failure} after {count} steps"),
    };

    let heard = listener.heard().await;
    assert_eq!((heard.status(), heard.text.as_str()), ("complete", "Hello world"));
    assert_eq!((second_heard.status(), second_heard.text.as_str()), ("complete", "Hello world"), "after {count} steps");
    assert_eq!(house.report()["window"]["count"], 2, "being asked again is no request of its own");
    house.is_quiet().await;
    house.all_is_settled(&[&one, &two], &[&first, &second]).await;
    for ask in [&first, &second] {
        assert_eq!(house.stored(&ask.request).await.unwrap().status, Status::Complete, "after {count} steps");
    }
    house.forgets_everything().await;
}

#[test]
fn an_identical_request_at_any_step_of_the_end_is_answered() {
    for count in 0..20 {
        for in_same_thread in [true, false] {
            in_a_world(check_at_the_end(count, in_same_thread));
        }
    }
}

/// One of two threads stops; so many steps later somebody asks the same in it again.
async fn check_after_a_stop(count: usize) {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b", "c", "d"], 100)]);
    let (stops, goes_on) = (house.thread().await, house.thread().await);
    let asks = [Ask::within(&stops, "hi"), Ask::within(&goes_on, "hi"), Ask::within(&stops, "hi")];
    let stopped = house.ask(&asks[0]).await.unwrap();
    let other = house.ask(&asks[1]).await.unwrap();
    sleep(millis(250)).await;
    let (reply, answer) = oneshot::channel();
    let join = house.join(&asks[2], reply).await;
    let (told, _) = oneshot::channel();
    let whose = Whose::Thread(stops.clone());
    house.coalescer.send(coalescer::Stop { whose, status: Status::Cancelled, reply: told }).await.unwrap();
    steps(count).await;

    house.coalescer.send(join).await.unwrap();
    let again = match answer.await.unwrap() {
        Ok(attachment) => Listener::new(attachment).heard().await,
        Err(NotJoined::SequenceMoved | NotJoined::JustEnded | NotJoined::TurnEnding(_)) => house.hear(&asks[2]).await,
        Err(NotJoined::Failed(failure)) => panic!("{failure} after {count} steps"),
    };

    assert_eq!((stopped.heard().await.status(), other.heard().await.text.as_str()), ("cancelled", "abcd"));
    assert!(matches!(again.status(), "complete" | "cancelled"), "{again:?} after {count} steps");
    house.is_quiet().await;
    house.all_is_settled(&[&stops, &goes_on], &asks.iter().collect::<Vec<_>>()).await;
    house.forgets_everything().await;
}

#[test]
fn the_same_message_at_any_step_of_a_stop_is_answered() {
    for count in 0..20 {
        in_a_world(check_after_a_stop(count));
    }
}

#[actix::test]
async fn a_thread_that_has_moved_on_is_read_again_under_the_same_request_id() {
    let house = House::paused();
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let (reply, answer) = oneshot::channel();
    let stale = house.join(&ask, reply).await;
    house.hear(&Ask::within(&thread, "earlier")).await;

    house.coalescer.send(stale).await.unwrap();

    assert_eq!(answer.await.unwrap().err(), Some(NotJoined::SequenceMoved));
    assert_eq!(house.hear(&ask).await.status(), "complete");
    assert_eq!(house.report()["window"]["count"], 2);
    assert_eq!(house.messages(&OrgId::new("org"), &thread).await.len(), 4);
    house.forgets_everything().await;
}

#[actix::test]
async fn a_stale_turn_of_one_thread_does_not_disturb_another_one() {
    let house = House::paused();
    let (moved, other) = (house.thread().await, house.thread().await);
    let ask = Ask::within(&moved, "hi");
    let (reply, answer) = oneshot::channel();
    let stale = house.join(&ask, reply).await;
    house.hear(&Ask::within(&moved, "earlier")).await;
    house.provider.plays([Script::says(&["a", "b"], 100)]);
    let running = house.ask(&Ask::within(&other, "hi")).await.unwrap();

    house.coalescer.send(stale).await.unwrap();

    assert_eq!(answer.await.unwrap().err(), Some(NotJoined::SequenceMoved));
    assert_eq!(house.hear(&ask).await.status(), "complete");
    assert_eq!(running.heard().await.text, "ab");
    house.forgets_everything().await;
}

#[actix::test]
async fn a_repetition_hears_nothing_before_its_original_has_been_taken_in() {
    let house = House::paused();
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let (reply, answer) = oneshot::channel();
    let stale = house.join(&ask, reply).await;
    let (reply, repeated) = oneshot::channel();
    let repetition = house.join(&ask, reply).await;
    house.hear(&Ask::within(&thread, "earlier")).await;

    let coalescer = house.coalescer.clone();
    let sent = async move { (coalescer.send(stale).await.unwrap(), coalescer.send(repetition).await.unwrap()) };
    tokio::task::spawn_local(sent).await.unwrap();

    assert_eq!(answer.await.unwrap().err(), Some(NotJoined::SequenceMoved));
    assert_eq!(repeated.await.unwrap().err(), Some(NotJoined::JustEnded), "there is nothing to listen to");
    house.forgets_everything().await;
}

/// The same message is sent once more so many steps after the first was sent with a stale history, while another
/// thread's answer is shared.
async fn check_repeated_stale_turn(count: usize) {
    let house = House::paused();
    let (moved, other) = (house.thread().await, house.thread().await);
    let asks = [Ask::within(&moved, "hi"), Ask::within(&moved, "hi")];
    let (reply, answer) = oneshot::channel();
    let stale = house.join(&asks[0], reply).await;
    let (reply, repeated) = oneshot::channel();
    let repetition = house.join(&asks[1], reply).await;
    house.hear(&Ask::within(&moved, "earlier")).await;
    house.provider.plays([Script::says(&["a", "b"], 10_000)]);
    let running = house.ask(&Ask::within(&other, "hi")).await.unwrap();
    let start = Instant::now();

    let coalescer = house.coalescer.clone();
    let sent = async move {
        coalescer.send(stale).await.unwrap();
        steps(count).await;
        coalescer.send(repetition).await.unwrap();
    };
    tokio::task::spawn_local(sent).await.unwrap();

    for answer in [answer, repeated] {
        let refusal = answer.await.unwrap().err();
        let may_be = [Some(NotJoined::SequenceMoved), Some(NotJoined::JustEnded)];
        assert!(may_be.contains(&refusal), "{refusal:?} after {count} steps");
    }
    assert!(start.elapsed() < millis(1_000), "nobody waits for the other thread's answer, after {count} steps");
    assert_eq!(running.heard().await.text, "ab");
    house.forgets_everything().await;
}

#[test]
fn a_message_that_is_repeated_while_its_stale_turn_is_opened_is_answered_at_once() {
    for count in 0..15 {
        in_a_world(check_repeated_stale_turn(count));
    }
}

/// Cancels a request so many steps after it was sent with a stale history.
async fn check_stale_cancel(count: usize) {
    let house = House::paused();
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let (reply, answer) = oneshot::channel();
    let stale = house.join(&ask, reply).await;
    house.hear(&Ask::within(&thread, "earlier")).await;
    house.coalescer.send(stale).await.unwrap();
    steps(count).await;

    let cancellation = house.cancel(&ask.request).await;

    let heard = match answer.await.unwrap() {
        Ok(attachment) => Listener::new(attachment).heard().await,
        Err(_) => house.hear(&ask).await,
    };
    assert_eq!(heard.status(), "cancelled", "{cancellation:?} after {count} steps");
    assert_eq!(heard.done["message_id"], Value::Null, "there is no such message, after {count} steps");
    assert_eq!(house.messages(&OrgId::new("org"), &thread).await.len(), 2);
    house.is_quiet().await;
    house.all_is_settled(&[&thread], &[&ask]).await;
    house.forgets_everything().await;
}

#[test]
fn a_request_that_is_cancelled_while_its_stale_turn_is_opened_stays_cancelled() {
    for count in 0..15 {
        in_a_world(check_stale_cancel(count));
    }
}

/// Takes a request back whose turn is being opened, and ends the answer before the store has said anything.
#[derive(Message)]
#[rtype(result = "()")]
struct LeaveAndEndWhileOpening(RequestId);

impl Handler<LeaveAndEndWhileOpening> for Stream {
    type Result = ();

    fn handle(&mut self, LeaveAndEndWhileOpening(request): LeaveAndEndWhileOpening, ctx: &mut Context<Self>) {
        assert_eq!(self.opening, 1);
        assert_eq!(self.withdraw(&request, Status::Cancelled, ctx), Cancelled::Shared);
        self.abort_attempt();
        self.settle(ending::finished(&self.log, Finish { reason: FinishReason::Stop, native: None }), ctx);
    }
}

#[actix::test]
async fn a_request_that_was_told_it_is_cancelled_is_so_when_the_answer_ends_before_its_turn_is_open() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a"], 100)]);
    let (one, two) = (house.thread().await, house.thread().await);
    let (first, second) = (Ask::within(&one, "hi"), Ask::within(&two, "hi"));
    let listener = house.ask(&first).await.unwrap();
    let (reply, answer) = oneshot::channel();
    let join = house.join(&second, reply).await;
    let (begun, leaves) = (house.begin(join), LeaveAndEndWhileOpening(second.request.clone()));
    tokio::task::spawn_local(async move { begun.await.try_send(leaves) });

    let left = Listener::new(answer.await.unwrap().unwrap()).heard().await;

    assert_eq!((left.status(), listener.heard().await.status()), ("cancelled", "complete"));
    house.is_quiet().await;
    house.all_is_settled(&[&one, &two], &[&first, &second]).await;
    assert_eq!(house.stored(&second.request).await.unwrap().status, Status::Cancelled);
    house.forgets_everything().await;
}

/// Lets a stream open its turns, and stops it before the store has answered.
#[derive(Message)]
#[rtype(result = "()")]
struct StopWhileOpening;

impl Handler<StopWhileOpening> for Stream {
    type Result = ();

    fn handle(&mut self, _: StopWhileOpening, ctx: &mut Context<Self>) {
        Handler::handle(self, Admitted, ctx);
        assert_eq!(self.opening, 1);
        self.stop_all(Status::Cancelled, ctx);
    }
}

#[actix::test]
async fn a_turn_that_is_stopped_and_then_cannot_be_opened_names_no_message() {
    let house = House::paused();
    let thread = house.thread().await;
    let ask = Ask::within(&thread, "hi");
    let (reply, answer) = oneshot::channel();
    let stale = house.join(&ask, reply).await;
    house.hear(&Ask::within(&thread, "earlier")).await;

    let begun = house.begin(stale);
    tokio::task::spawn_local(async move { begun.await.try_send(StopWhileOpening) });

    let heard = Listener::new(answer.await.unwrap().unwrap()).heard().await;
    assert_eq!((heard.status(), heard.done.get("saved")), ("cancelled", None));
    assert_eq!((&heard.done["message_id"], &heard.done["user_message_id"]), (&Value::Null, &Value::Null));
    assert_eq!(house.messages(&OrgId::new("org"), &thread).await.len(), 2);
    assert_eq!(house.hear(&Ask::within(&thread, "ho")).await.status(), "complete", "the thread is free");
    house.forgets_everything().await;
}

/// Makes a stream panic.
#[derive(Message)]
#[rtype(result = "()")]
struct Break;

impl Handler<Break> for Stream {
    type Result = ();

    fn handle(&mut self, _: Break, _: &mut Context<Self>) {
        panic!("on purpose");
    }
}

#[actix::test]
async fn a_stream_that_breaks_ends_for_everybody_in_the_store_and_upstream() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b"], 1_000)]);
    let thread = house.thread().await;
    let asks = [Ask::within(&thread, "hi"), Ask::within(&thread, "hi"), Ask::new("hi")];
    let mut listeners = Vec::new();
    for ask in &asks {
        listeners.push(house.ask(ask).await.unwrap());
    }
    sleep(millis(1_500)).await;
    let stream = listeners[0].attachment.as_ref().unwrap().subscription().facts.stream.clone();

    let _ = house.stream(&stream).send(Break).await;

    for listener in listeners {
        let heard = listener.heard().await;
        assert_eq!((heard.status(), heard.code(), heard.text.as_str()), ("error", "internal", "a"));
    }
    assert_eq!(house.provider.live(), 0);
    assert_eq!(house.answers(&thread).await, [("error", "a".to_owned())]);
    house.all_is_settled(&[&thread], &asks.iter().collect::<Vec<_>>()).await;
    assert_eq!(house.hear(&Ask::within(&thread, "ho")).await.status(), "complete");
    house.forgets_everything().await;
}

#[actix::test]
async fn a_request_on_its_way_to_a_stream_that_breaks_is_asked_again() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b"], 1_000)]);
    let first = house.ask(&Ask::new("hi")).await.unwrap();
    sleep(millis(500)).await;
    let stream = first.attachment.as_ref().unwrap().subscription().facts.stream.clone();
    let addr = house.stream(&stream);
    let ask = Ask::new("hi");

    drop(addr.try_send(Break));
    let answer = house.ask_once(&ask).await;

    assert_eq!(answer.await.unwrap().err(), Some(NotJoined::JustEnded));
    assert_eq!(house.hear(&ask).await.text, "Hello world");
    assert_eq!(first.heard().await.code(), "internal");
    house.forgets_everything().await;
}

#[actix::test]
async fn a_request_that_is_cancelled_on_its_way_to_a_stream_that_breaks_stays_cancelled() {
    let house = House::paused();
    house.provider.plays([Script::says(&["a", "b"], 1_000)]);
    let first = house.ask(&Ask::new("hi")).await.unwrap();
    sleep(millis(500)).await;
    let stream = first.attachment.as_ref().unwrap().subscription().facts.stream.clone();
    let addr = house.stream(&stream);
    let ask = Ask::new("hi");
    drop(addr.try_send(Break));
    let answer = house.ask_once(&ask).await;

    house.cancel(&ask.request).await;

    assert_eq!(answer.await.unwrap().err(), Some(NotJoined::JustEnded));
    assert_eq!(house.hear(&ask).await.status(), "cancelled");
    assert_eq!(house.provider.called(), 1);
}

#[actix::test]
async fn whoever_asks_for_a_request_finds_it_while_it_runs_and_for_a_while_after() {
    let house = House::paused();
    let ask = Ask::new("hi");
    assert!(house.coalescer.send(Find(ask.request.clone())).await.unwrap().is_none());
    let heard = house.hear(&ask).await;

    let found = house.coalescer.send(Find(ask.request.clone())).await.unwrap().unwrap();

    assert_eq!(Listener::new(Attachment::new(found.0).unwrap()).heard().await.frames, heard.frames);
    sleep(millis(61_000)).await;
    assert!(house.coalescer.send(Find(ask.request)).await.unwrap().is_none());
    house.forgets_everything().await;
}

#[actix::test]
async fn what_ended_streams_hold_is_bounded_and_the_oldest_go_first() {
    let mut plan = Plan::default();
    plan.limits.retained_bytes_max = 100_000;
    let house = House::build(plan);
    *house.provider.author.borrow_mut() = Some(Box::new(|| Script::says(&["x".repeat(10_000).as_str()], 1)));
    let asks: Vec<_> = (0..20).map(|index| Ask::new(&format!("{index}"))).collect();
    for ask in &asks {
        house.hear(ask).await;
    }

    let retained = house.load().await.retained;

    assert!((3..=5).contains(&retained), "{retained} answers of 20 kB are held");
    let find = |ask: &Ask| house.coalescer.send(Find(ask.request.clone()));
    assert!(find(&asks[0]).await.unwrap().is_none());
    assert!(find(&asks[19]).await.unwrap().is_some());
    house.forgets_everything().await;
}

#[test]
fn an_answer_that_runs_when_the_runtime_goes_still_ends() {
    let subscription = in_a_world(async {
        let house = House::paused();
        house.provider.plays([Script::says(&["a", "b"], 1_000)]);
        let thread = house.thread().await;
        let listener = house.ask(&Ask::within(&thread, "hi")).await.unwrap();
        sleep(millis(1_500)).await;
        listener.attachment.as_ref().unwrap().subscription().clone()
    });

    assert_eq!(subscription.end().unwrap().outcome.failure.as_ref().unwrap().code, Code::Internal);
}

/// Takes a request back, and has the pacer refuse the answer before it has taken it in.
#[derive(Message)]
#[rtype(result = "()")]
struct LeaveAndRefuse(RequestId);

impl Handler<LeaveAndRefuse> for Stream {
    type Result = ();

    fn handle(&mut self, LeaveAndRefuse(request): LeaveAndRefuse, ctx: &mut Context<Self>) {
        assert_eq!((self.state, self.interests.len()), (State::Asking, 2));
        assert_eq!(self.withdraw(&request, Status::Cancelled, ctx), Cancelled::Shared);
        self.abort_attempt();
        let busy = Failure::new(Code::ProviderBusy, "the provider's queue is full");
        Handler::handle(self, AttemptEnded(Err(busy)), ctx);
    }
}

#[actix::test]
async fn a_request_that_was_told_it_is_cancelled_is_so_when_the_pacer_refuses_its_answer() {
    let house = House::paused();
    let (one, two) = (house.thread().await, house.thread().await);
    let (stays, leaves) = (Ask::within(&one, "hi"), Ask::within(&two, "hi"));
    let (reply, refused) = oneshot::channel();
    let first = house.join(&stays, reply).await;
    let (reply, answer) = oneshot::channel();
    let second = house.join(&leaves, reply).await;

    house.coalescer.try_send(first).unwrap();
    let (begun, leave) = (house.begin(second), LeaveAndRefuse(leaves.request.clone()));
    tokio::task::spawn_local(async move { begun.await.try_send(leave) });

    let heard = Listener::new(answer.await.unwrap().unwrap()).heard().await;
    assert_eq!((heard.status(), &heard.done["message_id"]), ("cancelled", &Value::Null));
    let refusal = refused.await.unwrap().unwrap_err();
    assert!(matches!(&refusal, NotJoined::Failed(failure) if failure.code == Code::ProviderBusy), "{refusal:?}");
    house.forgets_everything().await;
}
