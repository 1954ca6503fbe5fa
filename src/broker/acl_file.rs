//! The ACL file of a broker: where it lies and how it is to be read, so that it can be read again without the rest of
//! the configuration. `serve`, a reload and `check` all come through here.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use crate::acl::compile::CompileOptions;
use crate::acl::compile::FILE_BYTES_MAX;
use crate::acl::confine::ListenerRole;
use crate::acl::eval::RuleSet;
use crate::acl::lint::Inventory;
use crate::acl::lint::LinkInfo;
use crate::acl::lint::Severity;
use crate::acl::lint::is_failure;
use crate::acl::lint::lint;
use crate::acl::rule;
use crate::auth::users::MAX_FILE_BYTES;
use crate::broker::accept::acl_role;
use crate::broker::acl_front;
use crate::broker::acl_front::Front;
use crate::broker::identity::Policy;
use crate::broker::material::read_bounded;
use crate::config::settings::AclMode;
use crate::config::settings::AclSource;
use crate::config::settings::Authenticator;
use crate::config::settings::Authorization;
use crate::config::settings::DenyAction;
use crate::config::settings::Link;
use crate::config::settings::Listener;
use crate::config::settings::Permission;
use crate::config::settings::SHIPPED_ACL;
use crate::config::settings::SecurityProfile;
use crate::config::settings::Settings;
use crate::trust::generate::Peer;

/// Where the rules come from and what goes with them.
#[derive(Debug, Clone)]
pub struct AclFile {
    /// The name in errors and findings.
    pub name: String,
    /// `None` is the shipped file, which is built in.
    pub path: Option<PathBuf>,
    /// How it is to be understood.
    pub options: CompileOptions,
    /// The verdict when no rule matches.
    pub no_match: rule::Permission,
    /// What a denial does to the connection.
    pub deny_action: DenyAction,
    /// What the linter knows of the broker around it.
    pub inventory: Inventory,
    /// Who may connect to each listener, by its id.
    pub roles: BTreeMap<String, ListenerRole>,
    /// The peers whose rules are generated in front of it.
    pub peers: Vec<Peer>,
    /// For EMQX brokers that we link to, by the name of the link.
    pub exports: Vec<(String, String)>,
}

/// Rules that can be put in force, and what is to be said about them.
#[derive(Debug)]
pub struct LoadedRules {
    /// The rules with what goes with them.
    pub policy: Policy,
    /// What is legal but surely not meant, and what EMQX accepts and strict mode refuses.
    pub warnings: Vec<String>,
    /// What an operator may like to know.
    pub notes: Vec<String>,
}

impl Default for AclFile {
    fn default() -> Self {
        Self {
            name: "acl.conf (built in)".to_owned(),
            path: None,
            options: CompileOptions::default(),
            no_match: rule::Permission::Deny,
            deny_action: DenyAction::Ignore,
            inventory: Inventory::default(),
            roles: BTreeMap::new(),
            peers: Vec::new(),
            exports: Vec::new(),
        }
    }
}

impl AclFile {
    /// As the settings say.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let authorization = &settings.authorization;
        let path = match &authorization.file {
            AclSource::Embedded => None,
            AclSource::File(path) => Some(path.clone()),
        };
        let built_in = Self::default();
        Self {
            name: path.as_ref().map_or(built_in.name, |path| path.display().to_string()),
            path,
            options: compile_options(authorization),
            no_match: permission(authorization.no_match),
            deny_action: authorization.deny_action,
            inventory: inventory(settings),
            roles: settings.listeners.iter().map(|one| (one.id(), acl_role(one.role))).collect(),
            peers: acl_front::peers(&settings.cluster.links),
            exports: acl_front::exports(settings),
        }
    }

    /// Whether rules, or what is said of them, differ by the links.
    #[must_use]
    pub fn has_links_of(&self, other: &Self) -> bool {
        (&self.inventory, &self.peers, &self.exports) == (&other.inventory, &other.peers, &other.exports)
    }

    /// Reads and compiles the file. It blocks.
    ///
    /// # Errors
    /// Everything that is wrong with it, with its places.
    pub fn load(self: &Arc<Self>) -> Result<LoadedRules, Vec<String>> {
        let text = match &self.path {
            None => SHIPPED_ACL.as_bytes().to_vec(),
            Some(path) => {
                read_acl(path).map_err(|error| vec![format!("authorization.file: {}: {error}", self.name)])?
            }
        };
        self.compile(&self.name, &text)
    }

    /// Compiles and lints `text`, which is called `name` in what is said of it.
    ///
    /// # Errors
    /// Everything that is wrong with it; in the hardened profile also what is only risky.
    pub fn compile(self: &Arc<Self>, name: &str, text: &[u8]) -> Result<LoadedRules, Vec<String>> {
        let front = Front::of(&self.peers)?;
        let rules = RuleSet::compile(text, &self.options)
            .map_err(|errors| errors.iter().map(|error| error.render(name)).collect::<Vec<_>>())?;
        let mut warnings: Vec<String> = rules.warnings().iter().map(|warning| warning.render(name)).collect();
        let found = lint(&rules, &String::from_utf8_lossy(text), &self.inventory);
        let (notes, faults): (Vec<_>, Vec<_>) =
            found.iter().partition(|finding| finding.severity == Severity::Info);
        let notes = notes.iter().map(|finding| finding.render(name)).collect();
        let faults = faults.iter().map(|finding| finding.render(name));
        // Only the hardened profile takes a file at its worst.
        if self.options.security_profile == rule::SecurityProfile::Hardened && is_failure(&found) {
            return Err(faults.collect());
        }
        warnings.extend(faults);
        let policy = Policy { front, ..Policy::new(rules, Arc::clone(self)) };
        Ok(LoadedRules { policy, warnings, notes })
    }
}

/// How the file is to be read.
#[must_use]
pub fn compile_options(authorization: &Authorization) -> CompileOptions {
    CompileOptions {
        mode: match authorization.mode {
            AclMode::Strict => rule::Mode::Strict,
            AclMode::Emqx => rule::Mode::Emqx,
        },
        security_profile: match authorization.security_profile {
            SecurityProfile::Legacy => rule::SecurityProfile::Legacy,
            SecurityProfile::Hardened => rule::SecurityProfile::Hardened,
        },
    }
}

fn permission(permission: Permission) -> rule::Permission {
    match permission {
        Permission::Allow => rule::Permission::Allow,
        Permission::Deny => rule::Permission::Deny,
    }
}

/// What the linter knows of the broker around the file.
#[must_use]
pub fn inventory(settings: &Settings) -> Inventory {
    let link = |link: &Link| LinkInfo {
        name: link.name.clone(),
        clientid_prefix: link.peer.clientid.clone(),
        username: link.peer.username.clone(),
    };
    let doors = settings.listeners.iter().filter(|listener| listener.role.accepts_links());
    Inventory {
        links: settings.cluster.links.iter().map(link).collect(),
        no_match: permission(settings.authorization.no_match),
        deny_disconnects: settings.authorization.deny_action == DenyAction::Disconnect,
        link_listeners: doors.map(Listener::id).collect(),
        listeners: settings.listeners.iter().map(Listener::id).collect(),
        applications: Vec::new(),
        users: users(settings),
        links_are_granted: !settings.cluster.links.is_empty(),
    }
}

/// Who is in the files of passwords and no link. Only the names are read: what is wrong with a file, or that there is none,
/// is said where its passwords are.
fn users(settings: &Settings) -> Vec<String> {
    let authentication = &settings.authentication;
    let steps = authentication.chain.iter().filter_map(|step| match step {
        Authenticator::Password { password_file, .. } | Authenticator::Scram { password_file } => {
            Some(password_file)
        }
        _ => None,
    });
    let is_a_links =
        |name: &str| settings.cluster.links.iter().any(|link| link.peer.username.as_deref() == Some(name));
    let mut users = BTreeSet::new();
    for path in authentication.password_file.iter().chain(steps) {
        let bytes = read_bounded(path, MAX_FILE_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let names = lines.filter_map(|line| line.rsplit_once(':')).map(|(name, _)| name);
        users.extend(names.filter(|name| !is_a_links(name)).map(str::to_owned));
    }
    users.into_iter().collect()
}

/// Reads an ACL file, but no more of it than is refused for its length (`acl-language.md` section 1).
///
/// # Errors
/// The system's reason, or that it is too long.
pub fn read_acl(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(path, FILE_BYTES_MAX)
}
