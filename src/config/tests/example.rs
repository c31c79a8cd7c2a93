//! The file at the top level: it shows every key, and nothing in it changes anything.

use super::loaded;
use crate::config::Config;

pub(super) const FILE: &str = include_str!("../../../config.toml");

#[test]
fn the_file_is_the_defaults() {
    assert_eq!(loaded(FILE, &[]), Config::default());
}

#[test]
fn the_file_shows_every_key() {
    let shown: toml::Table = FILE.parse().unwrap();
    let effective: toml::Table = Config::default().to_toml().parse().unwrap();
    for (key, value) in &effective {
        match value {
            // One provider stands for all.
            toml::Value::Table(providers) if key == "providers" => {
                let openai = shown[key]["openai"].as_table().unwrap();
                assert_eq!(openai, providers["openai"].as_table().unwrap());
                assert!(providers.keys().eq(shown[key].as_table().unwrap().keys()));
            }
            _ => assert_eq!(shown.get(key), Some(value), "{key}"),
        }
    }
}

#[test]
fn the_examples_in_comments_are_right_too() {
    let uncommented = |line: &str| match line.strip_prefix('#') {
        Some(example) if !example.starts_with([' ', '\0']) => example.to_owned(),
        _ => line.to_owned(),
    };
    let lines: Vec<_> = FILE.lines().map(uncommented).collect();
    let config = loaded(&lines.join("\n"), &[]);

    assert_eq!(config.auth.keys[0].id, "chat-ui");
    assert!(config.providers["my-llm"].available().is_ok());
    assert_eq!(config.profile("ttft").unwrap()["perplexity"].rps, 5.0);
}
