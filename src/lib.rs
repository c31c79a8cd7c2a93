//! weir: a streaming backend for LLM chat.
//!
//! | module | what it is |
//! |---|---|
//! | [`event`], [`failure`], [`chat`] | the words: events and frames, failures, requests and what makes two equal |
//! | [`bucket`] | what may be spent at once, and what flows in meanwhile |
//! | [`config`] | everything that can be set |
//! | [`accounts`] | what each client's key may ask for, and has |
//! | [`store`] | threads, messages and requests in SQLite |
//! | [`fanout`] | what an answer shares with its listeners: the log, cursors, one request's view |
//! | [`metrics`] | what has become of the last requests |
//! | [`providers`] | the dialects, and what carries calls to providers |
//! | [`actors`] | the decisions: pacer, coalescer, stream, subscriber, guardian |
//! | [`http`], [`markdown`] | the routes, the event streams, the page |
//! | [`app`], [`event_loop`], [`logging`] | builds, links and ends everything; its threads; lines that hold nobody up |
//! | [`doctor`] | an operator's check-up |

pub mod accounts;
pub mod actors;
pub mod app;
pub mod bucket;
pub mod chat;
pub mod config;
pub mod doctor;
pub mod event;
pub mod event_loop;
pub mod failure;
pub mod fanout;
pub mod http;
pub mod logging;
pub mod markdown;
pub mod metrics;
pub mod providers;
pub mod store;
