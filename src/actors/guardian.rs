//! Guardian: starts the permanent actors and starts them again when they die.
//!
//! Owns the recipes of its children and the restart budget. A child holds a [`Link`]; when the child goes, by a panic
//! or otherwise, the link tells the guardian. Children that die more often than the budget allows end the process,
//! because a table that keeps breaking is not to be trusted.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use parking_lot::RwLock;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// This many restarts within [`BUDGET_TIME`] are one too many.
const BUDGET: usize = 5;
/// See [`BUDGET`].
const BUDGET_TIME: Duration = Duration::from_secs(30);

// --- Protocol ---------------------------------------------------------------

/// Held by a permanent actor; tells the guardian when the actor goes.
#[derive(Debug, Default)]
pub struct Link(Option<(usize, Recipient<Down>)>);

/// Private: a child has gone.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
struct Down {
    child: usize,
    panicked: bool,
}

/// Puts a child under guard and starts it.
#[derive(Message)]
#[rtype(result = "()")]
struct Guard {
    name: String,
    start: Box<dyn FnMut(Link) + Send>,
}

/// The address of a permanent actor, which changes when the actor is restarted.
pub struct Address<A: Actor>(Arc<RwLock<Option<Addr<A>>>>);

impl<A: Actor> Clone for Address<A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<A: Actor> Default for Address<A> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<A: Actor> std::fmt::Debug for Address<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Address")
    }
}

impl<A: Actor> Address<A> {
    /// The actor's present address, once it has been started.
    pub fn get(&self) -> Option<Addr<A>> {
        self.0.read().clone()
    }

    pub(super) fn set(&self, addr: Addr<A>) {
        *self.0.write() = Some(addr);
    }
}

impl Drop for Link {
    #[expect(clippy::disallowed_methods, reason = "one message in the life of a permanent actor")]
    fn drop(&mut self) {
        if let Some((child, guardian)) = self.0.take() {
            guardian.do_send(Down { child, panicked: std::thread::panicking() });
        }
    }
}

/// Starts an actor under guard; it is found under the returned address, also after a restart.
pub async fn guard<A: Actor<Context = Context<A>>>(
    guardian: &Addr<Guardian>,
    name: impl Into<String>,
    mut make: impl FnMut(Link) -> A + Send + 'static,
) -> Address<A> {
    let address = Address::default();
    let published = address.clone();
    let start = Box::new(move |link: Link| published.set(make(link).start()));
    let started = guardian.send(Guard { name: name.into(), start }).await;
    debug_assert!(started.is_ok(), "the guardian lives as long as its arbiter");
    address
}

// --- Actor ------------------------------------------------------------------

/// See the module.
pub struct Guardian {
    children: Vec<Guard>,
    restarts: VecDeque<Instant>,
    /// Told when the budget is spent.
    give_up: Option<oneshot::Sender<()>>,
}

impl Guardian {
    /// A guardian without children. `give_up` hears of it when the budget is spent.
    pub fn new(give_up: oneshot::Sender<()>) -> Self {
        Self { children: Vec::new(), restarts: VecDeque::new(), give_up: Some(give_up) }
    }

    fn within_budget(&mut self, now: Instant) -> bool {
        while self.restarts.front().is_some_and(|first| *first + BUDGET_TIME < now) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        self.restarts.len() <= BUDGET
    }

    fn start_child(&mut self, child: usize, ctx: &Context<Self>) {
        if let Some(Guard { start, .. }) = self.children.get_mut(child) {
            start(Link(Some((child, ctx.address().recipient()))));
        }
    }
}

impl Actor for Guardian {
    type Context = Context<Self>;
}

impl Handler<Guard> for Guardian {
    type Result = ();

    fn handle(&mut self, guard: Guard, ctx: &mut Context<Self>) {
        self.children.push(guard);
        self.start_child(self.children.len() - 1, ctx);
    }
}

impl Handler<Down> for Guardian {
    type Result = ();

    fn handle(&mut self, down: Down, ctx: &mut Context<Self>) {
        let name = self.children.get(down.child).map_or("", |child| child.name.as_str()).to_owned();
        if !self.within_budget(Instant::now()) {
            log::error!(actor = name.as_str(); "restarted more than {BUDGET} times in {BUDGET_TIME:?}: giving up");
            if let Some(give_up) = self.give_up.take() {
                let _ = give_up.send(());
            }
            return;
        }
        log::error!(actor = name.as_str(), panicked = down.panicked; "a permanent actor ended; starting it again");
        self.start_child(down.child, ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fragile(#[expect(dead_code, reason = "its drop is what matters")] Link);

    impl Actor for Fragile {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Break;

    impl Handler<Break> for Fragile {
        type Result = ();

        fn handle(&mut self, _: Break, _: &mut Context<Self>) {
            panic!("broken on purpose");
        }
    }

    #[derive(Message)]
    #[rtype(result = "u8")]
    struct Ask;

    impl Handler<Ask> for Fragile {
        type Result = u8;

        fn handle(&mut self, _: Ask, _: &mut Context<Self>) -> u8 {
            7
        }
    }

    #[actix::test]
    async fn an_actor_that_panicked_is_started_again() {
        let (give_up, _given_up) = oneshot::channel();
        let guardian = Guardian::new(give_up).start();
        let address = guard(&guardian, "fragile", Fragile).await;

        let _ = address.get().unwrap().send(Break).await;
        while address.get().unwrap().send(Ask).await != Ok(7) {
            tokio::task::yield_now().await;
        }
    }

    #[actix::test]
    async fn an_actor_that_keeps_breaking_ends_the_process() {
        let (give_up, mut given_up) = oneshot::channel();
        let guardian = Guardian::new(give_up).start();
        let address = guard(&guardian, "fragile", Fragile).await;

        while given_up.try_recv().is_err() {
            let _ = address.get().unwrap().send(Break).await;
            tokio::task::yield_now().await;
        }
    }
}
