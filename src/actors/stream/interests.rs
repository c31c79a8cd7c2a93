//! Who is interested in one answer, by thread. Pure: replies and subscribers are any type.

use std::collections::HashMap;

use crate::actors::coalescer::tables::TurnIds;
use crate::chat::{MessageId, RequestId, ThreadId};
use crate::event::Status;

/// One request's interest.
#[derive(Debug)]
struct Interest<S> {
    subscriber: S,
    /// The group that it belongs to: its turn's answer, or nothing when it belongs to no thread.
    group: Option<MessageId>,
    /// It will leave like this once its turn is open: the store cannot end what it does not have.
    leaving: Option<Status>,
}

/// The requests of one thread, or those without a thread.
#[derive(Debug)]
pub struct Group<W> {
    /// The turn's messages.
    pub turn: Option<TurnIds>,
    /// Whether the turn is kept by the store.
    pub open: bool,
    /// Requests that have not been answered yet, because the turn is not open.
    pub waiting: Vec<(RequestId, W)>,
    members: usize,
}

/// What a withdrawal leaves behind.
#[derive(Debug)]
pub enum Withdrawn<S, W> {
    /// No such interest.
    Unknown,
    /// It leaves once its turn is open.
    Later,
    /// Others of the same thread are still interested.
    Shared(S),
    /// The thread's turn is over, other threads are still interested.
    TurnOver(S, Group<W>),
    /// Nobody is interested any more. The interest is still listed: the answer ends for it.
    Last,
}

/// All interests in one answer.
#[derive(Debug)]
pub struct Interests<S, W> {
    by_request: HashMap<RequestId, Interest<S>>,
    groups: HashMap<Option<MessageId>, Group<W>>,
    /// How many of them are about to leave.
    leaving: usize,
}

impl<S, W> Default for Interests<S, W> {
    fn default() -> Self {
        Self { by_request: HashMap::new(), groups: HashMap::new(), leaving: 0 }
    }
}

impl<S, W> Interests<S, W> {
    /// Adds a request; the group of its turn must be opened by the caller when this says so.
    pub fn add(&mut self, request: RequestId, turn: Option<&TurnIds>, subscriber: S) -> bool {
        let name = turn.map(|turn| turn.answer.clone());
        let is_new = !self.groups.contains_key(&name);
        let group = self.groups.entry(name.clone()).or_insert_with(|| Group {
            turn: turn.cloned(),
            open: false,
            waiting: Vec::new(),
            members: 0,
        });
        group.members += 1;
        self.by_request.insert(request, Interest { subscriber, group: name, leaving: None });
        is_new
    }

    /// Whether a thread's turn is among the groups.
    pub fn has_turn(&self, turn: Option<&TurnIds>) -> bool {
        self.groups.contains_key(&turn.map(|turn| turn.answer.clone()))
    }

    /// The group of a turn.
    pub fn group_mut(&mut self, answer: Option<&MessageId>) -> Option<&mut Group<W>> {
        self.groups.get_mut(&answer.cloned())
    }

    /// The turn of a thread.
    pub fn turn_of(&self, thread: &ThreadId) -> Option<&TurnIds> {
        self.groups.values().filter_map(|group| group.turn.as_ref()).find(|turn| turn.thread == *thread)
    }

    /// The requests of one turn.
    pub fn members(&self, answer: &MessageId) -> Vec<RequestId> {
        let of_group = self.by_request.iter().filter(|(_, interest)| interest.group.as_ref() == Some(answer));
        of_group.map(|(request, _)| request.clone()).collect()
    }

    /// Takes one request's interest back.
    pub fn withdraw(&mut self, request: &RequestId, status: Status) -> Withdrawn<S, W> {
        let staying = self.staying();
        let Some(interest) = self.by_request.get_mut(request) else { return Withdrawn::Unknown };
        if interest.leaving.is_some() {
            return Withdrawn::Later;
        }
        if staying == 1 {
            return Withdrawn::Last;
        }
        let name = interest.group.clone();
        let Some(group) = self.groups.get_mut(&name) else { return Withdrawn::Unknown };
        if !group.open {
            interest.leaving = Some(status);
            self.leaving += 1;
            return Withdrawn::Later;
        }
        group.members -= 1;
        let is_over = group.members == 0;
        let Some(Interest { subscriber, .. }) = self.by_request.remove(request) else { return Withdrawn::Unknown };
        match is_over.then(|| self.groups.remove(&name)).flatten() {
            Some(group) => Withdrawn::TurnOver(subscriber, group),
            None => Withdrawn::Shared(subscriber),
        }
    }

    /// The turn of a request, when all who asked for it are about to leave.
    pub fn given_up(&self, request: &RequestId) -> Option<&TurnIds> {
        let turn = self.groups.get(&self.by_request.get(request)?.group)?.turn.as_ref()?;
        (self.staying_of(&turn.answer) == 0).then_some(turn)
    }

    /// The requests of a turn that wanted to leave before it was open. They are staying again.
    pub fn take_leaving(&mut self, answer: Option<&MessageId>) -> Vec<(RequestId, Status)> {
        self.take_leaving_of(|group| group.as_ref() == answer)
    }

    /// The same of every turn.
    pub fn take_all_leaving(&mut self) -> Vec<(RequestId, Status)> {
        self.take_leaving_of(|_| true)
    }

    fn take_leaving_of(&mut self, is_asked_for: impl Fn(&Option<MessageId>) -> bool) -> Vec<(RequestId, Status)> {
        if self.leaving == 0 {
            return Vec::new();
        }
        let of_group = self.by_request.iter_mut().filter(|(_, interest)| is_asked_for(&interest.group));
        let leaving = of_group.filter_map(|(request, interest)| Some((request.clone(), interest.leaving.take()?)));
        let leaving: Vec<_> = leaving.collect();
        self.leaving -= leaving.len();
        leaving
    }

    /// Takes a whole turn out.
    pub fn remove_turn(&mut self, answer: Option<&MessageId>) -> (Vec<(RequestId, S)>, Option<Group<W>>) {
        let name = answer.cloned();
        let mut leaving = 0;
        let members = self.by_request.extract_if(|_, interest| interest.group == name);
        let members = members.map(|(request, interest)| {
            leaving += usize::from(interest.leaving.is_some());
            (request, interest.subscriber)
        });
        let members = members.collect();
        self.leaving -= leaving;
        (members, self.groups.remove(&name))
    }

    /// Takes one request out, however it stands.
    pub fn remove(&mut self, request: &RequestId) -> Option<S> {
        let interest = self.by_request.remove(request)?;
        self.leaving -= usize::from(interest.leaving.is_some());
        if let Some(group) = self.groups.get_mut(&interest.group) {
            group.members -= 1;
        }
        Some(interest.subscriber)
    }

    /// Takes out what waits for an answer, everywhere.
    pub fn take_waiting(&mut self) -> Vec<(RequestId, W)> {
        self.groups.values_mut().flat_map(|group| group.waiting.drain(..)).collect()
    }

    /// The subscriber of a request.
    pub fn get(&self, request: &RequestId) -> Option<&S> {
        self.by_request.get(request).map(|interest| &interest.subscriber)
    }

    /// Everybody who is still interested.
    pub fn iter(&self) -> impl Iterator<Item = (&RequestId, &S)> {
        self.by_request.iter().map(|(request, interest)| (request, &interest.subscriber))
    }

    /// How many requests are interested.
    pub fn len(&self) -> usize {
        self.by_request.len()
    }

    /// How many of them are not about to leave.
    pub fn staying(&self) -> usize {
        self.by_request.len() - self.leaving
    }

    /// How many requests of one turn are not about to leave.
    pub fn staying_of(&self, answer: &MessageId) -> usize {
        let of_group = self.by_request.values().filter(|interest| interest.group.as_ref() == Some(answer));
        of_group.filter(|interest| interest.leaving.is_none()).count()
    }

    /// Whether nobody is interested.
    pub fn is_empty(&self) -> bool {
        self.by_request.is_empty()
    }

    /// The threads whose turns this answer makes.
    pub fn turns(&self) -> impl Iterator<Item = &TurnIds> {
        self.groups.values().filter_map(|group| group.turn.as_ref())
    }
}
