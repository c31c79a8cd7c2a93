//! weir: a streaming backend for LLM chat.
pub mod chat;
pub mod config;
pub mod event;
pub mod failure;
pub mod providers;
pub mod store;
