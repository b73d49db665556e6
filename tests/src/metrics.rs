//! The agent's `/metrics`, parsed.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape: value by name and labels.
#[derive(Clone, Debug, Default)]
pub struct Scrape {
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Scrape {
    /// Parses the Prometheus text format.
    pub fn parse(text: &str) -> Self {
        let samples =
            text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(sample).collect();
        Self { samples }
    }

    /// Sum over all samples of a metric that have these labels; the metric by its OpenTelemetry name.
    pub fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        let name = metric.replace('.', "_");
        let names =
            [name.clone(), format!("{name}_total"), format!("{name}_seconds"), format!("{name}_ratio")];
        self.matching(&names, labels).sum()
    }

    /// Number of recorded values of a histogram.
    pub fn count(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        let name = metric.replace('.', "_");
        self.matching(&[format!("{name}_seconds_count")], labels).sum()
    }

    /// Recorded values of a histogram above a bound, in seconds, which must be one of its own.
    pub fn above(&self, metric: &str, bound: &str, labels: &[(&str, &str)]) -> f64 {
        let name = format!("{}_seconds_bucket", metric.replace('.', "_"));
        let mut all = labels.to_vec();
        all.push(("le", bound));
        self.count(metric, labels) - self.matching(&[name], &all).sum::<f64>()
    }

    /// The values that a label has over all samples of a counter.
    pub fn values(&self, metric: &str, label: &str) -> BTreeSet<String> {
        let (name, label) = (format!("{}_total", metric.replace('.', "_")), label.replace('.', "_"));
        let samples = self.samples.iter().filter(|(found, ..)| *found == name);
        samples.filter_map(|(_, labels, _)| labels.get(&label).cloned()).collect()
    }

    fn matching<'a>(
        &'a self,
        names: &'a [String],
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = f64> + 'a {
        let labels = labels.iter().map(|(k, v)| (k.replace('.', "_"), *v)).collect::<Vec<_>>();
        self.samples.iter().filter_map(move |(name, have, value)| {
            let fits =
                names.contains(name) && labels.iter().all(|(k, v)| have.get(k).is_some_and(|have| have == v));
            fits.then_some(*value)
        })
    }
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().expect("a number");
    let Some((name, labels)) = series.split_once('{') else { return (series.into(), BTreeMap::new(), value) };
    let mut map = BTreeMap::new();
    let mut rest = labels.trim_end_matches('}');
    while let Some((key, after)) = rest.split_once("=\"") {
        let end = after.find('"').expect("the end of a label");
        map.insert(key.trim_start_matches(',').to_owned(), after[..end].to_owned());
        rest = &after[end + 1..];
    }
    (name.into(), map, value)
}
