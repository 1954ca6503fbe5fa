//! `completions` and `man`: what the command line says about itself, in the forms of shells and of `man`.

use std::fs;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use super::Exit;
use super::Failure;
use crate::admin::output;

/// Prints the completions of a shell.
pub fn completions(mut command: Command, shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "tombolo", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

/// Prints the manual page of the program, or writes one for each command into a directory.
pub fn man(command: Command, out: Option<&Path>) -> Result<(), Failure> {
    let Some(directory) = out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(|error| Failure::new(Exit::Other, format!("the manual page: {error}")))?;
        return output::print(&String::from_utf8_lossy(&page));
    };
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .map_err(|error| Failure::new(Exit::Other, format!("{}: {error}", directory.display())))
}
