//! Lookup: which provider and model a request means, and which pace a profile means.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Config;
use super::pace::Pace;
use super::provider::{BUILT_IN, DEMO, Key, Provider, is_model};
use crate::failure::{Code, Failure};

/// The profile that every configuration has: the paces as they are configured.
pub(super) const PRODUCTION: &str = "production";

impl Config {
    /// The provider of requests that name none: the configured one, whether it can be called or not; else the first
    /// that can be called with its key, else the first that needs none, else the demo.
    pub fn default_provider(&self) -> &Provider {
        let configured = self.default_provider.as_ref().and_then(|name| self.providers.get(name));
        let built_in = BUILT_IN.iter().filter_map(|(name, _)| self.providers.get(*name));
        let in_order = built_in.chain(self.providers.values()).filter(|provider| provider.available().is_ok());
        let keyed = in_order.clone().find(|provider| provider.api_key().is_some());
        let keyless = in_order.clone().find(|provider| provider.key == Key::NotNeeded && !is_demo(provider));
        let demo = || self.providers.get(DEMO).expect("the demo is built in and cannot be removed");
        configured.or(keyed).or(keyless).unwrap_or_else(demo)
    }

    /// The provider and the model that a request means, as it names them. A model without a provider is
    /// `provider/model`, or a bare model that one provider lists.
    pub fn resolve_model(&self, provider: Option<&str>, model: Option<&str>) -> Result<(&Provider, Arc<str>), Failure> {
        let (provider, model) = match (provider, model) {
            (Some(provider), model) => (self.named(provider)?, model),
            (None, None) => (self.default_provider(), None),
            (None, Some(model)) => self.find_model(model)?,
        };
        let model = match model {
            Some(model) if provider.accepts(model) => listed(provider, model),
            Some(_) => return Err(unknown_model(provider, "does not list this model")),
            None => provider.default_model.clone().ok_or_else(|| unknown_model(provider, "has no default model"))?,
        };
        callable_now(provider, "provider")?;
        Ok((provider, model))
    }

    /// The provider and the model that a name on `/v1` means: `provider/model`, or a model that exactly one provider
    /// lists. What is listed under a name goes before what a provider would accept besides.
    pub fn resolve_name(&self, name: &str) -> Result<(&Provider, Arc<str>), Failure> {
        let named = name.split_once('/').and_then(|(first, rest)| Some((self.providers.get(first)?, rest)));
        let listing: Vec<_> = self.providers.values().filter(|provider| provider.lists(name)).collect();
        let callable: Vec<_> = listing.iter().copied().filter(|provider| provider.available().is_ok()).collect();
        let (provider, model) = match (named, listing.as_slice(), callable.as_slice()) {
            (Some((provider, model)), ..) if provider.lists(model) => (provider, model),
            (_, [one], _) | (_, _, [one]) => (*one, name),
            (Some((provider, model)), [], _) if provider.accepts(model) => (provider, model),
            (_, [], _) => {
                let message = "no provider lists this model; name it provider/model, or see GET /v1/models";
                return Err(Failure::new(Code::ModelNotFound, message).param("model"));
            }
            (_, several, _) => {
                let names: Vec<_> = several.iter().map(|provider| format!("{}/{name}", provider.name)).collect();
                let message = format!("several providers list this model; name one of {}", names.join(", "));
                return Err(Failure::new(Code::ModelNotFound, message).param("model"));
            }
        };
        callable_now(provider, "model")?;
        Ok((provider, listed(provider, model)))
    }

    /// The pace of every provider under a profile; `None`: there is no such profile. `production` always exists: the
    /// configured paces. Because all providers are in it, switching needs no memory of the profile before.
    pub fn profile(&self, name: &str) -> Option<BTreeMap<&str, Pace>> {
        let none = BTreeMap::new();
        let overrides = if name == PRODUCTION { &none } else { self.profiles.get(name)? };
        let paces = self.providers.iter().map(|(provider, configured)| {
            let pace = overrides.get(provider).copied().unwrap_or(configured.pace);
            (provider.as_str(), pace)
        });
        Some(paces.collect())
    }

    fn named(&self, name: &str) -> Result<&Provider, Failure> {
        self.providers.get(name).ok_or_else(|| {
            let names: Vec<_> = self.providers.keys().map(String::as_str).collect();
            let message = format!("no such provider; there are {}", names.join(", "));
            Failure::new(Code::UnknownProvider, message).param("provider")
        })
    }

    /// Who a model without a provider belongs to, and how it is called there.
    fn find_model<'m>(&self, model: &'m str) -> Result<(&Provider, Option<&'m str>), Failure> {
        if let Some((name, rest)) = model.split_once('/')
            && let Some(provider) = self.providers.get(name).filter(|provider| provider.accepts(rest))
        {
            return Ok((provider, Some(rest)));
        }
        let listing: Vec<_> = self.providers.values().filter(|provider| provider.lists(model)).collect();
        let callable: Vec<_> = listing.iter().copied().filter(|provider| provider.available().is_ok()).collect();
        let default = self.default_provider();
        match (listing.as_slice(), callable.as_slice()) {
            ([], _) if default.accepts(model) => Ok((default, Some(model))),
            ([], _) if is_demo(default) => Err(unknown_model(default, "does not list this model")),
            ([], _) => {
                let message = "no provider lists this model; name it provider/model, or see GET /v1/models";
                Err(Failure::new(Code::UnknownModel, message).param("model"))
            }
            ([one], _) | (_, [one]) => Ok((one, Some(model))),
            _ if default.lists(model) => Ok((default, Some(model))),
            (several, _) => {
                let names: Vec<_> = several.iter().map(|provider| provider.name.as_str()).collect();
                let message = format!("several providers list this model; name one of {}", names.join(", "));
                Err(Failure::new(Code::UnknownModel, message).param("provider"))
            }
        }
    }
}

/// Refuses a provider that lacks its key; `param` is the field that has named it.
fn callable_now(provider: &Provider, param: &'static str) -> Result<(), Failure> {
    provider.available().map_err(|why| {
        let message = format!("{} cannot be called: {why}", provider.name);
        let provider = Some(provider.name.as_str().into());
        Failure { provider, ..Failure::new(Code::ProviderUnavailable, message).param(param) }
    })
}

fn is_demo(provider: &Provider) -> bool {
    provider.name.as_str() == DEMO
}

/// The provider's own copy of a model's name, if it lists the model.
fn listed(provider: &Provider, model: &str) -> Arc<str> {
    let own = provider.models.iter().find(|listed| &***listed == model);
    own.cloned().unwrap_or_else(|| model.into())
}

fn unknown_model(provider: &Provider, why: &str) -> Failure {
    debug_assert!(provider.models.iter().all(|model| is_model(model)));
    let mut message = format!("{} {why}", provider.name);
    match (provider.models.as_slice(), provider.any_model) {
        ([], _) => message.push_str("; name any model"),
        (models, any) => {
            message.push_str(if any { "; name any model, such as " } else { "; it lists " });
            message.push_str(&models.join(", "));
        }
    }
    Failure {
        provider: Some(provider.name.as_str().into()),
        ..Failure::new(Code::UnknownModel, message).param("model")
    }
}
