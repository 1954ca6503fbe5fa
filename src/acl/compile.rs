//! Terms to rules (`acl-language.md` sections 1 and 7).

use crate::acl::diagnostic::Code;
use crate::acl::diagnostic::Diagnostic;
use crate::acl::diagnostic::Source;
use crate::acl::diagnostic::Span;
use crate::acl::eval::RuleSet;
use crate::acl::rule::Mode;
use crate::acl::rule::SecurityProfile;

/// How a file is to be understood (`interface.md` section 2, `[authorization]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompileOptions {
    /// Whose semantics.
    pub mode: Mode,
    /// What `{security_profile, …}` sees.
    pub security_profile: SecurityProfile,
}

impl RuleSet {
    /// Compiles a file; on failure all its errors.
    pub fn compile(text: impl AsRef<[u8]>, options: &CompileOptions) -> Result<Self, Vec<Diagnostic>> {
        let text = String::from_utf8_lossy(text.as_ref());
        let mut source = Source::new(&text);
        if !text.trim().is_empty() {
            source.report(Code::E101, Span::default(), "not read yet");
            return Err(source.into_diagnostics());
        }
        Ok(Self {
            rules: Vec::new(),
            mode: options.mode,
            profile: options.security_profile,
            warnings: Vec::new(),
        })
    }
}
