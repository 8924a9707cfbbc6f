//! The OpenAPI document: what the handlers say, and what holds for all of them.

use utoipa::OpenApi;
use utoipa::openapi::path::{Operation, ParameterIn};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi as Whole, Ref, RefOr, Required, Response, ResponseBuilder};

const TOKEN: &str = "token";

#[derive(OpenApi)]
#[openapi(info(
    title = "Plumbline",
    description = "Whether a PostgreSQL copy is true to its MySQL source, live and with proof. Times are RFC 3339 UTC. Errors are problem+json (RFC 9457)."
))]
pub struct Document;

/// Adds to every operation the answers that the guards before it give.
pub fn complete(mut document: Whole) -> Whole {
    document.components.get_or_insert_default().security_schemes.insert(
        TOKEN.into(),
        RefOr::T(SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("`PLUMBLINE_TOKEN`, where one is set")).build())),
    );
    for (path, item) in &mut document.paths.paths {
        let open = matches!(path.as_str(), "/livez" | "/readyz");
        for (orders, operation) in [(false, &mut item.get), (true, &mut item.post), (true, &mut item.delete)] {
            if let Some(operation) = operation {
                complete_operation(operation, orders, open);
            }
        }
    }
    document
}

fn complete_operation(operation: &mut Operation, orders: bool, open: bool) {
    let asks = operation.responses.responses.contains_key("503");
    let parameters = operation.parameters.iter().flatten().any(|parameter| match parameter {
        RefOr::T(parameter) => matches!(parameter.parameter_in, ParameterIn::Path | ParameterIn::Query),
        RefOr::Ref(_) => true,
    });
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter
            && matches!(parameter.name.as_str(), "table" | "table_name")
        {
            parameter.schema = Some(Ref::from_schema_name("TableName").into());
        }
    }
    let body = operation.request_body.is_some();
    if let Some(RefOr::T(body)) = &mut operation.request_body {
        // Every field may be left out, and so may all of them together.
        body.required = Some(Required::False);
    }
    if !open {
        // An empty requirement beside the token: none is asked for where none is set.
        operation.security = Some(vec![SecurityRequirement::default(), SecurityRequirement::new(TOKEN, [] as [&str; 0])]);
    }
    for (holds, status, words) in [
        (parameters || body, "400", "a parameter or the body cannot be read"),
        (!open, "401", "the token is missing or is not the agent's"),
        (orders, "403", "the order comes from a page of another site"),
        (body, "408", "the body did not come in time"),
        (body, "413", "the body is too large"),
        (body, "415", "the body is said to be something else than JSON"),
        (true, "421", "the agent is not called by this host name"),
        (asks && !open, "504", "no answer in time"),
    ] {
        if holds {
            operation.responses.responses.entry(status.into()).or_insert_with(|| RefOr::T(problem(words)));
        }
    }
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response {
            if response.description.is_empty() {
                response.description = meaning(status).to_owned();
            }
            // Problems are problem+json, not JSON.
            let is_problem = |content: &RefOr<Content>| matches!(content, RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) if schema.ref_location.ends_with("/Problem"));
            if response.content.get("application/json").is_some_and(is_problem)
                && let Some(content) = response.content.shift_remove("application/json")
            {
                response.content.insert("application/problem+json".into(), content);
            }
        }
    }
}

fn problem(words: &str) -> Response {
    ResponseBuilder::new().description(words).content("application/problem+json", Content::new(Some(Ref::from_schema_name("Problem")))).build()
}

fn meaning(status: &str) -> &'static str {
    match status {
        "200" => "as asked",
        "201" => "done, and it was not so before",
        "202" => "queued",
        "400" => "a parameter or the body cannot be read",
        "404" => "there is no such thing",
        "409" => "something stands against it",
        "413" => "the body is too large",
        "415" => "the body is said to be something else than JSON",
        "422" => "what was read cannot be meant",
        "503" => "a part that is needed is away",
        _ => "",
    }
}
