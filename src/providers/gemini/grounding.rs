//! Grounding: what the provider has looked up by itself, and the sources that the answer rests on.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use crate::event::{ActivityKind, Event};
use crate::providers::extras::Extras;
use crate::providers::sources::{Sources, is_link};
use crate::providers::{Piece, json};

/// More searches and pages than this are not told.
const TOLD_MAX: usize = 1_000;

/// Where the searches stand.
const QUERIES: [&str; 3] = ["webSearchQueries", "retrievalQueries", "imageSearchQueries"];
/// The fields of `groundingMetadata` that are understood.
const METADATA_FIELDS: &[&str] = &["groundingChunks", "imageSearchQueries", "retrievalQueries", "webSearchQueries"];

type Out<'o> = dyn FnMut(Piece<'_>) + 'o;

/// What has been looked up for one answer.
#[derive(Debug, Default)]
pub(super) struct Grounding {
    sources: Sources,
    /// Digests of the searches and pages that have been told. Servers repeat them.
    told: HashSet<u64>,
    /// The pages that were read, whether or not the answer names them.
    read: Vec<Value>,
}

impl Grounding {
    /// Takes everything that a candidate says about it.
    pub(super) fn note(&mut self, candidate: &Value, extras: &mut Extras, out: &mut Out<'_>) {
        if let Some(context) = json::get(candidate, "urlContextMetadata") {
            json::items(context, "urlMetadata").iter().for_each(|page| self.page(page, out));
        }
        if let Some(metadata) = json::get(candidate, "groundingMetadata") {
            self.searches(metadata, out);
            self.cite(json::items(metadata, "groundingChunks").iter().filter_map(chunk), extras, out);
            extras.fields(metadata, METADATA_FIELDS, out);
        }
        if let Some(metadata) = json::get(candidate, "citationMetadata") {
            // The names that this list has at Google's two places.
            let lists = ["citationSources", "citations"].iter().flat_map(|name| json::items(metadata, name));
            self.cite(lists.filter_map(quotation), extras, out);
        }
    }

    /// Cites the pages that were read but not named. They come last: where one is named, its title is known.
    pub(super) fn complete(&mut self, extras: &Extras, out: &mut Out<'_>) {
        let read = std::mem::take(&mut self.read);
        self.cite(read.into_iter(), extras, out);
    }

    fn searches(&mut self, metadata: &Value, out: &mut Out<'_>) {
        let queries = QUERIES.iter().flat_map(|name| json::items(metadata, name)).filter_map(Value::as_str);
        let news: Vec<&str> = queries.filter(|query| self.is_news(query)).collect();
        if !news.is_empty() {
            activity(ActivityKind::Search, "result", &json!({"queries": news}), out);
        }
    }

    fn page(&mut self, page: &Value, out: &mut Out<'_>) {
        let Some(url) = json::text(page, "retrievedUrl").filter(|url| self.is_news(url)) else { return };
        activity(ActivityKind::Fetch, "result", page, out);
        let is_read = json::text(page, "urlRetrievalStatus").is_none_or(|status| status.ends_with("_SUCCESS"));
        if is_read {
            let source = json!({"url": url});
            self.read.extend(is_link(&source).then_some(source));
        }
    }

    fn cite(&mut self, found: impl Iterator<Item = Value>, extras: &Extras, out: &mut Out<'_>) {
        let found: Vec<Value> = found.collect();
        self.sources.tell(&found, extras, out);
    }

    fn is_news(&mut self, text: &str) -> bool {
        let mut digest = DefaultHasher::new();
        text.hash(&mut digest);
        self.told.len() < TOLD_MAX && self.told.insert(digest.finish())
    }
}

/// Tells what one of the provider's own tools does.
pub(super) fn activity(kind: ActivityKind, state: &'static str, detail: &Value, out: &mut Out<'_>) {
    out(Piece::Event(Event::Activity { kind, state: state.into(), detail: detail.clone() }));
}

/// A source from the web, from maps or from a store of files: an object under the name of its kind.
fn chunk(chunk: &Value) -> Option<Value> {
    let (_, source) = json::fields(chunk).find(|(_, source)| source.is_object())?;
    let url = json::text(source, "uri").or_else(|| json::text(source, "sourceUri"))?;
    Some(json!({"url": url, "title": source.get("title"), "snippet": source.get("text")}))
}

/// A source that the answer quotes.
fn quotation(source: &Value) -> Option<Value> {
    Some(json!({"url": json::text(source, "uri")?, "title": source.get("title")}))
}
