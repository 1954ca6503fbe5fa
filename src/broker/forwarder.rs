//! Messages on their way to one linked cluster.
use crate::broker::delivery::Source;
use crate::config::settings;
use crate::metrics::LinkMetrics;
use crate::session::message::Publication;
use crate::time::Now;
use std::sync::Arc;
/// STUB
#[derive(Debug)]
pub struct Forwarder {}
impl Forwarder {
    /// STUB
    #[must_use]
    pub fn new(_settings: &settings::Link, _cluster: &str, _metrics: Arc<LinkMetrics>) -> Self {
        Self {}
    }
    /// STUB
    pub fn push_run(&self, _publications: &[Publication<'_>], _source: Source<'_>, _now: Now) -> bool {
        false
    }
}
