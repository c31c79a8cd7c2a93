//! weir: a streaming backend for LLM chat.
pub mod actors;
pub mod app;
pub mod chat;
pub mod config;
pub mod event;
pub mod failure;
pub mod fanout;
pub mod http;
pub mod markdown;
pub mod metrics;
pub mod providers;
pub mod store;
