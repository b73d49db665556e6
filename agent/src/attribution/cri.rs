//! What a container runtime says of its pods, over the Container Runtime Interface: the names that no cgroup tells.
//!
//! Two calls of `runtime.v1.RuntimeService`, which every runtime of Kubernetes since 1.23 has; of their messages only the fields that
//! are used. Field numbers: kubernetes/cri-api, `pkg/apis/runtime/v1/api.proto`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tonic::transport::{Channel, Endpoint};

use crate::model::with_causes;

/// Both calls, connection included.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The most that an answer may take up; what the kubelet allows.
const LARGEST: usize = 16 * 1024 * 1024;
/// Where runtimes listen: containerd, CRI-O, k3s, k0s.
const USUAL: [&str; 4] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
];

/// The socket of this host's runtime, where there is one at a usual place.
pub fn usual_socket() -> Option<PathBuf> {
    USUAL.into_iter().map(PathBuf::from).find(|path| path.exists())
}

mod messages {
    //! `ListPodSandbox` and `ListContainers`, without filters.

    /// A request for everything.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct ListRequest {}

    /// `ListPodSandboxResponse`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sandboxes {
        #[prost(message, repeated, tag = "1")]
        pub items: Vec<Sandbox>,
    }

    /// `PodSandbox`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Sandbox {
        #[prost(string, tag = "1")]
        pub id: String,
        #[prost(message, optional, tag = "2")]
        pub metadata: Option<SandboxMetadata>,
    }

    /// `PodSandboxMetadata`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct SandboxMetadata {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub uid: String,
        #[prost(string, tag = "3")]
        pub namespace: String,
    }

    /// `ListContainersResponse`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Containers {
        #[prost(message, repeated, tag = "1")]
        pub containers: Vec<Container>,
    }

    /// `Container`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Container {
        #[prost(string, tag = "1")]
        pub id: String,
        #[prost(string, tag = "2")]
        pub sandbox: String,
        #[prost(message, optional, tag = "3")]
        pub metadata: Option<ContainerMetadata>,
    }

    /// `ContainerMetadata`.
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct ContainerMetadata {
        #[prost(string, tag = "1")]
        pub name: String,
    }
}

/// Everything the runtime has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Pods, by uid.
    pub pods: BTreeMap<String, PodName>,
    /// Uids of pods, by the identifier of their sandbox.
    pub sandboxes: BTreeMap<String, String>,
    /// Containers: identifier of the sandbox, and name.
    pub containers: BTreeMap<String, (String, Arc<str>)>,
}

/// What a pod is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
}

/// A runtime that can be asked.
pub struct Cri {
    channel: Channel,
    /// Where it listens.
    pub socket: PathBuf,
}

impl Cri {
    /// Does not connect yet. Inside a tokio runtime.
    pub fn new(socket: &Path) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
        let endpoint = endpoint.map_err(|error| error.to_string())?.connect_timeout(PATIENCE);
        Ok(Self { channel: endpoint.connect_lazy(), socket: socket.to_owned() })
    }

    /// Asks for everything, and gives up after [`PATIENCE`].
    pub async fn names(&self) -> Result<Names, String> {
        let both = async {
            let sandboxes =
                self.call::<messages::Sandboxes>("/runtime.v1.RuntimeService/ListPodSandbox").await?;
            let containers =
                self.call::<messages::Containers>("/runtime.v1.RuntimeService/ListContainers").await?;
            Ok(names(sandboxes, containers))
        };
        let answered = tokio::time::timeout(PATIENCE, both).await;
        answered.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }

    async fn call<R: prost::Message + Default + 'static>(&self, method: &'static str) -> Result<R, String> {
        let mut client = tonic::client::Grpc::new(self.channel.clone()).max_decoding_message_size(LARGEST);
        client.ready().await.map_err(|error| with_causes(&error))?;
        let codec = tonic_prost::ProstCodec::<messages::ListRequest, R>::default();
        let request = tonic::Request::new(messages::ListRequest {});
        let answer = client.unary(request, http::uri::PathAndQuery::from_static(method), codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| {
            // A connection that could not be made comes as a status, with its cause.
            let cause = std::error::Error::source(&status).map(with_causes);
            cause.unwrap_or_else(|| format!("{:?}: {}", status.code(), status.message()))
        })
    }
}

fn names(sandboxes: messages::Sandboxes, containers: messages::Containers) -> Names {
    let mut names = Names::default();
    for sandbox in sandboxes.items {
        let Some(metadata) = sandbox.metadata else { continue };
        names.sandboxes.insert(sandbox.id, metadata.uid.clone());
        let name = PodName { name: metadata.name.into(), namespace: metadata.namespace.into() };
        names.pods.insert(metadata.uid, name);
    }
    for container in containers.containers {
        let name = container.metadata.map(|metadata| metadata.name).unwrap_or_default();
        names.containers.insert(container.id, (container.sandbox, name.into()));
    }
    names
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn an_answer_is_read_by_the_numbers_of_its_fields() {
        // PodSandbox { id: "s", metadata: { name: "web", uid: "u", namespace: "shop", attempt: 1 }, state: READY, created_at: 5 }
        let sandboxes = [
            b"\x0a\x18\x0a\x01s\x12\x10\x0a\x03web\x12\x01u\x1a\x04shop\x20\x01\x18\x00".as_slice(),
            b"\x20\x05",
        ];
        let mut sandboxes = sandboxes.concat();
        sandboxes[1] = sandboxes.len() as u8 - 2;
        let sandboxes = messages::Sandboxes::decode(sandboxes.as_slice()).unwrap();
        // Container { id: "c", pod_sandbox_id: "s", metadata: { name: "app" }, image_ref: "i" }
        let containers = messages::Containers::decode(
            b"\x0a\x10\x0a\x01c\x12\x01s\x1a\x05\x0a\x03app\x2a\x01i".as_slice(),
        );
        let names = names(sandboxes, containers.unwrap());
        assert_eq!(names.pods["u"], PodName { name: "web".into(), namespace: "shop".into() });
        assert_eq!(names.sandboxes["s"], "u");
        assert_eq!(names.containers["c"], ("s".to_owned(), "app".into()));
    }
}
