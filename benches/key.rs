//! Key: from a thread's history and a new message to what makes two requests equal.

use weir::chat::{OrgId, Principal, RequestKey, Scope};

use crate::Case;
use crate::answers::request;

pub(crate) fn cases() -> Vec<Case> {
    [1, 50].map(case).into()
}

fn case(messages: usize) -> Case {
    let (scope, request) = (Scope::Principal(OrgId::new("acme"), Principal::new("chat-ui")), request(messages));
    Case::new(format!("key/of_{messages}_messages"), messages, move || {
        let key = RequestKey::new(&scope, &request);
        assert_eq!(key, key.clone());
    })
}
