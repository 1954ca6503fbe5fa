//! Typed reading of a document: every key asked for, every wrong type and every unknown key reported at once.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::BTreeSet;

use super::document::Document;
use super::document::Node;
use super::document::Origin;
use super::document::Table;
use super::document::Value;
use super::error::ConfigError;
use super::error::nearest;

/// What one reading collects and draws from.
pub(super) struct Reading<'d> {
    /// The tree that is read.
    pub(super) document: &'d Document,
    /// The environment, for `${env:VAR}`.
    pub(super) variables: &'d BTreeMap<String, String>,
    errors: RefCell<Vec<ConfigError>>,
    known: RefCell<BTreeSet<String>>,
}

impl<'d> Reading<'d> {
    /// Begins to read.
    pub(super) fn new(document: &'d Document, variables: &'d BTreeMap<String, String>) -> Self {
        Self { document, variables, errors: RefCell::default(), known: RefCell::default() }
    }

    /// The outermost table.
    pub(super) fn root(&self) -> Section<'_> {
        Section {
            reading: self,
            table: table_of(&self.document.root),
            path: String::new(),
            asked: RefCell::default(),
        }
    }

    /// Records an error at the place of `path`, or of the nearest table around it.
    pub(super) fn error(&self, path: &str, message: impl Into<String>) {
        self.error_at(&self.document.origin(path), path, message.into(), None);
    }

    fn error_at(&self, origin: &Origin, path: &str, message: String, hint: Option<String>) {
        let place = self.document.place(origin);
        self.errors.borrow_mut().push(ConfigError { place, key: path.to_owned(), message, hint });
    }

    /// Whether an error is recorded at `path` or inside of it.
    pub(super) fn failed(&self, path: &str) -> bool {
        self.errors.borrow().iter().any(|error| {
            error.key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    /// The errors found, in the order of the file.
    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        let mut errors = self.errors.into_inner();
        errors.sort();
        errors.dedup();
        errors
    }

    /// Every key asked for, list indexes left out: the schema.
    #[cfg(test)]
    pub(super) fn known(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }
}

fn table_of(node: &Node) -> Option<&Table> {
    match &node.value {
        Value::Table(table) => Some(table),
        _ => None,
    }
}

/// One table while it is read; [`Section::finish`] reports the keys nobody asked for.
pub(super) struct Section<'r> {
    reading: &'r Reading<'r>,
    table: Option<&'r Table>,
    path: String,
    asked: RefCell<Vec<&'static str>>,
}

impl<'r> Section<'r> {
    /// The path of `key` in this table.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether the table itself is written.
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// Whether `key` is written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// What everything shares.
    pub(super) fn reading(&self) -> &'r Reading<'r> {
        self.reading
    }

    fn node(&self, key: &'static str) -> Option<&'r Node> {
        self.asked.borrow_mut().push(key);
        let mut pattern = String::new();
        for part in self.path(key).split('[') {
            pattern.push_str(part.split_once(']').map_or(part, |(_, rest)| rest));
        }
        self.reading.known.borrow_mut().insert(pattern);
        self.table.and_then(|table| table.get(key)).map(|(_, node)| node)
    }

    /// The value of a key that is no setting, whatever it is.
    pub(super) fn opaque(&self, key: &'static str) -> Option<&'r Node> {
        self.asked.borrow_mut().push(key);
        self.table.and_then(|table| table.get(key)).map(|(_, node)| node)
    }

    /// The value of `key`, or `None` when it is not written or wrong; wrong is recorded.
    pub(super) fn optional<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&Node) -> Result<T, Wrong>,
    ) -> Option<T> {
        let node = self.node(key)?;
        match parse(node) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.reading.error_at(&node.origin, &self.path(key), wrong.message, wrong.hint);
                None
            }
        }
    }

    /// The value of `key`, or `default`.
    pub(super) fn or<T>(
        &self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&Node) -> Result<T, Wrong>,
    ) -> T {
        self.optional(key, parse).unwrap_or(default)
    }

    /// The value of `key`; not written is an error too.
    pub(super) fn required<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&Node) -> Result<T, Wrong>,
    ) -> Option<T> {
        if !self.has(key) {
            self.node(key);
            self.reading.error(&self.path(key), "this is required");
            return None;
        }
        self.optional(key, parse)
    }

    /// The items of the list `key`; each wrong one is recorded and left out.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        parse: impl Fn(&Node) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let items = self.nodes(key)?;
        let mut parsed = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            match parse(item) {
                Ok(value) => parsed.push(value),
                Err(wrong) => {
                    let path = format!("{}[{index}]", self.path(key));
                    self.reading.error_at(&item.origin, &path, wrong.message, wrong.hint);
                }
            }
        }
        Some(parsed)
    }

    fn nodes(&self, key: &'static str) -> Option<&'r [Node]> {
        let node = self.node(key)?;
        match &node.value {
            Value::List(items) => Some(items),
            other => {
                let message = format!("expected a list, found {}", other.describe());
                self.reading.error_at(&node.origin, &self.path(key), message, None);
                None
            }
        }
    }

    /// The table `key`; an empty one when it is not written.
    pub(super) fn section(&self, key: &'static str) -> Self {
        let table = self.node(key).and_then(|node| self.as_table(node, &self.path(key)));
        Section { reading: self.reading, table, path: self.path(key), asked: RefCell::default() }
    }

    /// The tables of the list `key`.
    pub(super) fn sections(&self, key: &'static str) -> Vec<Self> {
        let items = self.nodes(key).unwrap_or_default().iter().enumerate();
        items
            .map(|(index, item)| {
                let path = format!("{}[{index}]", self.path(key));
                let table = self.as_table(item, &path);
                Section { reading: self.reading, table, path, asked: RefCell::default() }
            })
            .collect()
    }

    fn as_table(&self, node: &'r Node, path: &str) -> Option<&'r Table> {
        let table = table_of(node);
        if table.is_none() {
            let message = format!("expected a table, found {}", node.value.describe());
            self.reading.error_at(&node.origin, path, message, None);
        }
        table
    }

    /// Reports every key of the table that was not asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        for (key, (origin, _)) in self.table.into_iter().flatten() {
            if asked.contains(&key.as_str()) {
                continue;
            }
            let hint = elsewhere(key).or_else(|| nearest(key, asked.iter().copied()));
            let message = match hint {
                None => format!("unknown key; valid here: {}", asked.join(", ")),
                Some(_) => "unknown key".to_owned(),
            };
            self.reading.error_at(origin, &self.path(key), message, hint.map(str::to_owned));
        }
    }
}

/// What EMQX calls otherwise.
fn elsewhere(key: &str) -> Option<&'static str> {
    Some(match key {
        "enable_authn" => "authn.enable",
        "ssl_options" => "ssl",
        "messages_rate" => "limits.messages_rate",
        "bytes_rate" => "limits.bytes_rate",
        "server_name" => "server_name_indication",
        _ => return None,
    })
}

/// Why a value is not taken.
#[derive(Debug)]
pub(super) struct Wrong {
    /// What is wrong.
    pub(super) message: String,
    /// The nearest valid value.
    pub(super) hint: Option<String>,
}

impl From<String> for Wrong {
    fn from(message: String) -> Self {
        Self { message, hint: None }
    }
}

impl From<&str> for Wrong {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}
