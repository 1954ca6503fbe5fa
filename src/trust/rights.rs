//! What permissions come to: the rights of a peer cluster, and those of an operator (`trust.md` 2.5).
//!
//! A peer has rights on its own link alone, whatever its groups say of others; and no entitlement of operators gives a peer
//! anything. Topics are granted one by one: without any, nothing moves.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fmt;

use crate::mqtt::packet::QoS;
use crate::mqtt::topic;
use crate::trust::group::Entitlement;
use crate::trust::group::Entity;
use crate::trust::group::Permission;

/// Topics that may cross a link in one direction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TopicGrant {
    /// Which.
    pub filter: String,
    /// Up to which QoS: 0, 1 or 2.
    pub qos_max: u8,
}

/// The filter, and the QoS if it is bounded.
impl fmt::Display for TopicGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.filter)?;
        if self.qos_max < 2 { write!(f, " qos={}", self.qos_max) } else { Ok(()) }
    }
}

/// The rights of a peer cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rights {
    /// It forwards messages to us.
    pub can_forward: bool,
    /// It tells us what it wants, and is answered.
    pub can_sync_routes: bool,
    /// Which messages of it are accepted; sorted.
    pub import: Vec<TopicGrant>,
    /// Which messages it may ask for; sorted.
    pub export: Vec<TopicGrant>,
}

impl Rights {
    /// Of the identity of the cluster `name`, from the permissions of its groups.
    #[must_use]
    pub fn of<'p>(name: &str, permissions: impl IntoIterator<Item = &'p Permission>) -> Self {
        let mut rights = Self::default();
        let (mut import, mut export) = (BTreeMap::new(), BTreeMap::new());
        for permission in permissions {
            match (&permission.entity, permission.entitlement) {
                (Entity::OwnLink, entitlement) => rights.add(entitlement),
                (Entity::Link(link), entitlement) if link == name => rights.add(entitlement),
                (Entity::Topic(filter), Entitlement::CanImport) => {
                    add(&mut import, filter, permission.qos_max)
                }
                (Entity::Topic(filter), Entitlement::CanExport) => {
                    add(&mut export, filter, permission.qos_max)
                }
                // Another link is another cluster's, and what is for operators is not for peers.
                _ => {}
            }
        }
        Self { import: granted(import), export: granted(export), ..rights }
    }

    fn add(&mut self, entitlement: Entitlement) {
        self.can_forward |= entitlement.implies_on_link(Entitlement::CanForward);
        self.can_sync_routes |= entitlement.implies_on_link(Entitlement::CanSyncRoutes);
    }

    /// Whether a message that the peer forwards is accepted. Topics that begin with `$` never are.
    #[must_use]
    pub fn accepts(&self, name: &str, qos: QoS) -> bool {
        self.can_forward
            && !name.starts_with('$')
            && holds(&self.import, qos, |filter| topic::matches(filter, name))
    }

    /// Whether the peer may have what it asks for: a subset of one grant, whose greatest QoS is answered.
    #[must_use]
    pub fn grants(&self, filter: &str) -> Option<u8> {
        let fits = |one: &&TopicGrant| !filter.starts_with('$') && topic::is_subset(filter, &one.filter);
        let greatest = self.export.iter().filter(fits).map(|one| one.qos_max).max();
        greatest.filter(|_| self.can_sync_routes)
    }

    /// The filters of what is accepted.
    pub fn import_filters(&self) -> impl Iterator<Item = &str> + Clone {
        self.import.iter().map(|one| one.filter.as_str())
    }

    /// The filters of what may be asked for.
    pub fn export_filters(&self) -> impl Iterator<Item = &str> + Clone {
        self.export.iter().map(|one| one.filter.as_str())
    }
}

/// What two permissions grant of one filter is the greater.
fn add(grants: &mut BTreeMap<String, u8>, filter: &str, qos_max: Option<u8>) {
    let qos = qos_max.unwrap_or(2);
    grants.entry(filter.to_owned()).and_modify(|has| *has = qos.max(*has)).or_insert(qos);
}

fn granted(grants: BTreeMap<String, u8>) -> Vec<TopicGrant> {
    grants.into_iter().map(|(filter, qos_max)| TopicGrant { filter, qos_max }).collect()
}

fn holds(grants: &[TopicGrant], qos: QoS, matches: impl Fn(&str) -> bool) -> bool {
    grants.iter().any(|one| qos as u8 <= one.qos_max && matches(&one.filter))
}

/// The rights of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OperatorRights {
    /// On the server, as granted: what they imply is not among them.
    pub server: BTreeSet<Entitlement>,
    /// On links, by the name of the cluster, as granted.
    pub links: BTreeMap<String, BTreeSet<Entitlement>>,
}

impl OperatorRights {
    /// Of whoever asks through the socket that only the broker's owner reaches.
    #[must_use]
    pub fn admin() -> Self {
        Self { server: [Entitlement::Admin].into(), links: BTreeMap::new() }
    }

    /// Of an operator, from the permissions of the groups.
    #[must_use]
    pub fn of<'p>(permissions: impl IntoIterator<Item = &'p Permission>) -> Self {
        let mut rights = Self::default();
        for permission in permissions.into_iter().filter(|permission| !permission.entitlement.is_of_peers()) {
            match &permission.entity {
                Entity::Server => drop(rights.server.insert(permission.entitlement)),
                Entity::Link(name) => {
                    rights.links.entry(name.clone()).or_default().insert(permission.entitlement);
                }
                // An operator is no cluster.
                Entity::OwnLink | Entity::Topic(_) => {}
            }
        }
        rights
    }

    /// Whether this is permitted on the server.
    #[must_use]
    pub fn on_server(&self, wanted: Entitlement) -> bool {
        self.server.iter().any(|has| has.implies_on_server(wanted))
    }

    /// Whether whoever has these may grant this: what operators may do, only as far as they may it themselves. What peers may
    /// do is nobody's own.
    #[must_use]
    pub fn may_grant(&self, permission: &Permission) -> bool {
        let wanted = permission.entitlement;
        match &permission.entity {
            Entity::Server => self.on_server(wanted),
            Entity::Link(name) => wanted.is_of_peers() || self.on_link(name, wanted),
            Entity::OwnLink | Entity::Topic(_) => true,
        }
    }

    /// Whether this is permitted on the link with the cluster `name`.
    #[must_use]
    pub fn on_link(&self, name: &str, wanted: Entitlement) -> bool {
        let by_link =
            self.links.get(name).is_some_and(|all| all.iter().any(|has| has.implies_on_link(wanted)));
        by_link || self.server.iter().any(|has| has.implies_on_links(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(texts: &[&str]) -> Vec<Permission> {
        texts
            .iter()
            .map(|text| Permission::parse(&text.split(' ').collect::<Vec<_>>()).expect("a permission"))
            .collect()
    }

    #[test]
    fn the_default_group_links_and_moves_nothing() {
        let rights = Rights::of("B", &crate::trust::group::Group::link_peer().permissions);
        assert!(rights.can_forward && rights.can_sync_routes);
        assert!(rights.import.is_empty() && rights.export.is_empty());
        assert!(!rights.accepts("a", QoS::AtMostOnce) && rights.grants("a").is_none());
        assert_eq!(Rights::of("B", &[]), Rights::default());
    }

    #[test]
    fn a_peer_has_rights_on_its_own_link_alone() {
        let of_others = permissions(&["link C peer", "link C can_forward"]);
        assert_eq!(Rights::of("B", &of_others), Rights::default());
        assert!(Rights::of("C", &of_others).can_sync_routes);
        let read_only = Rights::of("B", &permissions(&["link B can_sync_routes", "topic a can_import"]));
        assert!(
            read_only.can_sync_routes && !read_only.can_forward && !read_only.accepts("a", QoS::AtMostOnce)
        );
        let write_only = Rights::of("B", &permissions(&["link @self can_forward", "topic a can_export"]));
        assert!(write_only.can_forward && write_only.grants("a").is_none());
    }

    #[test]
    fn no_entitlement_of_operators_gives_a_peer_anything() {
        let all: Vec<Permission> = crate::trust::group::ENTITLEMENTS
            .iter()
            .filter(|(_, entitlement, _)| !entitlement.is_of_peers())
            .map(|(kind, entitlement, _)| {
                let name = if kind.to_string() == "link" { "B " } else { "" };
                format!("{kind} {name}{entitlement}")
            })
            .flat_map(|text| permissions(&[&text]))
            .collect();
        assert!(all.len() > 10);
        assert_eq!(Rights::of("B", &all), Rights::default());
    }

    #[test]
    fn topics_are_granted_one_by_one() {
        let granted = permissions(&[
            "link B peer",
            "topic partner/# can_import qos=1",
            "topic partner/# can_import qos=0",
            "topic # can_import qos=0",
            "topic out/+/x can_export",
        ]);
        let rights = Rights::of("B", &granted);
        assert_eq!(rights.import_filters().collect::<Vec<_>>(), ["#", "partner/#"]);
        assert!(
            rights.accepts("partner/a", QoS::AtLeastOnce) && !rights.accepts("partner/a", QoS::ExactlyOnce)
        );
        assert!(rights.accepts("x", QoS::AtMostOnce) && !rights.accepts("x", QoS::AtLeastOnce));
        for name in ["$SYS/broker", "$LINK/cluster/msg/B", "$share/g/a"] {
            assert!(!rights.accepts(name, QoS::AtMostOnce), "{name}");
        }
        assert_eq!(rights.grants("out/a/x"), Some(2));
        assert_eq!(rights.grants("out/+/x"), Some(2));
        for filter in ["out/#", "#", "out/a", "$SYS/#"] {
            assert_eq!(rights.grants(filter), None, "{filter}");
        }
        let all = Rights::of("B", &permissions(&["link B peer", "topic # can_export"]));
        assert!(all.grants("#").is_some() && all.grants("$SYS/#").is_none());
    }

    #[test]
    fn operators_may_what_their_groups_say_and_imply() {
        let one = OperatorRights::of(&permissions(&[
            "link B operator",
            "link C can_edit",
            "server can_view_events",
            "link D peer",
            "topic a can_import",
        ]));
        assert!(one.on_link("B", Entitlement::CanDelete) && !one.on_link("B", Entitlement::CanIssueToken));
        assert!(one.on_link("C", Entitlement::CanView) && !one.on_link("C", Entitlement::CanDelete));
        assert!(!one.on_link("D", Entitlement::CanView) && !one.links.contains_key("D"));
        assert!(one.on_server(Entitlement::CanViewEvents) && !one.on_server(Entitlement::CanCreateLinks));
        let admin = OperatorRights::admin();
        assert!(
            admin.on_link("any", Entitlement::CanRotate) && admin.on_server(Entitlement::PermissionManager)
        );
        assert!(!admin.on_link("any", Entitlement::CanForward), "an operator is no peer");
        assert_eq!(OperatorRights::of(&[]), OperatorRights::default());
        assert!(!OperatorRights::default().on_link("B", Entitlement::CanView));
    }
}
