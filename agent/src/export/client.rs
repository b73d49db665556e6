//! One request to a collector, over gRPC or HTTP; what came of it, so that the caller can decide.
//!
//! Source: OTLP specification 1.7, "OTLP/gRPC", "OTLP/HTTP", "Failures". Which answers may be tried again is the
//! specification's, not ours.

use std::{io::Write, time::Duration};

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
    uri::PathAndQuery,
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
};
use prost::Message;
use tonic::{
    Code, Status,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt;

use super::settings::{Protocol, Target, Tls};
use crate::model::with_causes;

/// What graylag calls itself.
const AGENT: &str = concat!("graylag/", env!("CARGO_PKG_VERSION"));
/// Of an answer over HTTP, at most this much is read.
const MOST_READ: usize = 64 * 1024;
/// Of an answer that is an error, at most this much is repeated.
const MOST_SAID: usize = 200;

/// A client that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("telemetry to {endpoint}: {problem}")]
pub struct ClientError {
    endpoint: String,
    problem: String,
}

/// Why a request did not arrive.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may arrive later, after this much time if the collector said so.
    Retry {
        /// Why it did not.
        reason: String,
        /// What the collector asked for.
        after: Option<Duration>,
    },
    /// It never will.
    Refused(String),
}

/// What a collector took of a request that arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Points or records that it did not take.
    pub rejected: u64,
    /// Why, or a warning.
    pub said: String,
}

/// A request of OTLP.
pub trait Request: Message + Clone + 'static {
    /// Its answer.
    type Response: Message + Default + 'static;
    /// Its gRPC method.
    const METHOD: &'static str;
    /// What the answer says.
    fn accepted(response: Self::Response) -> Accepted;
}

impl Request for ExportMetricsServiceRequest {
    type Response = ExportMetricsServiceResponse;
    const METHOD: &'static str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
    fn accepted(response: Self::Response) -> Accepted {
        response.partial_success.map_or_else(Accepted::default, |partial| Accepted {
            rejected: u64::try_from(partial.rejected_data_points).unwrap_or(0),
            said: partial.error_message,
        })
    }
}

impl Request for ExportLogsServiceRequest {
    type Response = ExportLogsServiceResponse;
    const METHOD: &'static str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    fn accepted(response: Self::Response) -> Accepted {
        response.partial_success.map_or_else(Accepted::default, |partial| Accepted {
            rejected: u64::try_from(partial.rejected_log_records).unwrap_or(0),
            said: partial.error_message,
        })
    }
}

/// Sends requests of one signal to one target. Connects when there is something to send, and again when it must.
#[derive(Clone)]
pub struct Client {
    transport: Transport,
    target: Target,
}

#[derive(Clone)]
enum Transport {
    Grpc(Channel),
    Http(reqwest::Client),
}

impl Client {
    /// Reads the certificates; does not connect.
    pub fn new(target: &Target) -> Result<Self, ClientError> {
        let failed = |problem: String| ClientError { endpoint: target.endpoint.to_string(), problem };
        // The first one wins; it is the same for both signals.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let transport = match target.protocol {
            Protocol::Grpc => {
                channel(target).map(Transport::Grpc).map_err(|error| failed(with_causes(&error)))?
            }
            Protocol::Http => {
                http(target).map(Transport::Http).map_err(|error| failed(with_causes(&error)))?
            }
        };
        Ok(Self { transport, target: target.clone() })
    }

    /// One attempt.
    pub async fn send<R: Request>(&self, request: &R) -> Result<Accepted, Failure> {
        let attempt = async {
            match &self.transport {
                Transport::Grpc(channel) => self.over_grpc(channel.clone(), request.clone()).await,
                Transport::Http(client) => self.over_http(client, request).await,
            }
        };
        let timeout = self.target.timeout;
        tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| {
            Err(Failure::Retry { reason: format!("no answer within {timeout:?}"), after: None })
        })
    }

    async fn over_grpc<R: Request>(&self, channel: Channel, message: R) -> Result<Accepted, Failure> {
        let mut client = tonic::client::Grpc::new(channel).accept_compressed(CompressionEncoding::Gzip);
        if self.target.gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers());
        client.ready().await.map_err(|error| Failure::Retry { reason: with_causes(&error), after: None })?;
        let codec = tonic_prost::ProstCodec::<R, R::Response>::default();
        let answer = client.unary(request, PathAndQuery::from_static(R::METHOD), codec).await;
        answer.map(|answer| R::accepted(answer.into_inner())).map_err(|status| of_status(&status))
    }

    async fn over_http<R: Request>(
        &self,
        client: &reqwest::Client,
        message: &R,
    ) -> Result<Accepted, Failure> {
        let mut headers = self.headers();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let mut body = message.encode_to_vec();
        if self.target.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            body = gzipped(&body).map_err(|error| Failure::Refused(format!("gzip: {error}")))?;
        }
        let request = client.post(self.target.endpoint.to_string()).headers(headers).body(body);
        let transient =
            |error: reqwest::Error| Failure::Retry { reason: with_causes(&error.without_url()), after: None };
        let answer = request.send().await.map_err(transient)?;
        let (status, retry_after) = (answer.status(), answer.headers().get(RETRY_AFTER).cloned());
        let bytes = beginning(answer).await.map_err(transient)?;
        if status.is_success() {
            // A collector that answers with something else took the request all the same.
            return Ok(R::Response::decode(bytes.as_slice()).map(R::accepted).unwrap_or_default());
        }
        Err(of_code(status, retry_after.as_ref(), &bytes))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.extend(self.target.headers.iter().cloned());
        headers
    }
}

fn channel(target: &Target) -> Result<Channel, tonic::transport::Error> {
    let mut endpoint = Endpoint::from(target.endpoint.clone()).connect_timeout(target.timeout);
    if target.endpoint.scheme_str() == Some("https") {
        let Tls { authority, identity } = &target.tls;
        let mut tls = match authority {
            Some(authority) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority)),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(tls)?;
    }
    Ok(endpoint.connect_lazy())
}

fn http(target: &Target) -> reqwest::Result<reqwest::Client> {
    let mut client = reqwest::Client::builder()
        .connect_timeout(target.timeout)
        .redirect(reqwest::redirect::Policy::none());
    if let Some(authority) = &target.tls.authority {
        client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(authority)?);
    }
    if let Some((certificate, key)) = &target.tls.identity {
        client =
            client.identity(reqwest::Identity::from_pem(&[certificate.as_slice(), b"\n", key].concat())?);
    }
    client.build()
}

/// The answer, or as much of it as an answer may have.
async fn beginning(mut answer: reqwest::Response) -> reqwest::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        let room = MOST_READ - bytes.len();
        bytes.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() >= room {
            break;
        }
    }
    Ok(bytes)
}

fn gzipped(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// Which codes may be tried again: OTLP specification, "Failures" under "OTLP/gRPC".
fn of_status(status: &Status) -> Failure {
    let reason = format!("{:?}: {}", status.code(), said(status.message()));
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay);
    let transient = match status.code() {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => true,
        // Only where the server says when it will have room again.
        Code::ResourceExhausted => after.is_some(),
        // What tonic makes of a connection that broke.
        Code::Unknown => std::error::Error::source(status).is_some(),
        _ => false,
    };
    if transient { Failure::Retry { reason, after } } else { Failure::Refused(reason) }
}

/// Which codes may be tried again: OTLP specification, "Retryable Response Codes" under "OTLP/HTTP".
fn of_code(code: StatusCode, retry_after: Option<&HeaderValue>, body: &[u8]) -> Failure {
    // An error is a `google.rpc.Status`: code 1, message 2; or plain text of something in between.
    let message = tonic_types::pb::Status::decode(body)
        .ok()
        .map(|status| status.message)
        .filter(|message| !message.is_empty())
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    let reason = format!("{code}: {}", said(&message)).trim_end_matches([':', ' ']).to_owned();
    if !matches!(code.as_u16(), 429 | 502 | 503 | 504) {
        return Failure::Refused(reason);
    }
    let after = retry_after.and_then(|v| v.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
    Failure::Retry { reason, after }
}

fn said(message: &str) -> String {
    let clean: String =
        message.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_SAID).collect();
    clean.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(failure: &Failure) -> bool {
        matches!(failure, Failure::Retry { .. })
    }

    #[test]
    fn only_what_the_specification_allows_is_tried_again() {
        for code in [Code::Unavailable, Code::DeadlineExceeded, Code::Aborted, Code::DataLoss] {
            assert!(retries(&of_status(&Status::new(code, ""))), "{code:?}");
        }
        for code in
            [Code::InvalidArgument, Code::Unauthenticated, Code::Unimplemented, Code::ResourceExhausted]
        {
            assert!(!retries(&of_status(&Status::new(code, ""))), "{code:?}");
        }
        for code in [429, 502, 503, 504] {
            assert!(retries(&of_code(StatusCode::from_u16(code).unwrap(), None, b"")), "{code}");
        }
        for code in [400, 401, 404, 413, 500] {
            assert!(!retries(&of_code(StatusCode::from_u16(code).unwrap(), None, b"")), "{code}");
        }
    }

    #[test]
    fn a_collector_that_says_when_is_heard() {
        let details = tonic_types::ErrorDetails::with_retry_info(Some(Duration::from_secs(7)));
        let status = Status::with_error_details(Code::ResourceExhausted, "full", details);
        let expected =
            Failure::Retry { reason: "ResourceExhausted: full".into(), after: Some(Duration::from_secs(7)) };
        assert_eq!(of_status(&status), expected);
        let after = HeaderValue::from_static("12");
        let expected =
            Failure::Retry { reason: "503 Service Unavailable".into(), after: Some(Duration::from_secs(12)) };
        assert_eq!(of_code(StatusCode::SERVICE_UNAVAILABLE, Some(&after), b""), expected);
    }

    #[test]
    fn what_an_answer_says_is_cut_and_made_harmless() {
        let body = [b"line\x1b[31m\nsecond".as_slice(), &[b'x'; 1000]].concat();
        let Failure::Refused(reason) = of_code(StatusCode::BAD_REQUEST, None, &body) else { panic!() };
        assert!(reason.starts_with("400 Bad Request: line [31m second") && reason.len() < 300, "{reason}");
    }
}
