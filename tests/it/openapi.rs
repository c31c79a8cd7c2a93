//! The description at `/api/openapi.json` says what the server does. That real answers are as it says is found out by
//! `tests/openapi/run`; here is what can be known without them.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weir::failure::Code;

use crate::access::routes;
use crate::orgs::keys;
use crate::support::gateway::Gateway;

/// The description, and everything that it describes: method, path, operation.
async fn described(gateway: &Gateway) -> (Value, Vec<(String, String, Value)>) {
    let answer = gateway.client.get("/api/openapi.json").await.unwrap();
    assert_eq!((answer.status(), answer.head.header("content-type")), (200, Some("application/json")));
    let document = answer.json();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((method.to_uppercase(), path.clone(), operation.clone()));
        }
    }
    (document, operations)
}

/// What a reference in the document stands for.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("references lead somewhere"),
        None => value,
    }
}

/// Every value under a key of this name, at any depth.
fn all<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|inner| all(inner, key, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| all(inner, key, found)),
        _ => {}
    }
}

#[actix_web::test]
async fn every_route_is_described_and_nothing_else() {
    let (_, operations) = described(&Gateway::start().await).await;

    let described: BTreeSet<_> = operations.into_iter().map(|(method, path, _)| (method, path)).collect();
    let routes: BTreeSet<_> = routes().into_iter().map(|(method, path)| (method, path.replace(":.+}", "}"))).collect();
    let differences: Vec<_> = described.symmetric_difference(&routes).collect();
    assert!(differences.is_empty(), "{differences:?}");
}

#[actix_web::test]
async fn every_error_code_is_described_and_told_by_some_operation() {
    let (document, operations) = described(&Gateway::start().await).await;

    let names = |codes: &Value| -> BTreeSet<String> {
        codes.as_array().unwrap().iter().map(|code| code.as_str().unwrap().to_owned()).collect()
    };
    let table: BTreeSet<_> = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(names(&document["components"]["schemas"]["ErrorCode"]["enum"]), table);
    let mut told = BTreeSet::new();
    for (_, _, operation) in &operations {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolved(&document, response);
            let narrowed = "/content/application~1json/schema/allOf/1/properties/error/properties/code/enum";
            for code in response.pointer(narrowed).map(names).into_iter().flatten() {
                assert_eq!(Code::find(&code).unwrap().status().to_string(), *status, "{code}");
                told.insert(code);
            }
        }
    }
    // The answer to a method that is not described.
    told.insert(Code::MethodNotAllowed.as_str().to_owned());
    assert_eq!(told, table);
}

#[actix_web::test]
async fn every_reference_leads_somewhere_and_every_component_is_used() {
    let (document, _) = described(&Gateway::start().await).await;

    let mut references = Vec::new();
    all(&document, "$ref", &mut references);
    let used: BTreeSet<_> = references.into_iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let mut components = BTreeSet::new();
    for (kind, entries) in document["components"].as_object().unwrap() {
        if kind != "securitySchemes" {
            components.extend(entries.as_object().unwrap().keys().map(|name| format!("#/components/{kind}/{name}")));
        }
    }
    let differences: Vec<_> = components.symmetric_difference(&used).collect();
    assert!(differences.is_empty(), "{differences:?}");
}

#[actix_web::test]
async fn every_operation_has_a_name_of_its_own() {
    let (document, operations) = described(&Gateway::start().await).await;

    assert_eq!(document["openapi"], "3.1.0");
    let ids: BTreeSet<_> = operations.iter().map(|(_, _, operation)| operation["operationId"].as_str()).collect();
    assert_eq!(ids.len(), operations.len());
}

#[actix_web::test]
async fn bounds_are_those_that_are_in_effect() {
    let gateway = Gateway::with_tables("[limits]\ntitle_chars_max = 17").await;
    let bound = async || {
        let (document, _) = described(&gateway).await;
        let schema = "/paths/~1api~1threads/post/requestBody/content/application~1json/schema";
        document.pointer(schema).unwrap()["properties"]["title"]["maxLength"].clone()
    };
    assert_eq!(bound().await, 17);

    gateway.edit("title_chars_max = 17", "title_chars_max = 18");
    assert_eq!(gateway.client.post("/api/admin/reload", &json!({})).await.unwrap().status(), 200);

    assert_eq!(bound().await, 18);
}

#[actix_web::test]
async fn a_server_with_keys_says_where_one_is_needed_and_one_without_says_that_none_is() {
    let keyed = Gateway::with_tables(&keys(&[("ops", "*", "admin")])).await;
    let open = Gateway::start().await;
    let security = async |gateway: &Gateway, id: &str| {
        let (_, operations) = described(gateway).await;
        let found = operations.into_iter().find(|(_, _, operation)| operation["operationId"] == id);
        found.unwrap().2["security"].clone()
    };

    assert_eq!(security(&keyed, "health").await, json!([]));
    assert_eq!(security(&keyed, "list_threads").await, json!([{ "key": [] }, { "session": [] }]));
    assert_eq!(security(&keyed, "list_pacers").await, json!([{ "key": ["admin"] }, { "session": ["admin"] }]));
    assert_eq!(security(&open, "list_pacers").await, json!([{}, { "key": ["admin"] }]));
}

#[actix_web::test]
async fn each_address_describes_what_it_has() {
    let gateway = Gateway::with_server("admin_bind = \"127.0.0.1:0\"").await;

    let (_, operations) = described(&gateway).await;

    let has = |path: &str| operations.iter().any(|(_, known, _)| known == path);
    assert!(has("/api/threads") && has("/api/openapi.json") && !has("/api/admin/pacers") && !has("/metrics"));
}
