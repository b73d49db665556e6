//! Who is speaking: the OpenTelemetry resource.

use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::resource::v1::Resource as Message, transform::common::tonic::ResourceAttributesWithSchema,
};
use opentelemetry_sdk::Resource;

/// Name of the service where neither `OTEL_SERVICE_NAME` nor `OTEL_RESOURCE_ATTRIBUTES` gives one.
const SERVICE: &str = "graylag";

/// This node's resource: what is known here, overridden by `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
pub fn of(node: &str) -> Message {
    let known = [
        KeyValue::new("service.name", SERVICE),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node.to_owned()),
        KeyValue::new("host.name", node.to_owned()),
        KeyValue::new("os.type", "linux"),
    ];
    // The SDK's detectors read the environment; what they found is asked for last, so that it wins. Their default for
    // the service's name (`unknown_service…`) is none that an operator chose.
    let environment = Resource::builder().build();
    let chosen = |key: &str, value: &opentelemetry::Value| {
        key != "service.name" || !value.as_str().starts_with("unknown_service")
    };
    let chosen = environment.iter().filter(|(key, value)| chosen(key.as_str(), value));
    let attributes: Vec<KeyValue> =
        chosen.map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
    let resource = Resource::builder_empty().with_attributes(known).with_attributes(attributes).build();
    let mut attributes = ResourceAttributesWithSchema::from(&resource).attributes.0;
    attributes.sort_by(|a, b| a.key.cmp(&b.key));
    Message { attributes, ..Message::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_named() {
        let resource = of("media-3");
        let names: Vec<&str> = resource.attributes.iter().map(|a| a.key.as_str()).collect();
        for name in ["host.name", "os.type", "service.instance.id", "service.name", "service.version"] {
            assert_eq!(names.iter().filter(|n| **n == name).count(), 1, "{names:?}");
        }
    }
}
