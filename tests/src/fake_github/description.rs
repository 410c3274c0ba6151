//! GitHub's own description of its API (`tests/data/github`): what is asked and answered is checked against it, and its
//! examples are the first form of answers.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use jsonschema::{Draft, Registry, Validator};
use serde_json::{Value, json};

const TEXT: &str = include_str!("../../data/github/openapi.json");
const URI: &str = "https://github.test/openapi";

/// The description, as JSON Schema reads it.
pub(super) struct Description {
    whole: Value,
    registry: Registry<'static>,
    validators: Mutex<HashMap<String, Option<&'static Validator>>>,
}

/// An operation that a request asks for.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    /// In lower case.
    pub(super) method: String,
    /// The path with the names of its parts.
    pub(super) template: String,
    /// The parts by their names, decoded.
    pub(super) parts: HashMap<String, String>,
}

/// The description; it is read once for all tests of a process.
pub(super) fn get() -> &'static Description {
    static READ: OnceLock<Description> = OnceLock::new();
    READ.get_or_init(|| {
        let mut whole: Value = serde_json::from_str(TEXT).expect("the committed description is JSON");
        nullable(&mut whole);
        let registry = Registry::new()
            .draft(Draft::Draft7)
            .add(URI, whole.clone())
            .and_then(|registry| registry.prepare())
            .expect("the description can be referred to");
        Description { whole, registry, validators: Mutex::default() }
    })
}

/// OpenAPI 3.0 says `nullable`, JSON Schema says that it may be null.
fn nullable(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.values_mut().for_each(nullable);
            if object.remove("nullable") == Some(Value::Bool(true)) {
                let inner = std::mem::take(object);
                *value = json!({ "anyOf": [inner, { "type": "null" }] });
            }
        }
        Value::Array(all) => all.iter_mut().for_each(nullable),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Description {
    /// One of GitHub's own examples.
    pub(super) fn example(&self, name: &str) -> Value {
        let example = &self.whole["components"]["examples"][name]["value"];
        assert!(!example.is_null(), "there is no example {name}");
        example.clone()
    }

    /// Which operation a path below the API asks for. A part may hold slashes where nothing else fits.
    pub(super) fn operation(&self, method: &str, path: &str) -> Option<Operation> {
        let method = method.to_ascii_lowercase();
        let mut best: Option<Operation> = None;
        for (template, of_path) in self.whole["paths"].as_object()? {
            let Some(parts) = of_path.get(&method).and_then(|_| fit(template, path)) else { continue };
            // The one with the fewest names is the closest: `issues/comments/1` is no issue.
            if best.as_ref().is_none_or(|best| parts.len() < best.parts.len()) {
                best = Some(Operation { method: method.clone(), template: template.clone(), parts });
            }
        }
        best
    }

    /// What is wrong with a request.
    pub(super) fn request(&self, operation: &Operation, query: &[(String, String)], body: &[u8]) -> Vec<String> {
        let described = &self.whole["paths"][&operation.template][&operation.method];
        let mut wrong = Vec::new();
        let no_parameters = Vec::new();
        let parameters: Vec<&Value> =
            described["parameters"].as_array().unwrap_or(&no_parameters).iter().map(|it| self.resolve(it)).collect();
        let given = query.iter().map(|(name, value)| ("query", name, value));
        for (place, name, value) in given.chain(operation.parts.iter().map(|(name, value)| ("path", name, value))) {
            let Some(parameter) = parameters.iter().find(|it| it["in"] == place && it["name"] == name.as_str()) else {
                wrong.push(format!("there is no {place} parameter {name}"));
                continue;
            };
            let as_number = value.parse::<i64>().map(Value::from).unwrap_or_else(|_| json!(value));
            let fits = |value: &Value| jsonschema::is_valid(&parameter["schema"], value);
            // Some references have names that are numbers.
            if parameter["schema"].get("$ref").is_none() && !fits(&as_number) && !fits(&json!(value)) {
                wrong.push(format!("{place} parameter {name} is {value:?}"));
            }
        }
        let content = format!(
            "paths/{}/{}/requestBody/content/application~1json/schema",
            escape(&operation.template),
            operation.method
        );
        match (self.schema(&content), body) {
            (None, []) => {}
            (None, _) => wrong.push("a body where none is described".to_owned()),
            (Some(_), []) if described["requestBody"]["required"] != true => {}
            (Some(validator), body) => match serde_json::from_slice::<Value>(body) {
                Ok(body) => {
                    wrong.extend(validator.iter_errors(&body).map(|error| format!("the body: {error}")));
                    wrong.extend(self.strange(described, &body));
                }
                Err(error) => wrong.push(format!("the body: {error}")),
            },
        }
        wrong
    }

    /// Fields of a body that are not described: a misspelled one would do nothing.
    fn strange(&self, described: &Value, body: &Value) -> Vec<String> {
        let mut schema = &described["requestBody"]["content"]["application/json"]["schema"];
        if let Some(inner) = schema["anyOf"].get(0) {
            schema = inner;
        }
        let mut known: Vec<&String> = Vec::new();
        for part in schema["oneOf"].as_array().into_iter().flatten().chain([schema]) {
            known.extend(self.resolve(part)["properties"].as_object().into_iter().flat_map(|it| it.keys()));
        }
        let given = body.as_object().into_iter().flat_map(|it| it.keys());
        given.filter(|name| !known.contains(name)).map(|name| format!("the body has a field {name}")).collect()
    }

    /// What is wrong with an answer.
    pub(super) fn answer(&self, operation: &Operation, status: u16, body: Option<&Value>) -> Vec<String> {
        // What GitHub answers to anything, described or not.
        const ANYWHERE: [u16; 6] = [304, 401, 403, 404, 410, 429];
        let described = &self.whole["paths"][&operation.template][&operation.method]["responses"];
        let response = &described[status.to_string()];
        if response.is_null() {
            let known = ANYWHERE.contains(&status);
            return if known { Vec::new() } else { vec![format!("{status} is not described")] };
        }
        let at = match response["$ref"].as_str() {
            Some(reference) => reference.trim_start_matches("#/").to_owned(),
            None => format!("paths/{}/{}/responses/{status}", escape(&operation.template), operation.method),
        };
        match (self.schema(&format!("{at}/content/application~1json/schema")), body) {
            (Some(validator), Some(body)) => {
                validator.iter_errors(body).map(|error| format!("{}: {error:.300}", error.instance_path())).collect()
            }
            (Some(_), None) => vec!["no body where one is described".to_owned()],
            (None, Some(_)) if status < 300 => vec!["a body where none is described".to_owned()],
            (None, _) => Vec::new(),
        }
    }

    fn resolve<'v>(&'v self, value: &'v Value) -> &'v Value {
        match value["$ref"].as_str() {
            Some(reference) => self.whole.pointer(reference.trim_start_matches('#')).unwrap_or(value),
            None => value,
        }
    }

    /// The validator of the schema at this place; it is made once and kept.
    fn schema(&self, at: &str) -> Option<&'static Validator> {
        let mut validators = self.validators.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = validators.get(at) {
            return *known;
        }
        let made = self.whole.pointer(&format!("/{at}")).map(|_| {
            let schema = json!({ "$ref": format!("{URI}#/{}", at.replace('{', "%7B").replace('}', "%7D")) });
            let options = jsonschema::options().with_draft(Draft::Draft7).with_registry(&self.registry);
            let validator = options.build(&schema).unwrap_or_else(|error| panic!("the schema at {at}: {error}"));
            &*Box::leak(Box::new(validator))
        });
        validators.insert(at.to_owned(), made);
        made
    }
}

fn escape(template: &str) -> String {
    template.replace('~', "~0").replace('/', "~1")
}

/// The named parts of a path, where it fits.
fn fit(template: &str, path: &str) -> Option<HashMap<String, String>> {
    let (mut names, mut parts) = (template.split('/').peekable(), path.split('/').peekable());
    let mut found = HashMap::new();
    while let Some(name) = names.next() {
        let part = parts.next()?;
        let Some(name) = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else {
            if name != part {
                return None;
            }
            continue;
        };
        let mut value = part.to_owned();
        // The last part takes all that is left, as a ref or a path of a file does.
        if names.peek().is_none() && matches!(name, "ref" | "path") {
            for more in parts.by_ref() {
                value = format!("{value}/{more}");
            }
        }
        found.insert(name.to_owned(), decode(&value));
    }
    parts.next().is_none().then_some(found)
}

/// Undoes the escapes of a URL.
pub(super) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
