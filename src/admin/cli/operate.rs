//! The commands that operate a running broker: their shape and help.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::Subcommand;
use clap::ValueEnum;

use super::trust::GroupCommand;
use super::trust::IdentityCommand;
use super::trust::PermissionsCommand;
use crate::admin::commands;
use crate::admin::commands::Failure;
use crate::admin::output::Format;
use crate::admin::remote::Access;
use crate::admin::remote::Credentials;
use crate::admin::remote::Remote;
use crate::admin::remote::Url;
use crate::config;
use crate::trust::Fingerprint;

/// Which broker.
#[derive(Debug, Args)]
pub struct Broker {
    /// The data directory of the broker, whose admin socket is used
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// Another socket of the broker, such as that of viewers (`http.viewer_socket`)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "url"])]
    pub socket: Option<PathBuf>,
    /// Another way to the broker, such as http://127.0.0.1:18083 or https://192.0.2.10:18084
    #[arg(long, conflicts_with = "data")]
    pub url: Option<Url>,
    /// API key and secret for --url; better in the environment than on the command line
    #[arg(long, value_name = "KEY:SECRET", env = "TOMBOLO_KEY", hide_env_values = true)]
    pub key: Option<Credentials>,
    /// For https: your certificate, PEM, instead of an API key
    #[arg(long, value_name = "FILE", requires_all = ["url", "tls_keyfile"])]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_keyfile: Option<PathBuf>,
    /// For https: SHA-256 of the broker's certificate, as `tombolo link cert show` has it there
    #[arg(long, value_name = "SHA256", requires = "url")]
    pub tls_fingerprint: Option<Fingerprint>,
}

impl Broker {
    pub(super) fn remote(self) -> Remote {
        let certificate = self.tls_cert.zip(self.tls_keyfile);
        match self.url {
            Some(url) => Remote::Http(
                url,
                Box::new(Access { key: self.key, certificate, server: self.tls_fingerprint }),
            ),
            None => self.socket.map_or(Remote::Data(self.data), Remote::Socket),
        }
    }
}

/// How it is printed.
#[derive(Debug, Clone, Copy, Args)]
pub struct Shown {
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// `client …`
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// List clients, connected or not
    #[command(after_help = "Example:\n  tombolo client list --like sensor-")]
    List {
        /// Only clients of this user
        #[arg(long)]
        username: Option<String>,
        /// Only Client Identifiers that contain this
        #[arg(long, value_name = "TEXT")]
        like: Option<String>,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Show one client with its subscriptions
    #[command(after_help = "Example:\n  tombolo client show sensor-1")]
    Show {
        /// Its Client Identifier
        id: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Disconnect a client and end its session
    #[command(after_help = "Example:\n  tombolo client kick sensor-1")]
    Kick {
        /// Its Client Identifier
        id: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
}

/// `banned …`
#[derive(Debug, Subcommand)]
pub enum BannedCommand {
    /// List bans
    #[command(after_help = "Example:\n  tombolo banned list --format csv")]
    List {
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Ban clients and disconnect those who are connected; bans end with the broker's process
    #[command(after_help = "Example:\n  tombolo banned create clientid sensor-1 --for 1h")]
    Create {
        /// What WHO is
        #[arg(value_name = "AS")]
        kind: Bannable,
        /// Whom: a name, an address, a block such as 10.0.0.0/8, a regular expression, a certificate's SHA-256
        who: String,
        /// For how long, such as 30m or 7d; default: for good
        #[arg(long = "for", value_name = "DURATION", value_parser = crate::config::duration)]
        duration: Option<Duration>,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
    /// Lift a ban
    #[command(after_help = "Example:\n  tombolo banned delete clientid sensor-1")]
    Delete {
        /// What WHO is
        #[arg(value_name = "AS")]
        kind: Bannable,
        /// Whom, as listed
        who: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
}

/// What of a client a ban names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Bannable {
    /// Client Identifier
    Clientid,
    /// User Name
    Username,
    /// Address
    Peerhost,
    /// Regular expression of Client Identifiers
    ClientidRe,
    /// Regular expression of User Names
    UsernameRe,
    /// Block of addresses
    PeerhostNet,
    /// SHA-256 of the client certificate
    Fingerprint,
    /// A client that came and went too often; only to lift such a ban
    Flapping,
}

impl Bannable {
    fn name(self) -> &'static str {
        match self {
            Self::Clientid => "clientid",
            Self::Username => "username",
            Self::Peerhost => "peerhost",
            Self::ClientidRe => "clientid_re",
            Self::UsernameRe => "username_re",
            Self::PeerhostNet => "peerhost_net",
            Self::Fingerprint => "fingerprint",
            Self::Flapping => "flapping",
        }
    }
}

/// `subscription …`
#[derive(Debug, Subcommand)]
pub enum SubscriptionCommand {
    /// List subscriptions
    #[command(after_help = "Example:\n  tombolo subscription list --client sensor-1 --format csv")]
    List {
        /// Only those of this client
        #[arg(long, value_name = "ID")]
        client: Option<String>,
        /// Only those that have a topic in common with this filter
        #[arg(long, value_name = "FILTER")]
        topic: Option<String>,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
}

/// `retained …`
#[derive(Debug, Subcommand)]
pub enum RetainedCommand {
    /// List retained messages
    #[command(after_help = "Example:\n  tombolo retained list --topic plant/#")]
    List {
        /// Only topics that match this filter
        #[arg(long, value_name = "FILTER")]
        topic: Option<String>,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Delete the retained message of a topic
    #[command(after_help = "Example:\n  tombolo retained delete plant/1/state")]
    Delete {
        /// The topic
        topic: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
}

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
    /// How it is printed.
    #[command(flatten)]
    pub shown: Shown,
}

/// `trace`
#[derive(Debug, Args)]
pub struct Trace {
    /// Only what this client does and what becomes of its messages
    #[arg(long, value_name = "ID")]
    pub client: Option<String>,
    /// Only messages whose topics match this filter, and subscriptions that have a topic in common with it
    #[arg(long, value_name = "FILTER")]
    pub topic: Option<String>,
    /// Only clients from this address or block of addresses, such as 10.0.0.0/8
    #[arg(long, value_name = "CIDR")]
    pub address: Option<String>,
    /// Only what comes from and goes to this linked cluster
    #[arg(long, value_name = "NAME")]
    pub link: Option<String>,
    /// End after this time, such as 30s; otherwise at Ctrl-C
    #[arg(long = "for", value_name = "TIME", value_parser = config::duration)]
    pub time: Option<Duration>,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Lines::Text)]
    pub format: Lines,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
}

/// `events`
#[derive(Debug, Args)]
pub struct Events {
    /// Which type: security, or link for what links became
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Not those longer ago than this, such as 1h, or before this moment
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only those of this name, such as authn_login_fail
    #[arg(long, value_name = "NAME")]
    pub event: Option<String>,
    /// Go on with those that come, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// How to print them
    #[arg(long, value_enum, default_value_t = Lines::Text)]
    pub format: Lines,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
}

/// How events are printed, one on each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Lines {
    /// For people
    Text,
    /// As the broker sends them
    Json,
}

/// `auth …`
#[derive(Debug, Subcommand)]
pub enum AuthCommand {
    /// Work with API keys
    #[command(after_help = "Example:\n  tombolo auth key list")]
    Key {
        /// What to do with them.
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Work with identities: peers and operators that are known by their certificates
    #[command(after_help = "Example:\n  tombolo auth identity list")]
    Identity {
        /// What to do with them.
        #[command(subcommand)]
        command: IdentityCommand,
    },
    /// Work with groups, which permit things to the identities in them
    #[command(after_help = "Example:\n  tombolo auth group list")]
    Group {
        /// What to do with them.
        #[command(subcommand)]
        command: GroupCommand,
    },
    /// Look at permissions
    #[command(after_help = "Example:\n  tombolo auth permission list")]
    Permission {
        /// What to do with them.
        #[command(subcommand)]
        command: PermissionsCommand,
    },
    /// Let a user try to log in again of whom too many attempts failed
    #[command(after_help = "Example:\n  tombolo auth unlock sensor-1")]
    Unlock {
        /// The user
        username: String,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
}

/// `auth key …`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print its secret, which is shown once
    #[command(after_help = "Example:\n  tombolo auth key create grafana")]
    Create {
        /// What it is for
        name: String,
        /// The data directory of the broker
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// List keys
    #[command(after_help = "Example:\n  tombolo auth key list --format json")]
    List {
        /// The data directory of the broker
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Delete a key; it is refused from then on
    #[command(after_help = "Example:\n  tombolo auth key delete 0123456789abcdef")]
    Delete {
        /// The key, without its secret
        id: String,
        /// The data directory of the broker
        #[arg(long, value_name = "DIR", default_value = "data")]
        data: PathBuf,
    },
}

/// Runs `client …`.
pub fn client(command: ClientCommand) -> Result<(), Failure> {
    match command {
        ClientCommand::List { username, like, broker, shown } => {
            let filters = [("username", username.as_deref()), ("like_clientid", like.as_deref())];
            commands::client_list(&broker.remote(), shown.format, &filters)
        }
        ClientCommand::Show { id, broker, shown } => {
            commands::client_show(&broker.remote(), shown.format, &id)
        }
        ClientCommand::Kick { id, broker } => commands::client_kick(&broker.remote(), &id),
    }
}

/// Runs `banned …`.
pub fn banned(command: BannedCommand) -> Result<(), Failure> {
    match command {
        BannedCommand::List { broker, shown } => commands::banned_list(&broker.remote(), shown.format),
        BannedCommand::Create { kind, who, duration, reason, broker } => {
            // Less than a second is one.
            let seconds = duration.map(|duration| duration.as_secs().max(1));
            commands::banned_create(&broker.remote(), kind.name(), &who, reason.as_deref(), seconds)
        }
        BannedCommand::Delete { kind, who, broker } => {
            commands::banned_delete(&broker.remote(), kind.name(), &who)
        }
    }
}

/// Runs `subscription …`.
pub fn subscription(command: SubscriptionCommand) -> Result<(), Failure> {
    let SubscriptionCommand::List { client, topic, broker, shown } = command;
    let filters = [("clientid", client.as_deref()), ("match_topic", topic.as_deref())];
    commands::subscription_list(&broker.remote(), shown.format, &filters)
}

/// Runs `retained …`.
pub fn retained(command: RetainedCommand) -> Result<(), Failure> {
    match command {
        RetainedCommand::List { topic, broker, shown } => {
            commands::retained_list(&broker.remote(), shown.format, &[("topic", topic.as_deref())])
        }
        RetainedCommand::Delete { topic, broker } => commands::retained_delete(&broker.remote(), &topic),
    }
}

/// Runs `status`.
pub fn status(status: Status) -> Result<(), Failure> {
    commands::status(&status.broker.remote(), status.shown.format)
}

/// Runs `trace`.
pub fn trace(trace: Trace) -> Result<(), Failure> {
    let Trace { client, topic, address, link, time, format, broker } = trace;
    let conditions = [("clientid", client), ("topic", topic), ("ip_address", address), ("link", link)];
    commands::trace(broker.remote(), &conditions, time, format)
}

/// Runs `events`.
pub fn events(events: Events) -> Result<(), Failure> {
    let Events { kind, since, event, follow, format, broker } = events;
    let conditions = [("type", kind), ("since", since), ("event", event)];
    commands::events(broker.remote(), &conditions, follow, format)
}

/// Runs `auth …`.
pub fn auth(command: AuthCommand) -> Result<(), Failure> {
    let command = match command {
        AuthCommand::Key { command } => command,
        AuthCommand::Unlock { username, broker } => {
            return commands::auth_unlock(&broker.remote(), &username);
        }
        AuthCommand::Identity { command } => return command.run(),
        AuthCommand::Group { command } => return command.run(),
        AuthCommand::Permission { command } => return command.run(),
    };
    match command {
        KeyCommand::Create { name, data, shown } => commands::key_create(&data, &name, shown.format),
        KeyCommand::List { data, shown } => commands::key_list(&data, shown.format),
        KeyCommand::Delete { id, data } => commands::key_delete(&data, &id),
    }
}
