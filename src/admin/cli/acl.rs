//! `acl …`: shape and help.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::ArgGroup;
use clap::Args;
use clap::Subcommand;

use crate::acl::eval::Request;
use crate::admin::cli::operate::Broker;
use crate::admin::cli::operate::Shown;
use crate::admin::commands;
use crate::admin::commands::Failure;
use crate::admin::commands::Question;
use crate::auth::certificate;
use crate::mqtt::packet::QoS;

/// `acl …`
#[derive(Debug, Subcommand)]
pub enum AclCommand {
    /// Report the errors of a file, and what is legal but surely not meant
    ///
    /// With --config it is read by that configuration's mode and profile, and its links, listeners and users are
    /// known. Exit 2 for errors, and for findings above "info".
    #[command(
        visible_alias = "lint",
        after_help = "Example:\n  tombolo acl check acl/acl.conf --config config/tombolo.toml"
    )]
    Check {
        /// The ACL file
        file: PathBuf,
        /// The configuration it is for
        #[arg(long, short, value_name = "CONFIG")]
        config: Option<PathBuf>,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Say whether a client may do something, by which rule, and why no rule before it decided
    ///
    /// By a file, or without one by the rules of a running broker. What is said of the client is taken for proved; of a
    /// client that is connected nothing but its Client Identifier need be said. Exit 0 for allow, 3 for deny.
    #[command(
        after_help = "Example:\n  tombolo acl explain acl/acl.conf --clientid sensor-1 --publish plant/1/state"
    )]
    Explain(Box<Explain>),
    /// Show who may do what under $LINK/: each peer on the topics of each cluster
    ///
    /// By a file, or without one by the rules of a running broker.
    #[command(after_help = "Example:\n  tombolo acl matrix acl/link-recipe.conf")]
    Matrix {
        /// The ACL file
        file: Option<PathBuf>,
        /// The configuration it is for
        #[arg(long, short, value_name = "CONFIG", requires = "file")]
        config: Option<PathBuf>,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Show the rules that follow from the links, which are asked before the ACL file
    ///
    /// Of a configuration, or without one of a running broker. Nothing is shown where there are no links.
    #[command(after_help = "Example:\n  tombolo acl show --generated")]
    Show {
        /// Those that are generated
        #[arg(long, required = true)]
        generated: bool,
        /// The configuration whose links are meant
        #[arg(long, short, value_name = "CONFIG")]
        config: Option<PathBuf>,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Print the rules that let this cluster into an EMQX broker at the other end of a link
    ///
    /// To be pasted into its acl.conf, in front of its other rules. This cluster is known there by its username, or by
    /// the common name of its certificate. Of a configuration, or without one of a running broker.
    #[command(after_help = "Example:\n  tombolo acl export --emqx --peer plant-2")]
    Export {
        /// In EMQX's own terms
        #[arg(long, required = true)]
        emqx: bool,
        /// For the peer of this link only
        #[arg(long, value_name = "NAME")]
        peer: Option<String>,
        /// The configuration whose links are meant
        #[arg(long, short, value_name = "CONFIG")]
        config: Option<PathBuf>,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Have a running broker read its ACL file again, and print what changed
    ///
    /// All or nothing: the rules in force stay when anything is wrong with the file. With --shadow another file is
    /// asked beside the rules in force and decides nothing: see `acl shadow`.
    #[command(after_help = "Example:\n  tombolo acl reload --shadow new.conf")]
    Reload {
        /// Ask this file beside the rules in force, and count the verdicts that would change
        #[arg(long, value_name = "FILE")]
        shadow: Option<PathBuf>,
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Work with the rules that are on trial in a running broker
    #[command(after_help = "Example:\n  tombolo acl shadow show")]
    Shadow {
        /// What to do with them.
        #[command(subcommand)]
        command: ShadowCommand,
    },
}

/// `acl shadow …`
#[derive(Debug, Subcommand)]
pub enum ShadowCommand {
    /// Show which verdicts they would change, by rule
    #[command(after_help = "Example:\n  tombolo acl shadow show")]
    Show {
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Write them into the ACL file and put them in force
    #[command(after_help = "Example:\n  tombolo acl shadow apply")]
    Apply {
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// End the trial
    #[command(after_help = "Example:\n  tombolo acl shadow drop")]
    Drop {
        /// Which broker.
        #[command(flatten)]
        broker: Broker,
    },
}

/// `acl explain`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("act").required(true).args(["publish", "subscribe"]))]
pub struct Explain {
    /// The ACL file
    pub file: Option<PathBuf>,
    /// The configuration it is for
    #[arg(long, short, value_name = "CONFIG", requires = "file")]
    pub config: Option<PathBuf>,
    /// Client Identifier
    #[arg(long, value_name = "ID")]
    pub clientid: String,
    /// User Name
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,
    /// Address the client connects from; default 127.0.0.1
    #[arg(long, value_name = "IP")]
    pub peer: Option<IpAddr>,
    /// Listener, as type:name; default tcp:default
    #[arg(long, value_name = "LISTENER")]
    pub listener: Option<String>,
    /// Common name of its certificate
    #[arg(long, value_name = "NAME")]
    pub cn: Option<String>,
    /// SHA-256 of its certificate
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    pub fingerprint: Option<String>,
    /// Attribute of the client; several times for several
    #[arg(long, value_name = "KEY=VALUE", value_parser = attribute)]
    pub attr: Vec<(String, String)>,
    /// It is a superuser
    #[arg(long)]
    pub superuser: bool,
    /// It publishes to this topic
    #[arg(long, value_name = "TOPIC")]
    pub publish: Option<String>,
    /// It subscribes with this filter
    #[arg(long, value_name = "FILTER")]
    pub subscribe: Option<String>,
    /// At this QoS
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// With RETAIN
    #[arg(long, conflicts_with = "subscribe")]
    pub retain: bool,
    /// Which broker.
    #[command(flatten)]
    pub broker: Broker,
    /// How it is printed.
    #[command(flatten)]
    pub shown: Shown,
}

fn fingerprint(text: &str) -> Result<String, certificate::CertificateError> {
    certificate::parse_fingerprint(text).map(|_| text.to_owned())
}

fn attribute(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Runs `acl …`.
pub fn acl(command: AclCommand) -> Result<(), Failure> {
    match command {
        AclCommand::Check { file, config, shown } => {
            commands::acl_check(&file, config.as_deref(), shown.format)
        }
        AclCommand::Explain(asked) => explain(*asked),
        AclCommand::Matrix { file: Some(file), config, shown, .. } => {
            commands::acl_matrix_of(&file, config.as_deref(), shown.format)
        }
        AclCommand::Matrix { broker, shown, .. } => commands::acl_matrix(&broker.remote(), shown.format),
        AclCommand::Show { config, broker, shown, .. } => {
            commands::acl_show(config.as_deref(), &broker.remote(), shown.format)
        }
        AclCommand::Export { peer, config, broker, shown, .. } => {
            commands::acl_export(config.as_deref(), peer.as_deref(), &broker.remote(), shown.format)
        }
        AclCommand::Reload { shadow: Some(file), broker, .. } => commands::acl_try(&broker.remote(), &file),
        AclCommand::Reload { broker, shown, .. } => commands::acl_reload(&broker.remote(), shown.format),
        AclCommand::Shadow { command } => match command {
            ShadowCommand::Show { broker, shown } => commands::acl_tried(&broker.remote(), shown.format),
            ShadowCommand::Apply { broker, shown } => commands::acl_apply(&broker.remote(), shown.format),
            ShadowCommand::Drop { broker } => commands::acl_drop(&broker.remote()),
        },
    }
}

fn explain(asked: Explain) -> Result<(), Failure> {
    let qos = QoS::from_u8(asked.qos).unwrap_or(QoS::AtMostOnce);
    let request = match (&asked.publish, &asked.subscribe) {
        (Some(topic), _) => Request::Publish { topic, qos, retain: asked.retain },
        (None, filter) => Request::Subscribe { filter: filter.as_deref().unwrap_or_default(), qos },
    };
    let question = Question {
        client_id: asked.clientid,
        username: asked.username,
        peer_host: asked.peer,
        listener: asked.listener,
        common_name: asked.cn,
        fingerprint: asked.fingerprint,
        attributes: BTreeMap::from_iter(asked.attr),
        is_superuser: asked.superuser,
    };
    match &asked.file {
        Some(file) => {
            commands::acl_explain_by(file, asked.config.as_deref(), &question, &request, asked.shown.format)
        }
        None => commands::acl_explain(&asked.broker.remote(), &question, &request, asked.shown.format),
    }
}
