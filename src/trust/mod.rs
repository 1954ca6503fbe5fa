//! Trust between clusters: tokens, enrolment, identities, and what an identity may do (`trust.md` part 2).
//!
//! A cluster is told of another by a [`token`] that an operator carries over. Whoever redeems it ([`enroll`]) shows a certificate,
//! and from then on is an [`identity`] that is known by the fingerprint of that certificate. Rights come from groups ([`group`],
//! [`rights`]), never from an identity itself, and become rules of the ACL language ([`generate`]). All of it is one [`book`].
//!
//! A core: the moment, in seconds since the Unix epoch, and random bytes are arguments; the caller reads and writes the file, and
//! talks to the peer.

pub mod address;
pub mod book;
pub mod enroll;
pub mod fingerprint;
pub mod generate;
pub mod group;
pub mod identity;
pub mod leaf;
pub mod name;
pub mod rights;
pub mod rotation;
pub mod secret;
pub mod token;
pub mod uuid;
mod written;

pub use self::fingerprint::Fingerprint;
pub use self::secret::Secret;
pub use self::token::Token;
pub use self::uuid::Uuid;
