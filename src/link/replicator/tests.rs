//! Tests of the replicator.
