//! The commands about trust between clusters (`trust.md` 2.2): their shape and help.

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;

use super::operate::Broker;
use super::operate::Shown;
use crate::admin::commands;
use crate::admin::commands::Failure;
use crate::admin::commands::IdentityOrder;
use crate::admin::commands::JoinOrder;
use crate::admin::commands::TokenOrder;

/// `link create`
#[derive(Debug, Args)]
pub struct CreateLink {
    /// The peer's cluster name
    pub name: String,
    /// Settings of a link that proves itself in another way; or the token of the other cluster
    #[arg(value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// The token that the other cluster issued; - reads the standard input, @FILE a file
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Put the peer into this group, not into link-peer; several times for several
    #[arg(long = "group", visible_alias = "auth-group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Where the peer reaches this cluster, if not where it listens; several times for several
    #[arg(long = "address", value_name = "HOST:PORT")]
    pub addresses: Vec<String>,
    /// What the link is for
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub description: String,
    /// Let a link that is there get another certificate in this way
    #[arg(long)]
    pub replace: bool,
    /// How long the token is valid, `link.token_expiry` unless it is said; more than 24h needs --i-know
    #[arg(long, value_name = "TIME")]
    pub expiry: Option<String>,
    /// Let the token be valid for longer than a day
    #[arg(long, requires = "expiry")]
    pub i_know: bool,
    /// What the peer's Client Identifiers begin with, if not with clink-NAME-
    #[arg(long, value_name = "PREFIX")]
    pub prefix: Option<String>,
    /// Let the peer in only after `link approve`
    #[arg(long)]
    pub approve: bool,
    /// The certificate that the peer will show: nobody else can use the token
    #[arg(long, value_name = "SHA256")]
    pub expect_fingerprint: Option<String>,
    /// Print the token and nothing else
    #[arg(long, short)]
    pub quiet: bool,
    /// With a token: what is wanted of the peer, separated by commas
    #[arg(long, value_name = "FILTERS", value_delimiter = ',')]
    pub topics: Vec<String>,
    /// With a token: the other cluster's certificate, as you were told of it in another way
    #[arg(long, value_name = "SHA256")]
    pub fingerprint: Option<String>,
    /// With a token: where to reach the other cluster, instead of what the token says
    #[arg(long = "remote-address", value_name = "HOST:PORT")]
    pub remote_addresses: Vec<String>,
    /// Only the cluster that brings the token dials, as from behind a NAT: it lends the other the connections it needs
    #[arg(long)]
    pub unidirectional: bool,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
}

impl CreateLink {
    pub(super) fn run(self) -> Result<(), Failure> {
        let positional = match &self.settings[..] {
            [token] if token.starts_with(crate::trust::token::PREFIX) => Some(token.clone()),
            _ => None,
        };
        let remote = self.broker.remote();
        match self.token.or(positional) {
            Some(_) if !self.settings.is_empty() && !is_token(&self.settings) => {
                Err(Failure::usage("either settings or a token: change settings with `link set` afterwards"))
            }
            Some(token) => {
                let of_issue = [
                    ("--expiry", self.expiry.is_some()),
                    ("--prefix", self.prefix.is_some()),
                    ("--approve", self.approve),
                    ("--expect-fingerprint", self.expect_fingerprint.is_some()),
                ];
                refuse("this is for whoever issues the token", &of_issue)?;
                let order = JoinOrder {
                    token,
                    fingerprint: self.fingerprint,
                    groups: self.groups,
                    topics: self.topics,
                    addresses: self.addresses,
                    remote_addresses: self.remote_addresses,
                    description: self.description,
                    replace: self.replace,
                    unidirectional: self.unidirectional,
                };
                commands::link_join(&remote, &self.name, order)
            }
            None => {
                let of_join = [
                    ("--topics", !self.topics.is_empty()),
                    ("--fingerprint", self.fingerprint.is_some()),
                    ("--remote-address", !self.remote_addresses.is_empty()),
                ];
                refuse("this needs --token", &of_join)?;
                if !self.settings.is_empty() {
                    refuse(
                        "with settings, say dialled_by=...",
                        &[("--unidirectional", self.unidirectional)],
                    )?;
                    return commands::link_create(&remote, &self.name, &self.settings);
                }
                let order = TokenOrder {
                    groups: self.groups,
                    expiry: self.expiry,
                    i_know: self.i_know,
                    addresses: self.addresses,
                    description: self.description,
                    prefix: self.prefix,
                    approve: self.approve,
                    expect_fingerprint: self.expect_fingerprint,
                    replace: self.replace,
                    unidirectional: self.unidirectional,
                };
                commands::link_issue(&remote, &self.name, order, self.quiet)
            }
        }
    }
}

fn is_token(settings: &[String]) -> bool {
    matches!(settings, [one] if one.starts_with(crate::trust::token::PREFIX))
}

fn refuse(why: &str, options: &[(&str, bool)]) -> Result<(), Failure> {
    match options.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((name, _)) => Err(Failure::usage(format!("{name}: {why}"))),
    }
}

/// `link token …`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// List tokens that are out, or were; never their secrets
    #[command(after_help = "Example:\n  tombolo link token list")]
    List {
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Take a token back, with the identity that waits for it
    #[command(
        after_help = "Example:\n  tombolo link token revoke 0b5d6a3e-1c2d-4e5f-8a9b-0c1d2e3f4a5b --yes"
    )]
    Revoke {
        /// Its id, as listed
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
}

impl TokenCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { broker, shown } => commands::token_list(&broker.remote(), shown.format),
            Self::Revoke { id, yes, broker } => commands::token_revoke(&broker.remote(), &id, yes),
        }
    }
}

/// `link trust`
#[derive(Debug, Args)]
pub struct TrustLink {
    /// The peer's cluster name
    pub name: String,
    /// SHA-256 of the certificate that its servers show
    #[arg(long, value_name = "SHA256", required_unless_present = "remove")]
    pub fingerprint: Option<String>,
    /// Where they are; several times for several
    #[arg(long = "address", value_name = "HOST:PORT", required_unless_present = "remove")]
    pub addresses: Vec<String>,
    /// What is wanted of the peer, separated by commas
    #[arg(long, value_name = "FILTERS", value_delimiter = ',')]
    pub topics: Vec<String>,
    /// Trust it instead of the certificate that is known
    #[arg(long)]
    pub replace: bool,
    /// Take the pin back
    #[arg(long, conflicts_with_all = ["fingerprint", "addresses", "topics", "replace"])]
    pub remove: bool,
    /// Do not ask before it is taken back
    #[arg(long, requires = "remove")]
    pub yes: bool,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
}

impl TrustLink {
    pub(super) fn run(self) -> Result<(), Failure> {
        let remote = self.broker.remote();
        match self.fingerprint {
            Some(fingerprint) if !self.remove => commands::link_trust(
                &remote,
                &self.name,
                &fingerprint,
                &self.addresses,
                &self.topics,
                self.replace,
            ),
            _ => commands::link_distrust(&remote, &self.name, self.yes),
        }
    }
}

/// `link cert …`
#[derive(Debug, Subcommand)]
pub enum CertCommand {
    /// Show the link certificate of this cluster: what peers know it by
    #[command(after_help = "Example:\n  tombolo link cert show --pem")]
    Show {
        /// Print the certificate itself
        #[arg(long)]
        pem: bool,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Make the next certificate and tell every peer of it; both are good for a while
    #[command(after_help = "Example:\n  tombolo link cert rotate --overlap 7d")]
    Rotate {
        /// For how long both are good, unless all peers have heard before
        #[arg(long, value_name = "TIME", default_value = "7d")]
        overlap: String,
        /// Do not ask, without an overlap: peers that do not hear it refuse this cluster at once
        #[arg(long)]
        yes: bool,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// Show another certificate from now on; peers know the one before and must be told
    #[command(after_help = "Example:\n  tombolo link cert import link.pem --keyfile link.key --yes")]
    Import {
        /// The certificate, PEM; its key may stand in the same file
        file: PathBuf,
        /// Its key, PEM
        #[arg(long, value_name = "FILE")]
        keyfile: Option<PathBuf>,
        /// Do not ask: peers that know the one before refuse this cluster until they are told
        #[arg(long)]
        yes: bool,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
}

impl CertCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Show { pem, broker, shown } => commands::cert_show(&broker.remote(), shown.format, pem),
            Self::Rotate { overlap, yes, broker } => commands::cert_rotate(&broker.remote(), &overlap, yes),
            Self::Import { file, keyfile, yes, broker } => {
                commands::cert_import(&broker.remote(), &file, keyfile.as_deref().unwrap_or(&file), yes)
            }
        }
    }
}

/// `auth identity …`
#[derive(Debug, Subcommand)]
pub enum IdentityCommand {
    /// List who is trusted: peers and operators by certificate, and the peers that the configuration knows
    #[command(after_help = "Example:\n  tombolo auth identity list --unused 30d")]
    List {
        /// Only peers that were not seen for so long, nor are connected
        #[arg(long, value_name = "TIME")]
        unused: Option<String>,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Show an identity
    #[command(after_help = "Example:\n  tombolo auth identity show tls/B --format yaml")]
    Show(OneIdentity),
    /// Show what an identity may do, whatever group that comes from; without one, who you are here
    #[command(after_help = "Example:\n  tombolo auth identity info link/B\n  tombolo auth identity info")]
    Info {
        /// tls/NAME, link/NAME or admin/NAME
        #[arg(value_name = "TYPE/NAME")]
        identity: Option<String>,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Make an identity of a certificate that was brought along, without a token
    #[command(
        after_help = "Example:\n  tombolo auth identity create link/B b.pem --address b.example.net:8883"
    )]
    Create {
        /// link/NAME or admin/NAME
        #[arg(value_name = "TYPE/NAME")]
        identity: String,
        /// The certificate, PEM
        file: PathBuf,
        /// Put it into this group; several times for several
        #[arg(long = "group", visible_alias = "auth-group", value_name = "GROUP")]
        groups: Vec<String>,
        /// Of a cluster: where to reach it, which makes the link; several times for several
        #[arg(long = "address", value_name = "HOST:PORT")]
        addresses: Vec<String>,
        /// Of a cluster: what is wanted of it, separated by commas
        #[arg(long, value_name = "FILTERS", value_delimiter = ',')]
        topics: Vec<String>,
        /// Of a cluster: what its Client Identifiers begin with, if not with clink-NAME-
        #[arg(long, value_name = "PREFIX")]
        prefix: Option<String>,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// Delete an identity, its tokens, and the link that it made
    #[command(after_help = "Example:\n  tombolo auth identity delete link/B --yes")]
    Delete(Destroyed),
    /// Trust an identity no more; it stays, so that nobody else comes with its certificate
    #[command(after_help = "Example:\n  tombolo auth identity revoke link/B --yes")]
    Revoke(Destroyed),
    /// Put identities into groups, and take them out
    #[command(after_help = "Example:\n  tombolo auth identity group add tls/B telemetry")]
    Group {
        /// Which of the two.
        #[command(subcommand)]
        command: MembershipCommand,
    },
}

/// An identity.
#[derive(Debug, Args)]
pub struct OneIdentity {
    /// tls/NAME, link/NAME or admin/NAME
    #[arg(value_name = "TYPE/NAME")]
    pub identity: String,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
    /// How it is printed.
    #[command(flatten)]
    pub shown: Shown,
}

/// An identity that is to go.
#[derive(Debug, Args)]
pub struct Destroyed {
    /// tls/NAME, link/NAME or admin/NAME
    #[arg(value_name = "TYPE/NAME")]
    pub identity: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
}

/// `auth identity group …`
#[derive(Debug, Subcommand)]
pub enum MembershipCommand {
    /// Put an identity into a group
    #[command(after_help = "Example:\n  tombolo auth identity group add tls/B telemetry")]
    Add(Membership),
    /// Take an identity out of a group
    #[command(after_help = "Example:\n  tombolo auth identity group remove tls/B telemetry")]
    Remove(Membership),
}

/// An identity and a group.
#[derive(Debug, Args)]
pub struct Membership {
    /// tls/NAME, link/NAME or admin/NAME
    #[arg(value_name = "TYPE/NAME")]
    pub identity: String,
    /// The group
    pub group: String,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
}

impl IdentityCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { unused, broker, shown } => {
                commands::identity_list(&broker.remote(), shown.format, unused.as_deref())
            }
            Self::Show(OneIdentity { identity, broker, shown }) => {
                commands::identity_show(&broker.remote(), shown.format, &identity)
            }
            Self::Info { identity, broker, shown } => {
                commands::identity_info(&broker.remote(), shown.format, identity.as_deref())
            }
            Self::Create { identity, file, groups, addresses, topics, prefix, description, broker } => {
                let order = IdentityOrder { groups, addresses, topics, prefix, description };
                commands::identity_create(&broker.remote(), &identity, &file, order)
            }
            Self::Delete(Destroyed { identity, yes, broker }) => {
                commands::identity_delete(&broker.remote(), &identity, yes)
            }
            Self::Revoke(Destroyed { identity, yes, broker }) => {
                commands::identity_revoke(&broker.remote(), &identity, yes)
            }
            Self::Group { command: MembershipCommand::Add(Membership { identity, group, broker }) } => {
                commands::identity_into(&broker.remote(), &identity, &group)
            }
            Self::Group { command: MembershipCommand::Remove(Membership { identity, group, broker }) } => {
                commands::identity_out_of(&broker.remote(), &identity, &group)
            }
        }
    }
}

/// `auth group …`
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List groups
    #[command(after_help = "Example:\n  tombolo auth group list")]
    List {
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Show a group, its permissions and who is in it
    #[command(after_help = "Example:\n  tombolo auth group show telemetry --format yaml")]
    Show {
        /// Its name
        name: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Make a group without permissions
    #[command(after_help = "Example:\n  tombolo auth group create telemetry --description values")]
    Create {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// Delete a group that nobody is in
    #[command(after_help = "Example:\n  tombolo auth group delete telemetry --yes")]
    Delete {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// Give a group another name, wherever it is named
    #[command(after_help = "Example:\n  tombolo auth group rename telemetry sensors")]
    Rename {
        /// Its name
        name: String,
        /// The other one
        new_name: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// Say what a group is for
    #[command(after_help = "Example:\n  tombolo auth group edit telemetry --description values")]
    Edit {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// Permit more, or less
    #[command(
        after_help = "Example:\n  tombolo auth group permission add telemetry topic telemetry/# can_import"
    )]
    Permission {
        /// Which of the two.
        #[command(subcommand)]
        command: PermissionCommand,
    },
}

/// `auth group permission …`
#[derive(Debug, Subcommand)]
pub enum PermissionCommand {
    /// Permit more: server ENTITLEMENT, link NAME ENTITLEMENT, or topic FILTER ENTITLEMENT [qos=0|1|2]
    #[command(
        after_help = "Example:\n  tombolo auth group permission add telemetry topic telemetry/# can_import qos=1"
    )]
    Add(GroupPermission),
    /// Permit less
    #[command(
        after_help = "Example:\n  tombolo auth group permission remove telemetry topic telemetry/# can_import"
    )]
    Remove(GroupPermission),
}

/// A group and a permission.
#[derive(Debug, Args)]
pub struct GroupPermission {
    /// The group
    pub group: String,
    /// The permission, word by word
    #[arg(value_name = "ENTITY [NAME] ENTITLEMENT [KEY=VALUE]", required = true)]
    pub permission: Vec<String>,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
}

impl GroupCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::List { broker, shown } => commands::group_list(&broker.remote(), shown.format),
            Self::Show { name, broker, shown } => commands::group_show(&broker.remote(), shown.format, &name),
            Self::Create { name, description, broker } => {
                commands::group_create(&broker.remote(), &name, &description)
            }
            Self::Delete { name, yes, broker } => commands::group_delete(&broker.remote(), &name, yes),
            Self::Rename { name, new_name, broker } => {
                commands::group_rename(&broker.remote(), &name, &new_name)
            }
            Self::Edit { name, description, broker } => {
                commands::group_describe(&broker.remote(), &name, &description)
            }
            Self::Permission {
                command: PermissionCommand::Add(GroupPermission { group, permission, broker }),
            } => commands::group_permit(&broker.remote(), &group, &permission),
            Self::Permission {
                command: PermissionCommand::Remove(GroupPermission { group, permission, broker }),
            } => commands::group_forbid(&broker.remote(), &group, &permission),
        }
    }
}

/// `auth permission …`
#[derive(Debug, Subcommand)]
pub enum PermissionsCommand {
    /// List what can be permitted on what, and which groups permit it
    #[command(after_help = "Example:\n  tombolo auth permission list --max-entitlements 0")]
    List {
        /// Entitlements shown of each entity; 0 for all
        #[arg(long, value_name = "N", default_value_t = 3)]
        max_entitlements: usize,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
}

impl PermissionsCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self::List { max_entitlements, broker, shown } = self;
        commands::permission_list(&broker.remote(), shown.format, max_entitlements)
    }
}
