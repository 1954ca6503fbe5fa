//! What is wrong with a configuration, and where: `file:line:column: key: message`.

use std::fmt;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A place in the file; line and column count from 1, columns in characters.
    Text {
        /// The file as it was named.
        file: String,
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// The file as a whole: it cannot be read.
    File(String),
    /// An environment variable.
    Variable(String),
    /// A built-in default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::File(file) => f.write_str(file),
            Self::Variable(name) => f.write_str(name),
            Self::Default => f.write_str("built-in default"),
        }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct ConfigError {
    /// Where it is written.
    pub place: Place,
    /// The key's path, such as `listeners[0].ssl.verify`; empty when the text is not TOML.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// The nearest valid key or value.
    pub hint: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " (did you mean `{hint}`?)")?;
        }
        Ok(())
    }
}

/// The candidate nearest to `word`, if one is near enough to be a slip of the pen.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const WORD_CHARS_MAX: usize = 64;
    let length = word.chars().count();
    if length > WORD_CHARS_MAX {
        return None;
    }
    let allowed = (length / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of two neighbours) between two words, case ignored.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().flat_map(char::to_lowercase).collect();
    let other: Vec<char> = other.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let mut least = (above[j] + usize::from(a != b)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_place_key_and_neighbour() {
        let mut error = ConfigError {
            place: Place::Text { file: "t.toml".into(), line: 3, column: 7 },
            key: "listeners[0].bnd".into(),
            message: "unknown key".into(),
            hint: Some("bind".into()),
        };
        assert_eq!(error.to_string(), "t.toml:3:7: listeners[0].bnd: unknown key (did you mean `bind`?)");
        error.place = Place::Variable("TOMBOLO__X".into());
        error.key.clear();
        error.hint = None;
        assert_eq!(error.to_string(), "TOMBOLO__X: unknown key");
    }

    #[test]
    fn the_nearest_word_is_near() {
        let words = ["bind", "name", "max_connections", "verify"];
        assert_eq!(nearest("bnd", words), Some("bind"));
        assert_eq!(nearest("max_connection", words), Some("max_connections"));
        assert_eq!(nearest("Verify", words), Some("verify"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(nearest(&"b".repeat(10_000), words), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("nmae", "name"), 1);
    }
}
