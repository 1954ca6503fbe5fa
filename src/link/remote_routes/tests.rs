//! Tests of remote routes.
