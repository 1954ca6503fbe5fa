//! `store …`: shape and help.

use std::path::PathBuf;

use clap::Args;
use clap::Subcommand;

use crate::admin::cli::operate::Shown;
use crate::admin::commands;
use crate::admin::commands::Failure;

/// `store …`
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read everything and say what is damaged, with file and offset
    ///
    /// Nothing is changed. Exit 1 if anything is damaged. A torn tail is no damage: it is the last that a broker was
    /// writing when it was killed or the power went, and was not acknowledged.
    #[command(after_help = "Example:\n  tombolo store check --config /etc/tombolo/tombolo.toml")]
    Check(Which),
    /// Show how much is stored, and how much of the files is still wanted
    #[command(after_help = "Example:\n  tombolo store stats data --format json")]
    Stats {
        /// Which store.
        #[command(flatten)]
        which: Which,
        /// How it is printed.
        #[command(flatten)]
        shown: Shown,
    },
    /// Print every entry as one line of JSON: table, key, value, and the number and bytes of its message
    ///
    /// Keys and values are text where they are, else Base64 under `key_base64` and `value_base64`. The messages themselves
    /// are not printed.
    #[command(after_help = "Example:\n  tombolo store export data")]
    Export(Which),
}

/// Which store.
#[derive(Debug, Args)]
pub struct Which {
    /// The data directory
    #[arg(conflicts_with = "config")]
    pub dir: Option<PathBuf>,
    /// The configuration file that names it; without either, the embedded default's
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

pub(super) fn store(command: StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Check(which) => commands::store_check(which.dir, which.config.as_deref()),
        StoreCommand::Stats { which, shown } => {
            commands::store_stats(which.dir, which.config.as_deref(), shown.format)
        }
        StoreCommand::Export(which) => commands::store_export(which.dir, which.config.as_deref()),
    }
}
