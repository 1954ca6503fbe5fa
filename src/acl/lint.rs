//! What is legal in a rule set but surely not meant (`acl-language.md` section 9).

use std::fmt;

use crate::acl::eval::RuleSet;
use crate::acl::rule::Permission;

/// A configured link, as far as rules concern it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkInfo {
    /// The peer's cluster name, as in the topics it uses.
    pub name: String,
    /// Prefix of the peer's Client Identifiers.
    pub clientid_prefix: String,
    /// The peer's User Name.
    pub username: Option<String>,
}

/// What the linter knows besides the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Configured links.
    pub links: Vec<LinkInfo>,
    /// `authorization.no_match`.
    pub no_match: Permission,
    /// `authorization.deny_action` is `disconnect`.
    pub deny_disconnects: bool,
    /// Ids (`type:name`) of the listeners of role link or any.
    pub link_listeners: Vec<String>,
    /// Ids of all listeners; empty when not known.
    pub listeners: Vec<String>,
    /// Known application clients: Client Identifier and User Name.
    pub applications: Vec<(String, Option<String>)>,
}

impl Default for Inventory {
    fn default() -> Self {
        Self {
            links: Vec::new(),
            no_match: Permission::Deny,
            deny_disconnects: false,
            link_listeners: Vec::new(),
            listeners: Vec::new(),
            applications: Vec::new(),
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Probably not meant.
    Warning,
    /// Not to be used on a link listener.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `L01` to `L28`.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// Line of the rule, counted from 1; 0 when it concerns the whole file or the configuration.
    pub line: u32,
    /// What is wrong and what would be right.
    pub message: String,
    /// The source line, empty when `line` is 0.
    pub excerpt: String,
}

impl Finding {
    /// `file:LINE: L07 error: message`, then the source line, without a final newline.
    #[must_use]
    pub fn render(&self, file: &str) -> String {
        if self.line == 0 {
            return format!("{file}: {self}");
        }
        format!("{file}:{}: {self}\n{} | {}", self.line, self.line, self.excerpt)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.id, self.severity, self.message)
    }
}

/// Everything found in `rules`, compiled from `text`, in the order of the file.
#[must_use]
pub fn lint(_rules: &RuleSet, _text: &str, _inventory: &Inventory) -> Vec<Finding> {
    Vec::new()
}
