//! Groups, their permissions, and who has which.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;

use super::Applied;
use super::Book;
use super::TrustChange;
use super::change;
use super::listed;
use super::shown;
use crate::admin::rest::Answer;
use crate::admin::rest::Call;
use crate::admin::rest::HttpState;
use crate::admin::rest::Outcome;
use crate::admin::rest::Problem;
use crate::admin::rest::fields::Fields;
use crate::trust::book::Event;
use crate::trust::book::TrustError;
use crate::trust::group::Entitlement;
use crate::trust::group::Entity;
use crate::trust::group::Permission;

/// `GET trust/groups`
pub(in crate::admin::rest) fn list(state: &HttpState, call: &Call) -> Outcome {
    let book = state.shelf.book();
    listed(call, book.groups().map(|(name, group)| shown::group(&book, name, &group)).collect())
}

fn after(book: &Book, name: &str) -> Value {
    book.group(name).map_or(Value::Null, |group| shown::group(book, name, &group))
}

/// Which one is to be changed; it is there as of now.
fn target(state: &HttpState, call: &Call) -> Result<String, Problem> {
    match state.shelf.book().group(&call.item) {
        Some(_) => Ok(call.item.clone()),
        None => Err(Problem::not_found(format!("no group {}", call.item))),
    }
}

/// `GET trust/groups/{name}`
pub(in crate::admin::rest) fn show(state: &HttpState, call: &Call) -> Outcome {
    let name = target(state, call)?;
    Ok(Answer::Json(after(&state.shelf.book(), &name)))
}

/// `POST trust/groups`
pub(in crate::admin::rest) fn create(_state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let fields = Fields::of(&call.body, &["name", "description"])?;
    let name = fields.required("name")?.to_owned();
    let description = fields.text("description")?.unwrap_or_default().to_owned();
    Ok(change("group_create", move |book, _, _| {
        let event = book.create_group(&name, &description)?;
        Ok(Applied { answer: after(book, &name), events: vec![event], links: Vec::new() })
    }))
}

/// `PUT trust/groups/{name}`: what it is for, and what it is called.
pub(in crate::admin::rest) fn update(state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let fields = Fields::of(&call.body, &["name", "description"])?;
    let (new_name, description) = (fields.text("name")?, fields.text("description")?.map(str::to_owned));
    let name = target(state, call)?;
    let new_name = new_name.unwrap_or(&name).to_owned();
    Ok(change("group_edit", move |book, _, _| {
        let mut events = Vec::new();
        if let Some(description) = &description {
            events.push(book.describe_group(&name, description)?);
        }
        if new_name != name {
            events.push(book.rename_group(&name, &new_name)?);
        }
        Ok(Applied { answer: after(book, &new_name), events, links: Vec::new() })
    }))
}

/// `DELETE trust/groups/{name}`
pub(in crate::admin::rest) fn delete(state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    let name = target(state, call)?;
    Ok(change("group_delete", move |book, _, _| book.delete_group(&name).map(Applied::event)))
}

/// `POST trust/groups/{name}/permissions`
pub(in crate::admin::rest) fn add(state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    permissions(state, call, Book::add_permission)
}

/// `DELETE trust/groups/{name}/permissions`
pub(in crate::admin::rest) fn remove(state: &HttpState, call: &Call) -> Result<TrustChange, Problem> {
    permissions(state, call, |book, name, permission| book.remove_permission(name, &permission))
}

fn permissions(
    state: &HttpState,
    call: &Call,
    edit: fn(&mut Book, &str, Permission) -> Result<Event, TrustError>,
) -> Result<TrustChange, Problem> {
    let fields = Fields::of(&call.body, &["permission"])?;
    let permission = parse(fields.required("permission")?)?;
    let name = target(state, call)?;
    Ok(change("group_edit", move |book, _, _| {
        let event = edit(book, &name, permission)?;
        Ok(Applied { answer: after(book, &name), events: vec![event], links: Vec::new() })
    }))
}

/// `ENTITY [NAME] ENTITLEMENT [k=v]…`, one space between each. A filter may hold spaces: what is behind its entitlement is
/// known by its form.
fn parse(text: &str) -> Result<Permission, Problem> {
    let mut words: Vec<&str> = text.split(' ').collect();
    let joined;
    if words.first() == Some(&"topic") && words.len() > 3 {
        let is_option = |word: &&str| word.starts_with("qos=") || word.starts_with("direction=");
        let options = words.iter().rev().take_while(|word| is_option(word)).count();
        let entitlement = words.len() - options - 1;
        if entitlement > 2 {
            joined = words[1..entitlement].join(" ");
            words.splice(1..entitlement, [joined.as_str()]);
        }
    }
    Permission::parse(&words).map_err(|error| Problem::bad_request(format!("permission: {error}")))
}

/// `GET trust/permissions`: what there is to be permitted, and which groups permit it.
pub(in crate::admin::rest) fn all(state: &HttpState, call: &Call) -> Outcome {
    let book = state.shelf.book();
    let mut granted: BTreeMap<(Entity, Entitlement), BTreeSet<String>> = BTreeMap::new();
    for (name, group) in book.groups() {
        for permission in group.permissions {
            let key = (permission.entity, permission.entitlement);
            granted.entry(key).or_default().insert(name.to_owned());
        }
    }
    let links = state.broker.links.all();
    let mut entities: BTreeSet<Entity> =
        links.iter().map(|link| Entity::Link(link.peer().to_owned())).collect();
    entities.extend(
        book.identities().filter(|one| !one.prefix.is_empty()).map(|one| Entity::Link(one.name.clone())),
    );
    entities.extend([Entity::Server, Entity::OwnLink]);
    entities.extend(granted.keys().map(|(entity, _)| entity.clone()));
    let entities = entities.into_iter().map(|entity| {
        let entitlements = Entitlement::of(entity.kind()).map(|entitlement| {
            let groups = granted.get(&(entity.clone(), entitlement));
            json!({"entitlement": entitlement.name(), "groups": groups.cloned().unwrap_or_default()})
        });
        let entitlements: Vec<Value> = entitlements.collect();
        json!({"entity_type": entity.kind().to_string(), "url": entity.url(), "entitlements": entitlements})
    });
    listed(call, entities.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_is_read_with_spaces_in_its_filter() {
        for (text, shown) in [
            ("topic a/# can_import qos=1", "topic a/# can_import qos=1"),
            ("topic my topics/# can_export", "topic my topics/# can_export"),
            ("topic my topics/# can_export direction=out qos=0", "topic my topics/# can_export qos=0"),
            ("link B peer", "link B peer"),
            ("server viewer", "server viewer"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown, "{text}");
        }
        for text in ["", "topic", "topic a", "topic a can_fly", "link B peer more", "server admin x=1"] {
            assert!(parse(text).unwrap_err().message.starts_with("permission: "), "{text}");
        }
    }
}
