//! The catalog in words: for `graylag catalog` and docs/catalog.md.

use std::fmt::Write;

use super::catalog::{Id, attribute};

/// docs/catalog.md.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Metric catalog\n\n<!-- Made by `cargo xtask docs` from agent/src/telemetry/catalog.rs; edit that. -->\n\n\
         Temporality is cumulative; every series carries the time its sum began. A series that is no longer published \
         by itself (it went into `~other`) ends with `NO_RECORDED_VALUE`. Histograms are base-2 exponential of scale 2: \
         neighbouring bounds are 19 % apart, from 0.95 µs to 256 s.\n\n\
         | name | kind | unit | attributes | meaning |\n|---|---|---|---|---|\n",
    );
    for id in Id::ALL {
        let metric = id.metric();
        let attributes: Vec<String> = metric.attributes.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(
            text,
            "| `{}` | {} | `{}` | {} | {} |",
            metric.name,
            metric.kind.name(),
            metric.unit,
            attributes.join(", "),
            metric.description
        );
    }
    text.push_str("\n## Attributes\n\n| name | values |\n|---|---|\n");
    for (name, meaning) in attribute::ALL {
        let _ = writeln!(text, "| `{name}` | {meaning} |");
    }
    text.push_str(
        "\n## Events\n\nLog records with an event name, sent at once:\n\n\
         - `graylag.condition.changed`: a condition was raised, recovers or is cleared. Attributes: those of the \
         condition, and `graylag.condition.from`, `graylag.condition.to`, `graylag.evidence.n`, `graylag.evidence.bad`, \
         `graylag.evidence.low`, `graylag.evidence.high`, `graylag.evidence.text`, `graylag.valid_until`, \
         `graylag.epoch`, `graylag.sequence`, `graylag.confidence`.\n\
         - `graylag.path.changed`: one direction of a path changed its state; of paths without probes only to or from \
         `degraded`, `down` and `recovering`. Attributes: those of the path, and `graylag.state.from`, \
         `graylag.state.to`, `graylag.evidence.age`, `graylag.valid_until`, `graylag.epoch`, `graylag.sequence`.\n\
         - `graylag.node.changed`: this node changed its state. Attributes: `graylag.state.from`, `graylag.state.to`, \
         `graylag.node.weight`, `graylag.evidence.text`, `graylag.valid_until`, `graylag.epoch`, \
         `graylag.sequence`.\n\
         - `graylag.agent.degraded`: a signal is missing on this host. Attributes: `graylag.signal`, \
         `graylag.program.name`, `graylag.reason`.\n",
    );
    text
}

/// For a terminal.
pub fn plain() -> String {
    let mut text = String::new();
    for id in Id::ALL {
        let metric = id.metric();
        let _ = writeln!(text, "{}  ({}, {})", metric.name, metric.kind.name(), metric.unit);
        let _ = writeln!(text, "    {}", metric.description);
        if !metric.attributes.is_empty() {
            let _ = writeln!(text, "    by {}", metric.attributes.join(", "));
        }
    }
    text
}

/// For programs.
pub fn json() -> serde_json::Value {
    let metrics: Vec<_> = Id::ALL
        .iter()
        .map(|id| {
            let m = id.metric();
            serde_json::json!({
                "name": m.name, "kind": m.kind.name(), "unit": m.unit,
                "attributes": m.attributes, "description": m.description,
            })
        })
        .collect();
    let attributes: serde_json::Map<_, _> =
        attribute::ALL.iter().map(|(name, meaning)| ((*name).to_owned(), (*meaning).into())).collect();
    serde_json::json!({ "metrics": metrics, "attributes": attributes })
}
