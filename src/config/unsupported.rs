//! Settings that are valid but not built yet: set to anything but their default they are refused, never
//! ignored. Whoever builds one takes its line out of [`NOT_BUILT_YET`].

use super::document::Node;
use super::document::Value;
use super::reader::Reading;

/// What is accepted of a setting that is not built.
enum Only {
    /// This word.
    Word(&'static str),
    /// `false`.
    False,
}

/// Key, with `[]` for every item of a list, and what is accepted.
const NOT_BUILT_YET: &[(&str, Only)] = &[
    ("mqtt.retry_interval", Only::Word("infinity")),
    ("mqtt.keepalive_check_interval", Only::Word("30s")),
    ("mqtt.upgrade_qos", Only::False),
    ("mqtt.use_username_as_clientid", Only::False),
    ("mqtt.mqueue_priorities", Only::Word("disabled")),
    ("mqtt.mqueue_default_priority", Only::Word("lowest")),
    ("mqtt.peer_cert_as_username", Only::Word("disabled")),
    ("mqtt.peer_cert_as_clientid", Only::Word("disabled")),
];

/// Refuses what is written and not built.
pub(super) fn refuse(reading: &Reading<'_>) {
    for (pattern, only) in NOT_BUILT_YET {
        let steps: Vec<&str> = pattern.split('.').collect();
        visit(&reading.document.root, &steps, String::new(), &mut |path, node| {
            if !reading.failed(path) && !only.accepts(&node.value) {
                reading.error(path, format!("not supported yet: {path}"));
            }
        });
    }
}

impl Only {
    fn accepts(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Word(word), Value::Text(text) | Value::Raw(text)) => text == word,
            (Self::Word(_), _) => false,
            (Self::False, value) => matches!(value, Value::Boolean(false)) || is_raw(value, "false"),
        }
    }
}

fn is_raw(value: &Value, word: &str) -> bool {
    matches!(value, Value::Raw(text) if text.trim() == word)
}

/// Calls `found` for every value that `steps` leads to.
fn visit(node: &Node, steps: &[&str], path: String, found: &mut impl FnMut(&str, &Node)) {
    let Some((step, rest)) = steps.split_first() else {
        found(&path, node);
        return;
    };
    let Value::Table(table) = &node.value else { return };
    let key = step.trim_end_matches("[]");
    let Some((_, next)) = table.get(key) else { return };
    let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match &next.value {
        Value::List(list) if step.ends_with("[]") => {
            for (index, item) in list.iter().enumerate() {
                visit(item, rest, format!("{path}[{index}]"), found);
            }
        }
        _ => visit(next, rest, path, found),
    }
}
