//! Doctor: an operator's check-up of a weir: what it would start with, whom it calls, and what clients get through the
//! proxy in front of it. It changes nothing, costs nothing unless it is told to, and prints neither keys nor bodies.
//!
//! | file | what it looks at |
//! |---|---|
//! | `findings.rs` | what was found, for people and for programs |
//! | `local.rs` | the configuration, the keys, the database, the limit of open files |
//! | `providers.rs` | whether each provider can be reached, and takes its key |
//! | `site.rs` | a weir that runs, through its public address |
//! | `stream.rs` | one stream of it: whether something on the way holds it back |

mod findings;
mod local;
mod providers;
mod site;
mod stream;

use std::path::PathBuf;
use std::time::Duration;

pub use findings::{Finding, Findings, Verdict};

use crate::config::{Config, Origin, Secret};

/// What to look at.
pub struct Options {
    /// Where the configuration comes from.
    pub origin: Origin,
    /// Whether it is meant that everybody may use weir.
    pub insecure: bool,
    /// A weir that runs.
    pub site: Option<Site>,
}

/// A weir that runs, and how it is asked.
pub struct Site {
    /// Its public address, `https://chat.example.org`.
    pub url: String,
    /// A client's key.
    pub key: Option<Secret>,
    /// Who answers; `None`: the demo, which costs nothing.
    pub provider: Option<String>,
    /// What answers; `None`: the provider's default.
    pub model: Option<String>,
    /// PEM certificates to trust beside the public roots.
    pub ca_file: Option<PathBuf>,
    /// How long each answer may take.
    pub wait_max: Duration,
}

/// Looks at everything.
pub async fn check_up(options: Options) -> Findings {
    let Options { origin, insecure, site } = options;
    let mut findings = Findings::default();
    let examined = local::configuration(&origin, &mut findings);
    let mut config = Config::default();
    if let Some(examined) = examined {
        local::keys(&examined, insecure, &mut findings);
        local::database_and_files(&examined.config, &mut findings);
        providers::reach_all(&examined, &mut findings).await;
        config = examined.config;
    }
    if let Some(site) = site {
        site::look(&site, &config, &mut findings).await;
    }
    findings
}
