//! CONNECT (MQTT 5.0 section 3.1; 3.1.1 and 3.1 likewise).

use crate::mqtt::encode::put_properties;
use crate::mqtt::error::EncodeError;
use crate::mqtt::packet::Connect;
use crate::mqtt::packet::Version;
use crate::mqtt::packet::Will;
use crate::mqtt::property::PropertyContext;
use crate::mqtt::topic;
use crate::mqtt::wire;

pub(super) fn connect(packet: &Connect<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    check(packet)?;
    let (name, level) = match packet.version {
        Version::V31 => ("MQIsdp", 3),
        Version::V311 => ("MQTT", 4),
        Version::V5 => ("MQTT", 5),
    };
    wire::put_text(name, out)?;
    out.push(level | if packet.bridge { 0x80 } else { 0 });
    out.push(flags(packet));
    out.extend_from_slice(&packet.keep_alive_seconds.to_be_bytes());
    put_properties(packet.properties, PropertyContext::Connect, packet.version, out)?;
    wire::put_text(packet.client_id, out)?;
    if let Some(will) = &packet.will {
        put_will(will, packet.version, out)?;
    }
    if let Some(username) = packet.username {
        wire::put_text(username, out)?;
    }
    if let Some(password) = packet.password {
        wire::put_bytes(password, out)?;
    }
    Ok(())
}

/// What a version cannot say.
fn check(packet: &Connect<'_>) -> Result<(), EncodeError> {
    let allowed = match packet.version {
        Version::V5 => !packet.bridge,
        Version::V311 => !packet.client_id.is_empty() || packet.clean_start,
        Version::V31 => !packet.client_id.is_empty(),
    };
    let password_alone = packet.password.is_some() && packet.username.is_none();
    if !allowed || password_alone && packet.version != Version::V5 {
        return Err(EncodeError::Connect);
    }
    Ok(())
}

fn flags(packet: &Connect<'_>) -> u8 {
    let will = packet.will.as_ref().map_or(0, |will| 1 | (will.qos as u8) << 1 | u8::from(will.retain) << 3);
    u8::from(packet.clean_start) << 1
        | will << 2
        | u8::from(packet.password.is_some()) << 6
        | u8::from(packet.username.is_some()) << 7
}

fn put_will(will: &Will<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    topic::check_name(will.topic).map_err(|_| EncodeError::TopicName)?;
    put_properties(will.properties, PropertyContext::Will, version, out)?;
    wire::put_text(will.topic, out)?;
    wire::put_bytes(will.payload, out)
}
