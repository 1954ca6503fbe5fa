//! The EMQX ACL-file language: read, compile, evaluate, lint; and the confinement in front of it.
//!
//! By `acl-language.md`. A file becomes terms ([`term`]), terms become typed rules ([`rule`], [`compile`]), and the
//! first rule that matches decides ([`eval`]). [`mod@confine`] stands in front of the file: no rule of a file lets a
//! connection reach another cluster's control topics. [`mod@lint`] finds what is legal but surely not meant,
//! [`mod@explain`] says why something is decided as it is, [`mod@matrix`] who may do what under `$LINK/`, and
//! [`difference`] what a new file changes.
//! Nothing here reads a file or a clock: the caller hands in the bytes.

mod actor;
pub mod compile;
pub mod confine;
mod cover;
pub mod diagnostic;
pub mod difference;
pub mod eval;
pub mod explain;
mod index;
pub mod lint;
pub mod matrix;
pub mod pattern;
mod print;
pub mod rule;
pub mod template;
pub mod term;

pub use self::compile::CompileOptions;
pub use self::confine::Confined;
pub use self::confine::ListenerRole;
pub use self::confine::confine;
pub use self::diagnostic::Diagnostic;
pub use self::eval::DecidedBy;
pub use self::eval::Request;
pub use self::eval::RuleSet;
pub use self::eval::Subject;
pub use self::eval::Verdict;
pub use self::lint::Finding;
pub use self::lint::Inventory;
pub use self::lint::LinkInfo;
pub use self::lint::lint;
pub use self::rule::Mode;
pub use self::rule::Permission;
pub use self::rule::SecurityProfile;
