//! Whose a network namespace or a process is: a pod, a container, or the host itself.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// A pod of Kubernetes, or a container that is in none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// The pod's uid; of a container that is in none its identifier. No other ever has the same.
    pub id: Arc<str>,
    /// Whether it is a pod of Kubernetes.
    pub is_pod: bool,
    /// Its name, where somebody told.
    pub name: Option<Arc<str>>,
    /// Its namespace in Kubernetes, where somebody told.
    pub namespace: Option<Arc<str>>,
    /// The pod's container, where there is one only.
    pub container: Option<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Its identifier.
    pub id: Arc<str>,
    /// Its name in the pod, where somebody told.
    pub name: Option<Arc<str>>,
}

impl Pod {
    /// Its attributes, by OpenTelemetry's semantic conventions for resources.
    pub fn attributes(&self) -> Vec<(&'static str, Arc<str>)> {
        let container = self.container.as_ref();
        let all = if self.is_pod {
            [
                ("k8s.pod.uid", Some(&self.id)),
                ("k8s.pod.name", self.name.as_ref()),
                ("k8s.namespace.name", self.namespace.as_ref()),
                ("container.id", container.map(|container| &container.id)),
                ("k8s.container.name", container.and_then(|container| container.name.as_ref())),
            ]
        } else {
            [
                ("container.id", Some(&self.id)),
                ("container.name", self.name.as_ref()),
                ("", None),
                ("", None),
                ("", None),
            ]
        };
        all.into_iter().filter_map(|(name, value)| Some((name, value?.clone()))).collect()
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => write!(f, "{namespace}/{name}"),
            (None, Some(name)) => f.write_str(name),
            _ => f.write_str(&self.id),
        }
    }
}

/// What a count belongs to before anybody knows whose that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owner {
    /// A network namespace, by its inode.
    Namespace(u32),
    /// A process, by its number in the initial namespace.
    Process(u32),
}

impl Owner {
    /// Whether it stands for what belongs to no namespace and no process.
    pub const fn is_nobody(self) -> bool {
        matches!(self, Self::Namespace(0) | Self::Process(0))
    }
}

/// Who is whose, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(BTreeMap<Owner, Option<Arc<Pod>>>);

impl Places {
    /// Tells whose something is; `None` where it is the host's.
    pub fn insert(&mut self, owner: Owner, pod: Option<Arc<Pod>>) {
        self.0.insert(owner, pod);
    }

    /// Whose it is; `None` where nobody knows, `Some(None)` where it is the host's.
    pub fn get(&self, owner: Owner) -> Option<Option<&Arc<Pod>>> {
        self.0.get(&owner).map(Option::as_ref)
    }

    /// Everything that is known.
    pub fn iter(&self) -> impl Iterator<Item = (Owner, Option<&Arc<Pod>>)> {
        self.0.iter().map(|(owner, pod)| (*owner, pod.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_those_of_the_conventions() {
        let mut pod = Pod {
            id: "0d8a".into(),
            is_pod: true,
            name: Some("web-0".into()),
            namespace: Some("shop".into()),
            container: Some(Container { id: "c0ffee".into(), name: Some("web".into()) }),
        };
        let shown = |pod: &Pod| {
            let all = pod.attributes();
            all.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            shown(&pod),
            "k8s.pod.uid=0d8a k8s.pod.name=web-0 k8s.namespace.name=shop container.id=c0ffee k8s.container.name=web"
        );
        assert_eq!(pod.to_string(), "shop/web-0");
        (pod.name, pod.namespace, pod.container) = (None, None, None);
        assert_eq!((shown(&pod), pod.to_string()), ("k8s.pod.uid=0d8a".into(), "0d8a".into()));
        pod.is_pod = false;
        assert_eq!(shown(&pod), "container.id=0d8a");
    }
}
