//! `tombolo check`: everything that can be said about a configuration without running it.

use std::path::Path;

use super::Exit;
use super::Failure;
use super::settings;
use crate::broker::material::Material;
use crate::config;
use crate::net::clock;

/// Checks a configuration and every file it names, with the code that `serve` starts with; `hardened` turns
/// warnings into errors.
pub fn check(path: Option<&Path>, hardened: bool) -> Result<(), Failure> {
    let settings = settings(path)?;
    let (mut errors, mut warnings) = (Vec::new(), config::warnings(&settings));
    match Material::load(&settings, clock::now()) {
        Ok(material) => {
            material.notes.iter().for_each(|line| println!("note: {line}"));
            warnings.extend(material.warnings);
        }
        Err(found) => errors.extend(found),
    }
    if hardened {
        errors.append(&mut warnings);
        errors.extend(config::weaknesses(&settings));
    }
    for line in &warnings {
        println!("warning: {line}");
    }
    if !errors.is_empty() {
        return Err(Failure::new(Exit::Usage, errors.join("\n")));
    }
    let (listeners, links) = (settings.listeners.len(), settings.cluster.links.len());
    println!("ok: cluster {}, listeners: {listeners}, links: {links}", settings.cluster.name);
    Ok(())
}
