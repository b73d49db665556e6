//! From the standard `OTEL_*` variables to where each signal goes.
//!
//! Source: OpenTelemetry specification, "OpenTelemetry Protocol Exporter" and "Environment Variable Specification". A
//! signal is exported where it has an endpoint, its own or the common one, or where `OTEL_METRICS_EXPORTER` or
//! `OTEL_LOGS_EXPORTER` asks for `otlp`. An empty variable counts as absent.

use std::{fs, time::Duration};

use http::{HeaderName, HeaderValue, Uri};
use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_PROTOCOL_GRPC, OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF,
    OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
};

/// Interval of metrics where `OTEL_METRIC_EXPORT_INTERVAL` gives none.
const INTERVAL: Duration = Duration::from_secs(60);
/// Time for a round of metrics where `OTEL_METRIC_EXPORT_TIMEOUT` gives none.
const ROUND: Duration = Duration::from_secs(30);

/// A variable that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{variable}: {problem}; {remedy}")]
pub struct SettingsError {
    /// Its name.
    pub variable: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

/// How a signal travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with binary protobuf.
    Http,
}

/// Certificates, PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Trusted instead of the system's.
    pub authority: Option<Vec<u8>>,
    /// Certificate and key of this client.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Where one signal goes, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The whole URL for HTTP; scheme and authority for gRPC.
    pub endpoint: Uri,
    /// How.
    pub protocol: Protocol,
    /// Added to every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// For one attempt.
    pub timeout: Duration,
    /// Certificates.
    pub tls: Tls,
}

/// What is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where metrics go.
    pub metrics: Option<Target>,
    /// Where events go.
    pub logs: Option<Target>,
    /// Between two rounds of metrics.
    pub interval: Duration,
    /// For one round of metrics, retries included.
    pub round: Duration,
}

impl Settings {
    /// Reads the process's environment; nothing where nothing shall be exported.
    pub fn from_env() -> Result<Option<Self>, SettingsError> {
        Self::from(&|name| std::env::var(name).ok())
    }

    fn from(variables: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, SettingsError> {
        let environment = Environment(variables);
        if environment.get("OTEL_SDK_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let metrics = environment.target("METRICS", "v1/metrics")?;
        let logs = environment.target("LOGS", "v1/logs")?;
        if metrics.is_none() && logs.is_none() {
            return Ok(None);
        }
        let temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        if let Some(other) = environment.get(temporality).filter(|v| !v.eq_ignore_ascii_case("cumulative")) {
            tracing::warn!("{temporality}={other} is not followed: all sums are cumulative");
        }
        let interval = environment.milliseconds("OTEL_METRIC_EXPORT_INTERVAL")?.unwrap_or(INTERVAL);
        let round = environment.milliseconds("OTEL_METRIC_EXPORT_TIMEOUT")?.unwrap_or(ROUND);
        Ok(Some(Self { metrics, logs, interval, round: round.min(interval) }))
    }

    /// Where telemetry goes, for a person.
    pub fn shown(&self) -> String {
        let mut places: Vec<String> =
            [&self.metrics, &self.logs].into_iter().flatten().map(|t| t.endpoint.to_string()).collect();
        if let [first, second] = places.as_slice() {
            let base =
                |place: &str, path: &str| place.trim_end_matches(path).trim_end_matches('/').to_owned();
            if base(first, "v1/metrics") == base(second, "v1/logs") {
                places = vec![base(first, "v1/metrics")];
            }
        }
        places.join(", ")
    }
}

struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

/// A variable that was found: its name and its value.
type Found = (String, String);

impl Environment<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// The signal's own variable, else the common one.
    fn of(&self, signal: &str, what: &str) -> Option<Found> {
        [format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")]
            .into_iter()
            .find_map(|name| self.get(&name).map(|value| (name, value)))
    }

    fn milliseconds(&self, name: &str) -> Result<Option<Duration>, SettingsError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        milliseconds(&(name.to_owned(), value)).map(Some)
    }

    fn target(&self, signal: &str, path: &str) -> Result<Option<Target>, SettingsError> {
        let exporter = self.get(&format!("OTEL_{signal}_EXPORTER"));
        match exporter.as_deref() {
            Some("none") => return Ok(None),
            Some("otlp") | None => {}
            Some(other) => {
                let found = (format!("OTEL_{signal}_EXPORTER"), other.to_owned());
                return Err(wrong(&found, "is not known here", "use otlp or none"));
            }
        }
        let endpoint = self.of(signal, "ENDPOINT");
        if endpoint.is_none() && exporter.is_none() {
            return Ok(None);
        }
        let protocol = self.protocol(signal, endpoint.as_ref())?;
        let headers = self.of(signal, "HEADERS").map_or(Ok(Vec::new()), |found| headers(&found))?;
        let gzip = match self.of(signal, "COMPRESSION") {
            Some((_, value)) if value.eq_ignore_ascii_case("gzip") => true,
            Some((_, value)) if value.eq_ignore_ascii_case("none") => false,
            Some(found) => return Err(wrong(&found, "is not known here", "use gzip or none")),
            None => false,
        };
        let timeout = self.of(signal, "TIMEOUT").map(|found| milliseconds(&found)).transpose()?;
        Ok(Some(Target {
            endpoint: self.endpoint(signal, path, endpoint, protocol)?,
            protocol,
            headers,
            gzip,
            timeout: timeout.unwrap_or(OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT),
            tls: self.tls(signal)?,
        }))
    }

    /// Where nothing is said: gRPC for the port that is gRPC's (4317), HTTP else, the specification's default.
    fn protocol(&self, signal: &str, endpoint: Option<&Found>) -> Result<Protocol, SettingsError> {
        match self.of(signal, "PROTOCOL") {
            Some((_, value)) if value == OTEL_EXPORTER_OTLP_PROTOCOL_GRPC => Ok(Protocol::Grpc),
            Some((_, value)) if value == OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF => Ok(Protocol::Http),
            Some(found) => Err(wrong(&found, "is not known here", "use grpc or http/protobuf")),
            None => {
                let port = endpoint
                    .and_then(|(_, value)| with_scheme(value, "http").parse::<Uri>().ok()?.port_u16());
                Ok(if port == Some(4317) { Protocol::Grpc } else { Protocol::Http })
            }
        }
    }

    fn endpoint(
        &self,
        signal: &str,
        path: &str,
        endpoint: Option<Found>,
        protocol: Protocol,
    ) -> Result<Uri, SettingsError> {
        let default = match protocol {
            Protocol::Grpc => "http://localhost:4317",
            Protocol::Http => "http://localhost:4318",
        };
        let found = endpoint.unwrap_or_else(|| ("OTEL_EXPORTER_OTLP_ENDPOINT".into(), default.into()));
        // Only gRPC endpoints may come without a scheme; then the INSECURE variable decides.
        let insecure =
            self.of(signal, "INSECURE").is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
        let mut text = match protocol {
            Protocol::Grpc => with_scheme(&found.1, if insecure { "http" } else { "https" }),
            Protocol::Http => found.1.clone(),
        };
        if protocol == Protocol::Http && !found.0.contains(signal) {
            text = format!("{}/{path}", text.trim_end_matches('/'));
        }
        let remedy = "use e.g. http://collector:4318, or http://collector:4317 for gRPC";
        let uri: Uri =
            text.parse().map_err(|error| wrong(&found, &format!("is no URL ({error})"), remedy))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(wrong(&found, "is no http or https URL", remedy));
        }
        Ok(uri)
    }

    fn tls(&self, signal: &str) -> Result<Tls, SettingsError> {
        let file = |what: &str| self.of(signal, what).map(|found| pem(&found)).transpose();
        let (certificate, key) = (file("CLIENT_CERTIFICATE")?, file("CLIENT_KEY")?);
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (certificate, _) => {
                let missing = if certificate.is_some() { "CLIENT_KEY" } else { "CLIENT_CERTIFICATE" };
                return Err(SettingsError {
                    variable: format!("OTEL_EXPORTER_OTLP_{missing}"),
                    problem: "is missing".into(),
                    remedy: "a client certificate and its key go together".into(),
                });
            }
        };
        Ok(Tls { authority: file("CERTIFICATE")?, identity })
    }
}

fn with_scheme(endpoint: &str, scheme: &str) -> String {
    if endpoint.contains("://") { endpoint.to_owned() } else { format!("{scheme}://{endpoint}") }
}

fn wrong((variable, value): &Found, problem: &str, remedy: &str) -> SettingsError {
    SettingsError {
        variable: variable.clone(),
        problem: format!("`{value}` {problem}"),
        remedy: remedy.into(),
    }
}

fn milliseconds(found: &Found) -> Result<Duration, SettingsError> {
    let parsed = found.1.parse().ok().filter(|ms| (1..=86_400_000).contains(ms));
    parsed
        .map(Duration::from_millis)
        .ok_or_else(|| wrong(found, "is no number of milliseconds", "use 1 to 86400000"))
}

/// W3C Baggage without its properties: `key=value,key=value`, values percent-encoded.
fn headers(found: &Found) -> Result<Vec<(HeaderName, HeaderValue)>, SettingsError> {
    // The value may be a secret: it is not repeated.
    let error = |problem: String| SettingsError {
        variable: found.0.clone(),
        problem,
        remedy: "use name=value,name=value with values percent-encoded".into(),
    };
    let header = |(at, pair): (usize, &str)| {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| error(format!("entry {} has no `=`", at + 1)))?;
        let name = name.trim();
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8_lossy();
        let parsed =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| error(format!("`{name}` is no header")))?;
        let value = HeaderValue::from_str(&value)
            .map_err(|_| error(format!("the value of `{name}` cannot be sent")))?;
        Ok((parsed, value))
    };
    let pairs = found.1.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    pairs.enumerate().map(header).collect()
}

fn pem(found: &Found) -> Result<Vec<u8>, SettingsError> {
    let remedy = "name a readable file in PEM format";
    let bytes =
        fs::read(&found.1).map_err(|error| wrong(found, &format!("cannot be read ({error})"), remedy))?;
    if bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        return Ok(bytes);
    }
    Err(wrong(found, "has no PEM block", remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Option<Settings>, SettingsError> {
        Settings::from(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn targets(variables: &[(&str, &str)]) -> (Target, Target) {
        let settings = settings(variables).unwrap().unwrap();
        (settings.metrics.unwrap(), settings.logs.unwrap())
    }

    #[test]
    fn nothing_is_exported_unless_asked_for() {
        assert_eq!(settings(&[]), Ok(None));
        assert_eq!(settings(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        let disabled = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"), ("OTEL_SDK_DISABLED", "TRUE")];
        assert_eq!(settings(&disabled), Ok(None));
    }

    #[test]
    fn the_common_endpoint_gets_the_paths_of_http_and_its_own_does_not() {
        let (metrics, logs) = targets(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/otel/"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://l/push"),
        ]);
        assert_eq!(metrics.endpoint.to_string(), "http://c:4318/otel/v1/metrics");
        assert_eq!(logs.endpoint.to_string(), "https://l/push");
        assert_eq!((metrics.protocol, logs.protocol), (Protocol::Http, Protocol::Http));
        assert_eq!(metrics.timeout, Duration::from_secs(10));
    }

    #[test]
    fn grpcs_port_means_grpc_and_its_scheme_may_be_left_out() {
        let (metrics, _) = targets(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")]);
        assert_eq!(
            (metrics.protocol, metrics.endpoint.to_string().as_str()),
            (Protocol::Grpc, "http://c:4317/")
        );
        let (metrics, _) = targets(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317")]);
        assert_eq!(metrics.endpoint.scheme_str(), Some("https"));
        let insecure = [("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317"), ("OTEL_EXPORTER_OTLP_INSECURE", "true")];
        assert_eq!(targets(&insecure).0.endpoint.scheme_str(), Some("http"));
        let http = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ];
        assert_eq!(targets(&http).0.protocol, Protocol::Http);
    }

    #[test]
    fn one_signal_alone() {
        let one = settings(&[("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://c:4317")]).unwrap().unwrap();
        assert!(one.metrics.is_none() && one.logs.is_some());
        let none = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), ("OTEL_LOGS_EXPORTER", "none")];
        let one = settings(&none).unwrap().unwrap();
        assert!(one.metrics.is_some() && one.logs.is_none());
        let asked = settings(&[("OTEL_METRICS_EXPORTER", "otlp")]).unwrap().unwrap();
        assert_eq!(asked.metrics.unwrap().endpoint.to_string(), "http://localhost:4318/v1/metrics");
    }

    #[test]
    fn headers_are_decoded_and_a_signals_own_replace_the_common_ones() {
        let (metrics, logs) = targets(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Basic%20abc%3D, x-team = media,"),
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "k=v"),
        ]);
        let shown = |t: &Target| {
            t.headers.iter().map(|(k, v)| format!("{k}={}", v.to_str().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(shown(&metrics), ["authorization=Basic abc=", "x-team=media"]);
        assert_eq!(shown(&logs), ["k=v"]);
    }

    #[test]
    fn intervals_and_timeouts() {
        let all = settings(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "2500"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "700"),
        ])
        .unwrap()
        .unwrap();
        assert_eq!((all.interval, all.round), (Duration::from_millis(2500), Duration::from_millis(2500)));
        assert_eq!(all.metrics.as_ref().unwrap().timeout, Duration::from_millis(700));
        assert_eq!(all.shown(), "http://c:4318");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        let rows: [(&[(&str, &str)], &str); 9] = [
            (
                &[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c")],
                "OTEL_EXPORTER_OTLP_ENDPOINT: `ftp://c` is no http or https URL; use e.g.",
            ),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318")], "OTEL_EXPORTER_OTLP_ENDPOINT: `c:4318` is no "),
            (
                &[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
                "OTEL_EXPORTER_OTLP_PROTOCOL: `http/json` is not known here; use grpc or http/protobuf",
            ),
            (
                &[endpoint, ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")],
                "OTEL_EXPORTER_OTLP_COMPRESSION: `zstd` is not known here; use gzip or none",
            ),
            (
                &[endpoint, ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "10s")],
                "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT: `10s` is no number of milliseconds; use 1 to 86400000",
            ),
            (
                &[endpoint, ("OTEL_EXPORTER_OTLP_HEADERS", "token")],
                "OTEL_EXPORTER_OTLP_HEADERS: entry 1 has no `=`; use name=value",
            ),
            (
                &[endpoint, ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem")],
                "OTEL_EXPORTER_OTLP_CERTIFICATE: `/nowhere/ca.pem` cannot be read (No such file",
            ),
            (
                &[endpoint, ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/proc/version")],
                "OTEL_EXPORTER_OTLP_CLIENT_KEY: `/proc/version` has no PEM block",
            ),
            (
                &[endpoint, ("OTEL_METRICS_EXPORTER", "prometheus")],
                "OTEL_METRICS_EXPORTER: `prometheus` is not known here; use otlp or none",
            ),
        ];
        for (variables, expected) in rows {
            let said = settings(variables).unwrap_err().to_string();
            assert!(said.starts_with(expected), "{said}");
        }
    }
}
