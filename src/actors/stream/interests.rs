//! Who is interested in one answer, by thread. Pure: replies and subscribers are any type.

use std::collections::HashMap;

use crate::actors::coalescer::tables::TurnIds;
use crate::chat::{MessageId, RequestId, ThreadId};

/// One request's interest.
#[derive(Debug)]
struct Interest<S> {
    subscriber: S,
    /// The group that it belongs to: its turn's answer, or nothing when it belongs to no thread.
    group: Option<MessageId>,
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
}

impl<S, W> Default for Interests<S, W> {
    fn default() -> Self {
        Self { by_request: HashMap::new(), groups: HashMap::new() }
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
        self.by_request.insert(request, Interest { subscriber, group: name });
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

    /// All groups, to change them.
    pub fn groups_mut(&mut self) -> impl Iterator<Item = &mut Group<W>> {
        self.groups.values_mut()
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
    pub fn withdraw(&mut self, request: &RequestId) -> Withdrawn<S, W> {
        let Some(interest) = self.by_request.get(request) else { return Withdrawn::Unknown };
        if self.by_request.len() == 1 {
            return Withdrawn::Last;
        }
        let name = interest.group.clone();
        let members = self.groups.get(&name).map_or(0, |group| group.members);
        let Some(interest) = self.by_request.remove(request) else { return Withdrawn::Unknown };
        if members > 1 {
            if let Some(group) = self.groups.get_mut(&name) {
                group.members -= 1;
            }
            return Withdrawn::Shared(interest.subscriber);
        }
        match self.groups.remove(&name) {
            Some(group) => Withdrawn::TurnOver(interest.subscriber, group),
            None => Withdrawn::Shared(interest.subscriber),
        }
    }

    /// Takes a whole turn out, because it could not be opened.
    pub fn remove_turn(&mut self, answer: Option<&MessageId>) -> (Vec<(RequestId, S)>, Option<Group<W>>) {
        let name = answer.cloned();
        let members = self.by_request.extract_if(|_, interest| interest.group == name);
        let members = members.map(|(request, interest)| (request, interest.subscriber)).collect();
        (members, self.groups.remove(&name))
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

    /// Whether nobody is interested.
    pub fn is_empty(&self) -> bool {
        self.by_request.is_empty()
    }

    /// The threads whose turns this answer makes.
    pub fn turns(&self) -> impl Iterator<Item = &TurnIds> {
        self.groups.values().filter_map(|group| group.turn.as_ref())
    }
}
