//! The OpenAPI document against the routes.

use reqwest::Method;

use super::*;
use crate::admin::routes;

#[tokio::test]
async fn every_route_is_described_and_nothing_else() {
    let host = Running::start().await;
    let (_, document) = host.get("/api/v1/openapi.json").await;
    let mut described: Vec<&str> = document["paths"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut served: Vec<&str> = routes().iter().map(|(path, _)| *path).collect();
    described.sort_unstable();
    served.sort_unstable();
    assert_eq!(described, served);
}

#[tokio::test]
async fn the_document_says_how_to_show_the_token_and_what_a_refusal_is() {
    let host = Running::start().await;
    let (_, document) = host.get("/api/v1/openapi.json").await;
    assert_eq!(document["security"], json!([{}, { "token": [] }]));
    assert_eq!(
        document["components"]["securitySchemes"]["token"],
        json!({ "type": "http", "scheme": "bearer" })
    );
    let refused = &document["paths"]["/api/v1/dead-letters/{id}"]["get"]["responses"]["404"];
    assert_eq!(
        refused["content"]["application/json"]["schema"]["$ref"],
        "#/components/schemas/Problem"
    );
    assert!(document["components"]["schemas"]["Problem"]["properties"]["message"].is_object());
}

/// The methods too: each that is described is answered, each that is not is refused as such.
#[tokio::test]
async fn methods_are_as_described() {
    let host = Running::start().await;
    let (_, document) = host.get("/api/v1/openapi.json").await;
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let url = host.url(&path.replace(['{', '}'], "-"));
            let status = host.client.request(method.clone(), url).send().await.unwrap().status();
            let is_described = item.get(method.as_str().to_lowercase()).is_some();
            assert_eq!(status != 405, is_described, "{method} {path}: {status}");
        }
    }
}

#[tokio::test]
async fn unknown_routes_and_methods_are_refused_in_json() {
    let host = Running::start().await;
    let (status, body) = host.get("/api/v1/nothing").await;
    assert_eq!((status, &body["error"]), (404, &json!("admin-no-route")));
    let (status, body) = host.post("/readyz", &json!({})).await;
    assert_eq!((status, &body["error"]), (405, &json!("admin-no-method")));
}
