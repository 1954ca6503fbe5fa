//! What the identities of peers make of links that say `trust`: by which certificates they are known, ours, and what their
//! groups grant (`trust.md` 2.4, 2.5).
//!
//! It is done while settings are read, so that everything behind them, from the TLS of listeners to `config show`, works with
//! links as they are.

use std::path::Path;

use super::settings::ClientTls;
use super::settings::Link;
use super::settings::Settings;
use super::settings::Trust;
use super::settings::Verify;
use crate::trust::book::Book;

/// The link certificate and its key, in the data directory.
pub const LINK_FOLDER: &str = "link";
/// The certificate in force, in that folder.
pub const LINK_CERTIFICATE: &str = "cert.pem";
/// Its key.
pub const LINK_KEY: &str = "key.pem";

/// Does it, as of `now` in seconds since the Unix epoch.
pub(super) fn complete(settings: &mut Settings, book: &Book, now: u64) {
    let folder = settings.data.dir.join(LINK_FOLDER);
    for link in settings.cluster.links.iter_mut().filter(|link| link.trust != Trust::Configured) {
        complete_link(link, book, &folder, now);
    }
}

fn complete_link(link: &mut Link, book: &Book, folder: &Path, now: u64) {
    let identity = book.link(&link.name).filter(|identity| identity.is_active());
    let (pins, shown) = (book.pins(&link.name, now), book.peers_pins(&link.name, now));
    link.granted = identity.map(|_| book.rights_of_link(&link.name));
    // Without one nobody is this peer, and nobody is dialled.
    link.enable &= identity.is_some();
    if let Some(identity) = identity {
        link.peer.clientid.clone_from(&identity.prefix);
    }
    link.peer.username = None;
    link.peer.allow_unauthenticated = false;
    link.allow_insecure = false;
    let tls = link.ssl.get_or_insert_with(|| ClientTls {
        cacertfile: None,
        certfile: None,
        keyfile: None,
        password: None,
        cert_sha256: Vec::new(),
        verify: Verify::Peer,
        server_name: None,
    });
    tls.verify = Verify::Peer;
    if link.trust == Trust::Pinned || tls.certfile.is_none() {
        tls.certfile = Some(folder.join(LINK_CERTIFICATE));
        tls.keyfile = Some(folder.join(LINK_KEY));
        tls.password = None;
    }
    match link.trust {
        Trust::Configured => {}
        Trust::Pinned => {
            tls.cacertfile = None;
            tls.cert_sha256 = pins;
            link.peer.cert_sha256 = shown;
            link.peer.cert_cn = None;
        }
        // Signed is not enough: without an identity nobody is this peer.
        Trust::Ca => {
            link.peer.cert_sha256.clear();
            link.peer.cert_cn = identity.map(|identity| identity.name.clone());
        }
    }
}
