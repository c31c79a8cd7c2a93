//! Blocks: the calls of tools that are being written, the client's and the provider's own.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::failure::{Code, Failure};
use crate::providers::json;

/// More blocks than this are not open at once.
const OPEN_MAX: usize = 64;
/// What the inputs of all calls may take together.
const INPUT_BYTES_MAX: usize = 1024 * 1024;

/// The blocks of an answer that have begun and not ended, by the API's number.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    open: HashMap<u64, Block>,
    bytes: usize,
}

/// A call that is being written.
#[derive(Debug)]
pub(super) struct Block {
    /// Its type.
    pub(super) kind: String,
    /// The id of the call.
    pub(super) id: String,
    /// The tool's name.
    pub(super) name: String,
    /// For MCP: whose tool it is.
    server: Option<String>,
    /// The text of the JSON input. The client's tools are told as they come, so theirs stays empty unless the block
    /// has begun with a whole one.
    input: String,
    /// The input came with the beginning; pieces take its place.
    is_whole: bool,
}

impl Blocks {
    /// A call begins. Some servers give its whole input at once.
    pub(super) fn begin(&mut self, number: u64, block: &Value) -> Result<(), Failure> {
        if self.open.len() >= OPEN_MAX {
            let message = format!("the answer has more than {OPEN_MAX} open blocks");
            return Err(Failure::new(Code::ResponseTooLarge, message));
        }
        let input = json::get(block, "input").filter(|input| !json::is_blank(input));
        let input = input.map(Value::to_string).unwrap_or_default();
        self.count(input.len())?;
        let text = |key: &str| json::text(block, key).unwrap_or_default().to_owned();
        let block = Block {
            kind: text("type"),
            id: text("id"),
            name: text("name"),
            server: json::text(block, "server_name").map(str::to_owned),
            is_whole: !input.is_empty(),
            input,
        };
        self.open.insert(number, block);
        Ok(())
    }

    /// More of an input. Returns the block if it is the client's: its pieces are for the client.
    pub(super) fn input(&mut self, number: u64, more: &str) -> Result<Option<&Block>, Failure> {
        self.count(more.len())?;
        let Some(block) = self.open.get_mut(&number) else { return Ok(None) };
        if std::mem::take(&mut block.is_whole) {
            block.input.clear();
        }
        if block.is_clients() {
            return Ok(Some(block));
        }
        block.input.push_str(more);
        Ok(None)
    }

    /// A block ends.
    pub(super) fn end(&mut self, number: u64) -> Option<Block> {
        self.open.remove(&number)
    }

    fn count(&mut self, more: usize) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(more);
        if self.bytes <= INPUT_BYTES_MAX {
            return Ok(());
        }
        let message = format!("the answer's tool calls exceed {INPUT_BYTES_MAX} bytes");
        Err(Failure::new(Code::ResponseTooLarge, message))
    }
}

impl Block {
    /// Whether it calls one of the client's tools.
    pub(super) fn is_clients(&self) -> bool {
        self.kind == "tool_use"
    }

    /// The input that came with the beginning and has not been told.
    pub(super) fn whole_input(&self) -> &str {
        &self.input
    }

    /// What a client is shown of a call of the provider's own tools.
    pub(super) fn detail(self) -> Value {
        let Self { id, name, server, input, .. } = self;
        let input = if input.trim().is_empty() { json!({}) } else { json::parse(&input).unwrap_or(json!(input)) };
        let mut detail = json!({"id": id, "name": name, "input": input});
        if let Some(server) = server {
            detail["server_name"] = server.into();
        }
        detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_blocks_and_their_inputs_have_limits() {
        let block = json!({"type": "server_tool_use", "name": "web_search"});
        let mut blocks = Blocks::default();
        let failed = (0..=OPEN_MAX as u64).find_map(|number| blocks.begin(number, &block).err());
        assert_eq!(failed.map(|failure| failure.code), Some(Code::ResponseTooLarge));

        let mut blocks = Blocks::default();
        blocks.begin(0, &block).unwrap();
        blocks.input(0, &"x".repeat(INPUT_BYTES_MAX)).unwrap();
        assert_eq!(blocks.input(0, "x").unwrap_err().code, Code::ResponseTooLarge);
    }
}
