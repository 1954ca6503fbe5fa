//! Links that an operator makes, changes and deletes while the broker runs. They live in `<data>/links.toml`; a link of
//! the configuration file is changed there (`interface.md` section 2).

use serde_json::Value;
use tokio::task::spawn_blocking;

use crate::admin::node::Node;
use crate::admin::rest::Problem;
use crate::broker::replace::replace;
use crate::broker::server::PreparedLinks;
use crate::config::Environment;
use crate::config::FILE_BYTES_MAX;
use crate::config::LINKS_FILE;
use crate::config::Settings;
use crate::config::Sources;
use crate::config::link_table;
use crate::config::settings::Link;
use crate::config::settings::Trust;

/// What is asked for, of the link to the cluster `name`.
#[derive(Debug)]
pub struct LinkEdit {
    /// The peer's cluster name.
    pub name: String,
    /// What is to be done.
    pub change: LinkChange,
}

/// What is to be done with a link.
#[derive(Debug)]
pub enum LinkChange {
    /// Make it, of this object.
    Create(Value),
    /// Make this of it.
    Replace(Value),
    /// Make it of this object, unless there is one.
    Ensure(Value),
    /// Delete it, with a word to the peer or without.
    Delete {
        /// Whether the peer is told.
        notify: bool,
    },
    /// Delete it if it is kept here and lives by an identity, which is gone.
    Withdraw,
}

impl LinkChange {
    /// For the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Replace(_) => "replace",
            Self::Ensure(_) => "ensure",
            Self::Delete { .. } => "delete",
            Self::Withdraw => "withdraw",
        }
    }
}

impl LinkEdit {
    /// Whether there is nothing to do.
    pub(super) fn is_done(&self, in_force: &[Link]) -> bool {
        matches!(self.change, LinkChange::Ensure(_)) && in_force.iter().any(|link| link.name == self.name)
    }
}

/// Does it: first checked together with everything in force, then written, then put in force.
pub async fn edit(node: &mut Node, sources: &mut Sources, edit: LinkEdit) -> Result<(), Problem> {
    let in_force = &node.server().settings().cluster.links;
    let new_sources = edited(sources, in_force, edit)?;
    let prepared = prepare(node, &new_sources).await?;
    write(&new_sources).await?;
    node.server_mut().set_links(prepared).await;
    *sources = new_sources;
    Ok(())
}

/// Checks the links of these sources together with everything in force.
pub(super) async fn prepare(node: &Node, sources: &Sources) -> Result<PreparedLinks, Problem> {
    let asked = sources.clone();
    let settings = spawn_blocking(move || asked.settings(&Environment::of_process()))
        .await
        .map_err(|_| failed("reading the configuration failed; the log says more"))?
        .map_err(|errors| {
            let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
            Problem::bad_request(lines.join("\n"))
        })?;
    let links = links(node.server().settings(), settings, sources);
    let prepared = node.server().prepare_links(links).await;
    prepared.map_err(|error| Problem::bad_request(error.to_string()))
}

/// The links of the configuration file as they are in force, and those that are made here as they are now.
fn links(in_force: &Settings, new: Settings, sources: &Sources) -> Vec<Link> {
    // Of the configuration file's links, what identities make of them is read anew.
    let follows = |link: &Link| is_ours(sources, link) || link.trust != Trust::Configured;
    let theirs = in_force.cluster.links.iter().filter(|link| !follows(link)).cloned();
    let ours = new.cluster.links.into_iter().filter(follows);
    theirs.chain(ours).collect()
}

/// Whether a link is kept where these changes go.
fn is_ours(sources: &Sources, link: &Link) -> bool {
    sources.links().is_some_and(|(file, _)| link.written.is_in(file))
}

pub(super) fn edited(sources: &Sources, in_force: &[Link], edit: LinkEdit) -> Result<Sources, Problem> {
    let LinkEdit { name, change } = edit;
    let Some((_, text)) = sources.links() else {
        return Err(Problem::conflict("this broker has no file for links"));
    };
    let present = in_force.iter().find(|link| link.name == name);
    match (&change, present) {
        (LinkChange::Create(_), Some(link)) => {
            let message = format!("{name}: there is such a link already, at {}", link.written.0);
            return Err(Problem::already_exists(message));
        }
        (LinkChange::Replace(_) | LinkChange::Delete { .. }, None) => {
            return Err(Problem::not_found(format!("{name}: no such link")));
        }
        (LinkChange::Ensure(_), Some(_)) | (LinkChange::Withdraw, None) => return Ok(sources.clone()),
        (LinkChange::Withdraw, Some(link)) if link.trust != Trust::Pinned || !is_ours(sources, link) => {
            return Ok(sources.clone());
        }
        (_, Some(link)) if !is_ours(sources, link) => {
            let message = format!("{name}: this link is written at {}, and changed there", link.written.0);
            return Err(Problem::conflict(message));
        }
        _ => {}
    }
    let new_text = match change {
        LinkChange::Delete { .. } | LinkChange::Withdraw => link_table::remove(text, &name),
        LinkChange::Create(body) | LinkChange::Replace(body) | LinkChange::Ensure(body) => {
            link_table::find(text, &name)
                .and_then(|before| link_table::kept(&name, &body, before.as_ref()))
                .and_then(|link| link_table::put(text, link))
        }
    };
    let new_text = new_text.map_err(Problem::bad_request)?;
    // A file that cannot be read again must not be written.
    if new_text.len() as u64 > FILE_BYTES_MAX {
        return Err(Problem::bad_request(format!(
            "{LINKS_FILE} would be longer than {FILE_BYTES_MAX} bytes"
        )));
    }
    Ok(sources.with_links(&new_text))
}

pub(super) async fn write(sources: &Sources) -> Result<(), Problem> {
    let Some((file, text)) = sources.links() else { return Ok(()) };
    let (file, text) = (file.to_owned(), text.to_owned());
    let written = spawn_blocking(move || replace(&file, &text)).await;
    written
        .map_err(|_| failed("writing failed; the log says more"))?
        .map_err(|(file, error)| failed(&format!("cannot write {}: {error}", file.display())))
}

fn failed(message: &str) -> Problem {
    Problem::new(axum::http::StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What it is told that asks for a link with so many topics of 60,000 bytes.
    fn asked_for(topics: usize) -> Result<Sources, Problem> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        let text = format!("[cluster]\nname = \"A\"\n[data]\ndir = \"{}\"\n", folder.path().display());
        std::fs::write(&file, text).unwrap();
        let sources = Sources::read(Some(&file), &Environment::default()).unwrap();
        let topics = vec!["t".repeat(60_000); topics];
        let change = LinkChange::Create(json!({"server": "localhost:1", "topics": topics}));
        edited(&sources, &[], LinkEdit { name: "B".to_owned(), change })
    }

    #[test]
    fn links_that_could_not_be_read_again_are_not_kept() {
        let fits = usize::try_from(FILE_BYTES_MAX).unwrap() / 60_010;
        let kept = asked_for(fits).unwrap();
        let (_, text) = kept.links().unwrap();
        assert!(text.len() as u64 <= FILE_BYTES_MAX && text.len() as u64 + 60_000 > FILE_BYTES_MAX);
        let refused = asked_for(fits + 1).unwrap_err();
        assert_eq!(refused.message, "links.toml would be longer than 8388608 bytes");
    }
}
