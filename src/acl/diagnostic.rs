//! Errors of an ACL file with their place in it: `file:LINE:COL: CODE message`, the source line and a caret
//! (`acl-language.md` section 7). Not here: findings of the linter, which concern legal files.

use std::fmt;

/// The most diagnostics reported for one file; what follows is counted as one closing `E002`.
pub const DIAGNOSTICS_MAX: usize = 100;
/// The most characters of a source line that are shown.
const EXCERPT_CHARS_MAX: usize = 120;

/// What is wrong, by the table of `acl-language.md` section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The file cannot be read.
    E001,
    /// A limit of section 1 is exceeded.
    E002,
    /// Syntax: something else was expected here.
    E101,
    /// A rule is not ended by `.`.
    E102,
    /// A variable or a call where only data may stand.
    E103,
    /// A string or quoted atom without its closing quote.
    E104,
    /// A character that may not stand here, or bytes that are not UTF-8.
    E105,
    /// A reserved word that must be quoted.
    E106,
    /// A term that is not a rule.
    E201,
    /// A rule with the wrong number or kind of elements.
    E202,
    /// Not a permission.
    E203,
    /// Not an action.
    E204,
    /// Not a QoS.
    E205,
    /// Not a value of `retain`.
    E206,
    /// Not an option of this action.
    E207,
    /// Topics that are neither `all` nor a list.
    E208,
    /// A topic that is neither text nor `{eq, text}`.
    E209,
    /// A filter that is not valid in MQTT.
    E210,
    /// A placeholder that topics do not have.
    E211,
    /// Control characters or bytes that no MQTT text holds.
    E212,
    /// An empty list.
    E213,
    /// A regular expression that cannot be parsed.
    E301,
    /// Not a matcher.
    E302,
    /// Not a condition.
    E303,
    /// Not an address or address block.
    E304,
    /// A feature of PCRE that the linear-time engine does not have.
    E305,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One error (or, in EMQX mode, one warning) with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Which rule of section 7 is broken.
    pub code: Code,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// What is wrong, and where possible what was meant.
    pub message: String,
    excerpt: String,
    caret: usize,
    width: usize,
}

impl Diagnostic {
    /// The file as a whole could not be read (`E001`); `reason` names the errno.
    #[must_use]
    pub fn unreadable(reason: &str) -> Self {
        let message = format!("cannot read the file: {reason}");
        Self { code: Code::E001, line: 1, column: 1, message, excerpt: String::new(), caret: 0, width: 1 }
    }

    /// `file:LINE:COL: CODE message`, then the source line and a caret under the place, without a final newline.
    #[must_use]
    pub fn render(&self, file: &str) -> String {
        let head = format!("{file}:{self}");
        if self.excerpt.is_empty() {
            return head;
        }
        let margin = self.line.to_string();
        let blank = " ".repeat(margin.len());
        // Tabs stay tabs, so that the caret stands under its character whatever a tab is worth.
        let pad: String =
            self.excerpt.chars().take(self.caret).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(self.width.max(1));
        format!("{head}\n{margin} | {}\n{blank} | {pad}{carets}", self.excerpt)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} {}", self.line, self.column, self.code, self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// Bytes `start..end` of the source text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A source text and the diagnostics collected for it.
#[derive(Debug)]
pub struct Source<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
    found: Vec<Diagnostic>,
    dropped: usize,
}

impl<'a> Source<'a> {
    /// Prepares `text` for looking up lines.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let mut line_starts = vec![0];
        line_starts.extend(text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(at, _)| at + 1));
        Self { text, line_starts, found: Vec::new(), dropped: 0 }
    }

    /// The text itself.
    #[must_use]
    pub fn text(&self) -> &'a str {
        self.text
    }

    /// The line of a byte offset, counted from 1.
    #[must_use]
    pub fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.line_starts.partition_point(|&start| start <= offset)).unwrap_or(u32::MAX)
    }

    /// Whether [`DIAGNOSTICS_MAX`] is reached, so that looking for more is of no use.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.found.len() >= DIAGNOSTICS_MAX
    }

    /// Notes an error at `span`.
    pub fn report(&mut self, code: Code, span: Span, message: impl Into<String>) {
        if self.is_full() {
            self.dropped += 1;
            return;
        }
        let diagnostic = self.diagnostic(code, span, message.into());
        self.found.push(diagnostic);
    }

    /// A diagnostic at `span`, not noted.
    #[must_use]
    pub fn diagnostic(&self, code: Code, span: Span, message: String) -> Diagnostic {
        let line = self.line(span.start);
        let index = usize::try_from(line).unwrap_or(1) - 1;
        let start = self.line_starts.get(index).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or_default();
        let whole = rest.split('\n').next().unwrap_or_default().trim_end_matches('\r');
        let before = self.text.get(start..span.start).unwrap_or_default().chars().count();
        let width = self.text.get(span.start..span.end.min(start + whole.len())).unwrap_or_default();
        // Long lines are shown as a window around the place.
        let skip = before.saturating_sub(EXCERPT_CHARS_MAX / 2);
        let excerpt: String = whole
            .chars()
            .skip(skip)
            .take(EXCERPT_CHARS_MAX)
            .map(|c| if c.is_control() && c != '\t' { '\u{FFFD}' } else { c })
            .collect();
        let caret = before - skip;
        let shown = excerpt.chars().count();
        let width = width.chars().count().clamp(1, shown.saturating_sub(caret).max(1));
        let column = u32::try_from(before + 1).unwrap_or(u32::MAX);
        Diagnostic { code, line, column, message, excerpt, caret, width }
    }

    /// Everything noted, in the order of the file.
    #[must_use]
    pub fn into_diagnostics(mut self) -> Vec<Diagnostic> {
        if self.dropped > 0 {
            let end = Span { start: self.text.len(), end: self.text.len() };
            let message = format!("{} further errors are not shown", self.dropped);
            let last = self.diagnostic(Code::E002, end, message);
            self.found.push(last);
        }
        self.found.sort_by_key(|d| (d.line, d.column));
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_points_at_its_place() {
        let mut source = Source::new("{a}.\n\t{é, bad}.\n");
        let start = source.text().find("bad").unwrap();
        source.report(Code::E203, Span { start, end: start + 3 }, "no");
        let found = source.into_diagnostics();
        assert_eq!((found[0].line, found[0].column), (2, 6));
        assert_eq!(found[0].render("x.conf"), "x.conf:2:6: E203 no\n2 | \t{é, bad}.\n  | \t    ^^^");
    }

    #[test]
    fn long_lines_and_many_errors_are_bounded() {
        let text = "x".repeat(100_000);
        let mut source = Source::new(&text);
        for start in 0..DIAGNOSTICS_MAX + 5 {
            source.report(Code::E101, Span { start: 50_000 + start, end: 60_000 }, "no");
        }
        let found = source.into_diagnostics();
        assert_eq!(found.len(), DIAGNOSTICS_MAX + 1);
        assert_eq!(found[0].column, 50_001);
        assert!(found[0].render("f").len() < 400);
        assert_eq!(found[DIAGNOSTICS_MAX].message, "5 further errors are not shown");
    }
}
