//! `[api] path_map`, checked.

use std::path::PathBuf;

use toml::Spanned;

use super::{ConfigError, error::Source};

/// Checks what can be checked without the file system.
pub fn checked(value: &Spanned<String>, source: &Source<'_>) -> Result<PathBuf, ConfigError> {
    let text = value.get_ref();
    let error = |problem| {
        let remedy = "use e.g. \"/sys/fs/bpf/graylag/path_state\"";
        Err(source.error(value.span(), "api.path_map", problem, remedy))
    };
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
        let config = Config::parse("[api]\npath_map = \"/sys/fs/bpf/graylag/path_state\"", None).unwrap();
        assert_eq!(config.path_map, Some("/sys/fs/bpf/graylag/path_state".into()));
    }
}
