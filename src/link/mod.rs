//! EMQX cluster linking: payloads and state machines, pure; driven by `broker`.
