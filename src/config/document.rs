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
    /// An offset in the texts, one behind the other.
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

    /// The same as JSON.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Text(text) | Value::Raw(text) => text.as_str().into(),
            Value::Integer(number) => (*number).into(),
            Value::Float(number) => (*number).into(),
            Value::Boolean(boolean) => (*boolean).into(),
            Value::Datetime => serde_json::Value::Null,
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Table(table) => {
                table.iter().map(|(key, (_, node))| (key.clone(), node.to_json())).collect()
            }
        }
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

/// One text.
struct Source {
    file: String,
    /// The offset of its first byte.
    start: usize,
    line_starts: Vec<usize>,
    text: String,
}

impl Source {
    fn new(file: &str, start: usize, text: &str) -> Self {
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(offset, _)| offset + 1)).collect();
        Self { file: file.to_owned(), start, line_starts, text: text.to_owned() }
    }

    /// The tree of its values. All syntax errors are reported.
    fn read(&self) -> Result<Table, Vec<ConfigError>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return Ok(convert_table(table.get_ref(), &From::Text(self.start)));
        }
        let mut errors: Vec<ConfigError> = errors
            .iter()
            .map(|error| ConfigError {
                place: self.place(error.span().map_or(0, |span| span.start)),
                key: String::new(),
                message: error.message().replace('\n', ", "),
                hint: None,
            })
            .collect();
        errors.sort();
        Err(errors)
    }

    /// `offset` counts from the start of this text.
    fn place(&self, offset: usize) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count()) + 1;
        Place::Text { file: self.file.clone(), line, column }
    }
}

/// A tree of values and the texts it was read from.
pub(super) struct Document {
    /// The outermost table.
    pub(super) root: Node,
    sources: Vec<Source>,
}

impl Document {
    /// Reads `text`; `file` is only named in errors. All syntax errors are reported.
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, Vec<ConfigError>> {
        let source = Source::new(file, 0, text);
        let mut root = Node::empty_table(Origin::Offset(0));
        root.value = Value::Table(source.read()?);
        Ok(Self { root, sources: vec![source] })
    }

    /// Appends the items of the list at `path` in another text to the list there. That text holds nothing else.
    pub(super) fn append(&mut self, file: &str, text: &str, path: &[&str]) -> Result<(), Vec<ConfigError>> {
        let start = self.sources.last().map_or(0, |last| last.start + last.text.len() + 1);
        let source = Source::new(file, start, text);
        let mut from = source.read()?;
        self.sources.push(source);
        append(&mut self.root, &mut from, path).map_err(|(origin, message)| {
            let key = path.join(".");
            vec![ConfigError { place: self.place(&origin), key, message, hint: None }]
        })
    }

    /// Line and column of an origin.
    pub(super) fn place(&self, origin: &Origin) -> Place {
        match origin {
            Origin::Variable(name) => Place::Variable(name.to_string()),
            Origin::Default => Place::Default,
            Origin::Offset(offset) => self
                .sources
                .iter()
                .rfind(|source| source.start <= *offset)
                .map_or(Place::Default, |source| source.place(offset - source.start)),
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
        (Some((_, only)), None) => Ok(convert(only.get_ref(), origin.clone(), &From::Variable(origin))),
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

/// Moves the items of the list at `path` in `from` to the end of the list there in `to`.
fn append(to: &mut Node, from: &mut Table, path: &[&str]) -> Result<(), (Origin, String)> {
    let Some((key, rest)) = path.split_first() else { return Ok(()) };
    if let Some((other, (origin, _))) = from.iter().find(|(other, _)| other != key) {
        return Err((origin.clone(), format!("`{other}` does not belong into this file")));
    }
    let Some((origin, mut value)) = from.remove(*key) else { return Ok(()) };
    // What is wrong with the other text is told by the reader of its keys.
    let Value::Table(table) = &mut to.value else { return Ok(()) };
    let place = table.entry((*key).to_owned()).or_insert_with(|| {
        let empty = if rest.is_empty() { Value::List(Vec::new()) } else { Value::Table(Table::new()) };
        (origin.clone(), Node { value: empty, origin: origin.clone() })
    });
    match (&mut place.1.value, &mut value.value) {
        (Value::List(all), Value::List(more)) if rest.is_empty() => all.append(more),
        (_, Value::Table(inner)) if !rest.is_empty() => return append(&mut place.1, inner, rest),
        (Value::List(_) | Value::Table(_), _) => {
            return Err((origin, format!("this is {}", value.value.describe())));
        }
        _ => {}
    }
    Ok(())
}

/// What the spans of a text count from.
enum From {
    /// This offset.
    Text(usize),
    /// Nothing: it is the value of a variable.
    Variable(Origin),
}

impl From {
    fn at(&self, offset: usize) -> Origin {
        match self {
            Self::Text(start) => Origin::Offset(start + offset),
            Self::Variable(origin) => origin.clone(),
        }
    }
}

fn convert(value: &DeValue<'_>, origin: Origin, from: &From) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok()),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => Value::List(
            items.iter().map(|item| convert(item.get_ref(), from.at(item.span().start), from)).collect(),
        ),
        DeValue::Table(table) => Value::Table(convert_table(table, from)),
    };
    Node { value, origin }
}

fn convert_table(table: &DeTable<'_>, from: &From) -> Table {
    table
        .iter()
        .map(|(key, item)| {
            let node = convert(item.get_ref(), from.at(item.span().start), from);
            (key.get_ref().to_string(), (from.at(key.span().start), node))
        })
        .collect()
}
