//! Operation: one method of one path, and how it is written.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::failures;
use super::schemas::Schemas;
use crate::failure::Code;
use crate::http::server::Surface;

/// Whom an operation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// Whoever asks.
    Anybody,
    /// Whoever has a key.
    Clients,
    /// Whoever has the key of an organisation.
    Members,
    /// Whoever has the key of an admin.
    Admins,
}

/// See the module.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// Which servers have it.
    pub(super) surfaces: &'static [Surface],
    id: &'static str,
    summary: &'static str,
    tag: &'static str,
    is_for: For,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: BTreeMap<u16, Answer>,
    codes: Vec<Code>,
}

/// A response that is no plain error.
struct Answer {
    description: &'static str,
    headers: Map<String, Value>,
    content: Option<Value>,
}

/// A group of operations on the same servers.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub(super) surfaces: &'static [Surface],
    pub(super) tag: &'static str,
    pub(super) is_for: For,
}

impl Group {
    pub(super) fn get(self, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
        self.operation("get", path, id, summary)
    }

    pub(super) fn post(self, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
        self.operation("post", path, id, summary)
    }

    pub(super) fn patch(self, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
        self.operation("patch", path, id, summary)
    }

    pub(super) fn delete(self, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
        self.operation("delete", path, id, summary)
    }

    fn operation(self, method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Operation {
        let Self { surfaces, tag, is_for } = self;
        let in_path = path.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
        let mut parameters: Vec<_> = in_path.map(|(name, _)| reference("parameters", name)).collect();
        let mut codes = failures::ANY.to_vec();
        if is_for != For::Anybody {
            codes.extend(failures::KEYED);
            parameters.push(reference("parameters", "X-Org-Id"));
        }
        let (body, answers) = (None, BTreeMap::new());
        Operation { method, path, surfaces, id, summary, tag, is_for, parameters, body, answers, codes }
    }
}

impl Operation {
    /// Reads parameters of the query or the head, by their names among the components.
    pub(super) fn reads(mut self, names: &[&str]) -> Self {
        self.parameters.extend(names.iter().map(|name| reference("parameters", name)));
        self
    }

    /// Reads a parameter of the query that is its own.
    pub(super) fn query(mut self, name: &str, description: &str, schema: &Value) -> Self {
        self.parameters.push(json!({ "name": name, "in": "query", "description": description, "schema": schema }));
        self
    }

    /// Takes a JSON body. One that may be left out is the same as `{}`.
    pub(super) fn takes(mut self, is_required: bool, schema: &Value) -> Self {
        self.body = Some(json!({ "required": is_required, "content": { "application/json": { "schema": schema } } }));
        self.fails(failures::BODY)
    }

    /// Answers with JSON.
    pub(super) fn answers(self, status: u16, description: &'static str, schema: Value) -> Self {
        self.answers_as(status, description, "application/json", schema)
    }

    /// Answers with a body of a type; a second one of the same status is another form of it.
    pub(super) fn answers_as(
        mut self,
        status: u16,
        description: &'static str,
        media_type: &str,
        schema: Value,
    ) -> Self {
        let mut content = Map::new();
        content.insert("schema".to_owned(), schema);
        let answer = self.answer(status, description);
        answer.content.get_or_insert_with(|| json!({}))[media_type] = Value::Object(content);
        self
    }

    /// Answers without a body.
    pub(super) fn answers_nothing(mut self, status: u16, description: &'static str) -> Self {
        self.answer(status, description);
        self
    }

    /// Answers with an event stream, each of whose events is one of `schema`.
    pub(super) fn streams(self, description: &'static str, schema: Value) -> Self {
        self.answers_as(200, description, "text/event-stream", schema).sends(200, &["X-Accel-Buffering"])
    }

    /// Sends headers with a status, by their names among the components.
    pub(super) fn sends(mut self, status: u16, headers: &[&str]) -> Self {
        let answer = self.answers.get_mut(&status).expect("the answer is described before its headers");
        answer.headers.extend(headers.iter().map(|name| ((*name).to_owned(), reference("headers", name))));
        self
    }

    /// Sends headers only with some answers of a status.
    pub(super) fn may_send(mut self, status: u16, headers: &[&str], when: &str) -> Self {
        let answer = self.answers.get_mut(&status).expect("the answer is described before its headers");
        let header = json!({ "description": when, "schema": { "type": "string" } });
        answer.headers.extend(headers.iter().map(|name| ((*name).to_owned(), header.clone())));
        self
    }

    /// Fails with these codes, besides those of every operation.
    pub(super) fn fails(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    fn answer(&mut self, status: u16, description: &'static str) -> &mut Answer {
        let answer = || Answer { description, headers: failures::headers_of_all(), content: None };
        self.answers.entry(status).or_insert_with(answer)
    }

    /// As the document has it. Its errors are entered among the components.
    pub(super) fn written(&self, is_open: bool, schemas: &mut Schemas) -> Value {
        let mut responses = failures::responses(&self.codes, schemas);
        for (status, Answer { description, headers, content }) in &self.answers {
            let mut response = json!({ "description": description, "headers": headers });
            if let Some(content) = content {
                response["content"] = content.clone();
            }
            responses.insert(status.to_string(), response);
        }
        let mut operation = json!({
            "operationId": self.id,
            "tags": [self.tag],
            "summary": self.summary,
            "parameters": self.parameters,
            "responses": responses,
            "security": self.security(is_open),
        });
        if let Some(body) = &self.body {
            operation["requestBody"] = body.clone();
        }
        operation
    }

    fn security(&self, is_open: bool) -> Value {
        let roles: &[&str] = if self.is_for == For::Admins { &["admin"] } else { &[] };
        match self.is_for {
            For::Anybody => json!([]),
            _ if is_open => json!([{}, { "key": roles }]),
            _ => json!([{ "key": roles }, { "session": roles }]),
        }
    }
}

/// What stands among the components.
pub(super) fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}
