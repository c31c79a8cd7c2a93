//! The pages: the chat and the dashboard, a few files, embedded. They are packed once, when the first is asked for.

use std::io::Write;
use std::sync::LazyLock;

use actix_web::http::header::{self, AcceptEncoding, Encoding, Header};
use actix_web::web::Path;
use actix_web::{HttpRequest, HttpResponse};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

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

/// A file as it is served.
struct File {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    /// The text, packed by gzip.
    packed: Vec<u8>,
    /// Names this version of the file.
    tag: String,
}

impl File {
    fn new((name, kind, text): &(&'static str, &'static str, &'static str)) -> Self {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        let packed = packer.write_all(text.as_bytes()).and_then(|()| packer.finish());
        let packed = packed.expect("writing into memory does not fail");
        let digest = Sha256::digest(text);
        let tag = digest.iter().take(12).fold(String::from("W/\""), |tag, byte| format!("{tag}{byte:02x}")) + "\"";
        Self { name, kind, text, packed, tag }
    }

    /// The file, or that the client has it already.
    fn answer(&'static self, request: &HttpRequest) -> HttpResponse {
        let known = request.headers().get(header::IF_NONE_MATCH).and_then(|known| known.to_str().ok());
        let is_known = known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == self.tag));
        let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
        response
            .insert_header((header::CONTENT_TYPE, self.kind))
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header((header::ETAG, self.tag.as_str()))
            .insert_header((header::VARY, "Accept-Encoding"))
            .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
            .insert_header((header::REFERRER_POLICY, "no-referrer"))
            .insert_header(("cross-origin-opener-policy", "same-origin"))
            .insert_header(("cross-origin-resource-policy", "same-origin"));
        if is_known {
            return response.finish();
        }
        if !takes_gzip(request) {
            return response.body(self.text);
        }
        response.insert_header((header::CONTENT_ENCODING, "gzip")).body(self.packed.as_slice())
    }
}

/// Whether the client says that it can unpack.
fn takes_gzip(request: &HttpRequest) -> bool {
    let named = AcceptEncoding::parse(request).ok().filter(|named| !named.is_empty());
    named.and_then(|named| named.negotiate([Encoding::gzip(), Encoding::identity()].iter())) == Some(Encoding::gzip())
}

/// Declares files of this folder by name and type.
macro_rules! files {
    ($($name:literal $kind:ident),* $(,)?) => { &[$(($name, $kind, include_str!($name))),*] };
}

/// The pages, and the files that they load.
const SOURCES: &[(&str, &str, &str)] = files![
    "index.html" HTML, "admin.html" HTML,
    "admin.css" CSS, "admin.js" JS, "answer.js" JS, "api.js" JS, "app.js" JS, "base.css" CSS, "chart.js" JS,
    "chat.css" CSS, "composer.js" JS, "conversation.js" JS, "dom.js" JS, "follow.js" JS, "growing.js" JS,
    "icon.svg" SVG, "picker.js" JS, "render.js" JS, "rich.js" JS, "scroll.js" JS, "signin.js" JS, "sse.js" JS,
    "theme.js" JS, "threads.js" JS, "turns.js" JS, "words.js" JS,
];

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| SOURCES.iter().map(File::new).collect());

fn file(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

/// `GET /`
pub(super) async fn index(request: HttpRequest) -> ApiResult {
    answer(&request, "index.html")
}

/// `GET /admin`
pub(super) async fn admin(request: HttpRequest) -> ApiResult {
    answer(&request, "admin.html")
}

/// `GET /assets/{file}`
pub(super) async fn asset(request: HttpRequest, name: Path<String>) -> ApiResult {
    // The pages have paths of their own.
    answer(&request, if name.ends_with(".html") { "" } else { &name })
}

fn answer(request: &HttpRequest, name: &str) -> ApiResult {
    let file = file(name).ok_or_else(|| ApiError::new(Code::NotFound, "there is no such file"))?;
    Ok(file.answer(request))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use actix_web::body::to_bytes;
    use actix_web::test::TestRequest;
    use flate2::read::GzDecoder;

    use super::*;

    /// Bytes of a page with all that it loads, as browsers ask for it.
    const WEIGHT_MAX: usize = 100_000;
    /// What the head of a response adds, roughly.
    const HEAD_BYTES: usize = 800;

    /// The names of the files that a text asks for.
    fn asked(text: &'static str) -> impl Iterator<Item = &'static str> {
        let after = |mark: &'static str| text.split(mark).skip(1);
        let name = |rest: &'static str| rest.split(['\'', '"']).next().unwrap_or_default();
        after("\"/assets/").chain(after("from './")).chain(after("import './")).map(name)
    }

    /// Everything that a page loads, itself first.
    fn loaded(page: &'static str) -> Vec<&'static File> {
        let mut names = vec![page];
        let mut at = 0;
        while at < names.len() {
            let text = file(names[at]).unwrap_or_else(|| panic!("{} is not served", names[at])).text;
            let more: Vec<_> = asked(text).filter(|name| !names.contains(name)).collect();
            names.extend(more);
            at += 1;
        }
        names.into_iter().filter_map(file).collect()
    }

    #[test]
    fn every_file_that_a_page_loads_is_served_and_together_they_are_light() {
        for page in ["index.html", "admin.html"] {
            let weight: usize = loaded(page).iter().map(|file| file.packed.len() + HEAD_BYTES).sum();
            assert!(weight > 10_000 && weight < WEIGHT_MAX, "{page} weighs {weight} bytes");
        }
    }

    #[test]
    fn a_page_names_all_its_modules_so_that_none_is_found_late() {
        for page in ["index.html", "admin.html"] {
            let named: Vec<_> = asked(file(page).unwrap().text).collect();
            for file in loaded(page).iter().skip(1) {
                assert!(named.contains(&file.name), "{page} does not name {}", file.name);
            }
        }
    }

    #[actix_web::test]
    async fn a_file_is_packed_for_who_can_unpack_and_sent_once() {
        let ask = |name: &'static str, value: &str| {
            let request = TestRequest::default().insert_header((name, value)).to_http_request();
            file("app.js").unwrap().answer(&request)
        };
        let encoding = |response: &HttpResponse| response.headers().get(header::CONTENT_ENCODING).cloned();

        let packed = ask("accept-encoding", "gzip, deflate, br");
        let plain = ask("accept-encoding", "identity");
        let refused = ask("accept-encoding", "gzip;q=0, br");

        assert_eq!(encoding(&packed).unwrap(), "gzip");
        assert_eq!((encoding(&plain), encoding(&refused), encoding(&ask("accept", "*/*"))), (None, None, None));
        let tag = packed.headers().get(header::ETAG).unwrap().to_str().unwrap().to_owned();
        let bytes = to_bytes(packed.into_body()).await.unwrap();
        let mut text = String::new();
        GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, to_bytes(plain.into_body()).await.unwrap());
        assert_eq!(ask("if-none-match", &format!("\"x\", {tag}")).status(), 304);
        assert_eq!(ask("if-none-match", "\"x\"").status(), 200);
    }

    #[test]
    fn no_page_has_code_or_style_in_its_html() {
        for page in ["index.html", "admin.html"].map(|page| file(page).unwrap().text) {
            assert!(!page.contains("style=") && !page.contains("<style") && !page.contains("javascript:"));
            assert!(!page.contains(" onclick") && !page.contains("<script>"));
        }
    }

    #[test]
    fn html_is_made_in_one_place() {
        for (name, _, content) in SOURCES.iter().filter(|(name, _, _)| name.ends_with(".js")) {
            let makers = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval("];
            let count: usize = makers.iter().map(|maker| content.matches(maker).count()).sum();
            assert_eq!(count, usize::from(*name == "render.js"), "{name}");
        }
    }
}
