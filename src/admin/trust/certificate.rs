//! The link certificate, put in place by an operator (`trust.md` 2.2, `link cert import`). Peers know the one before: they have to
//! be told, which only their operators can do.

use std::sync::Arc;

use serde_json::Value;
use serde_json::json;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::admin::node::Node;
use crate::admin::rest::Problem;
use crate::admin::rest::shown_certificate;
use crate::admin::trust::failed;
use crate::admin::trust::rotate;
use crate::broker::link_keys::LinkKeysError;
use crate::config::Sources;
use crate::net::clock;
use crate::net::own_certificate::OwnCertificate;
use crate::net::own_certificate::Pair;
use crate::trust::Fingerprint;
use crate::trust::identity::Kind;
use crate::trust::leaf::Leaf;
use crate::trust::leaf::Purpose;

/// A certificate with its key, as PEM. One text may hold both.
pub struct NewCertificate {
    /// The certificate, and what vouches for it.
    pub certificates: Zeroizing<String>,
    /// Its key.
    pub key: Zeroizing<String>,
}

impl std::fmt::Debug for NewCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewCertificate(..)")
    }
}

/// Puts it in place, and shows it from the next handshake on. What is answered names the peers that know the one before.
///
/// # Errors
/// If it is not good enough, is somebody else's, cannot be stored, or a rotation is under way.
pub async fn import(node: &mut Node, sources: &Sources, new: NewCertificate) -> Result<Value, Problem> {
    let refused = |error: &dyn std::fmt::Display| Problem::bad_request(error.to_string());
    let pair = Pair::from_pem(&new.certificates, &new.key).map_err(|error| refused(&error))?;
    let judged = OwnCertificate::new(&pair).map_err(|error| refused(&error))?;
    let fingerprint = Fingerprint(judged.fingerprint());
    let book = sources.trust().map(|(_, book)| Arc::clone(book)).unwrap_or_default();
    if let Some(holder) = book.owner_of(fingerprint) {
        return Err(Problem::conflict(format!("{fingerprint} is the certificate of {}", holder.name)));
    }
    let prepared = rotate::prepare(node, Arc::new(judged)).await?;
    let keys = Arc::clone(node.server().link_keys());
    let before = keys.current().map(|own| own.fingerprint());
    let imported = spawn_blocking(move || keys.import(&new.certificates, &new.key, clock::now()))
        .await
        .map_err(|_| failed("importing the link certificate failed; the log says more"))?;
    let own = imported.map_err(|error| match error {
        LinkKeysError::Refused(error) => refused(&error),
        LinkKeysError::Rotating => Problem::conflict(error.to_string()),
        error => failed(&error.to_string()),
    })?;
    rotate::show(node, prepared).await;
    let mut answer = shown_certificate(&own);
    let known = before.is_some_and(|before| before != own.fingerprint());
    let peers = book.identities().filter(|one| known && one.kind == Kind::Link && one.is_active());
    answer["peers_to_tell"] = json!(peers.map(|one| one.name.as_str()).collect::<Vec<_>>());
    let leaf = pair.chain.first().and_then(|leaf| Leaf::read(leaf, Purpose::Link).ok());
    if let Some(warning) = leaf.and_then(|leaf| leaf.long_lived("the link certificate")) {
        answer["warnings"] = json!([warning]);
    }
    Ok(answer)
}
