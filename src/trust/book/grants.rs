//! What may be granted to whom: nobody grants more than they have, and what is for operators is not for peers (`trust.md` 2.5).

use crate::trust::group::Entity;
use crate::trust::group::Group;
use crate::trust::group::Permission;
use crate::trust::identity::Kind;
use crate::trust::rights::OperatorRights;

use super::Book;
use super::TokenState;
use super::TrustError;

impl Book {
    /// Whether somebody with these rights may have made this book of the one before: every permission that a group has got, and
    /// every group that an identity or a token has got, is one that they may grant.
    ///
    /// # Errors
    /// Which one they may not.
    pub fn check_granted(&self, before: &Self, rights: &OperatorRights) -> Result<(), TrustError> {
        let renamed = self.renamed(before);
        // As it was called before.
        let old = |name: &str| match &renamed {
            Some((from, to)) if name == to => from.clone(),
            _ => name.to_owned(),
        };
        for (name, group) in &self.groups {
            let had = before.groups.get(&old(name)).map_or(&[][..], |group| &group.permissions);
            let got = group.permissions.iter().filter(|one| !had.contains(one));
            check_all(name, got, rights)?;
        }
        let has_before = |groups: Option<&Vec<String>>, name: &str| {
            groups.is_some_and(|groups| groups.contains(&old(name)))
        };
        for (id, one) in &self.identities {
            let had = before.identities.get(id).map(|one| &one.groups);
            one.groups
                .iter()
                .filter(|name| !has_before(had, name))
                .try_for_each(|name| self.check_group(name, rights))?;
        }
        for (id, token) in &self.tokens {
            let had = before.tokens.get(id).map(|token| &token.groups);
            token
                .groups
                .iter()
                .filter(|name| !has_before(had, name))
                .try_for_each(|name| self.check_group(name, rights))?;
        }
        Ok(())
    }

    /// Whether somebody with these rights may put an identity into these groups.
    ///
    /// # Errors
    /// Which permission they may not grant.
    pub fn check_may_grant(&self, groups: &[String], rights: &OperatorRights) -> Result<(), TrustError> {
        groups.iter().try_for_each(|name| self.check_group(name, rights))
    }

    fn check_group(&self, name: &str, rights: &OperatorRights) -> Result<(), TrustError> {
        self.group(name).map_or(Ok(()), |group| check_all(name, group.permissions.iter(), rights))
    }

    /// The group that has another name than before, and that name: one change renames one.
    fn renamed(&self, before: &Self) -> Option<(String, String)> {
        let mut gone = before.groups.keys().filter(|name| !self.groups.contains_key(*name));
        let mut new = self.groups.keys().filter(|name| !before.groups.contains_key(*name));
        match (gone.next(), gone.next(), new.next(), new.next()) {
            (Some(from), None, Some(to), None) => Some((from.clone(), to.clone())),
            _ => None,
        }
    }

    /// Whether identities of this kind may be in a group: none of a peer in one of operators.
    pub(super) fn check_fits(&self, kind: Kind, name: &str) -> Result<(), TrustError> {
        let group = self.group(name).unwrap_or_default();
        match of_server(&group).filter(|_| kind == Kind::Link) {
            None => Ok(()),
            Some(permission) => Err(TrustError::Conflict(format!(
                "{name} permits `{permission}`, which is for operators: no linked cluster is put into it"
            ))),
        }
    }

    /// Whether a group may get a permission: none on the server as long as a peer is in it, or will be with a token.
    pub(super) fn check_peers_of(&self, name: &str, permission: &Permission) -> Result<(), TrustError> {
        if permission.entity != Entity::Server {
            return Ok(());
        }
        let is_in = |groups: &[String]| groups.iter().any(|one| one == name);
        let links = self.identities.values().filter(|one| one.kind == Kind::Link && is_in(&one.groups));
        let issued = self.tokens.values().filter(|one| one.state == TokenState::Issued && is_in(&one.groups));
        let mut peers = links.map(|one| one.name.as_str()).chain(issued.map(|one| one.issued_for.as_str()));
        match peers.next() {
            None => Ok(()),
            Some(peer) => Err(TrustError::Conflict(format!(
                "the linked cluster {peer} is in {name}, and `{permission}` is for operators: make another group for them"
            ))),
        }
    }
}

fn of_server(group: &Group) -> Option<&Permission> {
    group.permissions.iter().find(|permission| permission.entity == Entity::Server)
}

fn check_all<'p>(
    group: &str,
    permissions: impl IntoIterator<Item = &'p Permission>,
    rights: &OperatorRights,
) -> Result<(), TrustError> {
    match permissions.into_iter().find(|permission| !rights.may_grant(permission)) {
        None => Ok(()),
        Some(permission) => Err(TrustError::Denied(format!(
            "nobody grants more than they have: the group {group} permits `{permission}`, which you may not yourself"
        ))),
    }
}
