//! Reader for Erlang terms.
