//! `[overload_protection]` and `[flapping_detect]` with their defaults.

use std::time::Duration;

use super::document::Node;
use super::document::Value;
use super::parse;
use super::reader::Section;
use super::reader::Wrong;
use super::sections::narrow;
use super::settings::FlappingDetect;
use super::settings::MemoryCeiling;
use super::settings::OverloadProtection;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn overload_protection(section: Section<'_>) -> OverloadProtection {
    let overload = OverloadProtection {
        max_memory: section.or("max_memory", MemoryCeiling::Percent(80), memory),
        max_lag: section.or(
            "max_lag",
            Some(2 * SECOND),
            parse::or_word("infinity", parse::duration(SECOND / 10..=3600 * SECOND)),
        ),
        max_sessions: section
            .or("max_sessions", 1_000_000, |node| narrow(parse::integer(1..=1_000_000_000)(node)?)),
        max_total_subscriptions: section.or("max_total_subscriptions", 10_000_000, |node| {
            narrow(parse::integer(1..=10_000_000_000)(node)?)
        }),
    };
    section.finish();
    overload
}

pub(super) fn flapping_detect(section: Section<'_>) -> FlappingDetect {
    let flapping = FlappingDetect {
        enable: section.or("enable", false, parse::boolean),
        window_time: section.or("window_time", 60 * SECOND, parse::duration(SECOND..=DAY)),
        max_count: section.or("max_count", 15, |node| narrow(parse::integer(1..=1_000_000)(node)?)),
        ban_time: section.or("ban_time", 300 * SECOND, parse::duration(SECOND..=365 * DAY)),
    };
    section.finish();
    flapping
}

/// `"80%"`, `"1GB"` or `"infinity"`.
fn memory(node: &Node) -> Result<MemoryCeiling, Wrong> {
    if let Value::Text(text) | Value::Raw(text) = &node.value {
        if text == "infinity" {
            return Ok(MemoryCeiling::Infinity);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent));
            let wrong = || format!("`{text}` is not from \"1%\" to \"100%\"").into();
            return percent.map(MemoryCeiling::Percent).ok_or_else(wrong);
        }
    }
    let bytes = parse::size(1 << 20..=1 << 50)(node).map_err(|wrong| Wrong {
        message: format!("{}; \"80%\" and \"infinity\" are allowed too", wrong.message),
        hint: wrong.hint,
    })?;
    Ok(MemoryCeiling::Bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::Environment;
    use super::super::parse;
    use super::*;

    fn ceiling(value: &str) -> Option<MemoryCeiling> {
        let text = format!("[overload_protection]\nmax_memory = {value}");
        let settings = parse("t.toml", &text, &Environment::default()).ok()?;
        Some(settings.overload_protection.max_memory)
    }

    #[test]
    fn a_ceiling_is_a_share_a_size_or_none() {
        let good = [
            ("\"80%\"", MemoryCeiling::Percent(80)),
            ("\"100%\"", MemoryCeiling::Percent(100)),
            ("\"1GB\"", MemoryCeiling::Bytes(1 << 30)),
            ("2097152", MemoryCeiling::Bytes(2 << 20)),
            ("\"infinity\"", MemoryCeiling::Infinity),
        ];
        for (text, expected) in good {
            assert_eq!(ceiling(text), Some(expected), "{text}");
        }
        for text in ["\"0%\"", "\"101%\"", "\"%\"", "\"-1%\"", "\"100B\"", "0.5", "true", "\"none\""] {
            assert_eq!(ceiling(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_written() {
        for ceiling in [MemoryCeiling::Infinity, MemoryCeiling::Percent(7), MemoryCeiling::Bytes(1 << 20)] {
            assert_eq!(self::ceiling(&format!("\"{ceiling}\"")), Some(ceiling));
        }
    }
}
