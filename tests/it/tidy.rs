//! House rules that the compiler does not check. Each test is one rule; what it reports begins with file and line.

use std::fs;
use std::path::Path;

use weir::failure::Code;

/// The most lines of a file that people maintain by hand.
const LINES_MAX: usize = 500;
/// The most lines of the documents that everybody reads.
const DOCUMENT_LINES_MAX: [(&str, usize); 2] = [("README.md", 150), ("docs/architecture.md", 200)];

/// What each module of `src/` may use beside itself. Whoever stands higher knows nothing of those below.
const LAYERS: [(&str, &[&str]); 17] = [
    ("event", &[]),
    ("event_loop", &[]),
    ("failure", &[]),
    ("chat", &["event"]),
    ("bucket", &[]),
    ("logging", &[]),
    ("markdown", &[]),
    ("config", &["chat", "failure"]),
    ("accounts", &["bucket", "chat", "config", "event", "failure"]),
    ("store", &["chat", "config", "event", "failure"]),
    ("fanout", &["chat", "event", "failure", "store"]),
    ("metrics", &["chat", "config", "event", "failure", "fanout", "store"]),
    ("providers", &["chat", "config", "event", "failure"]),
    (
        "actors",
        &["accounts", "bucket", "chat", "config", "event", "failure", "fanout", "metrics", "providers", "store"],
    ),
    // Reads of threads go straight to the store's handle; writes that belong to a turn go through the actors.
    (
        "http",
        &[
            "accounts",
            "actors",
            "chat",
            "config",
            "event",
            "event_loop",
            "failure",
            "fanout",
            "markdown",
            "metrics",
            "store",
        ],
    ),
    ("doctor", &["chat", "config", "failure", "http", "providers", "store"]),
    (
        "app",
        &[
            "accounts",
            "actors",
            "chat",
            "config",
            "event",
            "event_loop",
            "failure",
            "fanout",
            "http",
            "metrics",
            "providers",
            "store",
        ],
    ),
];

/// Crates that have one home.
const HOMES: [(&str, &[&str]); 7] = [
    ("awc::", &["src/providers/upstream/"]),
    ("h2::", &["src/providers/upstream/", "tests/"]),
    ("actix_tls::", &["src/providers/upstream/"]),
    ("rusqlite::", &["src/store/", "load/", "tests/"]),
    ("actix::", &["src/actors/", "src/http/", "src/app.rs", "src/main.rs", "tests/"]),
    ("actix_web::", &["src/http/", "src/app.rs", "src/main.rs", "tests/"]),
    ("actix_web_lab::", &["src/http/"]),
];

// --- Rules: files -------------------------------------------------------------

#[test]
fn no_file_has_more_than_500_lines() {
    let long = files(&["rs", "js", "css", "html"]).into_iter().filter(|file| file.text.lines().count() > LINES_MAX);
    report(long.map(|file| format!("{}:{LINES_MAX}: goes on for {} lines", file.path, file.text.lines().count())));
}

#[test]
fn the_documents_that_everybody_reads_are_short() {
    let long = files(&["md"]).into_iter().filter_map(|file| {
        let (_, max) = *DOCUMENT_LINES_MAX.iter().find(|(path, _)| *path == file.path)?;
        (file.text.lines().count() > max).then(|| format!("{}:{max}: the limit is here", file.path))
    });
    report(long);
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let silent = files(&["rs"]).into_iter().filter(|file| !file.text.starts_with("//! "));
    report(silent.map(|file| format!("{}:1: the first line is not `//! …`", file.path)));
}

#[test]
fn every_file_is_part_of_a_crate() {
    let files = files(&["rs"]);
    let is_declared = |file: &File| {
        let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
        let (folder, name) = match name {
            "mod.rs" => folder.rsplit_once('/').unwrap_or(("", folder)),
            name => (folder, name.trim_end_matches(".rs")),
        };
        let parents = [format!("{folder}/mod.rs"), format!("{folder}/lib.rs"), format!("{folder}/main.rs")];
        let beside = format!("{folder}.rs");
        let parents = files.iter().filter(|file| parents.contains(&file.path) || file.path == beside);
        let declaration = format!("mod {name};");
        // Each fuzz target is a program of its own.
        let is_program = matches!(name, "lib" | "main") || folder == "fuzz/fuzz_targets";
        is_program || { parents }.any(|parent| lines_with(&parent.code, &declaration).next().is_some())
    };
    report(
        files.iter().filter(|file| !is_declared(file)).map(|file| format!("{}:1: no module declares it", file.path)),
    );
}

// --- Rules: who may use what ---------------------------------------------------

#[test]
fn modules_use_only_what_their_layer_may_use() {
    let mut found = Vec::new();
    for file in files(&["rs"]) {
        let Some(module) = file.module() else { continue };
        let Some((_, allowed)) = LAYERS.iter().find(|(layer, _)| *layer == module) else {
            found.push(format!("{}:1: `{module}` has no place in the table of layers", file.path));
            continue;
        };
        for (line, used) in modules_used(&file) {
            if used != module && !allowed.contains(&used) {
                found.push(format!("{}:{line}: `{module}` must not use `{used}`", file.path));
            }
        }
    }
    report(found);
}

#[test]
fn crates_are_used_only_where_they_are_at_home() {
    let mut found = Vec::new();
    for file in files(&["rs"]) {
        for (name, homes) in HOMES.iter().filter(|(_, homes)| !homes.iter().any(|home| file.path.starts_with(home))) {
            let lines = lines_with(&file.code, name);
            found.extend(lines.map(|line| format!("{}:{line}: `{name}` is only for {}", file.path, homes.join(", "))));
        }
    }
    report(found);
}

#[test]
fn adapters_know_no_runtime_no_clock_no_socket_and_no_file() {
    let words = ["tokio::", "Instant", "SystemTime::now", "std::net::", "std::fs::", "std::env::"];
    report(named(&words, |path| path.starts_with("src/providers/") && !path.starts_with("src/providers/upstream/")));
}

#[test]
fn actors_open_no_socket_and_no_file() {
    let words = ["std::net::", "tokio::net::", "std::fs::", "tokio::fs::", "std::env::"];
    report(named(&words, |path| path.starts_with("src/actors/") && !path.contains("/tests/")));
}

#[test]
fn only_main_reads_the_environment_and_ends_the_process() {
    let words = ["env::var", "process::exit", "process::abort"];
    report(named(&words, |path| path.starts_with("src/") && path != "src/main.rs" && !path.contains("/tests/")));
}

// --- Rules: how code is written --------------------------------------------------

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    report(named(&["#[allow(", "#![allow("], |_| true));
}

#[test]
fn nothing_is_left_for_later() {
    report(named(&["todo!", "unimplemented!", "#[ignore"], |_| true));
}

#[test]
fn tests_sleep_only_while_time_is_paused() {
    let mut found = Vec::new();
    let pauses =
        |file: &File| ["start_paused", "pause()"].iter().any(|word| lines_with(&file.code, word).next().is_some());
    let all = files(&["rs"]);
    // The worlds that a folder of tests lives in are built in one of its files.
    let worlds: Vec<_> =
        all.iter().filter(|file| pauses(file)).filter_map(|file| file.path.strip_suffix("support.rs")).collect();
    for file in &all {
        let is_paused = pauses(file) || worlds.iter().any(|folder| file.path.starts_with(folder));
        let tests_begin = lines_with(&file.code, "mod tests {").next().unwrap_or(usize::MAX);
        let tests_begin = if file.is_all_tests() { 0 } else { tests_begin };
        let in_tests = |line: &usize| *line > tests_begin;
        let blocking = lines_with(&file.code, "thread::sleep").filter(in_tests);
        found.extend(blocking.map(|line| format!("{}:{line}: a thread that sleeps; wait for the thing", file.path)));
        let sleeping = ["sleep(", "sleep_until("].into_iter().flat_map(|word| lines_with(&file.code, word));
        let awake = sleeping.filter(in_tests).filter(|_| !is_paused);
        found.extend(awake.map(|line| format!("{}:{line}: a sleep in real time; wait for the thing", file.path)));
    }
    report(found);
}

// --- Rules: what documents say ---------------------------------------------------

#[test]
fn documents_name_only_files_that_exist() {
    let mut found = Vec::new();
    for file in files(&["md"]) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (line, text) in outside_of_fences(&file.text) {
            let named = between(text, "`", "`").filter(|name| is_path(name) && !exists(&["", "src"], name));
            found.extend(named.map(|name| format!("{}:{line}: there is no `{name}`", file.path)));
            let linked = between(text, "](", ")").filter(|name| is_path(name) && !exists(&[folder], name));
            found.extend(linked.map(|name| format!("{}:{line}: the link to {name} leads nowhere", file.path)));
        }
    }
    report(found);
}

#[test]
fn comments_name_only_files_that_exist() {
    let mut found = Vec::new();
    for file in files(&["rs"]) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let comments = (1..).zip(file.text.lines()).filter(|(_, line)| line.trim_start().starts_with("//"));
        for (line, comment) in comments {
            let named = between(comment, "`", "`").filter(|name| is_path(name) && !exists(&["", "src", folder], name));
            found.extend(named.map(|name| format!("{}:{line}: there is no `{name}`", file.path)));
        }
    }
    report(found);
}

#[test]
fn the_protocol_documents_every_error_code() {
    let protocol = fs::read_to_string(root().join("docs/protocol.md")).expect("docs/protocol.md exists");
    let rows: Vec<_> = protocol.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).collect();
    let documented = |code: &&Code| {
        let kind = serde_json::to_value(code.kind()).expect("kinds are names");
        let retryable = if code.retryable() { "yes" } else { "no" };
        let facts = format!(" {} | `{}` | {retryable} | ", code.status(), kind.as_str().unwrap_or_default());
        rows.iter().any(|(name, rest)| *name == code.as_str() && rest.starts_with(&facts))
    };
    let missing = Code::ALL.iter().filter(|code| !documented(code));
    report(missing.map(|code| format!("docs/protocol.md:1: no row, or a wrong one, for {code:?}")));
}

// --- What the rules look at ------------------------------------------------------

/// A file of the project.
struct File {
    /// From the project's root, with slashes.
    path: String,
    text: String,
    /// The text of a Rust file with everything blanked that is a comment or a literal.
    code: String,
}

impl File {
    /// The module of `src/` that it belongs to; nothing for those who may use everything.
    fn module(&self) -> Option<&str> {
        let path = self.path.strip_prefix("src/").filter(|path| !matches!(*path, "lib.rs" | "main.rs"))?;
        path.split(['/', '.']).next()
    }

    fn is_all_tests(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files of the project with one of the extensions, in order.
fn files(extensions: &[&str]) -> Vec<File> {
    let mut folders = vec![root().to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the project can be read") {
            let path = entry.expect("the project can be read").path();
            let name = path.strip_prefix(root()).expect("it lies in the root").to_string_lossy().replace('\\', "/");
            if path.is_dir() {
                let is_ours = ![".git", "target", "node_modules"].iter().any(|other| name.ends_with(other));
                folders.extend(is_ours.then_some(path));
            } else if path.extension().is_some_and(|extension| extensions.iter().any(|known| *known == extension)) {
                let text = fs::read_to_string(&path).expect("sources are text");
                let code = if name.ends_with(".rs") { code_of(&text) } else { String::new() };
                files.push(File { path: name, text, code });
            }
        }
    }
    assert!(!files.is_empty(), "there are no {extensions:?} files");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// Fails with what was found, one a line.
fn report(found: impl IntoIterator<Item = String>) {
    let found: Vec<_> = found.into_iter().collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Where one of `words` stands in the code of the files that are `meant`.
fn named(words: &[&str], meant: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files(&["rs"]).iter().filter(|file| meant(&file.path)) {
        for word in words {
            found.extend(lines_with(&file.code, word).map(|line| format!("{}:{line}: `{word}`", file.path)));
        }
    }
    found
}

/// The lines, from 1, on which `word` stands and is not the end of a longer word.
fn lines_with<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let stands_alone = move |line: &str| {
        line.match_indices(word)
            .any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
    };
    (1..).zip(code.lines()).filter(move |(_, line)| stands_alone(line)).map(|(line, _)| line)
}

/// The modules of the crate's top that a file names, with their lines. A path that hides its module counts as one of
/// that name.
fn modules_used(file: &File) -> Vec<(usize, &str)> {
    let mut depth = file.path.matches('/').count() - usize::from(file.path.ends_with("/mod.rs"));
    let mut found = Vec::new();
    for (number, line) in (1..).zip(file.code.lines()) {
        depth += usize::from(line.ends_with("mod tests {"));
        for (at, path) in line.match_indices("crate::") {
            let rest = &line[at + path.len()..];
            let end = rest.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(rest.len());
            found.push((number, if end == 0 { "crate::{…}" } else { &rest[..end] }));
        }
        let to_the_top = "super::".repeat(depth);
        if line.contains(&to_the_top) {
            found.push((number, "super::…, up to the top"));
        }
    }
    found
}

/// The text between pairs of marks on one line.
fn between<'a>(line: &'a str, open: &'a str, close: &'a str) -> impl Iterator<Item = &'a str> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(open)?;
        let (inside, after) = after.split_once(close)?;
        rest = after;
        Some(inside)
    })
}

/// The lines of a document that are not in a block of code.
fn outside_of_fences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_inside = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_inside ^= is_fence;
        !is_fence && !is_inside
    })
}

/// Whether a text is meant as the path of a file of the project.
fn is_path(text: &str) -> bool {
    let folders = ["src/", "tests/", "load/", "docs/", ".github/", ".ci/"];
    let is_plain = text.chars().all(|char| char.is_ascii_alphanumeric() || "_-./".contains(char));
    let is_file = [".rs", ".md", ".toml", ".sql"].iter().any(|end| text.len() > end.len() && text.ends_with(end));
    is_plain && !text.starts_with('/') && (is_file || folders.iter().any(|folder| text.starts_with(folder)))
}

fn exists(folders: &[&str], name: &str) -> bool {
    folders.iter().any(|folder| root().join(folder).join(name).exists())
}

/// Blanks comments and literals, so that rules see code alone. Lines stay where they are.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = ' ';
    while let Some(first) = rest.chars().next() {
        let no_code = if before.is_alphanumeric() || before == '_' { quoted_len(rest) } else { no_code_len(rest) };
        if no_code == 0 {
            code.push(first);
            before = first;
            rest = &rest[first.len_utf8()..];
        } else {
            let (blanked, after) = rest.split_at(no_code);
            code.extend(blanked.chars().map(|char| if char == '\n' { '\n' } else { ' ' }));
            before = ' ';
            rest = after;
        }
    }
    code
}

/// How long the comment or literal is that stands here, 0 if there is none.
fn no_code_len(text: &str) -> usize {
    let raw = text.trim_start_matches('b').strip_prefix('r');
    let hashes = raw.map_or(0, |raw| raw.len() - raw.trim_start_matches('#').len());
    let is_raw = raw.is_some_and(|raw| raw[hashes..].starts_with('"'));
    let to_end_of = |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    match text {
        _ if is_raw => to_end_of(&format!("\"{}", "#".repeat(hashes)), text.find('"').map_or(0, |at| at + 1)),
        _ if text.starts_with("//") => text.find('\n').unwrap_or(text.len()),
        _ if text.starts_with("/*") => to_end_of("*/", 2),
        _ => quoted_len(text),
    }
}

/// How long the plain string or character is that stands here. A lifetime is neither.
fn quoted_len(text: &str) -> usize {
    let Some(quote) = text.chars().next().filter(|first| matches!(first, '"' | '\'')) else { return 0 };
    let mut inside = text.char_indices().skip(1);
    let is_character =
        text[1..].starts_with('\\') || text.char_indices().nth(2).is_some_and(|(_, third)| third == '\'');
    if quote == '\'' && !is_character {
        return 0;
    }
    while let Some((at, char)) = inside.next() {
        if char == '\\' {
            inside.next();
        } else if char == quote {
            return at + 1;
        }
    }
    text.len()
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "a('\"', \"b\\\"c\", r#\"d\"e\"#) // f\n<'g>(\"h\ni\") /* j\n*/ '\\'' k b\"l\" r#m";

    let code = code_of(text);

    let words: String = code.chars().filter(|char| char.is_alphanumeric()).collect();
    assert_eq!(words, "agkbrm");
    assert_eq!(code.lines().count(), text.lines().count());
}
