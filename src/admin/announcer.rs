//! Security events as messages, on `$SYS/brokers/<node>/events/security`: for operators alone, who are known by the certificate
//! with which they have connected (`trust.md` part 3, S3).

use std::sync::Arc;

use crate::admin::trust::Shelf;
use crate::broker::Broker;
use crate::broker::events::Wanted;
use crate::broker::identity::Proof;
use crate::broker::sys;
use crate::net::clock;
use crate::trust::group::Entitlement;
use crate::trust::identity::Kind;

/// Publishes what happens, while there is an operator who has subscribed; until the broker stops.
pub async fn run(broker: Arc<Broker>, shelf: Arc<Shelf>, node: String) {
    let topic = sys::events_topic(&node);
    loop {
        broker.sys.subscribed().await;
        let since_unix_ms = clock::now().unix_ms;
        let wanted = Wanted { since_unix_ms, kind: Some("security"), ..Wanted::default() };
        let Some(mut reader) = broker.events.follow(wanted) else {
            tracing::warn!("too many read the events: they are not published until somebody subscribes anew");
            continue;
        };
        loop {
            let Some(lines) = reader.lines().await else { return };
            let publish = |line| {
                broker.publish_security_event(&topic, line, |proof| may_see(&shelf, proof), clock::now())
            };
            if lines.lines().filter(|line| publish(line)).count() == 0 {
                break;
            }
        }
    }
}

/// Whether this is an operator who may see events, as the book is now.
fn may_see(shelf: &Shelf, proof: &Proof) -> bool {
    let Some(certificate) = &proof.certificate else { return false };
    let (book, now) = (shelf.book(), clock::now().unix_ms / 1000);
    let operator = book.by_fingerprint(&certificate.der_sha256, now).filter(|one| one.kind == Kind::Admin);
    operator.is_some_and(|one| book.operator_rights(one).on_server(Entitlement::CanViewEvents))
}
