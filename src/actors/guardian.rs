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

/// This many restarts within [`BUDGET_TIME`] are allowed; the next one is one too many.
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

/// Answered when every child has been started.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Ready;

/// How a child is started, also after it has died.
struct Recipe {
    name: String,
    start: Box<dyn FnMut(Link)>,
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

    /// Asks the actor and waits for its answer.
    pub async fn ask<M>(&self, question: M) -> Result<M::Result, Gone>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: actix::dev::ToEnvelope<A, M>,
    {
        let addr = self.get().ok_or(Gone)?;
        addr.send(question).await.map_err(|_| Gone)
    }

    pub(super) fn set(&self, addr: Addr<A>) {
        *self.0.write() = Some(addr);
    }
}

/// The actor has died; it is being started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Drop for Link {
    #[expect(clippy::disallowed_methods, reason = "one message in the life of a permanent actor")]
    fn drop(&mut self) {
        if let Some((child, guardian)) = self.0.take() {
            guardian.do_send(Down { child, panicked: std::thread::panicking() });
        }
    }
}

// --- Actor ------------------------------------------------------------------

/// See the module.
pub struct Guardian {
    children: Vec<Recipe>,
    restarts: VecDeque<Instant>,
    /// Told when the budget is spent.
    give_up: Option<oneshot::Sender<()>>,
}

impl Guardian {
    /// A guardian without children. `give_up` hears of it when the budget is spent.
    pub fn new(give_up: oneshot::Sender<()>) -> Self {
        Self { children: Vec::new(), restarts: VecDeque::new(), give_up: Some(give_up) }
    }

    /// Puts a child under guard. It starts with the guardian and is found under `address`, also after a restart.
    pub fn guard<A: Actor<Context = Context<A>>>(
        &mut self,
        name: impl Into<String>,
        address: &Address<A>,
        mut make: impl FnMut(Link) -> A + 'static,
    ) {
        let published = address.clone();
        let start = Box::new(move |link: Link| published.set(make(link).start()));
        self.children.push(Recipe { name: name.into(), start });
    }

    fn within_budget(&mut self, now: Instant) -> bool {
        while self.restarts.front().is_some_and(|first| *first + BUDGET_TIME < now) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        self.restarts.len() <= BUDGET
    }

    fn start_child(&mut self, child: usize, ctx: &Context<Self>) {
        if let Some(Recipe { start, .. }) = self.children.get_mut(child) {
            start(Link(Some((child, ctx.address().recipient()))));
        }
    }
}

impl Actor for Guardian {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        (0..self.children.len()).for_each(|child| self.start_child(child, ctx));
    }
}

impl Handler<Ready> for Guardian {
    type Result = ();

    fn handle(&mut self, _: Ready, _: &mut Context<Self>) {}
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
        let address = Address::default();
        let mut guardian = Guardian::new(give_up);
        guardian.guard("fragile", &address, Fragile);
        guardian.start().send(Ready).await.unwrap();

        let _ = address.get().unwrap().send(Break).await;
        while address.get().unwrap().send(Ask).await != Ok(7) {
            tokio::task::yield_now().await;
        }
    }

    #[actix::test]
    async fn an_actor_that_keeps_breaking_ends_the_process() {
        let (give_up, mut given_up) = oneshot::channel();
        let address = Address::default();
        let mut guardian = Guardian::new(give_up);
        guardian.guard("fragile", &address, Fragile);
        guardian.start().send(Ready).await.unwrap();

        while given_up.try_recv().is_err() {
            let _ = address.get().unwrap().send(Break).await;
            tokio::task::yield_now().await;
        }
    }
}
