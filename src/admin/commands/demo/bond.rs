//! How the two clusters of the demo come to trust each other: as two operators do it, with one token.

use std::sync::Arc;

use serde_json::Value;
use serde_json::json;
use tokio::sync::oneshot;

use crate::admin::links::LinkChange;
use crate::admin::links::LinkEdit;
use crate::admin::rest::Change;
use crate::admin::rest::Changes;
use crate::admin::rest::Problem;
use crate::admin::trust;
use crate::admin::trust::Applied;
use crate::admin::trust::TrustChange;
use crate::admin::trust::join;
use crate::admin::trust::join::Order;
use crate::broker::link_keys::LinkKeys;
use crate::net::random;
use crate::trust::Token;
use crate::trust::book::NewLink;
use crate::trust::group::LINK_PEER;
use crate::trust::group::Permission;
use crate::trust::rights::OperatorRights;

/// The group of the demo: everything may cross, as far as the other side asks for it.
const GROUP: &str = "demo";
const OPERATOR: &str = "demo";

/// A cluster, as its operator sees it.
pub(super) struct Side<'a> {
    pub(super) name: &'static str,
    pub(super) changes: &'a Changes,
    pub(super) keys: &'a Arc<LinkKeys>,
}

/// `auth group create`, `link create B` on one side, `link create A --token` on the other. The certificate that is pinned.
pub(super) async fn tie(a: &Side<'_>, b: &Side<'_>) -> Result<String, Problem> {
    let token = issue(a, b.name).await?;
    group(b).await?;
    let order = Order {
        token,
        name: Some(a.name.to_owned()),
        fingerprint: None,
        groups: groups(),
        topics: vec!["#".to_owned()],
        addrs: Vec::new(),
        remote: Vec::new(),
        description: String::new(),
        operator: OPERATOR.to_owned(),
        rights: OperatorRights::admin(),
        replace: false,
        unidirectional: false,
    };
    let joined = join::join(b.changes, b.keys, order).await?;
    want_everything(a, b.name).await?;
    Ok(joined["fingerprint"].as_str().unwrap_or_default().to_owned())
}

fn groups() -> Vec<String> {
    vec![LINK_PEER.to_owned(), GROUP.to_owned()]
}

/// `auth group create demo`, `auth group permission add demo topic # can_import`, and the same for `can_export`.
async fn group(side: &Side<'_>) -> Result<Value, Problem> {
    let apply = |book: &mut trust::Book, _: &trust::Own<'_>, _| {
        book.create_group(GROUP, "what the demo lets across")?;
        for entitlement in ["can_import", "can_export"] {
            let permission = Permission::parse(&["topic", "#", entitlement])
                .map_err(|error| trust::TrustError::Usage(error.to_string()))?;
            book.add_permission(GROUP, permission)?;
        }
        Ok(Applied::default())
    };
    trust::ask(side.changes, TrustChange { name: "group_create", apply: Box::new(apply) }).await
}

/// `link create NAME --group link-peer --group demo`
async fn issue(side: &Side<'_>, peer: &'static str) -> Result<Token, Problem> {
    group(side).await?;
    let apply = move |book: &mut trust::Book, own: &trust::Own<'_>, now| {
        let groups = groups();
        let new = NewLink { groups: &groups, ..NewLink::named(peer, OPERATOR) };
        let issued = book.issue(own, &new, random::bytes(), random::bytes(), now)?;
        let token = issued.token.encode().map_err(|error| trust::TrustError::Usage(error.to_string()))?;
        let answer = Value::from(token.as_str());
        Ok(Applied { answer, events: vec![issued.event], links: Vec::new() })
    };
    let answer =
        trust::ask(side.changes, TrustChange { name: "link_create", apply: Box::new(apply) }).await?;
    let text = answer.as_str().unwrap_or_default();
    Token::parse(text).map_err(|error| trust::failed(&error.to_string()))
}

/// `link set NAME topics=#`, where the token came from: its link was made when the peer came.
async fn want_everything(side: &Side<'_>, peer: &str) -> Result<(), Problem> {
    let (answer, answered) = oneshot::channel();
    let link = json!({"server": side.server_of(peer).await?, "topics": ["#"], "trust": "pin"});
    let edit = LinkEdit { name: peer.to_owned(), change: LinkChange::Replace(link) };
    let stopping = |()| trust::failed("the broker is stopping");
    side.changes.send(Change::Link(edit, answer)).await.map_err(|_| stopping(()))?;
    answered.await.map_err(|_| stopping(()))?
}

impl Side<'_> {
    /// Where the peer is, as it said when it came.
    async fn server_of(&self, peer: &str) -> Result<String, Problem> {
        let peer = peer.to_owned();
        let apply = move |book: &mut trust::Book, _: &trust::Own<'_>, _| {
            let addrs = book.link(&peer).map(|one| one.addrs.clone()).unwrap_or_default();
            let servers: Vec<String> = addrs.iter().map(ToString::to_string).collect();
            Ok(Applied { answer: servers.join(",").into(), ..Applied::default() })
        };
        let change = TrustChange { name: "identity_show", apply: Box::new(apply) };
        Ok(trust::ask(self.changes, change).await?.as_str().unwrap_or_default().to_owned())
    }
}
