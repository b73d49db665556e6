//! The JSON Schema of what the local API says and takes, made from the types themselves: docs/schema.json.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::model::{
    avoid::{Avoid, Avoided},
    status::{Message, SCHEMA, Status},
};

/// JSON Schema (2020-12) of `/v1/status`, of each message of `/v1/watch`, and of `/v1/avoid` with its answer.
pub fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let said = [
        generator.subschema_for::<Status>(),
        generator.subschema_for::<Message>(),
        generator.subschema_for::<Avoid>(),
        generator.subschema_for::<Avoided>(),
    ];
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("graylag's local API, schema {SCHEMA}"),
        "anyOf": said,
        "$defs": generator.take_definitions(true),
    })
}
