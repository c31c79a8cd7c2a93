//! Queue: in which order those who wait for a provider are served. Pure; who waits is any type.
//!
//! User messages go before background calls. These age meanwhile: after [`PASSES_MAX`] user messages that went before
//! them, it is the turn of one. Within each class organisations are served in turn, within an organisation its
//! principals, and the callers of one principal in order of arrival. So nobody who waits is left out, whoever floods; nor
//! is anybody who comes when the queue is full of somebody else's calls ([`Queue::make_room`]).

use std::collections::VecDeque;

use crate::chat::{Asker, OrgId, Principal, Priority};

/// User messages in a row that go before a waiting background call.
const PASSES_MAX: u32 = 7;

/// Somebody makes room for a newcomer who has at least so many fewer waiting.
const SURPLUS_MIN: usize = 2;

/// See the module.
#[derive(Debug)]
pub(super) struct Queue<T> {
    user: Class<T>,
    background: Class<T>,
    /// User messages that have gone before the background calls that wait.
    passes: u32,
}

/// The organisations of one priority; the front one is next, and goes to the back when it has been served.
#[derive(Debug)]
struct Class<T>(VecDeque<Org<T>>);

/// The principals of one organisation, in the same way.
#[derive(Debug)]
struct Org<T> {
    id: OrgId,
    lines: VecDeque<Line<T>>,
}

/// The callers of one principal, in order of arrival; never empty.
#[derive(Debug)]
struct Line<T> {
    principal: Principal,
    waiting: VecDeque<T>,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { user: Class(VecDeque::new()), background: Class(VecDeque::new()), passes: 0 }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.user.len() + self.background.len()
    }

    /// Puts somebody at the end of its principal's line.
    pub(super) fn push_back(&mut self, asker: &Asker, who: T) {
        self.class(asker.priority).push_back(asker, who);
    }

    /// Puts somebody before everybody of its organisation and priority.
    pub(super) fn push_front(&mut self, asker: &Asker, who: T) {
        self.class(asker.priority).push_front(asker, who);
    }

    /// Takes out the newest caller of whoever has more than a fair share, in favour of a newcomer: of the background
    /// calls for a user message; otherwise, at the same priority, of the organisation with the most callers, or of the
    /// principal with the most in the newcomer's own.
    pub(super) fn make_room(&mut self, newcomer: &Asker) -> Option<T> {
        let class = match newcomer.priority {
            Priority::User if !self.background.0.is_empty() => return self.background.pop_newest(None),
            Priority::User => &mut self.user,
            Priority::Background => &mut self.background,
        };
        let own = class.0.iter().position(|org| org.id == newcomer.org);
        let own_len = own.map_or(0, |at| class.0[at].len());
        if class.0.iter().any(|org| org.len() >= own_len + SURPLUS_MIN) {
            return class.pop_newest(None);
        }
        let org = &class.0[own?];
        let own_len = org.lines.iter().find(|line| line.principal == newcomer.principal).map_or(0, Line::len);
        org.lines.iter().any(|line| line.len() >= own_len + SURPLUS_MIN).then(|| class.pop_newest(own))?
    }

    fn class(&mut self, priority: Priority) -> &mut Class<T> {
        match priority {
            Priority::User => &mut self.user,
            Priority::Background => {
                if self.background.0.is_empty() {
                    self.passes = 0;
                }
                &mut self.background
            }
        }
    }

    fn is_background_next(&self) -> bool {
        !self.background.0.is_empty() && (self.user.0.is_empty() || self.passes >= PASSES_MAX)
    }

    /// Whose turn it is.
    pub(super) fn next(&self) -> Option<&T> {
        let class = if self.is_background_next() { &self.background } else { &self.user };
        class.0.front()?.lines.front()?.waiting.front()
    }

    /// Takes out the one whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.is_background_next() {
            self.passes = 0;
            return self.background.pop();
        }
        let served = self.user.pop()?;
        self.passes = if self.background.0.is_empty() { 0 } else { self.passes + 1 };
        Some(served)
    }

    /// Everybody, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.user.iter().chain(self.background.iter())
    }

    /// Everybody in the order in which they will be served, if nobody comes or goes.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &T> {
        let (user, background) = (self.user.by_ref(), self.background.by_ref());
        let mut copy = Queue { user, background, passes: self.passes };
        std::iter::from_fn(move || copy.pop())
    }

    /// Takes out everybody for whom `is_out` holds.
    pub(super) fn remove(&mut self, mut is_out: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        for class in [&mut self.user, &mut self.background] {
            for line in class.0.iter_mut().flat_map(|org| &mut org.lines) {
                let waiting = std::mem::take(&mut line.waiting);
                let (out, stays): (VecDeque<_>, _) = waiting.into_iter().partition(&mut is_out);
                line.waiting = stays;
                removed.extend(out);
            }
            class.0.iter_mut().for_each(|org| org.lines.retain(|line| !line.waiting.is_empty()));
            class.0.retain(|org| !org.lines.is_empty());
        }
        removed
    }
}

impl<T> Class<T> {
    fn len(&self) -> usize {
        self.0.iter().map(Org::len).sum()
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|org| &org.lines).flat_map(|line| &line.waiting)
    }

    fn by_ref(&self) -> Class<&T> {
        let orgs =
            self.0.iter().map(|org| Org { id: org.id.clone(), lines: org.lines.iter().map(Line::by_ref).collect() });
        Class(orgs.collect())
    }

    fn pop(&mut self) -> Option<T> {
        let mut org = self.0.pop_front()?;
        let mut line = org.lines.pop_front()?;
        let served = line.waiting.pop_front();
        if !line.waiting.is_empty() {
            org.lines.push_back(line);
        }
        if !org.lines.is_empty() {
            self.0.push_back(org);
        }
        served
    }

    /// Takes out who came last of the longest line of this organisation, or of the one that has the most callers.
    fn pop_newest(&mut self, org: Option<usize>) -> Option<T> {
        let longest = || (0..self.0.len()).max_by_key(|at| self.0[*at].len());
        let at = org.or_else(longest)?;
        let lines = &mut self.0.get_mut(at)?.lines;
        let line_at = (0..lines.len()).max_by_key(|at| lines[*at].len())?;
        let newest = lines[line_at].waiting.pop_back();
        lines.retain(|line| !line.waiting.is_empty());
        if lines.is_empty() {
            self.0.remove(at);
        }
        newest
    }

    fn push_back(&mut self, asker: &Asker, who: T) {
        let lines = self.lines(&asker.org);
        match lines.iter_mut().find(|line| line.principal == asker.principal) {
            Some(line) => line.waiting.push_back(who),
            None => lines.push_back(Line { principal: asker.principal.clone(), waiting: VecDeque::from([who]) }),
        }
    }

    fn push_front(&mut self, asker: &Asker, who: T) {
        let lines = self.lines(&asker.org);
        let own = lines.iter().position(|line| line.principal == asker.principal).and_then(|at| lines.remove(at));
        let mut waiting = own.map(|line| line.waiting).unwrap_or_default();
        waiting.push_front(who);
        lines.push_front(Line { principal: asker.principal.clone(), waiting });
    }

    fn lines(&mut self, org: &OrgId) -> &mut VecDeque<Line<T>> {
        let at = self.0.iter().position(|known| known.id == *org).unwrap_or_else(|| {
            self.0.push_back(Org { id: org.clone(), lines: VecDeque::new() });
            self.0.len() - 1
        });
        &mut self.0[at].lines
    }
}

impl<T> Org<T> {
    fn len(&self) -> usize {
        self.lines.iter().map(Line::len).sum()
    }
}

impl<T> Line<T> {
    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn by_ref(&self) -> Line<&T> {
        Line { principal: self.principal.clone(), waiting: self.waiting.iter().collect() }
    }
}
