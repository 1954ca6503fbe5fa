//! `link …`: its shape and help.

use clap::Subcommand;
use clap::ValueEnum;

use super::operate::Broker;
use super::operate::Lines;
use super::operate::Shown;
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
