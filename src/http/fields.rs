//! Fields: reads a JSON body field by field, so that every mistake is answered with the name of its field.

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::time::Duration;

use super::Api;
use super::error::{ApiError, ApiResult};
use crate::failure::Code;

/// Up to here a fraction holds every whole number.
const WHOLE_FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// The fields of a JSON object that have not been read yet.
#[derive(Debug, Default)]
pub(super) struct Fields {
    rest: Map<String, Value>,
}

impl Fields {
    /// A digest of the whole body, the same for the same fields in any order. `without` is left out.
    pub(super) fn digest(&self, route: &str, without: &str) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(route.as_bytes());
        for (name, value) in self.rest.iter().filter(|(name, value)| *name != without && !value.is_null()) {
            digest.update([0]);
            digest.update(name.as_bytes());
            digest.update([0]);
            digest.update(value.to_string().as_bytes());
        }
        digest.finalize().into()
    }

    /// The value of a field; `null` is the same as none.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.rest.remove(name).filter(|value| !value.is_null())
    }

    /// A text.
    pub(super) fn text(&mut self, name: &'static str) -> ApiResult<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(name, "a string", &other)),
        }
    }

    /// A text of at most `chars_max` characters.
    pub(super) fn short_text(&mut self, name: &'static str, chars_max: usize) -> ApiResult<Option<String>> {
        let text = self.text(name)?;
        if text.as_ref().is_some_and(|text| text.chars().nth(chars_max).is_some()) {
            return Err(ApiError::field(name, format!("{name} may have at most {chars_max} characters")));
        }
        Ok(text)
    }

    /// True or false.
    pub(super) fn flag(&mut self, name: &'static str) -> ApiResult<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong_type(name, "true or false", &other)),
        }
    }

    /// A number between `min` and `max`.
    pub(super) fn number(&mut self, name: &'static str, min: f64, max: f64) -> ApiResult<Option<f64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            Some(_) => Err(ApiError::field(name, format!("{name} must be between {min} and {max}"))),
            None => Err(wrong_type(name, "a number", &value)),
        }
    }

    /// A whole number between `min` and `max`.
    pub(super) fn whole(&mut self, name: &'static str, min: u64, max: u64) -> ApiResult<Option<u64>> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match as_whole(&value) {
            Some(number) if (min..=max).contains(&number) => Ok(Some(number)),
            _ if value.is_number() => {
                Err(ApiError::field(name, format!("{name} must be a whole number between {min} and {max}")))
            }
            _ => Err(wrong_type(name, "a whole number", &value)),
        }
    }

    /// A list.
    pub(super) fn list(&mut self, name: &'static str) -> ApiResult<Vec<Value>> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(wrong_type(name, "an array", &other)),
        }
    }

    /// What nobody has read.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.rest
    }

    /// Refuses what nobody has read.
    pub(super) fn finish(self) -> ApiResult<()> {
        match self.rest.into_iter().next() {
            None => Ok(()),
            Some((name, _)) => {
                let shown: String = name.chars().take(64).collect();
                let message = format!("there is no field {shown}");
                Err(ApiError::field(shown, message))
            }
        }
    }
}

/// A whole number, also when it is written as `5.0`: JSON has one kind of numbers.
fn as_whole(value: &Value) -> Option<u64> {
    let is_exact = |number: &f64| number.fract() == 0.0 && (0.0..=WHOLE_FLOAT_MAX).contains(number);
    value.as_u64().or_else(|| value.as_f64().filter(is_exact).map(|number| number as u64))
}

/// The field has another type than it should.
pub(super) fn wrong_type(name: &'static str, expected: &str, value: &Value) -> ApiError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    ApiError::field(name, format!("{name} must be {expected}, not {found}"))
}

impl FromRequest for Fields {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, ApiResult<Self>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let request = request.clone();
        let payload = payload.take();
        Box::pin(async move {
            let api = Api::of(&request);
            let config = api.config();
            let limit = Duration::from_millis(config.server.body_timeout_ms);
            let bytes = read(&request, payload, config.server.body_bytes_max);
            let bytes = tokio::time::timeout(limit, bytes).await.map_err(|_| {
                let limit_ms = limit.as_millis();
                ApiError::new(Code::RequestTimeout, format!("the body did not come within {limit_ms} ms"))
            })??;
            parse(&bytes)
        })
    }
}

/// The bytes of a body that may be read as JSON.
async fn read(request: &HttpRequest, mut payload: Payload, bytes_max: usize) -> ApiResult<web::BytesMut> {
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        let message = "bodies are read as they are: no Content-Encoding, please";
        return Err(ApiError(crate::failure::Failure::new(Code::UnsupportedMedia, message).param("Content-Encoding")));
    }
    let too_large = || ApiError::new(Code::TooLarge, format!("the body may have at most {bytes_max} bytes"));
    let announced = request.headers().get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    if announced.is_some_and(|len: usize| len > bytes_max) {
        return Err(too_large());
    }
    let mut bytes = web::BytesMut::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|_| ApiError::new(Code::InvalidRequest, "the body was cut short"))?;
        if bytes.len() + chunk.len() > bytes_max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    // A browser sends other types to any server without asking; JSON it does not.
    let is_json = request.content_type().eq_ignore_ascii_case("application/json");
    if !bytes.is_empty() && !is_json {
        let message = "the body must be JSON, with Content-Type: application/json";
        return Err(ApiError(crate::failure::Failure::new(Code::UnsupportedMedia, message).param("Content-Type")));
    }
    Ok(bytes)
}

/// The fields of a body; an empty body has none.
fn parse(bytes: &[u8]) -> ApiResult<Fields> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Fields::default());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(rest)) => Ok(Fields { rest }),
        Ok(_) => Err(ApiError::new(Code::InvalidRequest, "the body must be a JSON object")),
        Err(error) => {
            let (line, column) = (error.line(), error.column());
            Err(ApiError::new(Code::InvalidJson, format!("the body is not JSON: line {line}, column {column}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        parse(json.as_bytes()).unwrap()
    }

    /// The parameter that the error names.
    fn blamed<T: std::fmt::Debug>(result: ApiResult<T>) -> String {
        result.unwrap_err().0.param.unwrap().into_owned()
    }

    #[test]
    fn every_wrong_type_names_its_field() {
        let body = r#"{"a":1,"b":"x","c":"x","d":"x","e":{}}"#;

        assert_eq!(blamed(fields(body).text("a")), "a");
        assert_eq!(blamed(fields(body).flag("b")), "b");
        assert_eq!(blamed(fields(body).number("c", 0.0, 1.0)), "c");
        assert_eq!(blamed(fields(body).whole("d", 0, 1)), "d");
        assert_eq!(blamed(fields(body).list("e")), "e");
        assert_eq!(blamed(fields(body).finish()), "a");
    }

    #[test]
    fn numbers_out_of_range_name_their_range() {
        for bad in ["3", "-1", "1e300", "1.5"] {
            let error = fields(&format!(r#"{{"n":{bad}}}"#)).whole("n", 1, 2).unwrap_err();
            assert!(error.0.message.contains("between 1 and 2"), "{bad}");
        }
        for good in ["2", "2.0", "2e0"] {
            assert_eq!(fields(&format!(r#"{{"n":{good}}}"#)).whole("n", 1, 2).unwrap(), Some(2), "{good}");
        }
    }

    #[test]
    fn null_is_the_same_as_nothing() {
        let mut fields = fields(r#"{"a":null}"#);

        assert_eq!(fields.text("a").unwrap(), None);
        fields.finish().unwrap();
    }

    #[test]
    fn bad_json_names_its_place_and_not_its_content() {
        let error = parse(b"{\n\"secret\": nope}").unwrap_err();

        assert_eq!(error.0.code, Code::InvalidJson);
        assert!(error.0.message.contains("line 2") && !error.0.message.contains("nope"));
    }

    #[test]
    fn the_digest_is_of_the_fields_not_of_their_order() {
        let first = fields(r#"{"a":1,"b":2,"id":"x"}"#).digest("r", "id");

        assert_eq!(first, fields(r#"{"id":"y", "b":2, "a":1, "c":null}"#).digest("r", "id"));
        assert_ne!(first, fields(r#"{"a":1,"b":3,"id":"x"}"#).digest("r", "id"));
        assert_ne!(first, fields(r#"{"a":1,"b":2,"id":"x"}"#).digest("s", "id"));
    }
}
