//! Accounts: what each client's key has of what it may ask for.
//!
//! The configuration says how much that is (`src/config/allowance.rs`); here is only what has been used of it, by the id
//! of the key, in memory: two keys of one id share an account, a reload changes what is allowed and no count, and a
//! restart begins anew. An account is looked at when a request comes and when its answer ends, never in between.
//!
//! A request costs one of the minute's requests. It then needs a [`Ticket`], its place among the key's running
//! requests. What the answer costs goes on the [`Bill`] of the request that has begun it: it was bought once.

mod counts;

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::time::Instant;

pub use self::counts::Counts;
use self::counts::Moment;
use crate::config::{Allowance, Auth};
use crate::event::Usage;
use crate::failure::{Code, Failure};

/// The most tokens that one answer is believed to have cost.
const TOKENS_OF_ANSWER_MAX: u64 = u32::MAX as u64;

/// What can be used up, in the words of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// `requests_per_min`
    Requests,
    /// `streams_max`
    Streams,
    /// `tokens_per_day`
    Tokens,
}

impl Limit {
    /// All of them.
    pub const ALL: [Limit; 3] = [Limit::Requests, Limit::Streams, Limit::Tokens];

    /// Its key in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Limit::Requests => "requests_per_min",
            Limit::Streams => "streams_max",
            Limit::Tokens => "tokens_per_day",
        }
    }

    /// How much of it is allowed.
    fn of(self, allowance: Allowance) -> u64 {
        match self {
            Limit::Requests => allowance.requests_per_min.into(),
            Limit::Streams => allowance.streams_max.into(),
            Limit::Tokens => allowance.tokens_per_day,
        }
    }
}

/// The accounts of all keys that have asked for anything. At most as many as there are ids in the configuration.
#[derive(Debug, Default)]
pub struct Accounts {
    by_id: Mutex<HashMap<Arc<str>, Arc<Account>>>,
}

#[derive(Debug)]
struct Account {
    id: Arc<str>,
    counts: Mutex<Counts>,
}

impl Accounts {
    /// Takes in a request of the key `id`, which may ask for as much as `allowance` says. Refused when the minute's
    /// requests are used up.
    pub fn enter(&self, id: &str, allowance: Allowance) -> Result<Entry, Failure> {
        let account = self.account(id);
        let taken = account.counts.lock().take_request(allowance.requests_per_min, Moment::now());
        match taken {
            Ok(()) => Ok(Entry { account: Some((account, allowance)), ticket: None }),
            Err(wait_ms) => Err(Refusal { account, limit: Limit::Requests, allowance, wait_ms }.into_failure()),
        }
    }

    /// Forgets the accounts of keys that are configured no more. What they have running ends as it would have.
    pub fn keep(&self, auth: &Auth) {
        self.by_id.lock().retain(|id, _| auth.keys.iter().any(|key| *key.id == **id));
    }

    /// How the account of a key stands.
    pub fn counts(&self, id: &str) -> Counts {
        let account = self.by_id.lock().get(id).cloned();
        let moment = Moment::now();
        account.map(|account| account.counts.lock().at(moment)).unwrap_or_default()
    }

    fn account(&self, id: &str) -> Arc<Account> {
        let mut by_id = self.by_id.lock();
        if let Some(known) = by_id.get(id) {
            return known.clone();
        }
        let id: Arc<str> = id.into();
        let new = Arc::new(Account { id: id.clone(), counts: Mutex::default() });
        by_id.insert(id, new.clone());
        new
    }
}

/// A request that was taken in, while it looks for its answer. Keeps its place meanwhile, once it has one.
#[derive(Debug, Default)]
pub struct Entry {
    /// Nothing for who needs no key.
    account: Option<(Arc<Account>, Allowance)>,
    ticket: Option<Ticket>,
}

impl Entry {
    /// The request's place, the same each time; or why it has none. A repetition of a known request needs none.
    pub fn ticket(&mut self) -> Result<Ticket, Refusal> {
        if let Some(ticket) = &self.ticket {
            return Ok(ticket.clone());
        }
        let Some((account, allowance)) = &self.account else { return Ok(Ticket::default()) };
        let (account, allowance) = (account.clone(), *allowance);
        let taken = account.counts.lock().take_stream(allowance, Moment::now());
        match taken {
            Ok(()) => Ok(self.ticket.insert(Ticket(Some(Arc::new(Place(account))))).clone()),
            Err((limit, wait_ms)) => Err(Refusal { account, limit, allowance, wait_ms }),
        }
    }
}

/// A request's place among those of its key that run. It comes back when the last clone is dropped. The default is the
/// place of a client that needs no key.
#[derive(Debug, Clone, Default)]
pub struct Ticket(Option<Arc<Place>>);

#[derive(Debug)]
struct Place(Arc<Account>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.counts.lock().give_stream_back();
    }
}

impl Ticket {
    /// Who pays for the answer that this request begins.
    pub fn bill(&self) -> Bill {
        let account = self.0.as_ref().map(|place| place.0.clone());
        Bill { account, charged: Cell::new(0) }
    }
}

/// What one answer has cost, on the account of the key that has begun it.
#[derive(Debug)]
pub struct Bill {
    account: Option<Arc<Account>>,
    charged: Cell<u64>,
}

impl Bill {
    /// The answer has cost this in all, as far as it is known. The last word counts; no word changes nothing.
    pub fn charge(&self, usage: Option<Usage>) {
        let (Some(account), Some(usage)) = (&self.account, usage) else { return };
        let tokens = usage.input.saturating_add(usage.output).min(TOKENS_OF_ANSWER_MAX);
        let before = self.charged.replace(tokens);
        account.counts.lock().charge(before, tokens, Moment::now());
    }
}

/// Why a request has no place.
#[derive(Debug)]
pub struct Refusal {
    account: Arc<Account>,
    limit: Limit,
    allowance: Allowance,
    wait_ms: u64,
}

impl Refusal {
    /// Refuses the request, and counts that.
    pub fn into_failure(self) -> Failure {
        self.account.counts.lock().count_refusal(self.limit);
        Failure::new(Code::RateLimited, self.to_string()).retry_after_ms(self.wait_ms)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { account, limit, allowance, .. } = self;
        write!(f, "{} of key `{}` is {}", limit.as_str(), account.id, limit.of(*allowance))
    }
}

impl Moment {
    /// This one.
    fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), unix_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(accounts: &Accounts) -> u32 {
        accounts.counts("a").streams
    }

    #[test]
    fn a_place_comes_back_when_nobody_holds_it_any_more() {
        let accounts = Accounts::default();
        let one = Allowance { streams_max: 1, ..Allowance::default() };
        let mut first = accounts.enter("a", one).unwrap();
        let ticket = first.ticket().unwrap();
        assert!(first.ticket().is_ok(), "it has its place already");

        let refused = accounts.enter("a", one).unwrap().ticket().map(drop).unwrap_err();
        assert_eq!(refused.to_string(), "streams_max of key `a` is 1");
        assert!(accounts.enter("b", one).unwrap().ticket().is_ok(), "another key has places of its own");

        drop(first);
        assert_eq!(streams(&accounts), 1);
        let panics = std::thread::spawn(move || {
            let _ticket = ticket;
            panic!("this is part of the test");
        });
        assert!(panics.join().is_err());
        assert_eq!(streams(&accounts), 0);
    }

    #[test]
    fn a_refusal_counts_when_it_is_told() {
        let accounts = Accounts::default();
        let none = Allowance { requests_per_min: 1, tokens_per_day: 1, ..Allowance::default() };
        let mut entry = accounts.enter("a", none).unwrap();
        let bill = entry.ticket().unwrap().bill();
        entry = Entry { ticket: None, ..entry };
        bill.charge(Some(Usage { input: 1, ..Usage::default() }));

        drop(entry.ticket().unwrap_err());
        assert_eq!(accounts.counts("a").refused, [0, 0, 0]);
        let failure = entry.ticket().unwrap_err().into_failure();
        assert_eq!((failure.code, &*failure.message), (Code::RateLimited, "tokens_per_day of key `a` is 1"));
        let failure = accounts.enter("a", none).unwrap_err();
        assert_eq!(&*failure.message, "requests_per_min of key `a` is 1");

        assert_eq!(accounts.counts("a").refused, [1, 0, 1]);
    }

    #[test]
    fn the_last_word_on_what_an_answer_costs_counts() {
        let accounts = Accounts::default();
        let bill = accounts.enter("a", Allowance::default()).unwrap().ticket().unwrap().bill();
        let charge = |input, output| bill.charge(Some(Usage { input, output, ..Usage::default() }));

        charge(10, 5);
        charge(10, 2);
        bill.charge(None);
        assert_eq!(accounts.counts("a").tokens_today, 12);
        charge(u64::MAX, u64::MAX);
        assert_eq!(accounts.counts("a").tokens_today, TOKENS_OF_ANSWER_MAX);
    }

    #[test]
    fn an_account_goes_with_its_key_and_what_runs_does_not_mind() {
        let accounts = Accounts::default();
        let ticket = accounts.enter("a", Allowance::default()).unwrap().ticket().unwrap();

        accounts.keep(&Auth::default());

        assert!(accounts.by_id.lock().is_empty());
        drop(ticket);
        assert_eq!(streams(&accounts), 0);
    }
}
