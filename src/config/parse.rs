//! From one value as written to one Rust value. Text of a variable is read as the type the key has.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::document::Node;
use super::document::Value;
use super::error::nearest;
use super::reader::Section;
use super::reader::Wrong;
use super::settings::Rate;
use super::settings::RateLimits;
use super::units;

/// The longest string taken, but for lists of topics: paths, names and secrets are shorter.
const TEXT_BYTES_MAX: usize = 65_535;

fn expected(what: &str, node: &Node) -> Wrong {
    format!("expected {what}, found {}", node.value.describe()).into()
}

/// A string.
pub(super) fn text(node: &Node) -> Result<String, Wrong> {
    match &node.value {
        Value::Text(text) | Value::Raw(text) if text.len() > TEXT_BYTES_MAX => {
            Err("this is longer than 65,535 bytes".into())
        }
        Value::Text(text) | Value::Raw(text) => Ok(text.clone()),
        _ => Err(expected("a string", node)),
    }
}

/// A string with at least one character and no control characters.
pub(super) fn word(node: &Node) -> Result<String, Wrong> {
    let text = text(node)?;
    if text.is_empty() {
        return Err("this must not be empty".into());
    }
    if text.chars().any(char::is_control) {
        return Err("control characters are not allowed here".into());
    }
    Ok(text)
}

/// A path; a relative one is meant from the directory the program runs in.
pub(super) fn path(node: &Node) -> Result<PathBuf, Wrong> {
    word(node).map(PathBuf::from)
}

/// `true` or `false`.
pub(super) fn boolean(node: &Node) -> Result<bool, Wrong> {
    match &node.value {
        Value::Boolean(value) => Ok(*value),
        Value::Raw(text) => match text.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("expected true or false, found `{text}`").into()),
        },
        _ => Err(expected("true or false", node)),
    }
}

/// An integer in `range`.
pub(super) fn integer(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Result<u64, Wrong> {
    move |node| {
        let number = match &node.value {
            Value::Integer(number) => number.and_then(|n| u64::try_from(n).ok()),
            Value::Raw(text) => text.trim().parse().ok(),
            _ => return Err(expected("an integer", node)),
        };
        match number {
            Some(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("expected an integer from {} to {}", range.start(), range.end()).into()),
        }
    }
}

/// A number from `low` to `high`, with or without a fraction.
pub(super) fn number(low: f64, high: f64) -> impl Fn(&Node) -> Result<f64, Wrong> {
    move |node| {
        let number = match &node.value {
            // Exact: the range is small.
            Value::Integer(number) => number.map(|n| n as f64),
            Value::Float(number) => Some(*number),
            Value::Raw(text) => text.trim().parse().ok(),
            _ => return Err(expected("a number", node)),
        };
        match number {
            Some(number) if (low..=high).contains(&number) => Ok(number),
            _ => Err(format!("expected a number from {low} to {high}").into()),
        }
    }
}

/// A duration such as `"15s"` in `range`.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Node) -> Result<Duration, Wrong> {
    move |node| match &node.value {
        Value::Text(text) | Value::Raw(text) => match units::duration(text)? {
            duration if range.contains(&duration) => Ok(duration),
            _ => Err(format!("expected a duration from {:?} to {:?}", range.start(), range.end()).into()),
        },
        _ => Err(expected("a duration such as \"15s\"", node)),
    }
}

/// A size such as `"1MB"` in `range` of bytes.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&Node) -> Result<u64, Wrong> {
    move |node| {
        let bytes = match &node.value {
            Value::Text(text) | Value::Raw(text) => units::size(text)?,
            Value::Integer(Some(bytes)) if *bytes >= 0 => bytes.unsigned_abs(),
            _ => return Err(expected("a size such as \"1MB\"", node)),
        };
        if range.contains(&bytes) {
            Ok(bytes)
        } else {
            Err(format!("expected a size from {} to {} bytes", range.start(), range.end()).into())
        }
    }
}

/// A rate such as `"100/s"`.
pub(super) fn rate(node: &Node) -> Result<Rate, Wrong> {
    units::rate(&word(node)?).map_err(Wrong::from)
}

/// `messages_rate` and `bytes_rate`.
pub(super) fn rate_limits(section: &Section<'_>) -> RateLimits {
    let bytes = |node: &Node| units::bytes_rate(&word(node)?).map_err(Wrong::from);
    RateLimits {
        messages: section.or("messages_rate", None, or_word("infinity", rate)),
        bytes: section.or("bytes_rate", None, or_word("infinity", bytes)),
    }
}

/// What `parse` takes, or the word `none` (such as `"infinity"`) for `None`.
pub(super) fn or_word<T>(
    none: &'static str,
    parse: impl Fn(&Node) -> Result<T, Wrong>,
) -> impl Fn(&Node) -> Result<Option<T>, Wrong> {
    move |node| match &node.value {
        Value::Text(text) | Value::Raw(text) if text == none => Ok(None),
        _ => parse(node).map(Some).map_err(|wrong| Wrong {
            message: format!("{}; \"{none}\" is allowed too", wrong.message),
            hint: wrong.hint,
        }),
    }
}

/// One of these words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Node) -> Result<T, Wrong> {
    move |node| {
        let text = text(node)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let list: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        Err(Wrong {
            message: format!("expected {}, found \"{text}\"", list.join(" or ")),
            hint: nearest(&text, words.iter().map(|(word, _)| *word)).map(str::to_owned),
        })
    }
}
