//! The EMQX ACL-file language: read, compile, evaluate, lint; and the confinement in front of it.
