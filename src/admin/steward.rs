//! Whoever runs a broker: has its node and what its settings are made of, and makes the changes that operators and peers ask for,
//! one after the other. `serve` has one, the demo two.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time;

use crate::admin::links;
use crate::admin::links::LinkChange;
use crate::admin::links::LinkEdit;
use crate::admin::node::Node;
use crate::admin::node::NodeError;
use crate::admin::rest::Change;
use crate::admin::rest::Changes;
use crate::admin::rest::Problem;
use crate::admin::trust;
use crate::admin::trust::desk;
use crate::admin::trust::rotate;
use crate::admin::trust::rotate::Scene;
use crate::config::Settings;
use crate::config::Sources;

/// Changes that wait; more of them wait in their connections.
const CHANGES_WAITING_MAX: usize = 4;
/// How often it is looked for tokens and certificates whose time is over.
pub const TICK: Duration = Duration::from_secs(1);

/// See the module.
pub struct Steward {
    /// The node.
    pub node: Node,
    /// What its settings are made of.
    pub sources: Sources,
    changes: Changes,
    requests: mpsc::Receiver<Change>,
}

impl Steward {
    /// Starts a node with these settings, which are those of `sources`.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start(sources: Sources, settings: Settings) -> Result<Self, NodeError> {
        let (changes, requests) = mpsc::channel(CHANGES_WAITING_MAX);
        let mut node = Node::start(settings, Some(changes.clone())).await?;
        if let Some((_, book)) = sources.trust() {
            node.trust(Arc::clone(book), &changes);
        }
        let mut steward = Self { node, sources, changes, requests };
        let made = trust::change(&mut steward.node, &mut steward.sources, desk::missing_links()).await;
        if let Err(problem) = made {
            tracing::error!(error = problem.message, "links to peers that had come could not be made");
        }
        steward.node.note_certificates();
        rotate::resume(&steward.scene());
        Ok(steward)
    }

    /// What rotations need of the broker.
    #[must_use]
    pub fn scene(&self) -> Scene {
        Scene {
            changes: self.changes.clone(),
            shelf: Arc::clone(self.node.shelf()),
            keys: Arc::clone(self.node.server().link_keys()),
            cluster: self.node.server().settings().cluster.name.clone(),
            broker: Arc::clone(self.node.server().broker()),
            rotation: Arc::clone(self.node.rotation()),
        }
    }

    /// Where changes are asked for.
    #[must_use]
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The next change that is asked for.
    pub async fn next(&mut self) -> Option<Change> {
        self.requests.recv().await
    }

    /// Makes a change, and answers. One that is to read the configuration again is given back: where that is, others know.
    pub async fn make(&mut self, change: Change) -> Option<Change> {
        match change {
            Change::Reload(_) => return Some(change),
            Change::Link(edit, answer) => {
                tracing::info!(link = edit.name, change = edit.change.name(), "an operator changes a link");
                let outcome = self.change_link(edit).await;
                // Whoever asked may be gone by now; the security log has the outcome.
                let _ = answer.send(outcome);
            }
            Change::Trust(change, answer) => {
                tracing::debug!(change = change.name, "a change of who is trusted");
                let outcome = trust::change(&mut self.node, &mut self.sources, change).await;
                let _ = answer.send(outcome);
            }
            Change::Promote(answer) => {
                let outcome = rotate::put_in_force(&mut self.node).await;
                let _ = answer.send(outcome);
            }
            Change::Certificate(new, answer) => {
                tracing::info!("an operator imports a link certificate");
                let outcome = trust::certificate::import(&mut self.node, &self.sources, new).await;
                let _ = answer.send(outcome);
            }
        }
        None
    }

    async fn change_link(&mut self, edit: LinkEdit) -> Result<(), Problem> {
        if let LinkChange::Delete { notify } = edit.change
            && let Some(outcome) = trust::delete(&mut self.node, &mut self.sources, &edit.name, notify).await
        {
            return outcome;
        }
        links::edit(&mut self.node, &mut self.sources, edit).await
    }

    /// Sees to what is over by now.
    pub async fn tick(&mut self) {
        self.node.note_certificates();
        if self.node.server().settings().link.auto_rotate {
            rotate::renew_in_time(&self.scene());
        }
        self.node.tell_keys();
        trust::tick(&mut self.node, &mut self.sources).await;
    }

    /// Makes changes until it is dropped; for a broker whose configuration cannot be read again.
    pub async fn run(&mut self) {
        loop {
            tokio::select! {
                Some(change) = self.next() => {
                    if let Some(Change::Reload(answer)) = self.make(change).await {
                        let _ = answer.send(Err(vec!["there is no configuration to be read again".to_owned()]));
                    }
                }
                () = time::sleep(TICK) => self.tick().await,
            }
        }
    }

    /// Stops the node; who asks for a change from now on hears that it is too late.
    pub async fn stop(self) {
        let Self { node, .. } = self;
        node.stop().await;
    }
}
