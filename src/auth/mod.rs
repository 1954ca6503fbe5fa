//! Who is this: password file, client certificates, and which peer cluster a connection is bound to.
