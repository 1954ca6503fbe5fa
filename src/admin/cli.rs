//! The command line (`interface.md` section 1): its shape and its help. What a command does is in
//! [`commands`].

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::CommandFactory;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;
use clap_complete::Shell;

use crate::admin::cli::acl::AclCommand;
use crate::admin::cli::link::LinkCommand;
use crate::admin::cli::operate::AuthCommand;
use crate::admin::cli::operate::BannedCommand;
use crate::admin::cli::operate::ClientCommand;
use crate::admin::cli::operate::Events;
use crate::admin::cli::operate::RetainedCommand;
use crate::admin::cli::operate::Status;
use crate::admin::cli::operate::SubscriptionCommand;
use crate::admin::cli::operate::Trace;
use crate::admin::cli::store::StoreCommand;
use crate::admin::commands;
use crate::admin::commands::Exit;
use crate::admin::commands::Failure;
use crate::auth::password::hashes::SaltPosition;
use crate::auth::password::import::Made;

pub mod acl;
pub mod link;
pub mod operate;
pub mod store;
pub mod trust;

/// An MQTT broker with cluster linking.
#[derive(Debug, Parser)]
#[command(name = "tombolo", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(after_help = "Example:\n  tombolo serve --config config/tombolo.toml")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker
    ///
    /// Without a file: MQTT on 127.0.0.1:1883 and HTTP on 127.0.0.1:18083, reachable from this machine only,
    /// anonymous clients allowed.
    #[command(after_help = "Example:\n  tombolo serve --config /etc/tombolo/tombolo.toml")]
    Serve(Config),
    /// Run two linked clusters on this machine until Ctrl-C, and print commands to try
    #[command(after_help = "Example:\n  tombolo demo")]
    Demo,
    /// Check configuration, ACL, passwords, certificates and links without running
    #[command(after_help = "Example:\n  tombolo check --config /etc/tombolo/tombolo.toml --hardened")]
    Check {
        /// The file.
        #[command(flatten)]
        config: Config,
        /// Refuse what is allowed but weak
        #[arg(long)]
        hardened: bool,
    },
    /// Work with ACL files and the rules of a running broker
    #[command(after_help = "Example:\n  tombolo acl check acl/acl.conf")]
    Acl {
        /// What to do with it.
        #[command(subcommand)]
        command: AclCommand,
    },
    /// Set or delete a user's password in a password file
    ///
    /// The password is asked for, or read from standard input with --stdin; never taken from the command line.
    #[command(
        after_help = "Example:\n  printf %s \"$PASSWORD\" | tombolo passwd config/passwd sensor-1 --stdin"
    )]
    Passwd(Passwd),
    /// Work with the clients of a running broker
    #[command(after_help = "Example:\n  tombolo client list")]
    Client {
        /// What to do with them.
        #[command(subcommand)]
        command: ClientCommand,
    },
    /// Keep clients out of a running broker
    #[command(after_help = "Example:\n  tombolo banned list")]
    Banned {
        /// What to do.
        #[command(subcommand)]
        command: BannedCommand,
    },
    /// Work with the subscriptions of a running broker
    #[command(after_help = "Example:\n  tombolo subscription list")]
    Subscription {
        /// What to do with them.
        #[command(subcommand)]
        command: SubscriptionCommand,
    },
    /// Work with the retained messages of a running broker
    #[command(after_help = "Example:\n  tombolo retained list")]
    Retained {
        /// What to do with them.
        #[command(subcommand)]
        command: RetainedCommand,
    },
    /// Look at links to other clusters
    #[command(after_help = "Example:\n  tombolo link list")]
    Link {
        /// What to do with them.
        #[command(subcommand)]
        command: LinkCommand,
    },
    /// Show how a running broker does
    #[command(after_help = "Example:\n  tombolo status --format json")]
    Status(Status),
    /// Follow what happens in a running broker: connections, subscriptions, messages and what becomes of them
    ///
    /// Shows what meets every condition given, as it happens, until Ctrl-C. Payloads are never shown. When the broker is
    /// faster than this is read, events are lost and their number is shown.
    #[command(after_help = "Example:\n  tombolo trace --client sensor-1 --for 30s")]
    Trace(Trace),
    /// Show security events: logins, refusals, lock-outs, reloads, revocations, what administrators did
    ///
    /// Shows those that the broker remembers, oldest first: the last 2048 logins, and as many others. Older ones are in
    /// security.jsonl in the data directory.
    #[command(after_help = "Example:\n  tombolo events --since 1h --event authn_login_fail --follow")]
    Events(Events),
    /// Look at the store of a data directory that no broker uses
    #[command(after_help = "Example:\n  tombolo store check data")]
    Store {
        /// What to do with it.
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Say who may operate a broker
    #[command(after_help = "Example:\n  tombolo auth key create grafana")]
    Auth {
        /// What to do.
        #[command(subcommand)]
        command: AuthCommand,
    },
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  tombolo completions bash\n\n\
        bash: source <(tombolo completions bash)\n\
        zsh:  tombolo completions zsh > \"${fpath[1]}/_tombolo\"\n\
        fish: tombolo completions fish > ~/.config/fish/completions/tombolo.fish")]
    Completions {
        /// Which shell
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Print the manual page, or write those of all commands
    #[command(after_help = "Example:\n  tombolo man --out man1")]
    Man {
        /// Write a page for each command into this directory
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct Config {
    /// The configuration file; without it the embedded default
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// `passwd …`
#[derive(Debug, Args)]
pub struct Passwd {
    /// The password file; created with mode 0600 when it is not there
    pub file: PathBuf,
    /// The user
    #[arg(required_unless_present = "import")]
    pub user: Option<String>,
    /// Keep the password before good for this time beside the new one, such as 7d
    #[arg(long, value_name = "TIME", value_parser = crate::config::duration)]
    pub keep_old: Option<Duration>,
    /// Import the users of EMQX's built-in database from CSV (user_id,password_hash,salt,is_superuser) or JSON
    #[arg(long, value_name = "USERS", conflicts_with_all = ["user", "stdin", "delete", "hash", "keep_old"])]
    pub import: Option<PathBuf>,
    /// How the hashes to be imported were made
    #[arg(long, value_enum, requires = "import", default_value_t = Algorithm::Sha256)]
    pub algorithm: Algorithm,
    /// Where the salt stood
    #[arg(long, value_enum, requires = "import", default_value_t = Salt::Prefix)]
    pub salt_position: Salt,
    /// Iterations of pbkdf2
    #[arg(long, requires = "import", default_value_t = 600_000)]
    pub iterations: u32,
    /// The file has passwords in the clear, in the column `password`; they are hashed at once
    #[arg(long, requires = "import")]
    pub plain: bool,
    /// Delete the user
    #[arg(long, conflicts_with_all = ["stdin", "hash", "keep_old"])]
    pub delete: bool,
    /// Read the password from standard input, without one trailing newline
    #[arg(long)]
    pub stdin: bool,
    /// How to hash it
    #[arg(long, value_enum, default_value_t = Hash::Argon2id)]
    pub hash: Hash,
}

/// Hashes that are imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Algorithm {
    /// One round, EMQX's default
    Sha256,
    /// One round
    Sha512,
    /// Cost 10 to 14
    Bcrypt,
    /// With SHA-256, 600,000 iterations or more
    Pbkdf2,
}

/// Where a salt stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Salt {
    /// Before the password, EMQX's default
    Prefix,
    /// Behind it
    Suffix,
    /// Nowhere
    Disable,
}

impl Passwd {
    fn made(&self) -> Option<Made> {
        let position = match self.salt_position {
            Salt::Prefix => SaltPosition::Prefix,
            Salt::Suffix => SaltPosition::Suffix,
            Salt::Disable => SaltPosition::Disable,
        };
        (!self.plain).then_some(match self.algorithm {
            Algorithm::Sha256 => Made::Sha256(position),
            Algorithm::Sha512 => Made::Sha512(position),
            Algorithm::Bcrypt => Made::Bcrypt,
            Algorithm::Pbkdf2 => Made::Pbkdf2(self.iterations),
        })
    }
}

/// Password hashes that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Hash {
    /// For `authentication.password_file`: 19 MiB, two passes, one lane
    Argon2id,
    /// For the `scram` step of `authentication.chain`: 50,000 iterations; printable ASCII only
    #[value(name = "scram-sha-256")]
    ScramSha256,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os()) as u8)
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no error and go to standard output. A closed pipe is not worth a word.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok };
        }
    };
    match dispatch(cli.command) {
        Ok(()) => Exit::Ok,
        Err(Failure { exit, message }) => {
            eprintln!("{message}");
            exit
        }
    }
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(config) => commands::serve(config.config.as_deref()),
        Command::Demo => commands::demo(),
        Command::Check { config, hardened } => commands::check(config.config.as_deref(), hardened),
        Command::Acl { command } => acl::acl(command),
        Command::Passwd(passwd) => run_passwd(&passwd),
        Command::Client { command } => operate::client(command),
        Command::Banned { command } => operate::banned(command),
        Command::Subscription { command } => operate::subscription(command),
        Command::Retained { command } => operate::retained(command),
        Command::Status(status) => operate::status(status),
        Command::Link { command } => link::link(command),
        Command::Trace(trace) => operate::trace(trace),
        Command::Events(events) => operate::events(events),
        Command::Store { command } => store::store(command),
        Command::Auth { command } => operate::auth(command),
        Command::Completions { shell } => commands::completions(Cli::command(), shell),
        Command::Man { out } => commands::man(Cli::command(), out.as_deref()),
    }
}

fn run_passwd(passwd: &Passwd) -> Result<(), Failure> {
    let file = &passwd.file;
    if let Some(from) = &passwd.import {
        return commands::passwd_import(file, from, passwd.made());
    }
    let user = passwd.user.as_deref().unwrap_or_default();
    match passwd.hash {
        _ if passwd.delete => commands::passwd_delete(file, user),
        Hash::Argon2id => commands::passwd_set_argon2id(file, user, passwd.stdin, passwd.keep_old),
        Hash::ScramSha256 if passwd.keep_old.is_some() => {
            Err(Failure::new(Exit::Usage, "--keep-old is for argon2id: SCRAM users have one password"))
        }
        Hash::ScramSha256 => commands::passwd_set_scram(file, user, passwd.stdin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn every_command_has_help_with_an_example() {
        fn visit(command: &clap::Command) {
            let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(example.starts_with("Example:\n  "), "{} has no example", command.get_name());
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
            // An example is a command line that is understood.
            let line = example.lines().nth(1).unwrap_or_default().rsplit("| ").next().unwrap_or_default();
            assert!(parse(line.trim()).is_ok(), "{line}");
            command.get_subcommands().for_each(visit);
        }
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        visit(&command);
    }

    #[test]
    fn usage_errors_exit_with_2_and_help_with_0() {
        let exit = |line: &str| run(line.split(' ').map(OsString::from));
        for line in ["tombolo", "tombolo fly", "tombolo serve --confg x", "tombolo acl", "tombolo passwd f"] {
            assert_eq!(exit(line), Exit::Usage, "{line}");
        }
        assert_eq!(exit("tombolo passwd f u --delete --stdin"), Exit::Usage);
        assert_eq!(exit("tombolo passwd f u --hash md5"), Exit::Usage);
        assert_eq!(exit("tombolo status --url http://127.0.0.1:1 --data data --key a:b"), Exit::Usage);
        assert_eq!(
            exit("tombolo status --url https://127.0.0.1:1 --tls-cert c --tls-keyfile k"),
            Exit::Usage
        );
        assert_eq!(exit("tombolo status --url http://127.0.0.1:1 --key ab"), Exit::Usage);
        assert_eq!(exit("tombolo client list --format xml"), Exit::Usage);
        assert_eq!(exit("tombolo --version"), Exit::Ok);
        assert_eq!(exit("tombolo check --help"), Exit::Ok);
    }

    /// Every command that the help knows is known to the shells and has a manual page.
    #[test]
    fn completions_and_pages_are_made_from_the_commands() {
        fn names(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
            for sub in command.get_subcommands() {
                let page = format!("{path}-{}", sub.get_name());
                found.push((sub.get_name().to_owned(), page.clone()));
                names(sub, &page, found);
            }
        }
        let mut command = Cli::command();
        command.build();
        let mut commands = vec![];
        names(&command, "tombolo", &mut commands);
        assert!(commands.iter().any(|(_, page)| page == "tombolo-auth-key-create"), "{commands:?}");
        for shell in Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "tombolo", &mut script);
            let script = String::from_utf8(script).unwrap();
            for (name, _) in &commands {
                assert!(script.contains(name.as_str()), "{shell}: {name}");
            }
            assert!(script.contains("client"), "{shell}: no options");
        }
        let folder = tempfile::tempdir().unwrap();
        commands::man(Cli::command(), Some(&folder.path().join("man1"))).unwrap();
        for (_, page) in &commands {
            let text = std::fs::read_to_string(folder.path().join(format!("man1/{page}.1"))).unwrap();
            assert!(text.contains("Example:"), "{page} has no example");
        }
    }
}
