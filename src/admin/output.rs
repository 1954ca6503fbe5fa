//! What a command prints: a list or a record as a table, compact columns, CSV, JSON or YAML. Text of clients is
//! printed to terminals with its control characters escaped.

use std::fmt::Write as _;
use std::io;
use std::io::Write as _;

use clap::ValueEnum;
use serde_json::Value;

use crate::admin::commands::Exit;
use crate::admin::commands::Failure;

/// How it is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns with lines between them
    Table,
    /// Every field, as JSON
    Json,
    /// Every field, as YAML
    Yaml,
    /// The columns, comma separated, with a header
    Csv,
    /// Columns without lines
    Compact,
}

/// A column: its heading and the field it shows.
pub type Column = (&'static str, &'static str);

/// A list of objects.
#[must_use]
pub fn list(format: Format, columns: &[Column], rows: &[Value]) -> String {
    match format {
        Format::Json => pretty(&Value::Array(rows.to_vec())),
        Format::Yaml => yaml_list(rows),
        Format::Csv => csv(columns, rows),
        Format::Table | Format::Compact => {
            let headings = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
            let cells = rows.iter().map(|row| columns.iter().map(|(_, field)| shown(&row[*field])).collect());
            columns_of(format, headings, cells.collect())
        }
    }
}

/// One object.
#[must_use]
pub fn record(format: Format, value: &Value) -> String {
    let empty = serde_json::Map::new();
    let fields = value.as_object().unwrap_or(&empty);
    match format {
        Format::Json => pretty(value),
        Format::Yaml => yaml_fields(fields, "", ""),
        Format::Csv => {
            let names: Vec<String> = fields.keys().map(|name| csv_cell(name)).collect();
            let values: Vec<String> = fields.values().map(|value| csv_cell(&plain(value))).collect();
            format!("{}\n{}\n", names.join(","), values.join(","))
        }
        Format::Table | Format::Compact => {
            let cells =
                fields.iter().map(|(name, value)| vec![shown(&Value::from(name.as_str())), shown(value)]);
            columns_of(format, vec!["FIELD".to_owned(), "VALUE".to_owned()], cells.collect())
        }
    }
}

/// Writes to standard output; a reader that has gone is no failure.
///
/// # Errors
/// If it cannot be written for another reason.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Other, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// For a terminal: what a client chose must not move its cursor.
pub fn shown(value: &Value) -> String {
    plain(value).chars().fold(String::new(), |mut text, character| {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
        text
    })
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn columns_of(format: Format, headings: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let all: Vec<Vec<String>> = std::iter::once(headings).chain(rows).collect();
    let count = all.first().map_or(0, Vec::len);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let rule: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect();
    let mut out = String::new();
    if format == Format::Compact {
        for row in &all {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            let line = cells.collect::<Vec<_>>().join("  ");
            out.push_str(line.trim_end());
            out.push('\n');
        }
        return out;
    }
    for (index, row) in all.iter().enumerate() {
        if index < 2 {
            let _ = writeln!(out, "{rule}+");
        }
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(out, "| {cell:width$} ");
        }
        out.push_str("|\n");
    }
    let _ = writeln!(out, "{rule}+");
    out
}

/// RFC 4180, but for the line ends.
fn csv(columns: &[Column], rows: &[Value]) -> String {
    let headings = columns.iter().map(|(_, field)| csv_cell(field)).collect::<Vec<_>>().join(",");
    rows.iter().fold(headings + "\n", |mut out, row| {
        let cells: Vec<String> = columns.iter().map(|(_, field)| csv_cell(&plain(&row[*field]))).collect();
        out.push_str(&cells.join(","));
        out.push('\n');
        out
    })
}

fn csv_cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text.to_owned()
}

fn yaml_list(rows: &[Value]) -> String {
    if rows.is_empty() {
        return "[]\n".to_owned();
    }
    let mut out = String::new();
    for row in rows {
        match row.as_object().filter(|fields| !fields.is_empty()) {
            Some(fields) => out.push_str(&yaml_fields(fields, "- ", "  ")),
            None => {
                let _ = writeln!(out, "- {row}");
            }
        }
    }
    out
}

/// JSON values are YAML: texts are quoted, what is nested stays in one line.
fn yaml_fields(fields: &serde_json::Map<String, Value>, first: &str, indent: &str) -> String {
    if fields.is_empty() {
        return "{}\n".to_owned();
    }
    let mut out = String::new();
    for (index, (name, value)) in fields.iter().enumerate() {
        let before = if index == 0 { first } else { indent };
        let bare =
            name.chars().all(|character| character.is_ascii_alphanumeric() || "_.".contains(character));
        let name = if bare { name.clone() } else { Value::from(name.as_str()).to_string() };
        let _ = writeln!(out, "{before}{name}: {value}");
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[("CLIENT ID", "clientid"), ("QOS", "qos"), ("USER", "username")];

    fn rows() -> Vec<Value> {
        vec![
            json!({"clientid": "sensor-1", "qos": 1, "username": null, "more": [1]}),
            json!({"clientid": "a,\"b\"", "qos": 0, "username": "x\u{1b}[2Jy"}),
        ]
    }

    #[test]
    fn a_table() {
        let expected = "\
+-----------+-----+-------------+
| CLIENT ID | QOS | USER        |
+-----------+-----+-------------+
| sensor-1  | 1   |             |
| a,\"b\"     | 0   | x\\u{1b}[2Jy |
+-----------+-----+-------------+
";
        assert_eq!(list(Format::Table, COLUMNS, &rows()), expected);
        let empty = "\
+-----------+-----+------+
| CLIENT ID | QOS | USER |
+-----------+-----+------+
";
        assert_eq!(list(Format::Table, COLUMNS, &[]), empty);
    }

    #[test]
    fn compact_columns() {
        let expected = "CLIENT ID  QOS  USER\nsensor-1   1\na,\"b\"      0    x\\u{1b}[2Jy\n";
        assert_eq!(list(Format::Compact, COLUMNS, &rows()), expected);
        let expected = "FIELD  VALUE\na      1\nb      x\n";
        assert_eq!(record(Format::Compact, &json!({"a": 1, "b": "x"})), expected);
    }

    #[test]
    fn comma_separated_values() {
        let expected = "clientid,qos,username\nsensor-1,1,\n\"a,\"\"b\"\"\",0,x\u{1b}[2Jy\n";
        assert_eq!(list(Format::Csv, COLUMNS, &rows()), expected);
        assert_eq!(record(Format::Csv, &json!({"a": 1, "b": "x\ny"})), "a,b\n1,\"x\ny\"\n");
    }

    #[test]
    fn json_and_yaml_have_every_field() {
        let json: Value = serde_json::from_str(&list(Format::Json, COLUMNS, &rows())).unwrap();
        assert_eq!(json, Value::Array(rows()));
        let expected = "- clientid: \"sensor-1\"\n  more: [1]\n  qos: 1\n  username: null\n\
                        - clientid: \"a,\\\"b\\\"\"\n  qos: 0\n  username: \"x\\u001b[2Jy\"\n";
        assert_eq!(list(Format::Yaml, COLUMNS, &rows()), expected);
        assert_eq!(list(Format::Yaml, COLUMNS, &[]), "[]\n");
        assert_eq!(record(Format::Yaml, &json!({"a b": true})), "\"a b\": true\n");
    }
}
