//! `tombolo acl check`: the errors of an ACL file, or what is legal in it but surely not meant.

use std::path::Path;

use super::Exit;
use super::Failure;
use crate::acl::compile::CompileOptions;
use crate::acl::diagnostic::Diagnostic;
use crate::acl::eval::RuleSet;
use crate::acl::lint::Inventory;
use crate::acl::lint::is_failure;
use crate::acl::lint::lint;
use crate::broker::material;

/// Checks a file on its own: exit 2 for errors, and for findings above "info".
pub fn acl_check(file: &Path) -> Result<(), Failure> {
    let name = file.display().to_string();
    let invalid = |lines: Vec<String>| Failure::new(Exit::Usage, lines.join("\n"));
    let text = material::read_acl(file)
        .map_err(|error| invalid(vec![Diagnostic::unreadable(&error.to_string()).render(&name)]))?;
    let rules = RuleSet::compile(&text, &CompileOptions::default())
        .map_err(|errors| invalid(errors.iter().map(|error| error.render(&name)).collect()))?;
    let findings = lint(&rules, &String::from_utf8_lossy(&text), &Inventory::default());
    let lines: Vec<String> = findings.iter().map(|finding| finding.render(&name)).collect();
    if is_failure(&findings) {
        return Err(invalid(lines));
    }
    lines.iter().for_each(|line| println!("{line}"));
    println!("{name}: {} rules, nothing to find fault with", rules.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), Failure> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("acl.conf");
        std::fs::write(&file, text).unwrap();
        acl_check(&file)
    }

    #[test]
    fn a_good_file_is_fine_and_a_bad_one_is_invalid_input() {
        assert_eq!(
            check("{deny, all, all, [\"$LINK/#\"]}.\n{allow, all, all, [\"a/#\"]}.\n{deny, all}.\n"),
            Ok(())
        );
        let failure = check("{deny, all, all, [\"$LINK/#\"]}.\n{alow, all}.\n").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("acl.conf:2:2: "), "{failure}");
        let failure = acl_check(Path::new("/nonexistent/acl.conf")).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
    }

    #[test]
    fn a_finding_is_exit_2_as_well() {
        let failure =
            check("{allow, {clientid, {re, \"clink-A\"}}, all, [\"$LINK/#\"]}.\n{deny, all}.\n").unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("L01"), "{failure}");
    }
}
