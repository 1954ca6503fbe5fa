//! What changed between two files: rules that are gone, new, or at another place, for whoever reloads.

use std::collections::HashMap;
use std::fmt;

use crate::acl::eval::RuleSet;

/// The most lines that are told; what follows is counted.
pub const LINES_MAX: usize = 200;

/// How a rule set differs from the one before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rules that are gone.
    pub removed: usize,
    /// Rules that are new.
    pub added: usize,
    /// Rules that stand in another order among those that stayed.
    pub moved: usize,
    /// One line each, at most [`LINES_MAX`], in the order of the files.
    pub lines: Vec<String>,
}

impl Difference {
    /// From `old` to `new`. Lines and layout of the files do not count, only their rules.
    #[must_use]
    pub fn between(old: &RuleSet, new: &RuleSet) -> Self {
        let texts = |rules: &RuleSet| rules.rules.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (before, after) = (texts(old), texts(new));
        let partners = partners(&before, &after);
        let kept = longest_rising(&partners.iter().copied().flatten().collect::<Vec<_>>());
        let mut taken = vec![false; after.len()];
        let mut difference = Self::default();
        for (at, partner) in partners.iter().enumerate() {
            let line = old.rules[at].line;
            match partner {
                None => {
                    difference.removed += 1;
                    difference.tell(|| format!("- line {line}: {}", before[at]));
                }
                Some(to) => {
                    taken[*to] = true;
                    if kept.binary_search(to).is_err() {
                        difference.moved += 1;
                        let to = new.rules[*to].line;
                        difference.tell(|| format!("~ line {line} -> {to}: {}", before[at]));
                    }
                }
            }
        }
        for (at, _) in taken.iter().enumerate().filter(|(_, taken)| !**taken) {
            difference.added += 1;
            difference.tell(|| format!("+ line {}: {}", new.rules[at].line, after[at]));
        }
        let told = difference.removed + difference.added + difference.moved;
        if told > difference.lines.len() {
            difference.lines.push(format!("and {} more", told - difference.lines.len()));
        }
        difference
    }

    /// Whether the files have the same rules in the same order.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed + self.added + self.moved == 0
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(line());
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("the same rules");
        }
        write!(f, "rules: {} added, {} removed, {} moved", self.added, self.removed, self.moved)
    }
}

/// For each old rule the place of an equal new one: the first with the first, the second with the second.
fn partners(before: &[String], after: &[String]) -> Vec<Option<usize>> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (at, text) in after.iter().enumerate().rev() {
        places.entry(text).or_default().push(at);
    }
    before.iter().map(|text| places.get_mut(text.as_str())?.pop()).collect()
}

/// The values of a longest rising subsequence, ascending: what did not move.
fn longest_rising(values: &[usize]) -> Vec<usize> {
    // For each length the index of the smallest value that such a sequence can end in.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        let length = ends.partition_point(|end| values[*end] < *value);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        if length == ends.len() {
            ends.push(index);
        } else {
            ends[length] = index;
        }
    }
    let mut chain = Vec::new();
    let mut at = ends.last().copied();
    while let Some(index) = at {
        chain.push(values[index]);
        at = before[index];
    }
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::CompileOptions;

    fn between(old: &str, new: &str) -> Difference {
        let compile = |text: &str| RuleSet::compile(text, &CompileOptions::default()).unwrap();
        Difference::between(&compile(old), &compile(new))
    }

    const A: &str = "{allow, all, all, [\"a\"]}.\n";
    const B: &str = "{allow, all, all, [\"b\"]}.\n";
    const C: &str = "{deny, all}.\n";

    #[test]
    fn layout_is_no_difference() {
        let difference = between(&format!("{A}{C}"), &format!("%% said again\n\n{A}\n{C}"));
        assert!(difference.is_empty() && difference.lines.is_empty(), "{difference:?}");
        assert_eq!(difference.to_string(), "the same rules");
    }

    #[test]
    fn what_came_went_and_moved_is_told_with_its_lines() {
        let difference = between(&format!("{A}{B}{C}"), &format!("{B}{A}{A}"));
        assert_eq!(difference.to_string(), "rules: 1 added, 1 removed, 1 moved");
        assert_eq!(
            difference.lines,
            [
                "~ line 1 -> 2: {allow, all, all, [\"a\"]}.",
                "- line 3: {deny, all}.",
                "+ line 3: {allow, all, all, [\"a\"]}.",
            ]
        );
    }

    #[test]
    fn a_long_difference_is_cut_and_counted() {
        let text = |range: std::ops::Range<usize>| -> String {
            range.map(|n| format!("{{allow, all, all, [\"t/{n}\"]}}.\n")).collect()
        };
        let difference = between(&text(0..150), &text(150..310));
        assert_eq!((difference.removed, difference.added), (150, 160));
        assert_eq!(difference.lines.len(), LINES_MAX + 1);
        assert_eq!(difference.lines.last().unwrap(), "and 110 more");
    }
}
