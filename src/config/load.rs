//! Load: from the defaults, the file and the environment to a configuration, or to everything that is wrong with it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::check;
use super::env::Env;
use super::lookup::PRODUCTION;
use super::pace::{Pace, PaceTable};
use super::provider::ProviderTable;
use super::report::{ConfigError, Report};
use super::section::{Section, Table};
use super::tables::check_range;
use super::{Config, Metrics, auth};

/// `[providers]` as they are written.
pub(super) type Written = BTreeMap<String, ProviderTable>;

impl Config {
    /// Reads the configuration. `file` is the name that messages use, and the text; `None`: the defaults. `env` is the
    /// environment, which wins over the file. Everything that is wrong is reported at once; what is
    /// only doubtful goes to the log.
    pub fn load(
        file: Option<(&str, &str)>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let Loaded { config, doubts, .. } = Self::load_with_doubts(file, env)?;
        doubts.iter().for_each(|doubt| log::warn!("{doubt}"));
        Ok(config)
    }

    /// Reads the configuration, and tells what of it is likely not meant.
    pub(super) fn load_with_doubts(
        file: Option<(&str, &str)>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        let (name, text) = file.unwrap_or_default();
        let mut report = Report::new(name, text);
        let built = build(text, &Env::new(env), &mut report);
        let ((config, written), doubts) = report.finish(built)?;
        Ok(Loaded { config, doubts, written: written.into_keys().collect() })
    }
}

/// A configuration, and what is known of its file.
pub(super) struct Loaded {
    pub(super) config: Config,
    /// What of it is likely not meant, a line each.
    pub(super) doubts: Vec<String>,
    /// The providers that the file names.
    pub(super) written: Vec<String>,
}

/// What is wrong is reported, and is as if it were left out.
fn build(text: &str, env: &Env, report: &mut Report<'_>) -> (Config, Written) {
    let mut file = Section::parse(text, report);
    let mut config = Config {
        server: file.take("server", report).read(report),
        store: file.take("store", report).read(report),
        coalesce: file.take("coalesce", report).read(report),
        stream: file.take("stream", report).read(report),
        auth: auth::read(file.take("auth", report), report),
        metrics: read_metrics(file.take("metrics", report), report),
        limits: file.take("limits", report).read(report),
        ..Config::default()
    };
    let written = read_providers(file.take("providers", report), &mut config, report);
    env.apply(&mut config, report);
    read_profiles(file.take("profiles", report), &mut config, &written, report);

    let top: Top = file.read(report);
    config.default_provider = top.default_provider.filter(|name| !name.is_empty());
    config.system_prompt = top.system_prompt.filter(|text| !text.is_empty());
    config.history_messages_max = top.history_messages_max.unwrap_or(config.history_messages_max);

    check::addresses(&config, report);
    check::store(&config, report);
    check::references(&config, &written, report);
    (config, written)
}

fn read_metrics(mut section: Section<'_>, report: &mut Report<'_>) -> Metrics {
    let alerts = section.take("alerts", report).read(report);
    Metrics { alerts, ..section.read(report) }
}

fn read_providers(section: Section<'_>, config: &mut Config, report: &mut Report<'_>) -> Written {
    let mut written = Written::new();
    for (name, section) in section.into_sections(report) {
        let problems = report.len();
        check::name(&section.path, &name, report);
        let table: ProviderTable = section.read(report);
        // What could not be read would be missed again below.
        if report.len() == problems {
            check::provider(&section.path, &name, &table, report);
        }
        if let Some(provider) = table.clone().resolve(&name) {
            config.providers.insert(name.clone(), provider);
        }
        written.insert(name, table);
    }
    written
}

fn read_profiles(section: Section<'_>, config: &mut Config, written: &Written, report: &mut Report<'_>) {
    for (name, mut section) in section.into_sections(report) {
        check::name(&section.path, &name, report);
        if name == PRODUCTION {
            report.key(&section.path, "production is the providers' own paces; choose another name");
        }
        let mut paces: BTreeMap<String, Pace> = BTreeMap::new();
        for (provider, section) in section.take("providers", report).into_sections(report) {
            let pace: PaceTable = section.read(report);
            match config.providers.get(&provider) {
                Some(own) => {
                    paces.insert(provider, pace.over(own.pace));
                }
                None if written.contains_key(&provider) => {}
                None => report.key(&section.path, "there is no such provider"),
            }
        }
        section.read::<ProfileTable>(report);
        config.profiles.insert(name, paces);
    }
}

/// The keys above all tables. The tables are read on their own, but a message about an unknown key names them.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Top {
    default_provider: Option<String>,
    history_messages_max: Option<usize>,
    system_prompt: Option<String>,
    server: IgnoredAny,
    store: IgnoredAny,
    coalesce: IgnoredAny,
    stream: IgnoredAny,
    auth: IgnoredAny,
    metrics: IgnoredAny,
    limits: IgnoredAny,
    providers: IgnoredAny,
    profiles: IgnoredAny,
}

impl Table for Top {
    fn check(&self, wrong: &mut dyn FnMut(&'static str, String)) {
        check_range("history_messages_max", &(0..=10_000), self.history_messages_max, wrong);
    }
}

/// `[profiles.<name>]`.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProfileTable {
    providers: IgnoredAny,
}

impl Table for ProfileTable {
    fn check(&self, _wrong: &mut dyn FnMut(&'static str, String)) {}
}
