//! Drives route replication to one linked cluster.
use crate::broker::routes::RouteChange;
use crate::config::settings;
use crate::link::route::LinkTopics;
/// STUB
#[derive(Debug)]
pub struct Replication {}
impl Replication {
    /// STUB
    #[must_use]
    pub fn new(_settings: &settings::Link, _topics: LinkTopics, _cluster: &str, _node: &str) -> Self {
        Self {}
    }
    /// STUB
    pub fn handle_route_change(&self, _change: &RouteChange) {}
}
