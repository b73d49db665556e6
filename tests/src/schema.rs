//! The published schema, by which what the agent really says is checked.

use std::path::PathBuf;

use jsonschema::Validator;
use serde_json::{Value, json};

/// One of the things that the schema describes.
pub struct Described(Validator);

impl Described {
    /// `Status`, `Message`, `Avoid` or `Avoided`, as docs/schema.json has it.
    pub fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/schema.json");
        let mut schema: Value =
            serde_json::from_str(&std::fs::read_to_string(path).expect("docs/schema.json")).expect("JSON");
        let whole = schema.as_object_mut().expect("an object");
        whole.remove("anyOf");
        assert!(whole["$defs"].get(name).is_some(), "no {name} in the schema");
        whole.insert("$ref".into(), json!(format!("#/$defs/{name}")));
        Self(jsonschema::validator_for(&schema).expect("a schema"))
    }

    /// What is wrong with a value, where something is.
    pub fn problems(&self, value: &Value) -> Vec<String> {
        self.0.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }
}
