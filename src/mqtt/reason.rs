//! Reason Codes (MQTT 5.0 section 2.4).
/// A Reason Code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ReasonCode {
    /// Success.
    Success = 0,
}
