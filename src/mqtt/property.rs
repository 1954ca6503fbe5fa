//! MQTT 5.0 properties (section 2.2.2).
/// A validated run of properties, without its length prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Properties<'a>(&'a [u8]);
