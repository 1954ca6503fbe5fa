//! The configuration as written: one tree of values, each with the place it came from.
//!
//! Built from the TOML text, then overridden by `TOMBOLO__…` variables. It knows no key by name.

use std::collections::BTreeMap;
use std::rc::Rc;

use toml::de::DeTable;
use toml::de::DeValue;

use super::error::ConfigError;
use super::error::Place;

/// Every variable with this prefix is an override; `__` separates the keys of a path.
pub(super) const VARIABLE_PREFIX: &str = "TOMBOLO__";

/// The deepest path that a variable may name.
const PATH_KEYS_MAX: usize = 12;

/// Where a value came from, before its line and column are worked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// An offset in the text.
    Offset(usize),
    /// A variable.
    Variable(Rc<str>),
    /// Nowhere: a default.
    Default,
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// The value.
    pub(super) value: Value,
    /// Where it begins.
    pub(super) origin: Origin,
}

/// A value as written.
#[derive(Debug, Clone)]
pub(super) enum Value {
    /// A string of the file.
    Text(String),
    /// The text of a variable, whose type only its reader knows.
    Raw(String),
    /// An integer; `None` is out of range.
    Integer(Option<i64>),
    /// A float.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date or a time, which no key takes.
    Datetime,
    /// A list.
    List(Vec<Node>),
    /// A table.
    Table(Table),
}

/// Keys of a table, with the place of the key and its value.
pub(super) type Table = BTreeMap<String, (Origin, Node)>;

impl Node {
    /// A table without keys.
    pub(super) fn empty_table(origin: Origin) -> Self {
        Self { value: Value::Table(Table::new()), origin }
    }
}

impl Value {
    /// What it is, for a message.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Raw(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// A tree of values and the text it was read from.
pub(super) struct Document {
    /// The outermost table.
    pub(super) root: Node,
    file: String,
    line_starts: Vec<usize>,
    text: String,
}

impl Document {
    /// Reads `text`; `file` is only named in errors. All syntax errors are reported.
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1)).collect();
        let mut document = Self {
            root: Node::empty_table(Origin::Offset(0)),
            file: file.to_owned(),
            line_starts,
            text: text.to_owned(),
        };
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let mut errors: Vec<ConfigError> = errors
                .iter()
                .map(|error| ConfigError {
                    place: document.place(&Origin::Offset(error.span().map_or(0, |span| span.start))),
                    key: String::new(),
                    message: error.message().replace('\n', ", "),
                    hint: None,
                })
                .collect();
            errors.sort();
            return Err(errors);
        }
        document.root.value = Value::Table(convert_table(table.get_ref(), None));
        Ok(document)
    }

    /// Line and column of an origin.
    pub(super) fn place(&self, origin: &Origin) -> Place {
        match origin {
            Origin::Variable(name) => Place::Variable(name.to_string()),
            Origin::Default => Place::Default,
            Origin::Offset(offset) => {
                let line = self.line_starts.partition_point(|start| start <= offset).max(1);
                let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
                let column = self.text.get(start..*offset).map_or(0, |before| before.chars().count()) + 1;
                Place::Text { file: self.file.clone(), line, column }
            }
        }
    }

    /// Whether there is a value at `path` (`a.b[0].c`).
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.locate(path).1
    }

    /// Where the value at `path` is written, or the nearest table around it that is.
    pub(super) fn origin(&self, path: &str) -> Origin {
        self.locate(path).0
    }

    fn locate(&self, path: &str) -> (Origin, bool) {
        let mut origin = Origin::Default;
        let mut node = Some(&self.root);
        for step in path.split(['.', '[']) {
            node = match (node.map(|n| &n.value), step.strip_suffix(']')) {
                (Some(Value::List(list)), Some(index)) => index.parse().ok().and_then(|i: usize| list.get(i)),
                (Some(Value::Table(table)), None) => table.get(step).map(|(_, node)| node),
                _ => None,
            };
            match node {
                Some(found) => origin = found.origin.clone(),
                None => break,
            }
        }
        (origin, node.is_some())
    }

    /// Applies the variables that begin with [`VARIABLE_PREFIX`].
    pub(super) fn apply_variables(&mut self, variables: &BTreeMap<String, String>) -> Vec<ConfigError> {
        let mut overrides: Vec<(Vec<Key>, &String, &String)> = variables
            .iter()
            .filter_map(|(name, value)| Some((keys(name.strip_prefix(VARIABLE_PREFIX)?), name, value)))
            .collect();
        // List items come in the order of their numbers: `10` after `9`.
        overrides.sort();
        let mut errors = Vec::new();
        for (path, name, value) in overrides {
            let result = if path.len() > PATH_KEYS_MAX || path.contains(&Key::Name(String::new())) {
                Err("the name of this variable is not a path of keys joined by `__`".to_owned())
            } else {
                read_variable(name, value).and_then(|node| set(&mut self.root, &path, node))
            };
            if let Err(message) = result {
                errors.push(ConfigError {
                    place: Place::Variable(name.clone()),
                    key: render(&path),
                    message,
                    hint: None,
                });
            }
        }
        errors
    }
}

/// One step of a variable's path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Index(usize),
    Name(String),
}

fn keys(path: &str) -> Vec<Key> {
    path.split("__")
        .map(|key| key.parse().map_or_else(|_| Key::Name(key.to_ascii_lowercase()), Key::Index))
        .collect()
}

fn render(path: &[Key]) -> String {
    let mut text = String::new();
    for key in path.iter().take(PATH_KEYS_MAX) {
        match key {
            Key::Index(index) => text.push_str(&format!("[{index}]")),
            Key::Name(name) if text.is_empty() => text.push_str(name),
            Key::Name(name) => text.push_str(&format!(".{name}")),
        }
    }
    text
}

/// A value that begins with `[` is a TOML list; any other is text for the reader of the key.
fn read_variable(name: &str, value: &str) -> Result<Node, String> {
    let origin = Origin::Variable(name.into());
    if !value.trim_start().starts_with('[') {
        return Ok(Node { value: Value::Raw(value.to_owned()), origin });
    }
    let text = format!("x = {value}");
    let table = DeTable::parse(&text).map_err(|error| error.message().replace('\n', ", "))?;
    let mut values = table.get_ref().iter();
    match (values.next(), values.next()) {
        (Some((_, only)), None) => Ok(convert(only.get_ref(), origin.clone(), Some(&origin))),
        _ => Err("this is not one value".to_owned()),
    }
}

fn set(node: &mut Node, path: &[Key], new: Node) -> Result<(), String> {
    let Some((key, rest)) = path.split_first() else {
        *node = new;
        return Ok(());
    };
    // A table that only variables write into, or a list that does not exist yet, begins here.
    let origin = new.origin.clone();
    match (&mut node.value, key) {
        (Value::Table(table), Key::Index(0)) if table.is_empty() => {
            node.value = Value::List(vec![Node::empty_table(origin)]);
            set(node, path, new)
        }
        (Value::Table(table), Key::Name(name)) => {
            let entry = table
                .entry(name.clone())
                .or_insert_with(|| (origin.clone(), Node::empty_table(origin.clone())));
            set(&mut entry.1, rest, new)
        }
        (Value::List(list), Key::Index(index)) => {
            if *index == list.len() {
                list.push(Node::empty_table(origin));
            }
            let length = list.len();
            match list.get_mut(*index) {
                Some(item) => set(item, rest, new),
                None => Err(format!("the list has {length} items, so [{index}] would leave a gap")),
            }
        }
        (Value::List(_), Key::Name(_)) => Err("this is a list: a number selects the item".to_owned()),
        (Value::Table(_), Key::Index(_)) => Err("this is not a list".to_owned()),
        (other, _) => Err(format!("a key inside of {} cannot be set", other.describe())),
    }
}

fn convert(value: &DeValue<'_>, origin: Origin, fixed: Option<&Origin>) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => Value::List(
            items.iter().map(|item| convert(item.get_ref(), at(item.span().start, fixed), fixed)).collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, fixed)),
    };
    Node { value, origin }
}

fn convert_table(table: &DeTable<'_>, fixed: Option<&Origin>) -> Table {
    table
        .iter()
        .map(|(key, item)| {
            let node = convert(item.get_ref(), at(item.span().start, fixed), fixed);
            (key.get_ref().to_string(), (at(key.span().start, fixed), node))
        })
        .collect()
}

fn at(offset: usize, fixed: Option<&Origin>) -> Origin {
    fixed.map_or(Origin::Offset(offset), Clone::clone)
}
