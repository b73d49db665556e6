//! `[api] path_map` and `[kernel] pin`, checked.

use std::path::{Path, PathBuf};

use toml::Spanned;

use super::{ConfigError, error::Source};

/// Checks what can be checked without the file system.
pub fn checked(value: &Spanned<String>, source: &Source<'_>) -> Result<PathBuf, ConfigError> {
    pinned(value, "api.path_map", "use e.g. \"/sys/fs/bpf/graylag/path_state\"", source)
}

/// A directory for the kernel half, which must not be the one of the map of path states: each is somebody's own.
pub fn directory(
    value: &Spanned<String>,
    path_map: Option<&Path>,
    source: &Source<'_>,
) -> Result<PathBuf, ConfigError> {
    const FIELD: &str = "kernel.pin";
    const REMEDY: &str = "use e.g. \"/sys/fs/bpf/graylag/agent\"";
    let path = pinned(value, FIELD, REMEDY, source)?;
    if path_map.and_then(Path::parent) == Some(&path) {
        let problem = format!("`{}` is the directory of api.path_map", path.display());
        return Err(source.error(value.span(), FIELD, problem, REMEDY));
    }
    Ok(path)
}

fn pinned(
    value: &Spanned<String>,
    field: &str,
    remedy: &str,
    source: &Source<'_>,
) -> Result<PathBuf, ConfigError> {
    let text = value.get_ref();
    let error = |problem| Err(source.error(value.span(), field, problem, remedy));
    if !text.starts_with('/') {
        return error(format!("`{text}` is no absolute path"));
    }
    // `bpf_lookup`: names with dots are reserved.
    match text.rsplit_once('/') {
        Some((_, name)) if !name.is_empty() && !name.contains('.') => Ok(text.into()),
        _ => error(format!("`{text}` does not end in a name without dots")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    #[test]
    fn a_pin_has_an_absolute_path_and_a_name_that_the_kernel_takes() {
        for (path, problem) in [
            ("path_state", "is no absolute path"),
            ("/sys/fs/bpf/", "does not end in a name without dots"),
            ("/sys/fs/bpf/path.state", "does not end in a name without dots"),
        ] {
            let error =
                Config::parse(&format!("[api]\npath_map = \"{path}\""), None).unwrap_err().to_string();
            let expected =
                format!("api.path_map: `{path}` {problem}; use e.g. \"/sys/fs/bpf/graylag/path_state\"");
            assert_eq!(error, expected);
        }
        let error = Config::parse("[kernel]\npin = \"agent\"", None).unwrap_err().to_string();
        assert!(error.contains("kernel.pin: `agent` is no absolute path; use e.g. "), "{error}");
        let same =
            "[api]\npath_map = \"/sys/fs/bpf/graylag/path_state\"\n[kernel]\npin = \"/sys/fs/bpf/graylag\"";
        let error = Config::parse(same, None).unwrap_err().to_string();
        assert!(
            error.contains("kernel.pin: `/sys/fs/bpf/graylag` is the directory of api.path_map"),
            "{error}"
        );
        let config = Config::parse("[api]\npath_map = \"/sys/fs/bpf/graylag/path_state\"", None).unwrap();
        assert_eq!(config.path_map, Some("/sys/fs/bpf/graylag/path_state".into()));
    }
}
