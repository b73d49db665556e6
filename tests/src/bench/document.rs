//! Figures in a document, between markers; everything around them is written by hand and stays.

use anyhow::{Context, Result};

/// Replaces what stands between `<!-- bench PART -->` and `<!-- /bench PART -->`.
pub fn replace(text: &str, part: &str, body: &str) -> Result<String> {
    let (open, close) = (format!("<!-- bench {part} -->"), format!("<!-- /bench {part} -->"));
    let missing =
        |marker: &str| format!("the marker `{marker}` is missing; put it where the figures are to go");
    let begin = text.find(&open).with_context(|| missing(&open))? + open.len();
    let length = text[begin..].find(&close).with_context(|| missing(&close))?;
    Ok(format!("{}\n{}\n{}", &text[..begin], body.trim_end(), &text[begin + length..]))
}
