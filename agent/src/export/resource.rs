//! Who is speaking: the OpenTelemetry resource.

use opentelemetry::KeyValue;
use opentelemetry_proto::{
    tonic::{common::v1::any_value::Value::StringValue as Text, resource::v1::Resource as Message},
    transform::common::tonic::ResourceAttributesWithSchema,
};
use opentelemetry_sdk::Resource;

use super::encode::attribute;
use crate::model::Pod;

/// Name of the service where neither `OTEL_SERVICE_NAME` nor `OTEL_RESOURCE_ATTRIBUTES` gives one.
const SERVICE: &str = "graylag";
/// What tells one graylag from another.
const INSTANCE: &str = "service.instance.id";

/// This node's resource: what is known here, overridden by `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
pub fn of(node: &str) -> Message {
    let known = [
        KeyValue::new("service.name", SERVICE),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new(INSTANCE, node.to_owned()),
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

/// The resource of a pod on this node: the node's attributes, and the pod's. What tells of the agent's own pod and container (the
/// Downward API) is not the other's.
pub fn of_pod(node: &Message, pod: &Pod) -> Message {
    const OF_THE_NODE: [&str; 2] = ["k8s.node.", "k8s.cluster."];
    let is_the_nodes = |key: &str| {
        OF_THE_NODE.iter().any(|prefix| key.starts_with(prefix))
            || !(key.starts_with("k8s.") || key.starts_with("container."))
    };
    let mut attributes = node.attributes.clone();
    attributes.retain(|attribute| is_the_nodes(&attribute.key));
    for attribute in attributes.iter_mut().filter(|attribute| attribute.key == INSTANCE) {
        // It tells apart what has the same `service.name`: to Prometheus it is all that does.
        if let Some(Text(name)) = attribute.value.as_mut().and_then(|value| value.value.as_mut()) {
            name.push('/');
            name.push_str(&pod.id);
        }
    }
    let of_pod = pod.attributes().into_iter();
    attributes.extend(of_pod.map(|(name, value)| attribute(name, Text(value.to_string()))));
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

    #[test]
    fn a_pod_has_its_own_attributes_and_the_nodes() {
        let of_the_agent = [
            ("k8s.node.name", "n1"),
            ("k8s.pod.name", "graylag-x7"),
            ("k8s.daemonset.name", "graylag"),
            ("deployment.environment.name", "prod"),
        ];
        let mut node = of("media-3");
        node.attributes.extend(of_the_agent.map(|(name, value)| attribute(name, Text(value.into()))));
        let pod = Pod { id: "0d8a".into(), is_pod: true, name: None, namespace: None, container: None };
        let resource = of_pod(&node, &pod);
        let shown: Vec<String> = resource
            .attributes
            .into_iter()
            .filter_map(|attribute| match attribute.value?.value? {
                Text(value) => Some(format!("{}={value}", attribute.key)),
                _ => None,
            })
            .filter(|shown| !shown.starts_with("telemetry.") && !shown.starts_with("service.version"))
            .collect();
        assert_eq!(
            shown,
            [
                "deployment.environment.name=prod",
                "host.name=media-3",
                "k8s.node.name=n1",
                "k8s.pod.uid=0d8a",
                "os.type=linux",
                "service.instance.id=media-3/0d8a",
                "service.name=graylag",
            ]
        );
    }
}
