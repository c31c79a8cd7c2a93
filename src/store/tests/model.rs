//! The store against a model: random turns, checkpoints, ends, deletions and deaths of the process, in any order.

use futures_util::future::join_all;
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;

use super::*;
use crate::store::{Recovered, Settled, StoreError};

/// One thing that happens. An [`Index`] picks among what there is.
#[derive(Debug, Clone)]
enum Step {
    /// A thread is made.
    Create,
    /// So many turns want to be next in a thread.
    Race { thread: Index, racers: usize },
    /// A turn wants to be next whose history is old.
    Late { thread: Index },
    /// An answer is generated anew.
    Regenerate { thread: Index },
    /// A request joins a turn, running or not.
    Follow { turn: Index },
    /// An answer grows.
    Checkpoint { turn: Index, text: String },
    /// An answer ends, perhaps not for the first time.
    Settle { turn: Index, status: Status, text: String },
    /// The first request of a turn is withdrawn.
    Withdraw { turn: Index },
    /// What is old and what has ended is looked for.
    Purge,
    /// A thread goes.
    Delete { thread: Index },
    /// The process dies; the next one finds the files as they are.
    Die,
    /// The process ends in good order.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    let text = || "[a-z ]{0,12}|\u{1F469}\u{200D}\u{1F4BB}\0\n";
    let end =
        prop_oneof![Just(Status::Complete), Just(Status::Cancelled), Just(Status::Error), Just(Status::Interrupted)];
    prop_oneof![
        2 => Just(Step::Create),
        6 => (index(), 1..4_usize).prop_map(|(thread, racers)| Step::Race { thread, racers }),
        1 => index().prop_map(|thread| Step::Late { thread }),
        2 => index().prop_map(|thread| Step::Regenerate { thread }),
        2 => index().prop_map(|turn| Step::Follow { turn }),
        6 => (index(), text()).prop_map(|(turn, text)| Step::Checkpoint { turn, text }),
        6 => (index(), end, text()).prop_map(|(turn, status, text)| Step::Settle { turn, status, text }),
        1 => index().prop_map(|turn| Step::Withdraw { turn }),
        2 => Just(Step::Purge),
        1 => index().prop_map(|thread| Step::Delete { thread }),
        1 => Just(Step::Die),
        1 => Just(Step::Restart),
    ]
}

/// A message as the model knows it.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    id: MessageId,
    status: Status,
    text: String,
}

/// A turn and the requests that wait for it.
struct Turn {
    opened: OpenTurn,
    requests: Vec<(RequestId, Status)>,
}

/// What the store should hold.
#[derive(Default)]
struct Model {
    threads: Vec<(ThreadId, Vec<Said>)>,
    deleted: Vec<ThreadId>,
    gone: Vec<RequestId>,
    turns: Vec<Turn>,
}

impl Model {
    fn messages(&mut self, thread: &ThreadId) -> Option<&mut Vec<Said>> {
        self.threads.iter_mut().find(|(id, _)| id == thread).map(|(_, messages)| messages)
    }

    fn answer(&mut self, turn: usize) -> Option<&mut Said> {
        let OpenTurn { thread, answer, .. } = self.turns[turn].opened.clone();
        self.messages(&thread)?.iter_mut().find(|said| said.id == answer)
    }

    fn opened(&mut self, turn: &OpenTurn) {
        let messages = self.messages(&turn.thread).unwrap();
        if let Some(user) = &turn.user {
            let text = user.content.text().into_owned();
            messages.push(Said { id: user.id.clone(), status: Status::Complete, text });
        }
        messages.push(Said { id: turn.answer.clone(), status: Status::Streaming, text: String::new() });
        let requests = vec![(turn.request.id.clone(), Status::Streaming)];
        self.turns.push(Turn { opened: turn.clone(), requests });
    }

    /// Ends what runs of a turn's requests; says how many did.
    fn end_requests(&mut self, turn: usize, requests_max: usize, status: Status) -> usize {
        let running = self.turns[turn].requests.iter_mut().take(requests_max);
        running.filter(|(_, now)| *now == Status::Streaming).map(|(_, now)| *now = status).count()
    }

    /// Ends everything that runs.
    fn interrupted(&mut self) -> Recovered {
        let statuses = self.threads.iter_mut().flat_map(|(_, messages)| messages).map(|said| &mut said.status);
        let messages = statuses.filter(|status| **status == Status::Streaming);
        let messages = messages.map(|status| *status = Status::Interrupted).count() as u64;
        let requests = (0..self.turns.len()).map(|turn| self.end_requests(turn, usize::MAX, Status::Interrupted));
        Recovered { messages, requests: requests.sum::<usize>() as u64 }
    }
}

/// The store, its files, and what it should hold.
struct Run {
    dir: TempDir,
    store: Store,
    model: Model,
}

fn start(dir: &Path) -> Store {
    // What dies here is the process, not the machine: nothing has to wait for the disk.
    Store::open_with(&in_dir(dir), |_: &Path| Ok(Box::new(|| Ok(())))).unwrap()
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: start(dir.path()), dir, model: Model::default() }
    }

    fn pick_thread(&self, index: &Index) -> Option<(ThreadId, i64)> {
        let threads = &self.model.threads;
        let (id, messages) = (!threads.is_empty()).then(|| index.get(threads))?;
        Some((id.clone(), messages.len() as i64))
    }

    fn pick_turn(&self, index: &Index) -> Option<usize> {
        (!self.model.turns.is_empty()).then(|| index.index(self.model.turns.len()))
    }

    /// Does one step. `None` when there is nothing yet that it could be done to.
    async fn step(&mut self, step: Step) -> Option<()> {
        match step {
            Step::Create => self.model.threads.push((thread_of(&self.store, &acme()).await, Vec::new())),
            Step::Race { thread, racers } => self.race(self.pick_thread(&thread)?, racers).await,
            Step::Late { thread } => {
                let (thread, next) = self.pick_thread(&thread)?;
                let late = turn(&acme(), &thread, next - 1, "late");
                assert_eq!(self.store.open_turn(late).await, Err(StoreError::SequenceMoved));
            }
            Step::Regenerate { thread } => {
                let (thread, next) = self.pick_thread(&thread)?;
                let again = regeneration(&acme(), &thread, next);
                assert_eq!(self.store.open_turn(again.clone()).await, Ok(()));
                self.model.opened(&again);
            }
            Step::Follow { turn } => self.follow(self.pick_turn(&turn)?).await,
            Step::Checkpoint { turn, text } => {
                let turn = self.pick_turn(&turn)?;
                self.store.checkpoint(checkpoint(&self.model.turns[turn].opened, &text));
                let running = self.model.answer(turn).filter(|said| said.status == Status::Streaming);
                running.into_iter().for_each(|said| said.text.clone_from(&text));
            }
            Step::Settle { turn, status, text } => self.settle(self.pick_turn(&turn)?, status, text).await,
            Step::Withdraw { turn } => {
                let turn = self.pick_turn(&turn)?;
                let requests = settle(&self.model.turns[turn].opened, Status::Cancelled, "").requests;
                let expected = self.model.end_requests(turn, 1, Status::Cancelled);
                assert_eq!(self.store.end_requests(requests).await, Ok(expected));
            }
            Step::Purge => purge_all(&self.store).await,
            Step::Delete { thread } => {
                let (thread, _) = self.pick_thread(&thread)?;
                assert_eq!(self.store.delete_thread(&acme(), &thread).await, Ok(()));
                self.model.threads.retain(|(id, _)| *id != thread);
                let gone = self.model.turns.iter_mut().filter(|turn| turn.opened.thread == thread);
                let gone = gone.flat_map(|turn| turn.requests.drain(..)).map(|(id, _)| id);
                self.model.gone.extend(gone);
                self.model.deleted.push(thread);
            }
            Step::Die => {
                self.store.ping().await.unwrap(); // Everything before it is written.
                let next = tempfile::tempdir().unwrap();
                copy_files(self.dir.path(), next.path());
                self.restart(next).await;
            }
            Step::Restart => {
                let same = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
                self.restart(same).await;
            }
        }
        Some(())
    }

    async fn race(&mut self, (thread, next): (ThreadId, i64), racers: usize) {
        let turns: Vec<_> = (0..racers).map(|n| turn(&acme(), &thread, next, &format!("racer {n}"))).collect();
        let results = join_all(turns.iter().map(|turn| self.store.open_turn(turn.clone()))).await;
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1, "{results:?}");
        for (turn, result) in turns.iter().zip(results) {
            match result {
                Ok(()) => self.model.opened(turn),
                Err(error) => assert_eq!(error, StoreError::SequenceMoved),
            }
        }
    }

    async fn follow(&mut self, turn: usize) {
        let OpenTurn { thread, answer, stream, .. } = self.model.turns[turn].opened.clone();
        let follower = NewRequest { turn: Some((thread.clone(), None, answer)), stream, ..request(&acme()) };
        let added = self.store.add_request(follower.clone()).await;
        if self.model.deleted.contains(&thread) {
            assert_eq!(added, Err(StoreError::ThreadNotFound));
        } else {
            assert_eq!(added, Ok(()));
            self.model.turns[turn].requests.push((follower.id, Status::Streaming));
        }
    }

    async fn settle(&mut self, turn: usize, status: Status, text: String) {
        let mut last = settle(&self.model.turns[turn].opened, status, &text);
        let end = last.requests[0].clone();
        let requests = self.model.turns[turn].requests.iter();
        last.requests = requests.map(|(id, _)| EndedRequest { id: id.clone(), ..end.clone() }).collect();

        let requests = self.model.end_requests(turn, usize::MAX, status);
        let running = self.model.answer(turn).filter(|said| said.status == Status::Streaming);
        let answers = running.into_iter().map(|said| (said.status, said.text) = (status, text.clone())).count();
        assert_eq!(self.store.settle(last).await, Ok(Settled { answers, requests }));
    }

    /// Goes on with the files in `dir`.
    async fn restart(&mut self, dir: TempDir) {
        self.store.close().await;
        self.store = start(dir.path());
        self.dir = dir;
        let expected = self.model.interrupted();
        assert_eq!(self.store.stats().recovered, expected);
    }

    /// The store holds what the model does, and nothing else.
    async fn check(&self) {
        self.store.ping().await.unwrap(); // Checkpoints are not answered.
        let (listed, _) = self.store.list_threads(&acme(), usize::MAX, None).await.unwrap();
        assert_eq!(listed.len(), self.model.threads.len());
        for (thread, expected) in &self.model.threads {
            let (_, messages) = read(&self.store, &acme(), thread).await;
            assert!(messages.iter().map(|message| message.sequence).eq(0..expected.len() as i64));
            let text = |message: &Message| message.content.text().into_owned();
            let said = |message: &Message| Said { id: message.id.clone(), status: message.status, text: text(message) };
            assert_eq!(messages.iter().map(said).collect::<Vec<_>>(), *expected);
            let history = history(&self.store, &acme(), thread).await;
            assert_eq!(history.next_sequence, expected.len() as i64);
            assert!(history.messages.iter().all(|message| message.status != Status::Streaming));
        }
        for thread in &self.model.deleted {
            assert_eq!(self.store.thread(&acme(), thread, 1, None).await, Ok(None));
        }
        for id in &self.model.gone {
            assert_eq!(self.store.request(id).await, Ok(None));
        }
        for (id, status) in self.model.turns.iter().flat_map(|turn| &turn.requests) {
            let kept = self.store.request(id).await.unwrap().unwrap();
            assert_eq!((kept.status, kept.ended_at.is_some()), (*status, *status != Status::Streaming));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_store_holds_what_it_was_told_whatever_happens_in_whatever_order(
        steps in proptest::collection::vec(step(), 1..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            for step in steps {
                let _ = run.step(step).await;
                run.check().await;
            }
            run.store.close().await;
            assert!(is_whole(&run.dir.path().join("weir.db")));
        });
    }
}
