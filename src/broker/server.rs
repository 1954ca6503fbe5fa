//! Builds a broker and opens its listeners.
