//! `[attribution]`: where it is asked whose a network namespace is.

use std::path::PathBuf;

use super::{ConfigError, error::Source, raw};

/// `[attribution]`, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribution {
    /// Nowhere: everything is the host's.
    Off,
    /// Cgroups only.
    Cgroup,
    /// Cgroups, and the container runtime.
    Runtime {
        /// Its socket; of the usual places the first that is there where `None`.
        socket: Option<PathBuf>,
    },
}

/// Checks it.
pub fn checked(raw: &raw::Attribution, source: &Source<'_>) -> Result<Attribution, ConfigError> {
    const SOCKET: &str = "attribution.cri_socket";
    let attribution = match raw.source.get_ref().as_str() {
        "off" => Attribution::Off,
        "cgroup" => Attribution::Cgroup,
        "auto" => Attribution::Runtime { socket: raw.cri_socket.as_ref().map(|path| path.get_ref().into()) },
        other => {
            let problem = format!("`{other}` is no source");
            return Err(source.error(
                raw.source.span(),
                "attribution.source",
                problem,
                "use auto, cgroup or off",
            ));
        }
    };
    let Some(path) = &raw.cri_socket else { return Ok(attribution) };
    if !matches!(attribution, Attribution::Runtime { .. }) {
        let problem = format!("means nothing to `{}`", raw.source.get_ref());
        return Err(source.error(path.span(), SOCKET, problem, "leave it out"));
    }
    if !path.get_ref().starts_with('/') {
        let problem = format!("`{}` is no absolute path", path.get_ref());
        let remedy = "use e.g. \"/run/containerd/containerd.sock\"";
        return Err(source.error(path.span(), SOCKET, problem, remedy));
    }
    Ok(attribution)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    #[test]
    fn it_is_on_unless_told_otherwise() {
        let of = |text| Config::parse(text, None).unwrap().attribution;
        assert_eq!(of(""), Attribution::Runtime { socket: None });
        assert_eq!(of("[attribution]\nsource = \"off\""), Attribution::Off);
        assert_eq!(of("[attribution]\nsource = \"cgroup\""), Attribution::Cgroup);
        let socket = Some("/run/crio/crio.sock".into());
        assert_eq!(
            of("[attribution]\ncri_socket = \"/run/crio/crio.sock\""),
            Attribution::Runtime { socket }
        );
    }

    #[test]
    fn errors_name_the_line_the_field_and_the_remedy() {
        let rows = [
            (
                "[attribution]\nsource = \"kubelet\"",
                "g.toml:2: attribution.source: `kubelet` is no source; use auto, cgroup or off",
            ),
            (
                "[attribution]\nsource = \"off\"\ncri_socket = \"/run/crio/crio.sock\"",
                "g.toml:3: attribution.cri_socket: means nothing to `off`; leave it out",
            ),
            (
                "[attribution]\ncri_socket = \"containerd.sock\"",
                "g.toml:2: attribution.cri_socket: `containerd.sock` is no absolute path; use e.g. \"/run/containerd/containerd.sock\"",
            ),
            (
                "[attribution]\ncri_sockte = \"x\"",
                "g.toml:2: cri_sockte: unknown key; did you mean `cri_socket`?",
            ),
            ("[limits]\npods = 0", "g.toml:2: limits.pods: 0 is out of range; use 1 to 1000"),
        ];
        for (text, expected) in rows {
            let error = Config::parse(text, Some(Path::new("g.toml"))).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
