//! `tombolo acl check`: the errors of an ACL file, or what is legal in it but surely not meant.

use std::path::Path;

use super::Exit;
use super::Failure;
use crate::acl::compile::CompileOptions;
use crate::acl::compile::FILE_BYTES_MAX;
use crate::acl::diagnostic::Diagnostic;
use crate::acl::eval::RuleSet;
use crate::acl::lint::Inventory;
use crate::acl::lint::Severity;
use crate::acl::lint::lint;

/// What an ACL file is worth: lines to print, and whether it may be used.
pub(super) struct Report {
    /// Errors and findings, rendered.
    pub(super) lines: Vec<String>,
    /// It compiles and nothing in it is an error.
    pub(super) usable: bool,
    /// Number of its rules.
    pub(super) rules: usize,
}

/// Checks a file on its own.
pub fn acl_check(file: &Path) -> Result<(), Failure> {
    let name = file.display().to_string();
    let report = match read(file) {
        Ok(bytes) => judge(&name, &bytes, &CompileOptions::default(), &Inventory::default()),
        Err(diagnostic) => return Err(Failure::new(Exit::Usage, diagnostic.render(&name))),
    };
    if !report.usable {
        return Err(Failure::new(Exit::Usage, report.lines.join("\n")));
    }
    for line in report.lines {
        println!("{line}");
    }
    println!("{name}: {} rules, usable", report.rules);
    Ok(())
}

/// Reads a file, but no more of it than would be refused for its length.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Diagnostic> {
    use std::io::Read;
    let unreadable = |error: std::io::Error| Diagnostic::unreadable(&error.to_string());
    let limit = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::fs::File::open(file).map_err(unreadable)?.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// Compiles and lints `bytes`, a file called `name`.
pub(super) fn judge(name: &str, bytes: &[u8], options: &CompileOptions, inventory: &Inventory) -> Report {
    match RuleSet::compile(bytes, options) {
        Err(errors) => {
            let lines = errors.iter().map(|error| error.render(name)).collect();
            Report { lines, usable: false, rules: 0 }
        }
        Ok(rules) => {
            let findings = lint(&rules, &String::from_utf8_lossy(bytes), inventory);
            let warnings = rules.warnings().iter().map(|warning| warning.render(name));
            let lines = warnings.chain(findings.iter().map(|finding| finding.render(name))).collect();
            let usable = findings.iter().all(|finding| finding.severity != Severity::Error);
            Report { lines, usable, rules: rules.len() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_file_is_usable_and_a_bad_one_is_invalid_input() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("acl.conf");
        std::fs::write(&file, "{deny, all, all, [\"$LINK/#\"]}.\n{allow, all}.\n").unwrap();
        assert_eq!(acl_check(&file), Ok(()));
        std::fs::write(&file, "{deny, all, all, [\"$LINK/#\"]}.\n{alow, all}.\n").unwrap();
        let failure = acl_check(&file).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.starts_with(&format!("{}:2:2: ", file.display())), "{failure}");
        let failure = acl_check(&dir.path().join("none")).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }
}
