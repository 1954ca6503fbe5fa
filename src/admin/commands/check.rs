//! `tombolo check`: everything that can be said about a configuration without running it.

use std::path::Path;

use super::Exit;
use super::Failure;
use crate::broker::material::Material;
use crate::config;
use crate::config::Environment;
use crate::config::Point;
use crate::config::Settings;
use crate::config::Sources;
use crate::net::clock;

/// The line of the chapter on security that the files answer for.
const FILES: &str = "Certificates, keys, the password file and the ACL file are as they should be.";

/// Checks a configuration and every file it names, with the code that `serve` starts with. `hardened` confirms each line
/// of the README's chapter on security, and takes every warning for an error.
pub fn check(path: Option<&Path>, hardened: bool) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let sources = Sources::read(path, &environment).map_err(|errors| Failure::config(&errors))?;
    let settings = sources.settings(&environment).map_err(|errors| Failure::config(&errors))?;
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    match Material::load(&settings, clock::now()) {
        Ok(material) => {
            material.notes.iter().for_each(|line| println!("note: {line}"));
            warnings.extend(material.warnings);
        }
        Err(found) => errors.extend(found),
    }
    if hardened {
        return confirm(&settings, errors.into_iter().chain(warnings).collect());
    }
    for line in config::warnings(&settings).iter().chain(&warnings) {
        println!("warning: {line}");
    }
    let unused = sources.trust().map(|(_, book)| book.unused(environment.unix_seconds));
    unused.iter().flatten().for_each(|line| println!("warning: {line}"));
    if !errors.is_empty() {
        return Err(Failure::new(Exit::Usage, errors.join("\n")));
    }
    let (listeners, links) = (settings.listeners.len(), settings.cluster.links.len());
    println!("ok: cluster {}, listeners: {listeners}, links: {links}", settings.cluster.name);
    Ok(())
}

/// Prints each line of the chapter with what breaks it.
fn confirm(settings: &Settings, of_files: Vec<String>) -> Result<(), Failure> {
    let mut points = config::hardened(settings);
    points.push(Point { about: FILES, broken: of_files });
    for (number, point) in (1..).zip(&points) {
        println!("{:4} {number:2}. {}", if point.broken.is_empty() { "ok" } else { "NO" }, point.about);
        for line in point.broken.iter().flat_map(|text| text.lines()) {
            println!("         {line}");
        }
    }
    match points.iter().filter(|point| !point.broken.is_empty()).count() {
        0 => Ok(()),
        broken => Err(Failure::new(Exit::Usage, format!("not hardened: {broken} of {} lines", points.len()))),
    }
}
