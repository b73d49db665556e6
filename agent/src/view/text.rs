//! Text that came from outside, made safe and made to fit.
//!
//! Names come from configuration, from the kernel and, through `graylag top`, from a socket. What is unsafe in them is
//! taken out once, at the door ([`clean`]); after that, only the width on the screen matters.

use std::iter::repeat_n;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Stands for what was left out.
const ELLIPSIS: char = '…';

/// Columns of the screen that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// A text without characters that move the cursor, change the direction of writing or cannot be seen.
///
/// Characters of no width go too: they let two names look alike, and they make the width of a text differ from the sum
/// of its characters.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_whitespace() {
            // A line break or a tab in a reason still parts two words.
            out.push(' ');
        } else if c.width().is_some_and(|w| w > 0) {
            out.push(c);
        }
    }
    out
}

/// The text, its end left out where it is too wide.
pub fn truncate(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    let mut out = head(text, limit.saturating_sub(1)).to_owned();
    if limit > 0 {
        out.push(ELLIPSIS);
    }
    out
}

/// The text, its middle left out where it is too wide: names differ at their ends.
pub fn elide(text: &str, limit: usize) -> String {
    if width(text) <= limit {
        return text.to_owned();
    }
    if limit < 5 {
        return truncate(text, limit);
    }
    let tail = (limit - 1) / 2;
    format!("{}{ELLIPSIS}{}", head(text, limit - 1 - tail), self::tail(text, tail))
}

/// The text, cut or filled up to exactly `limit`, at the left.
pub fn left(text: &str, limit: usize) -> String {
    fill(truncate(text, limit), limit, false)
}

/// The text, cut or filled up to exactly `limit`, at the right.
pub fn right(text: &str, limit: usize) -> String {
    fill(truncate(text, limit), limit, true)
}

/// The text in lines no wider than `limit`, broken between words where there is a choice.
pub fn wrap(text: &str, limit: usize) -> Vec<String> {
    let limit = limit.max(1);
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let mut rest = word;
        while !rest.is_empty() {
            let line = lines.last_mut().filter(|line| {
                let gap = usize::from(!line.is_empty());
                width(line) + gap + width(rest) <= limit
            });
            if let Some(line) = line {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(rest);
                break;
            }
            if lines.last().is_some_and(String::is_empty) {
                // One word, wider than a line: at least one character goes, so that this ends.
                let cut = head(rest, limit).len().max(rest.chars().next().map_or(0, char::len_utf8));
                let (now, later) = rest.split_at(cut);
                if let Some(line) = lines.last_mut() {
                    line.push_str(now);
                }
                rest = later;
            }
            if !rest.is_empty() {
                lines.push(String::new());
            }
        }
    }
    lines
}

fn fill(text: String, limit: usize, before: bool) -> String {
    let blanks = limit.saturating_sub(width(&text));
    if before { repeat_n(' ', blanks).chain(text.chars()).collect() } else { text + &" ".repeat(blanks) }
}

/// As much of the beginning as fits.
fn head(text: &str, limit: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > limit {
            return &text[..at];
        }
    }
    text
}

/// As much of the end as fits.
fn tail(text: &str, limit: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices().rev() {
        used += c.width().unwrap_or(0);
        if used > limit {
            return &text[at + c.len_utf8()..];
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unsafe_characters_go() {
        assert_eq!(clean("lb\u{1b}[31m\r\nx\ty"), "lb[31m  x y");
        assert_eq!(clean("a\u{202e}b\u{200b}c\u{feff}\u{7f}"), "abc");
        assert_eq!(clean("日本 ok"), "日本 ok");
    }

    #[test]
    fn too_wide_is_told() {
        assert_eq!(truncate("rooms-db", 8), "rooms-db");
        assert_eq!(truncate("rooms-db", 6), "rooms…");
        assert_eq!(truncate("日本語", 4), "日…");
        assert_eq!(truncate("ab", 1), "…");
        assert_eq!(truncate("ab", 0), "");
        assert_eq!(elide("2001:db8:1:2::/64", 11), "2001:…::/64");
        assert_eq!(right("5", 3), "  5");
        assert_eq!(left("5", 3), "5  ");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("日本", 1), ["日", "本"]);
    }

    proptest! {
        #[test]
        fn everything_fits(text in "\\PC{0,40}", limit in 0_usize..30) {
            let text = clean(&text);
            prop_assert!(width(&truncate(&text, limit)) <= limit);
            prop_assert!(width(&elide(&text, limit)) <= limit);
            prop_assert_eq!(width(&left(&text, limit)), limit);
            prop_assert_eq!(width(&right(&text, limit)), limit);
            for line in wrap(&text, limit.max(2)) {
                prop_assert!(width(&line) <= limit.max(2));
            }
        }
    }
}
