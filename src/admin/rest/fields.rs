//! The fields of a body that is an object: each is known and of its type, or the request is refused.

use serde_json::Map;
use serde_json::Value;

use super::Problem;

/// A body.
pub(super) struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// An object with none but these fields.
    pub(super) fn of(body: &'a Value, known: &[&str]) -> Result<Self, Problem> {
        let fields = body.as_object().ok_or_else(|| Problem::bad_request("the body: must be an object"))?;
        match fields.keys().find(|field| !known.contains(&field.as_str())) {
            None => Ok(Self(fields)),
            Some(field) => Err(Problem::bad_request(format!("{field}: no such field"))),
        }
    }

    fn get<T>(
        &self,
        field: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.0.get(field) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| Problem::bad_request(format!("{field}: must be {what}")))
    }

    /// A text, if it is there.
    pub(super) fn text(&self, field: &str) -> Result<Option<&'a str>, Problem> {
        self.get(field, "a string", Value::as_str)
    }

    /// A text that must be there.
    pub(super) fn required(&self, field: &str) -> Result<&'a str, Problem> {
        self.text(field)?.ok_or_else(|| Problem::bad_request(format!("{field}: this is required")))
    }

    /// Whether; not unless it is said.
    pub(super) fn flag(&self, field: &str) -> Result<bool, Problem> {
        self.get(field, "true or false", Value::as_bool).map(Option::unwrap_or_default)
    }

    /// Texts, if they are there.
    pub(super) fn texts(&self, field: &str) -> Result<Option<Vec<String>>, Problem> {
        self.get(field, "a list of strings", |value| {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        })
    }

    /// Something that is written as a text, if it is there.
    pub(super) fn read<T>(
        &self,
        field: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let read = |text| read(text).map_err(|why| Problem::bad_request(format!("{field}: {why}")));
        self.text(field)?.map(read).transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_of_its_type_or_the_body_is_refused() {
        let body = json!({"a": "x", "b": true, "c": ["y", "z"], "d": 1, "e": null, "f": ["y", 1]});
        let fields = Fields::of(&body, &["a", "b", "c", "d", "e", "f"]).ok().unwrap();
        assert_eq!((fields.text("a").unwrap(), fields.required("a").unwrap()), (Some("x"), "x"));
        assert!(fields.flag("b").unwrap() && !fields.flag("absent").unwrap());
        assert_eq!(fields.texts("c").unwrap().unwrap(), ["y", "z"]);
        assert_eq!((fields.text("absent").unwrap(), fields.texts("absent").unwrap()), (None, None));
        assert_eq!(fields.read("a", |text| Ok(text.len())).unwrap(), Some(1));
        for (problem, message) in [
            (fields.text("d").err(), "d: must be a string"),
            (fields.text("e").err(), "e: must be a string"),
            (fields.flag("a").err(), "a: must be true or false"),
            (fields.texts("f").err(), "f: must be a list of strings"),
            (fields.required("absent").err(), "absent: this is required"),
            (fields.read("a", |_| Err::<(), _>("no".to_owned())).err(), "a: no"),
            (Fields::of(&body, &["a"]).err(), "b: no such field"),
            (Fields::of(&json!([]), &[]).err(), "the body: must be an object"),
        ] {
            assert_eq!(problem.unwrap().message, message);
        }
    }
}
