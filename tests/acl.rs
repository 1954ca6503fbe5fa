//! The ACL language against its tables (`acl-language.md` sections 5 to 7), data in `tests/fixtures/acl`, and against
//! a slow reference evaluator (section 10).
#![allow(clippy::unwrap_used)]

#[path = "acl/properties.rs"]
mod properties;
#[path = "acl/shipped.rs"]
mod shipped;
#[path = "acl/tables.rs"]
mod tables;
