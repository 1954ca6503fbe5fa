//! Groups and their permissions. The group that is built in cannot be changed.

use crate::trust::group;
use crate::trust::group::Group;
use crate::trust::group::LINK_PEER;
use crate::trust::group::Permission;
use crate::trust::name::clipped;
use crate::trust::name::is_cluster_name;

use super::Book;
use super::Event;
use super::GROUPS_MAX;
use super::Happened;
use super::PERMISSIONS_MAX;
use super::TokenState;
use super::TrustError;
use super::tokens::check_texts;

impl Book {
    /// The group of that name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<Group> {
        if name == LINK_PEER { Some(Group::link_peer()) } else { self.groups.get(name).cloned() }
    }

    /// Who is in a group, or will be with a token that is out.
    #[must_use]
    pub fn members(&self, name: &str) -> Vec<&str> {
        let has = |groups: &[String]| groups.iter().any(|one| one == name);
        let identities = self.identities.values().filter(|one| has(&one.groups)).map(|one| one.name.as_str());
        let tokens =
            self.tokens.values().filter(|token| token.state == TokenState::Issued && has(&token.groups));
        let mut members: Vec<&str> =
            identities.chain(tokens.map(|token| token.issued_for.as_str())).collect();
        members.sort_unstable();
        members.dedup();
        members
    }

    /// Makes a group without permissions.
    ///
    /// # Errors
    /// If that is no name, or there is one.
    pub fn create_group(&mut self, name: &str, description: &str) -> Result<Event, TrustError> {
        self.check_free(name)?;
        check_texts(description, "")?;
        if self.groups.len() >= GROUPS_MAX {
            return Err(TrustError::Conflict(format!("there are {GROUPS_MAX} groups already")));
        }
        let group = Group { description: description.to_owned(), permissions: Vec::new() };
        self.groups.insert(name.to_owned(), group);
        Ok(Event::new(Happened::Admin("group_create"), name, ""))
    }

    fn check_free(&self, name: &str) -> Result<(), TrustError> {
        if !is_cluster_name(name) {
            return Err(TrustError::Usage(format!(
                "{:?} is no name of a group: 1 to 63 of A-Z a-z 0-9 _ . -, a letter or digit first",
                clipped(name)
            )));
        }
        match self.group(name) {
            None => Ok(()),
            Some(_) => Err(TrustError::Conflict(format!("there is a group {name} already"))),
        }
    }

    /// Deletes a group that nobody is in.
    ///
    /// # Errors
    /// If there is none, or somebody is.
    pub fn delete_group(&mut self, name: &str) -> Result<Event, TrustError> {
        self.group_mut(name)?;
        let members = self.members(name);
        if !members.is_empty() {
            let shown = members.iter().take(10).copied().collect::<Vec<_>>().join(", ");
            let text = format!("{name} is in use by {} ({shown}): take them out first", members.len());
            return Err(TrustError::Conflict(text));
        }
        self.groups.remove(name);
        Ok(Event::new(Happened::Admin("group_delete"), name, ""))
    }

    /// Gives a group another name, wherever it is named.
    ///
    /// # Errors
    /// If there is none, or there is one of the other name.
    pub fn rename_group(&mut self, name: &str, to: &str) -> Result<Event, TrustError> {
        self.group_mut(name)?;
        self.check_free(to)?;
        if let Some(group) = self.groups.remove(name) {
            self.groups.insert(to.to_owned(), group);
        }
        let of_identities = self.identities.values_mut().map(|one| &mut one.groups);
        for groups in of_identities.chain(self.tokens.values_mut().map(|token| &mut token.groups)) {
            for one in groups.iter_mut().filter(|one| *one == name) {
                to.clone_into(one);
            }
            groups.sort_unstable();
        }
        Ok(Event::new(Happened::Admin("group_edit"), name, format!("renamed to {to}")))
    }

    /// Says what a group is for.
    ///
    /// # Errors
    /// If there is none, or that cannot be written down.
    pub fn describe_group(&mut self, name: &str, description: &str) -> Result<Event, TrustError> {
        check_texts(description, "")?;
        description.clone_into(&mut self.group_mut(name)?.description);
        Ok(Event::new(Happened::Admin("group_edit"), name, "description"))
    }

    /// Adds a permission to a group. One that differs in its options alone is replaced.
    ///
    /// # Errors
    /// If there is no such group, or it has the permission, or too many.
    pub fn add_permission(&mut self, name: &str, permission: Permission) -> Result<Event, TrustError> {
        self.check_peers_of(name, &permission)?;
        let all: usize = self.groups.values().map(|group| group.permissions.len()).sum();
        let group = self.group_mut(name)?;
        if group.permissions.contains(&permission) {
            return Err(TrustError::Conflict(format!("{name} has it already: {permission}")));
        }
        let text = format!("permission added: {permission}");
        match group.permissions.iter().position(|one| one.is_about_the_same(&permission)) {
            Some(same) => group.permissions[same] = permission,
            None if group.permissions.len() >= group::PERMISSIONS_MAX || all >= PERMISSIONS_MAX => {
                let text = format!(
                    "at most {} permissions of a group, {PERMISSIONS_MAX} of all",
                    group::PERMISSIONS_MAX
                );
                return Err(TrustError::Conflict(text));
            }
            None => group.permissions.push(permission),
        }
        Ok(Event::new(Happened::Admin("group_edit"), name, text))
    }

    /// Takes a permission from a group, whatever its options.
    ///
    /// # Errors
    /// If there is no such group, or it has it not.
    pub fn remove_permission(&mut self, name: &str, permission: &Permission) -> Result<Event, TrustError> {
        let permissions = &mut self.group_mut(name)?.permissions;
        let before = permissions.len();
        permissions.retain(|one| !one.is_about_the_same(permission));
        if permissions.len() == before {
            return Err(TrustError::NotFound { what: "permission", name: permission.to_string() });
        }
        Ok(Event::new(Happened::Admin("group_edit"), name, format!("permission removed: {permission}")))
    }

    fn group_mut(&mut self, name: &str) -> Result<&mut Group, TrustError> {
        if name == LINK_PEER {
            return Err(TrustError::Conflict(format!("{name} is built in: make another group")));
        }
        let not_found = || TrustError::NotFound { what: "group", name: clipped(name) };
        self.groups.get_mut(name).ok_or_else(not_found)
    }
}
