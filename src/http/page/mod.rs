//! The pages: the chat and the dashboard, a few files, embedded, served as they are.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Path;

use super::error::{ApiError, ApiResult};
use crate::failure::Code;

/// Nothing may run or load but the pages' own files, and only one place of them may make HTML of a text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types weir-answers";

const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Declares files of this folder by name and type.
macro_rules! files {
    ($($name:literal $kind:ident),* $(,)?) => { [$(($name, $kind, include_str!($name))),*] };
}

/// The files that the pages load.
const FILES: &[(&str, &str, &str)] = &files![
    "admin.css" CSS, "admin.js" JS, "answer.js" JS, "api.js" JS, "app.js" JS, "base.css" CSS, "chart.js" JS,
    "chat.css" CSS, "composer.js" JS, "conversation.js" JS, "dom.js" JS, "follow.js" JS, "growing.js" JS,
    "icon.svg" SVG, "picker.js" JS, "render.js" JS, "scroll.js" JS, "signin.js" JS, "sse.js" JS, "theme.js" JS,
    "threads.js" JS, "turns.js" JS, "words.js" JS,
];

/// `GET /`
pub(super) async fn index() -> HttpResponse {
    file(HTML, include_str!("index.html"))
}

/// `GET /admin`
pub(super) async fn admin() -> HttpResponse {
    file(HTML, include_str!("admin.html"))
}

/// `GET /assets/{file}`
pub(super) async fn asset(name: Path<String>) -> ApiResult {
    let known = FILES.iter().find(|(known, _, _)| *known == name.as_str());
    let (_, kind, content) = known.ok_or_else(|| ApiError::new(Code::NotFound, "there is no such file"))?;
    Ok(file(kind, content))
}

fn file(kind: &'static str, content: &'static str) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, kind))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(("cross-origin-opener-policy", "same-origin"))
        .insert_header(("cross-origin-resource-policy", "same-origin"))
        .body(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a page with all that it loads.
    const WEIGHT_MAX: usize = 100 * 1_024;

    fn content(name: &str) -> Option<&'static str> {
        FILES.iter().find(|(known, _, _)| *known == name).map(|(_, _, content)| *content)
    }

    /// The names of the files that a text asks for.
    fn asked(text: &'static str) -> impl Iterator<Item = &'static str> {
        let after = |mark: &'static str| text.split(mark).skip(1);
        let name = |rest: &'static str| rest.split(['\'', '"']).next().unwrap_or_default();
        after("\"/assets/").chain(after("from './")).chain(after("import './")).map(name)
    }

    fn weight(page: &'static str) -> usize {
        let mut files: Vec<&str> = asked(page).collect();
        let mut sum = page.len();
        let mut at = 0;
        while at < files.len() {
            let text = content(files[at]).unwrap_or_else(|| panic!("{} is not served", files[at]));
            sum += text.len();
            let more: Vec<_> = asked(text).filter(|name| !files.contains(name)).collect();
            files.extend(more);
            at += 1;
        }
        sum
    }

    #[test]
    fn every_file_that_a_page_loads_is_served_and_together_they_are_light() {
        for (name, page) in [("index.html", include_str!("index.html")), ("admin.html", include_str!("admin.html"))] {
            let weight = weight(page);
            assert!(weight > 10_000 && weight < WEIGHT_MAX, "{name} weighs {weight} bytes");
        }
    }

    #[test]
    fn no_page_has_code_or_style_in_its_html() {
        for page in [include_str!("index.html"), include_str!("admin.html")] {
            assert!(!page.contains("style=") && !page.contains("<style") && !page.contains("javascript:"));
            assert!(!page.contains(" onclick") && !page.contains("<script>"));
        }
    }

    #[test]
    fn html_is_made_in_one_place() {
        for (name, _, content) in FILES.iter().filter(|(name, _, _)| name.ends_with(".js")) {
            let makers = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval("];
            let count: usize = makers.iter().map(|maker| content.matches(maker).count()).sum();
            assert_eq!(count, usize::from(*name == "render.js"), "{name}");
        }
    }
}
