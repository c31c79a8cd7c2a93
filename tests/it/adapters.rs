//! Every adapter reads every case under `tests/fixtures/<dialect>` as its `.events` file says, however the network
//! cuts the bytes. A new case is two files and no code.
//!
//! `<case>.sse` or `.ndjson` holds the bytes of a body. `<case>.events` holds one line of JSON for each piece, in order,
//! and last how the answer ended: `{"finish":…,"native":…}` or `{"failure":…}`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use weir::config::Dialect;
use weir::providers::answer::AnswerDecoder;
use weir::providers::{Adapter, Flow, Piece, registry};

/// Of each dialect.
const FIXTURES_MIN: usize = 12;
const READ_SIZES: [usize; 5] = [1, 7, 64, 1460, usize::MAX];

#[test]
fn every_fixture_is_read_as_written_however_it_is_cut() {
    let bodies = bodies();
    let mut report = String::new();
    bodies.iter().for_each(|(adapter, path)| check(&**adapter, path, &mut report));
    assert!(report.is_empty(), "{report}");
}

#[test]
fn every_dialect_has_a_dozen_fixtures_or_more() {
    let bodies = bodies();
    // The demo speaks another's.
    for dialect in Dialect::ALL.iter().filter(|dialect| **dialect != Dialect::Demo) {
        let count = bodies.iter().filter(|(_, path)| path.parent().unwrap().ends_with(dialect.as_str())).count();
        assert!(count >= FIXTURES_MIN, "{dialect} has only {count} fixtures");
    }
}

proptest! {
    #[test]
    fn damaged_bytes_break_no_adapter_and_read_the_same_however_they_are_cut(
        body in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
    ) {
        let bodies = bodies();
        let (adapter, path) = body.get(&bodies);
        let mut bytes = std::fs::read(path).unwrap();
        bytes.truncate(end.index(bytes.len()).max(1));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }

        prop_assert_eq!(read(&**adapter, &bytes, 1), read(&**adapter, &bytes, usize::MAX));
    }
}

/// Every body under `tests/fixtures`, with the adapter that reads it.
fn bodies() -> Vec<(Arc<dyn Adapter>, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut bodies = Vec::new();
    for dialect in entries(&root) {
        let name = dialect.file_name().unwrap().to_string_lossy();
        let spoken = name.parse::<Dialect>().unwrap_or_else(|_| panic!("{name} is no dialect"));
        let adapter = registry::adapter(spoken);
        let files = entries(&dialect).into_iter().filter(|path| path.extension().is_none_or(|ext| ext != "events"));
        bodies.extend(files.map(|path| (adapter.clone(), path)));
    }
    bodies
}

/// Compares one case at every read size; the first size that differs goes into the report.
fn check(adapter: &dyn Adapter, path: &Path, report: &mut String) {
    let body = std::fs::read(path).unwrap();
    let events = std::fs::read_to_string(path.with_extension("events")).unwrap_or_default();
    let expected: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for size in READ_SIZES {
        let actual = read(adapter, &body, size);
        if actual == expected {
            continue;
        }
        let size = if size > body.len() { "one read".to_owned() } else { format!("reads of {size}") };
        let same = actual.iter().zip(&expected).take_while(|(one, other)| one == other).count();
        writeln!(report, "\n{} in {size}: {same} lines as expected, then", path.display()).unwrap();
        expected[same..].iter().for_each(|line| writeln!(report, "- {line}").unwrap());
        actual[same..].iter().for_each(|line| writeln!(report, "+ {line}").unwrap());
        return;
    }
}

/// The lines of `.events` that a body makes in reads of `size`.
fn read(adapter: &dyn Adapter, body: &[u8], size: usize) -> Vec<Value> {
    let mut decoder = AnswerDecoder::new(adapter);
    let mut lines = Vec::new();
    let mut out = |piece: Piece<'_>| {
        lines.push(match piece {
            Piece::Event(event) => json!(event),
            Piece::Model(model) => json!({"model": model}),
            Piece::UpstreamId(id) => json!({"upstream_id": id}),
            Piece::Opaque(value) => json!({"opaque": value}),
        });
    };
    let mut ended = Ok(Flow::More);
    for bytes in body.chunks(size.min(body.len().max(1))) {
        ended = decoder.push(bytes, &mut out);
        if ended != Ok(Flow::More) {
            break;
        }
    }
    let ended = ended.and_then(|_| decoder.end(&mut out));
    lines.push(match ended {
        Ok(()) => {
            let finish = decoder.finish();
            json!({"finish": finish.reason, "native": finish.native})
        }
        Err(failure) => json!({"failure": failure.code}),
    });
    lines
}

/// What a folder holds, in a fixed order.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    entries
}
