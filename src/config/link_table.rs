//! The text of `<data>/links.toml`: how a link that comes as JSON, in EMQX's shape or ours, is put into it, and how one
//! is taken out. Text in, text out; whether a link makes sense is for the reader of the configuration to say.

use serde_json::Map;
use serde_json::Value as Json;
use toml::Table;
use toml::Value;

use super::settings::MASK;

/// What stands above the links.
const HEADER: &str = "# Links made while the broker ran: `tombolo link`, the REST API. They are written here, not by hand.\n\n";
/// What a link is shown with and nobody sets.
const SHOWN_ONLY: [&str; 15] = [
    "status",
    "node_status",
    "state",
    "reason",
    "extensions",
    "peer_version",
    "connections_in",
    "connections_out",
    "routes_in",
    "spool_messages",
    "retained_messages",
    "last_success",
    "granted",
    "written",
    "unused",
];
/// What EMQX's links have beside ours: kept, shown again, and mostly without a meaning here.
const OF_EMQX: [&str; 3] = ["retry_interval", "tcp_opts", "resource_opts"];
/// Those of them that mean something, with what they mean.
const MEANT: [(&str, &str); 2] = [("request_ttl", "max_age"), ("max_buffer_bytes", "max_bytes")];
/// How deep a link may be nested.
const DEPTH_MAX: usize = 8;

/// The link of this name.
///
/// # Errors
/// If the text is not TOML.
pub fn find(text: &str, name: &str) -> Result<Option<Table>, String> {
    let (_, links) = read(text)?;
    Ok(links.into_iter().find(|link| is_named(link, name)))
}

/// The text with this link in it, instead of the one of its name if there is one.
///
/// # Errors
/// If the text is not TOML.
pub fn put(text: &str, link: Table) -> Result<String, String> {
    let (mut all, mut links) = read(text)?;
    let name = link.get("name").and_then(Value::as_str).unwrap_or_default();
    match links.iter_mut().find(|other| is_named(other, name)) {
        Some(old) => *old = link,
        None => links.push(link),
    }
    write(&mut all, links)
}

/// The text without the link of this name.
///
/// # Errors
/// If the text is not TOML.
pub fn remove(text: &str, name: &str) -> Result<String, String> {
    let (mut all, mut links) = read(text)?;
    links.retain(|link| !is_named(link, name));
    write(&mut all, links)
}

/// A link as it is kept, from what somebody sent. A secret that is masked is the one that `before` has.
///
/// # Errors
/// What of it cannot be kept.
pub fn kept(name: &str, body: &Json, before: Option<&Table>) -> Result<Table, String> {
    let Json::Object(body) = body else { return Err("the body: must be an object".to_owned()) };
    let mut body = body.clone();
    body.retain(|key, _| !SHOWN_ONLY.contains(&key.as_str()));
    if let Some(of_emqx) = take_emqx(&mut body, before) {
        body.insert("emqx".to_owned(), Json::Object(of_emqx));
    }
    body.insert("name".to_owned(), Json::from(name));
    keep_ssl(&mut body, before)?;
    let mut link = table(body, DEPTH_MAX)?;
    unmask(&mut link, "password", before)?;
    if let Some(Value::Table(ssl)) = link.get_mut("ssl") {
        unmask(ssl, "password", before.and_then(|link| link.get("ssl")?.as_table()))
            .map_err(|message| format!("ssl.{message}"))?;
    }
    Ok(link)
}

fn is_named(link: &Table, name: &str) -> bool {
    link.get("name").and_then(Value::as_str) == Some(name)
}

/// Everything, and the links in it.
fn read(text: &str) -> Result<(Table, Vec<Table>), String> {
    let all: Table = text.parse().map_err(|error: toml::de::Error| error.message().replace('\n', ", "))?;
    let links = all.get("cluster").and_then(|cluster| cluster.get("links")).and_then(Value::as_array);
    let links = links.into_iter().flatten().filter_map(Value::as_table).cloned().collect();
    Ok((all, links))
}

fn write(all: &mut Table, links: Vec<Table>) -> Result<String, String> {
    all.remove("cluster");
    if !links.is_empty() {
        let links = Value::Array(links.into_iter().map(Value::Table).collect());
        all.insert("cluster".to_owned(), Value::Table(Table::from_iter([("links".to_owned(), links)])));
    }
    let text = toml::to_string(all).map_err(|error| error.to_string())?;
    Ok(format!("{HEADER}{text}"))
}

/// TLS that is off is shown without its settings: who sends that back means to keep them.
fn keep_ssl(body: &mut Map<String, Json>, before: Option<&Table>) -> Result<(), String> {
    let Some(old) = before.and_then(|link| link.get("ssl")?.as_table()) else { return Ok(()) };
    let Some(Json::Object(new)) = body.get_mut("ssl") else { return Ok(()) };
    let was_off = old.get("enable").and_then(Value::as_bool) == Some(false);
    if !was_off && new.get("enable") != Some(&Json::Bool(false)) {
        return Ok(());
    }
    for (key, value) in old {
        if !new.contains_key(key) {
            new.insert(key.clone(), serde_json::to_value(value).map_err(|error| error.to_string())?);
        }
    }
    Ok(())
}

/// Takes out what only EMQX's links have; what of it means something here becomes that, where it is not said already. A
/// value that is another than `before` wins: whoever sends back what was shown sends ours unchanged beside it.
fn take_emqx(body: &mut Map<String, Json>, before: Option<&Table>) -> Option<Map<String, Json>> {
    let mut of_emqx = Map::new();
    for key in OF_EMQX {
        if let Some(value) = body.remove(key).filter(|value| !value.is_null()) {
            of_emqx.insert(key.to_owned(), value);
        }
    }
    for (theirs, ours) in MEANT {
        let Some(value) = of_emqx.get("resource_opts").and_then(|options| options.get(theirs)) else {
            continue;
        };
        let spool = body.entry("spool").or_insert_with(|| Json::Object(Map::new()));
        if spool.is_null() {
            *spool = Json::Object(Map::new());
        }
        let Json::Object(spool) = spool else { continue };
        let kept = before.and_then(|link| link.get("emqx")?.get("resource_opts")?.get(theirs));
        let is_new = kept.is_some_and(|kept| serde_json::to_value(kept).ok().as_ref() != Some(value));
        if is_new || spool.get(ours).is_none_or(Json::is_null) {
            spool.insert(ours.to_owned(), value.clone());
        }
    }
    (!of_emqx.is_empty()).then_some(of_emqx)
}

/// Which keys of EMQX's a link has that mean nothing here.
#[must_use]
pub fn unused(of_emqx: &Json) -> Vec<String> {
    let mut unused = Vec::new();
    for (key, value) in of_emqx.as_object().into_iter().flatten() {
        match value {
            Json::Object(options) if key == "resource_opts" => unused.extend(
                options
                    .keys()
                    .filter(|option| MEANT.iter().all(|(meant, _)| meant != option))
                    .map(|option| format!("{key}.{option}")),
            ),
            _ => unused.push(key.clone()),
        }
    }
    unused
}

/// JSON as TOML; what is null is not there.
fn table(object: Map<String, Json>, depth: usize) -> Result<Table, String> {
    let present = object.into_iter().filter(|(_, value)| !value.is_null());
    present
        .map(|(key, json)| match value(json, depth) {
            Ok(value) => Ok((key, value)),
            Err(message) => Err(format!("{key}: {message}")),
        })
        .collect()
}

fn value(json: Json, depth: usize) -> Result<Value, String> {
    let Some(depth) = depth.checked_sub(1) else { return Err("nested too deeply".to_owned()) };
    Ok(match json {
        Json::Null => return Err("null in a list".to_owned()),
        Json::Bool(boolean) => Value::Boolean(boolean),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::Integer(integer),
            (None, Some(float)) => Value::Float(float),
            (None, None) => return Err("this number is out of range".to_owned()),
        },
        Json::String(text) => Value::String(text),
        Json::Array(items) => {
            Value::Array(items.into_iter().map(|item| value(item, depth)).collect::<Result<_, _>>()?)
        }
        Json::Object(object) => Value::Table(table(object, depth)?),
    })
}

/// Whoever sends back what was shown to them keeps the secret.
fn unmask(link: &mut Table, key: &str, before: Option<&Table>) -> Result<(), String> {
    if link.get(key).and_then(Value::as_str) != Some(MASK) {
        return Ok(());
    }
    match before.and_then(|before| before.get(key)) {
        Some(secret) => {
            link.insert(key.to_owned(), secret.clone());
            Ok(())
        }
        None => Err(format!("{key}: {MASK} stands for the one that is kept, and there is none")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn link(name: &str, body: &Json) -> Table {
        kept(name, body, None).unwrap()
    }

    #[test]
    fn links_come_and_go_by_name() {
        let one = put("", link("B", &json!({"server": "b:1", "topics": ["a/#"], "peer": {"username": "b"}})))
            .unwrap();
        assert!(one.contains("[[cluster.links]]") && one.contains("topics = [\"a/#\"]"), "{one}");
        let two = put(&one, link("C", &json!({"server": "c:1", "topics": []}))).unwrap();
        let changed = put(&two, link("B", &json!({"server": "b:2", "topics": [], "spool": null}))).unwrap();
        let b = find(&changed, "B").unwrap().unwrap();
        assert_eq!(b["server"].as_str(), Some("b:2"));
        assert!(!b.contains_key("peer") && !b.contains_key("spool"));
        let without = remove(&changed, "B").unwrap();
        assert_eq!(find(&without, "B"), Ok(None));
        assert!(find(&without, "C").unwrap().is_some());
        assert_eq!(remove(&without, "C").unwrap(), HEADER);
        assert!(put("x = ", Table::new()).is_err());
    }

    #[test]
    fn a_masked_secret_is_the_one_that_is_kept() {
        let before = link("B", &json!({"password": "first", "ssl": {"password": "second"}}));
        let masked =
            json!({"password": MASK, "ssl": {"password": MASK, "certfile": "c"}, "status": "connected"});
        let after = kept("B", &masked, Some(&before)).unwrap();
        assert_eq!(after["password"].as_str(), Some("first"));
        assert_eq!(after["ssl"]["password"].as_str(), Some("second"));
        assert!(!after.contains_key("status"));
        let error = kept("B", &json!({"ssl": {"password": MASK}}), None).unwrap_err();
        assert_eq!(error, "ssl.password: ****** stands for the one that is kept, and there is none");
    }

    #[test]
    fn settings_of_tls_that_is_off_are_kept() {
        let on =
            link("B", &json!({"ssl": {"cert_sha256": ["ab"], "cacertfile": "ca", "password": "secret"}}));
        let off = kept("B", &json!({"ssl": {"enable": false, "cacertfile": null}}), Some(&on)).unwrap();
        let again =
            kept("B", &json!({"ssl": {"enable": true, "verify": "verify_peer"}}), Some(&off)).unwrap();
        let ssl = again["ssl"].as_table().unwrap();
        assert_eq!(ssl["cert_sha256"][0].as_str(), Some("ab"));
        assert_eq!((ssl["password"].as_str(), ssl["enable"].as_bool()), (Some("secret"), Some(true)));
        assert!(!ssl.contains_key("cacertfile"), "it was taken out");
        let replaced = kept("B", &json!({"ssl": {"cacertfile": "other"}}), Some(&again)).unwrap();
        assert!(
            !replaced["ssl"].as_table().unwrap().contains_key("cert_sha256"),
            "what is on is shown whole"
        );
    }

    #[test]
    fn a_changed_word_of_emqx_wins_over_what_was_shown_beside_it() {
        let before = link("B", &json!({"resource_opts": {"max_buffer_bytes": "1MB"}}));
        let shown =
            |bytes| json!({"resource_opts": {"max_buffer_bytes": bytes}, "spool": {"max_bytes": 1_048_576}});
        let same = kept("B", &shown("1MB"), Some(&before)).unwrap();
        assert_eq!(same["spool"]["max_bytes"].as_integer(), Some(1_048_576));
        let changed = kept("B", &shown("2MB"), Some(&before)).unwrap();
        assert_eq!(changed["spool"]["max_bytes"].as_str(), Some("2MB"));
    }

    #[test]
    fn what_emqx_calls_otherwise_is_understood_and_the_rest_is_kept() {
        let body = json!({
            "retry_interval": "15s",
            "tcp_opts": {"nodelay": true},
            "resource_opts": {"request_ttl": "45s", "max_buffer_bytes": "256MB", "query_mode": "async"},
            "spool": {"max_bytes": "1GB"},
        });
        let kept = link("B", &body);
        assert_eq!(kept["spool"]["max_age"].as_str(), Some("45s"));
        assert_eq!(kept["spool"]["max_bytes"].as_str(), Some("1GB"));
        let of_emqx = serde_json::to_value(&kept["emqx"]).unwrap();
        assert_eq!(unused(&of_emqx), ["resource_opts.query_mode", "retry_interval", "tcp_opts"]);
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_its_key() {
        let mut deep = json!(1);
        for _ in 0..DEPTH_MAX {
            deep = json!({"x": deep});
        }
        for (body, message) in [
            (json!([]), "the body: must be an object"),
            (json!({"topics": [null]}), "topics: null in a list"),
            (json!({"a": deep}), "a: x: x: x: x: x: x: x: x: nested too deeply"),
        ] {
            assert_eq!(kept("B", &body, None), Err(message.to_owned()));
        }
    }
}
