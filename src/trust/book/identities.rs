//! What operators do with identities: make one of a certificate that they bring, approve, revoke, delete, put into groups.

use crate::trust::Uuid;
use crate::trust::address::ServerAddr;
use crate::trust::enroll;
use crate::trust::identity::Identity;
use crate::trust::identity::Kind;
use crate::trust::identity::State;
use crate::trust::leaf::Leaf;
use crate::trust::name;
use crate::trust::name::clipped;

use super::Book;
use super::Event;
use super::Happened;
use super::Own;
use super::TrustError;
use super::redeem;
use super::tokens::check_texts;

/// What is asked for with `auth identity create link/NAME cert.pem` or `admin/NAME`: an exchange without a token.
#[derive(Debug, Clone)]
pub struct NewIdentity<'a> {
    /// Of a peer or of an operator.
    pub kind: Kind,
    /// The name of the cluster or of the operator.
    pub name: &'a str,
    /// What a cluster's Client Identifiers begin with; the default prefix of its name.
    pub prefix: Option<&'a str>,
    /// Its groups. Without any a cluster is in [`LINK_PEER`](crate::trust::group::LINK_PEER), and an operator in none.
    pub groups: &'a [String],
    /// Where a cluster is reached.
    pub addrs: &'a [ServerAddr],
    /// What a cluster can do.
    pub caps: &'a [String],
    /// Its certificate.
    pub leaf: &'a Leaf,
    /// What it is for.
    pub description: &'a str,
    /// Who asks.
    pub operator: &'a str,
}

impl Book {
    /// Makes an identity of a certificate. `id` is random bytes.
    ///
    /// # Errors
    /// If the certificate is not fit or somebody else's, or there is such an identity or prefix already.
    pub fn create_identity(
        &mut self,
        own: &Own<'_>,
        new: &NewIdentity<'_>,
        id: [u8; 16],
        now: u64,
    ) -> Result<(Uuid, Event), TrustError> {
        let prefix = self.check_new(own, new)?;
        new.leaf.check(now).map_err(|(_, text)| TrustError::Usage(text))?;
        if let Some(holder) = self.holder_of(own, new.leaf.sha256, None) {
            return Err(TrustError::Conflict(format!("{} is the certificate of {holder}", new.leaf.sha256)));
        }
        let groups = self.checked_groups(new.kind, new.groups)?;
        let id = Uuid::from_random(id);
        if self.identities.contains_key(&id) || self.tokens.contains_key(&id) {
            return Err(TrustError::Conflict(format!("there is an identity {id} already")));
        }
        // One whose token was not used in time stands for nothing.
        self.identities.retain(|_, one| one.kind != new.kind || one.name != new.name);
        let text = format!("by {}, fingerprint {}", new.operator, new.leaf.sha256);
        let event = Event::new(Happened::Admin("identity_create"), new.name, text).with(new.leaf.sha256);
        self.identities.insert(id, identity(new, id, prefix, groups, now));
        Ok((id, event))
    }

    fn check_new(&self, own: &Own<'_>, new: &NewIdentity<'_>) -> Result<String, TrustError> {
        check_texts(new.description, new.operator)?;
        if let Some(one) = self.named(new.kind, new.name).filter(|one| one.state != State::Expired) {
            let text = format!("there is an identity {} ({}): delete it first", new.name, one.shown_state());
            return Err(TrustError::Conflict(text));
        }
        self.check_room()?;
        enroll::checked_capabilities(new.caps).map_err(TrustError::usage)?;
        if new.addrs.len() > crate::trust::address::ADDRESSES_MAX {
            return Err(TrustError::Usage("at most 16 addresses".to_owned()));
        }
        if new.kind == Kind::Admin {
            return match name::check_cluster(new.name) {
                Ok(()) => Ok(String::new()),
                Err(_) => {
                    Err(TrustError::Usage(format!("{:?} is no name of an operator", clipped(new.name))))
                }
            };
        }
        self.check_name(own, new.name)?;
        Self::check_unconfigured(own, new.name)?;
        let prefix = new.prefix.map_or_else(|| name::default_prefix(new.name), str::to_owned);
        self.check_prefix(own, new.name, &prefix).map(|()| prefix)
    }

    /// Approves a peer that has come with a token.
    ///
    /// # Errors
    /// If there is none that waits for it.
    pub fn approve(&mut self, name: &str, operator: &str) -> Result<Event, TrustError> {
        let one = self.one_mut(Kind::Link, name)?;
        if one.state != State::PendingApproval {
            let text = format!("{name} does not wait for approval ({})", one.shown_state());
            return Err(TrustError::Conflict(text));
        }
        one.state = State::Active;
        let text = format!("approved by {}", clipped(operator));
        one.note(&text);
        let event = Event::new(Happened::Activated, name, text);
        Ok(match one.fingerprints.first() {
            Some(pin) => event.with(pin.sha256),
            None => event,
        })
    }

    /// Takes trust back. The identity stays, and so nobody else can come with its certificate; tokens for it are good no more.
    ///
    /// # Errors
    /// If there is none, or it is revoked already.
    pub fn revoke(&mut self, kind: Kind, name: &str, operator: &str) -> Result<Event, TrustError> {
        let one = self.one_mut(kind, name)?;
        match one.state {
            State::Revoked => return Err(TrustError::Conflict(format!("{name} is revoked already"))),
            State::Pending | State::Expired => {
                return Err(TrustError::Conflict(format!("{name} is not trusted yet: revoke its token")));
            }
            _ => one.state = State::Revoked,
        }
        let text = format!("revoked by {}", clipped(operator));
        one.note(&text);
        self.drop_proofs(kind, name);
        Ok(Event::new(Happened::Admin("identity_revoke"), name, text))
    }

    /// Deletes an identity, with its tokens and what was pinned for it by hand.
    ///
    /// # Errors
    /// If there is none.
    pub fn delete_identity(&mut self, kind: Kind, name: &str, operator: &str) -> Result<Event, TrustError> {
        let id = self.one_mut(kind, name)?.id;
        self.identities.remove(&id);
        self.drop_proofs(kind, name);
        Ok(Event::new(Happened::Admin("identity_delete"), name, format!("by {}", clipped(operator))))
    }

    fn drop_proofs(&mut self, kind: Kind, name: &str) {
        if kind == Kind::Link {
            self.drop_tokens_of(name);
            self.outbound.remove(name);
        }
    }

    /// The peer says that it has removed us: no more than that, since it decides about itself.
    ///
    /// # Errors
    /// If it is not active.
    pub fn peer_removed_us(&mut self, name: &str) -> Result<Event, TrustError> {
        let one = self.one_mut(Kind::Link, name)?;
        if !one.is_active() {
            return Err(TrustError::Conflict(format!("{name} is not active ({})", one.shown_state())));
        }
        one.state = State::RevokedByPeer;
        let text = format!("{name} has removed its link with this cluster");
        one.note(&text);
        Ok(Event::new(Happened::RevokedByPeer, name, text))
    }

    /// Puts an identity into a group.
    ///
    /// # Errors
    /// If there is no such identity or group, or it is in it.
    pub fn add_to_group(&mut self, kind: Kind, name: &str, group: &str) -> Result<Event, TrustError> {
        let mut groups = self.one_mut(kind, name)?.groups.clone();
        if groups.iter().any(|one| one == group) {
            return Err(TrustError::Conflict(format!("{name} is in {group} already")));
        }
        groups.push(group.to_owned());
        let groups = self.checked_groups(kind, &groups)?;
        self.set_groups(kind, name, groups, format!("into {group}"))
    }

    /// Takes an identity out of a group.
    ///
    /// # Errors
    /// If there is no such identity, or it is not in it.
    pub fn remove_from_group(&mut self, kind: Kind, name: &str, group: &str) -> Result<Event, TrustError> {
        let mut groups = self.one_mut(kind, name)?.groups.clone();
        let before = groups.len();
        groups.retain(|one| one != group);
        if groups.len() == before {
            return Err(TrustError::NotFound { what: "group of this identity", name: clipped(group) });
        }
        self.set_groups(kind, name, groups, format!("out of {group}"))
    }

    /// As long as its token is out, the groups that it will be in are the token's.
    fn set_groups(
        &mut self,
        kind: Kind,
        name: &str,
        groups: Vec<String>,
        text: String,
    ) -> Result<Event, TrustError> {
        let one = self.one_mut(kind, name)?;
        one.groups.clone_from(&groups);
        let id = one.id;
        if let Some(token) = self.tokens.values_mut().find(|token| token.identity == id && token.id == id) {
            token.groups = groups;
        }
        Ok(Event::new(Happened::Admin("identity_edit"), name, text))
    }

    /// Says what an identity is for.
    ///
    /// # Errors
    /// If there is none, or that cannot be written down.
    pub fn describe_identity(
        &mut self,
        kind: Kind,
        name: &str,
        description: &str,
    ) -> Result<Event, TrustError> {
        check_texts(description, "")?;
        description.clone_into(&mut self.one_mut(kind, name)?.description);
        Ok(Event::new(Happened::Admin("identity_edit"), name, "description"))
    }

    pub(super) fn one_mut(&mut self, kind: Kind, name: &str) -> Result<&mut Identity, TrustError> {
        let id = self.named(kind, name).map(|one| one.id);
        id.and_then(|id| self.identities.get_mut(&id)).ok_or_else(|| match kind {
            Kind::Link => TrustError::no_link(name),
            Kind::Admin => TrustError::NotFound { what: "operator", name: clipped(name) },
        })
    }
}

fn identity(new: &NewIdentity<'_>, id: Uuid, prefix: String, groups: Vec<String>, now: u64) -> Identity {
    Identity {
        id,
        kind: new.kind,
        state: State::Active,
        name: new.name.to_owned(),
        prefix,
        fingerprints: vec![redeem::current(new.leaf)],
        groups,
        addrs: new.addrs.to_vec(),
        caps: new.caps.to_vec(),
        created: now,
        created_by: new.operator.to_owned(),
        activated: Some(now),
        activated_from: None,
        last_seen: None,
        last_addr: None,
        notes: Vec::new(),
        description: new.description.to_owned(),
    }
}
