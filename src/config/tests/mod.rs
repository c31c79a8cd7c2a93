//! Tests of the configuration as a whole.

mod effective;
mod environment;
mod example;
mod mistakes;
mod references;
mod reloading;
mod secrets;

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

/// Checks the lines that are told about a file in an environment; none: it is accepted.
#[track_caller]
fn check(toml: &str, env: &[(&str, &str)], expected: &[&str]) {
    let problems = load(toml, env).err().unwrap_or_default();
    let problems: Vec<_> = problems.lines().collect();
    assert_eq!(problems, expected, "\n{toml}");
}
