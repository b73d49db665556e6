//! Documents that are made from the code, so that they cannot say anything else: docs/catalog.md, docs/schema.json.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{
    build,
    shell::{output, say},
};

/// `(file, arguments of graylag that print it)`.
const GENERATED: &[(&str, &[&str])] =
    &[("docs/catalog.md", &["catalog", "--markdown"]), ("docs/schema.json", &["schema"])];

/// Writes all of them.
pub(crate) fn write() -> Result<()> {
    let agent = build::agent()?;
    for (file, text) in generated(&agent)? {
        if let Some(directory) = Path::new(file).parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(file, text).with_context(|| format!("writing {file}"))?;
        say(format!("wrote {file}"));
    }
    Ok(())
}

/// Builds the agent, and fails where a document is not what it would print.
pub(crate) fn check() -> Result<()> {
    compare(&build::agent()?)
}

/// Fails where a document is not what this agent prints.
pub(crate) fn compare(agent: &Path) -> Result<()> {
    for (file, text) in generated(agent)? {
        let committed = fs::read_to_string(file).unwrap_or_default();
        ensure!(committed == text, "{file} is not what the code says; write it anew: cargo xtask docs");
    }
    Ok(())
}

fn generated(agent: &Path) -> Result<Vec<(&'static str, String)>> {
    let print = |(file, arguments): &(&'static str, &[&str])| {
        let text = output(Command::new(agent).args(*arguments))?;
        Ok((*file, text + "\n"))
    };
    GENERATED.iter().map(print).collect()
}
