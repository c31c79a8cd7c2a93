//! Tests of the configuration as a whole.

mod effective;
mod environment;
mod example;
mod mistakes;
mod references;
mod reloading;
mod secrets;
mod surroundings;

use std::path::PathBuf;

use super::Config;

/// Loads a file that messages call `f`, in an environment.
fn load(toml: &str, env: &[(&str, &str)]) -> Result<Config, String> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(("f", toml)), env).map_err(|error| error.to_string())
}

/// Loads what has to be right.
#[track_caller]
fn loaded(toml: &str, env: &[(&str, &str)]) -> Config {
    load(toml, env).unwrap_or_else(|problems| panic!("{problems}\nin\n{toml}"))
}

/// What is doubtful about a file that is accepted.
#[track_caller]
fn doubts(toml: &str) -> Vec<String> {
    let loaded = Config::load_with_doubts(Some(("f", toml)), []);
    loaded.unwrap_or_else(|problems| panic!("{problems}\nin\n{toml}")).doubts
}

/// A file with a certificate to trust, and the folder that it is in.
fn certificate_file() -> (PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let certificate = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, certificate).unwrap();
    (path, folder)
}

/// Checks the lines that are told about a file in an environment; none: it is accepted.
#[track_caller]
fn check(toml: &str, env: &[(&str, &str)], expected: &[&str]) {
    let problems = load(toml, env).err().unwrap_or_default();
    let problems: Vec<_> = problems.lines().collect();
    assert_eq!(problems, expected, "\n{toml}");
}
