//! What the subcommands do, and how they end.

use std::path::Path;

use crate::config;
use crate::config::ConfigError;
use crate::config::Environment;
use crate::config::Settings;

pub use self::acl::Question;
pub use self::acl::acl_apply;
pub use self::acl::acl_check;
pub use self::acl::acl_drop;
pub use self::acl::acl_explain;
pub use self::acl::acl_explain_by;
pub use self::acl::acl_export;
pub use self::acl::acl_matrix;
pub use self::acl::acl_matrix_of;
pub use self::acl::acl_reload;
pub use self::acl::acl_show;
pub use self::acl::acl_tried;
pub use self::acl::acl_try;
pub use self::check::check;
pub use self::demo::demo;
pub use self::describe::completions;
pub use self::describe::man;
pub use self::events::events;
pub use self::key::key_create;
pub use self::key::key_delete;
pub use self::key::key_list;
pub use self::link::link_explain;
pub use self::link::link_info;
pub use self::link::link_ledger;
pub use self::link::link_list;
pub use self::link::link_routes;
pub use self::link::link_show;
pub use self::link::link_spool;
pub use self::link_change::link_create;
pub use self::link_change::link_delete;
pub use self::link_change::link_get;
pub use self::link_change::link_renamed;
pub use self::link_change::link_set;
pub use self::link_change::link_unset;
pub use self::operate::auth_unlock;
pub use self::operate::banned_create;
pub use self::operate::banned_delete;
pub use self::operate::banned_list;
pub use self::operate::client_kick;
pub use self::operate::client_list;
pub use self::operate::client_show;
pub use self::operate::retained_delete;
pub use self::operate::retained_list;
pub use self::operate::status;
pub use self::operate::subscription_list;
pub use self::passwd::passwd_delete;
pub use self::passwd::passwd_set_argon2id;
pub use self::passwd::passwd_set_scram;
pub use self::passwd_import::passwd_import;
pub use self::serve::serve;
pub use self::store::store_check;
pub use self::store::store_export;
pub use self::store::store_stats;
pub use self::trace::trace;
pub use self::trust::IdentityOrder;
pub use self::trust::JoinOrder;
pub use self::trust::TokenOrder;
pub use self::trust::cert_import;
pub use self::trust::cert_rotate;
pub use self::trust::cert_show;
pub use self::trust::group_create;
pub use self::trust::group_delete;
pub use self::trust::group_describe;
pub use self::trust::group_forbid;
pub use self::trust::group_list;
pub use self::trust::group_permit;
pub use self::trust::group_rename;
pub use self::trust::group_show;
pub use self::trust::identity_create;
pub use self::trust::identity_delete;
pub use self::trust::identity_info;
pub use self::trust::identity_into;
pub use self::trust::identity_list;
pub use self::trust::identity_out_of;
pub use self::trust::identity_revoke;
pub use self::trust::identity_show;
pub use self::trust::link_approve;
pub use self::trust::link_distrust;
pub use self::trust::link_issue;
pub use self::trust::link_join;
pub use self::trust::link_trust;
pub use self::trust::permission_list;
pub use self::trust::token_list;
pub use self::trust::token_revoke;

mod acl;
mod check;
mod demo;
mod describe;
mod events;
mod key;
mod link;
mod link_change;
mod operate;
mod passwd;
mod passwd_import;
mod serve;
mod store;
mod trace;
mod trust;

/// How the program ends (`interface.md` section 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It went well.
    Ok = 0,
    /// Something else failed.
    Other = 1,
    /// The command line or an input is wrong.
    Usage = 2,
    /// Denied.
    Denied = 3,
    /// Not found.
    NotFound = 4,
    /// Conflict.
    Conflict = 5,
    /// The peer refused.
    PeerRefused = 6,
    /// The peer's certificate is not the one that was announced.
    FingerprintMismatch = 7,
    /// The token is expired or used.
    Token = 8,
}

/// Why a command did not do what it was asked; the message goes to standard error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What to tell.
    pub message: String,
}

impl Failure {
    /// A failure with its exit code.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    fn config(errors: &[ConfigError]) -> Self {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Self::new(Exit::Usage, lines.join("\n"))
    }
}

/// Reads the configuration as every command does.
fn settings(config: Option<&Path>) -> Result<Settings, Failure> {
    config::load(config, &Environment::of_process()).map_err(|errors| Failure::config(&errors))
}
