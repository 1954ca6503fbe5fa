//! Tests of the term reader and writer.
