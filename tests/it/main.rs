//! The tests of weir as a whole: one binary, one module a promise.
//!
//! The modules say `cfg(test)`, which holds here anyway, so that the lints that spare tests spare their helpers too.

#[cfg(test)]
mod access;
#[cfg(test)]
mod adapters;
#[cfg(test)]
mod burst;
#[cfg(test)]
mod canaries;
#[cfg(test)]
mod cancel;
#[cfg(test)]
mod checks;
#[cfg(test)]
mod connections;
#[cfg(test)]
mod cors;
#[cfg(test)]
mod disconnect;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod fallback;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod faults_by_dialect;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod https;
#[cfg(test)]
mod idempotency;
#[cfg(test)]
mod input;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod listeners;
#[cfg(test)]
mod openai;
#[cfg(test)]
mod openai_requests;
#[cfg(test)]
mod openai_responses;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod operating;
#[cfg(test)]
mod orgs;
#[cfg(test)]
mod pacing;
#[cfg(test)]
mod process;
#[cfg(test)]
mod prometheus;
#[cfg(test)]
mod promises;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod rendering;
#[cfg(test)]
mod resume;
#[cfg(test)]
mod session;
#[cfg(test)]
mod signs_of_life;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod support;
#[cfg(test)]
mod survival;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod turns;
#[cfg(test)]
mod upstream_connections;
