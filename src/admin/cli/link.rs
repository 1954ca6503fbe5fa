//! `link …`: its shape and help.

use clap::Subcommand;
use clap::ValueEnum;

use super::operate::Broker;
use super::operate::Lines;
use super::operate::Shown;
use super::trust::CertCommand;
use super::trust::CreateLink;
use super::trust::TokenCommand;
use super::trust::TrustLink;
use crate::admin::commands;
use crate::admin::commands::Failure;
use crate::admin::output::Format;
use crate::admin::remote::Remote;

/// `link …`
#[derive(Debug, Subcommand)]
pub enum LinkCommand {
    /// List links with their state, and why one is not active
    #[command(after_help = "Example:\n  tombolo link list")]
    List {
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Show how a link is configured, with its defaults
    #[command(after_help = "Example:\n  tombolo link show B --format yaml")]
    Show(One),
    /// Show how a link is and what it has done
    #[command(after_help = "Example:\n  tombolo link info B")]
    Info(One),
    /// Make a link: with a token of the peer, or by its settings; without either, issue a token for the peer
    #[command(after_help = "Example:\n  tombolo link create B\n  tombolo link create A --token @token\n  \
        tombolo link create B server=b.example.net:8883 topics=global/# \\\n      \
        username=clink-user:A password=@/etc/tombolo/link-b.secret peer.username=clink-user:B \\\n      \
        ssl.cacertfile=/etc/tombolo/ca.pem\n\nThe keys are those of [[cluster.links]]; lists have commas between their items.")]
    Create(Box<CreateLink>),
    /// Let in a peer that has come with a token
    #[command(after_help = "Example:\n  tombolo link approve B")]
    Approve {
        /// The peer's cluster name
        name: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// Work with tokens for peers
    #[command(after_help = "Example:\n  tombolo link token list")]
    Token {
        /// What to do with them.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Trust the servers of a peer by the certificate that they show; whoever dials us is not let in by it
    #[command(
        after_help = "Example:\n  tombolo link trust B --fingerprint sha256:AB12 --address b.example.net:8883"
    )]
    Trust(TrustLink),
    /// Work with the link certificate of this cluster
    #[command(after_help = "Example:\n  tombolo link cert show")]
    Cert {
        /// What to do with it.
        #[command(subcommand)]
        command: CertCommand,
    },
    /// Print what a setting of a link is, its default too
    #[command(after_help = "Example:\n  tombolo link get B topics\n  tombolo link get B peer.username")]
    Get {
        /// The peer's cluster name
        name: String,
        /// Which setting
        #[arg(value_name = "KEY")]
        setting: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// Change settings of a link that is kept in the data directory
    #[command(after_help = "Example:\n  tombolo link set B topics=global/#,cluster/+/status")]
    Set(Settings),
    /// Give settings of such a link their defaults again
    #[command(after_help = "Example:\n  tombolo link unset B export")]
    Unset(Keys),
    /// Delete such a link; its peer is told first
    #[command(after_help = "Example:\n  tombolo link delete B --yes")]
    Delete {
        /// The peer's cluster name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Whether the peer is told, if it can be reached
        #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
        notify_peer: bool,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// Say why a link cannot be renamed: its name is the peer's own
    #[command(after_help = "Example:\n  tombolo link rename B C")]
    Rename {
        /// The peer's cluster name
        name: String,
        /// Another one
        new_name: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// List routes: what the peer wants of us, or we of it
    #[command(after_help = "Example:\n  tombolo link routes B --direction out")]
    Routes {
        /// Whose wishes
        #[arg(long, value_enum, default_value_t = Direction::In)]
        direction: Direction,
        /// Which link.
        #[command(flatten)]
        one: One,
    },
    /// Show what waits for the peer, lane by lane
    #[command(after_help = "Example:\n  tombolo link spool B")]
    Spool(One),
    /// Show where every message for the peer went; `unaccounted` must be 0
    #[command(after_help = "Example:\n  tombolo link ledger B")]
    Ledger(One),
    /// Say why a topic does or does not cross a link, either way
    #[command(after_help = "Example:\n  tombolo link explain plant/1/state --from sensor-1 --peer B")]
    Explain {
        /// The Topic Name of a message
        topic: String,
        /// The client that publishes it here: what the ACL says is shown then
        #[arg(long, value_name = "CLIENT")]
        from: Option<String>,
        /// Which link; all of them otherwise
        #[arg(long, value_name = "NAME")]
        peer: Option<String>,
        /// How to print it
        #[arg(long, value_enum, default_value_t = Lines::Text)]
        format: Lines,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
}

/// A link and what is to be set.
#[derive(Debug, clap::Args)]
pub struct Settings {
    /// The peer's cluster name
    pub name: String,
    /// Settings; a secret may be @FILE, or - for the standard input
    #[arg(value_name = "KEY=VALUE", required = true)]
    pub settings: Vec<String>,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
}

/// A link and which of its settings.
#[derive(Debug, clap::Args)]
pub struct Keys {
    /// The peer's cluster name
    pub name: String,
    /// Which settings
    #[arg(value_name = "KEY", required = true)]
    pub keys: Vec<String>,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
}

/// One link.
#[derive(Debug, clap::Args)]
pub struct One {
    /// The peer's cluster name
    pub name: String,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
    /// How it is printed.
    #[command(flatten)]
    pub shown: Shown,
}

/// Whose wishes a route is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// What the peer wants of us
    In,
    /// What we want of the peer
    Out,
}

/// Runs `link …`.
pub fn link(command: LinkCommand) -> Result<(), Failure> {
    match command {
        LinkCommand::List { broker, shown } => commands::link_list(&broker.remote(), shown.format),
        LinkCommand::Show(one) => one.run(commands::link_show),
        LinkCommand::Create(create) => create.run(),
        LinkCommand::Approve { name, broker } => commands::link_approve(&broker.remote(), &name),
        LinkCommand::Token { command } => command.run(),
        LinkCommand::Trust(trust) => trust.run(),
        LinkCommand::Cert { command } => command.run(),
        LinkCommand::Set(Settings { name, settings, broker }) => {
            commands::link_set(&broker.remote(), &name, &settings)
        }
        LinkCommand::Unset(Keys { name, keys, broker }) => {
            commands::link_unset(&broker.remote(), &name, &keys)
        }
        LinkCommand::Get { name, setting, broker } => commands::link_get(&broker.remote(), &name, &setting),
        LinkCommand::Rename { name, new_name, broker: _ } => Err(commands::link_renamed(&name, &new_name)),
        LinkCommand::Delete { name, yes, notify_peer, broker } => {
            commands::link_delete(&broker.remote(), &name, yes, notify_peer)
        }
        LinkCommand::Info(one) => one.run(commands::link_info),
        LinkCommand::Spool(one) => one.run(commands::link_spool),
        LinkCommand::Ledger(one) => one.run(commands::link_ledger),
        LinkCommand::Routes { direction, one } => {
            let direction = if direction == Direction::In { "in" } else { "out" };
            one.run(|remote, format, name| commands::link_routes(remote, format, name, direction))
        }
        LinkCommand::Explain { topic, from, peer, format, broker } => {
            let json = format == Lines::Json;
            commands::link_explain(&broker.remote(), json, &topic, from.as_deref(), peer.as_deref())
        }
    }
}

impl One {
    fn run(self, show: impl FnOnce(&Remote, Format, &str) -> Result<(), Failure>) -> Result<(), Failure> {
        show(&self.broker.remote(), self.shown.format, &self.name)
    }
}
