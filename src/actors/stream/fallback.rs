//! Fallback: where a request goes when the provider that was asked cannot answer it. Pure.

use std::rc::Rc;
use std::sync::Arc;

use crate::actors::target::{Target, Targets};
use crate::chat::ChatRequest;
use crate::failure::{Code, Failure, Phase};

/// Who may answer instead, and with which model.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) target: Rc<Target>,
    pub(super) model: Arc<str>,
}

/// The routes of the provider that is asked, in order: those that can be called, each once, without what was asked
/// itself. The fallbacks of a fallback are not followed, so no request goes in circles.
pub(super) fn routes(asked: &Target, model: &str, targets: &Targets) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::with_capacity(asked.provider.fallback.len());
    for route in &asked.provider.fallback {
        let Some(target) = targets.get(&route.provider) else { continue };
        let Some(model_there) = route.model.as_ref().or(target.provider.default_model.as_ref()) else { continue };
        let way = (&target.provider.name, &**model_there);
        let mut known = routes.iter().map(|known| (&known.target.provider.name, &*known.model));
        if way != (&asked.provider.name, model) && known.all(|known| known != way) {
            routes.push(Route { target: target.clone(), model: model_there.clone() });
        }
    }
    routes
}

impl Route {
    /// The request as it goes this way. What only its first provider understands stays behind.
    pub(super) fn request(&self, asked: &ChatRequest) -> ChatRequest {
        let provider = self.target.provider.name.clone();
        let mut request = ChatRequest { provider, model: self.model.clone(), ..asked.clone() };
        if request.provider != asked.provider {
            request.messages.iter_mut().for_each(|message| message.opaque.clear());
        }
        request
    }
}

/// Whether another provider may do better: the failure is this provider's own matter, its account's included. What is
/// wrong with the request itself is told to the client, who would otherwise never learn of it.
pub(super) fn is_worth_another(code: Code) -> bool {
    matches!(
        code,
        Code::ProviderBusy
            | Code::QueueTimeout
            | Code::BreakerOpen
            | Code::UpstreamConnect
            | Code::UpstreamDns
            | Code::UpstreamTls
            | Code::UpstreamTimeout
            | Code::UpstreamStalled
            | Code::UpstreamTruncated
            | Code::UpstreamProtocol
            | Code::UpstreamRedirect
            | Code::UpstreamAuth
            | Code::UpstreamRateLimit
            | Code::UpstreamQuota
            | Code::UpstreamOverloaded
            | Code::UpstreamError
    )
}

/// Whether the provider has certainly done nothing for the request, so that one with tools may go elsewhere.
pub(super) fn is_untouched(failure: &Failure) -> bool {
    let is_unsent = match failure.phase {
        Some(Phase::Queue) => true,
        Some(Phase::Connect) => failure.code != Code::UpstreamProtocol,
        _ => false,
    };
    is_unsent || matches!(failure.code, Code::UpstreamRateLimit | Code::UpstreamQuota | Code::UpstreamAuth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_the_request_stays_with_the_provider_that_was_asked() {
        let of_the_request = [
            Code::UpstreamRejected,
            Code::UpstreamModel,
            Code::ContextLength,
            Code::ContentFilter,
            Code::Unprocessable,
            Code::ResponseTooLarge,
        ];
        let ours = [Code::Internal, Code::Interrupted, Code::Storage, Code::Draining, Code::Overloaded];

        assert!(of_the_request.into_iter().chain(ours).all(|code| !is_worth_another(code)));
    }

    #[test]
    fn whatever_helps_by_waiting_is_worth_another_provider_at_once() {
        let upstream = |code: &&Code| code.as_str().starts_with("upstream_") && code.retryable();

        assert!(Code::ALL.iter().filter(upstream).all(|code| is_worth_another(*code)));
    }

    #[test]
    fn a_request_that_may_have_been_heard_is_not_untouched() {
        let at = |code, phase| is_untouched(&Failure::new(code, "").phase(phase));

        assert!(at(Code::QueueTimeout, Phase::Queue) && at(Code::UpstreamConnect, Phase::Connect));
        assert!(at(Code::UpstreamRateLimit, Phase::Headers) && at(Code::UpstreamAuth, Phase::Headers));
        assert!(!at(Code::UpstreamTruncated, Phase::Headers) && !at(Code::UpstreamOverloaded, Phase::Headers));
        assert!(!at(Code::UpstreamProtocol, Phase::Connect) && !at(Code::UpstreamStalled, Phase::PreToken));
    }
}
