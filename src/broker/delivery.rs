//! A run of messages to everybody who wants it: local clients, one member of each shared group, linked
//! clusters. Downward once: the publisher's task does all of it by plain calls.

use std::slice;
use std::sync::Arc;

use rapidhash::v3::rapidhash_v3;
use smallvec::SmallVec;

use crate::broker::Broker;
use crate::broker::Targets;
use crate::broker::client::Client;
use crate::broker::counts::Counts;
use crate::broker::identity::Identity;
use crate::broker::shared::ClientKey;
use crate::broker::shared::SharedGroup;
use crate::broker::shared::Start;
use crate::broker::trace::watch::Nobody;
use crate::broker::trace::watch::Watch;
use crate::config::settings::SharedStrategy;
use crate::metrics::labels::DropReason;
use crate::mqtt::packet::Version;
use crate::mqtt::reason::ReasonCode;
use crate::mqtt::topic::ParsedFilter;
use crate::session::frames::Run;
use crate::session::frames::RunFrames;
use crate::session::message::Publication;
use crate::session::outbound::Grant;
use crate::session::queue::Owed;
use crate::session::tally;
use crate::session::tally::Tally;
use crate::storage::store::Burst;
use crate::time::Now;

/// Where a message came from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A client of ours, now or, for a Will, before.
    Client(&'a Identity, ClientKey),
    /// The linked cluster of this name: never forwarded again, so that nothing can go round.
    Link(&'a str),
    /// This broker itself: not forwarded either.
    Broker,
}

impl<'a> Source<'a> {
    fn key(&self) -> Option<ClientKey> {
        match self {
            Self::Client(_, key) => Some(*key),
            Self::Link(_) | Self::Broker => None,
        }
    }

    /// The publishing client, if it is one of ours.
    #[must_use]
    pub fn identity(&self) -> Option<&'a Identity> {
        match self {
            Self::Client(identity, _) => Some(identity),
            Self::Link(_) | Self::Broker => None,
        }
    }

    /// What the publisher speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.identity().map_or(Version::V5, |identity| identity.version)
    }
}

/// Whom a run reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// There was nobody to deliver it to.
    Nobody,
    /// At least one client or linked cluster got it or is owed it.
    Somebody,
}

impl Reached {
    /// The Reason Code of the acknowledgement (sections 3.4.2.1 and 3.5.2.1).
    #[must_use]
    pub fn reason(self) -> ReasonCode {
        match self {
            Self::Nobody => ReasonCode::NoMatchingSubscribers,
            Self::Somebody => ReasonCode::Success,
        }
    }
}

impl Broker {
    /// Delivers a run to every session with a matching subscription, connected or not (`[MQTT-4.5.0-1]`): one copy for
    /// all ordinary subscriptions of a client, and one for each Shared Subscription that chooses it, with that one's
    /// own identifier (`[MQTT-3.3.4-5]`). The indices of messages that the full spool of a link refused are added to `refused`:
    /// their publisher is to know.
    pub(super) fn deliver(
        &self,
        run: &mut Run<'_, '_>,
        targets: &Targets,
        source: Source<'_>,
        now: Now,
        tally: &mut Tally,
        refused: &mut Vec<usize>,
    ) -> Reached {
        if self.is_watched(run) {
            return self.deliver_watched(run.publications(), targets, source, now, tally, refused);
        }
        self.deliver_to(run, targets, source, now, tally, refused, &mut Nobody)
    }

    /// The same, and `watch` looks on.
    #[expect(clippy::too_many_arguments, reason = "one delivery is the meeting point of all of these")]
    pub(super) fn deliver_to(
        &self,
        run: &mut Run<'_, '_>,
        targets: &Targets,
        source: Source<'_>,
        now: Now,
        tally: &mut Tally,
        refused: &mut Vec<usize>,
        watch: &mut impl Watch,
    ) -> Reached {
        let publisher = source.key();
        let burst = self.begin();
        let mut matched = false;
        run.set_sole(targets.clients.len() == 1);
        for target in &targets.clients {
            let Some(grant) = target.grant_for(publisher) else { continue };
            matched = true;
            let grant = Grant {
                qos: grant.qos,
                retain_as_published: grant.retain_as_published,
                subscription_ids: &grant.subscription_ids,
                shared: None,
            };
            target.destination.deliver_run(run, &grant, burst.as_ref(), now, tally);
            watch.handed(&target.destination, tally);
        }
        if !targets.shared.is_empty() {
            let strategy = self.limits().shared_strategy;
            for group in &targets.shared {
                let burst = burst.as_ref();
                matched |=
                    deliver_shared(group, strategy, run.publications(), source, burst, now, tally, watch);
            }
        }
        let local = if matched { Reached::Somebody } else { Reached::Nobody };
        if targets.links.is_empty() || source.identity().is_none() {
            return local;
        }
        if self.load.is_critical() {
            // Spools do not grow either: of Wills, delayed messages and those of operators.
            self.links.turn_away(&targets.links, run.publications().len() as u64);
            return local;
        }
        let told = |cluster: &str, reached| watch.forwarded(cluster, reached);
        match self.links.forward(&targets.links, run.publications(), source, now, refused, told) {
            Reached::Nobody => local,
            linked => linked,
        }
    }

    /// Gives what a member that is gone for good did not finish to another (section 4.8.2). `[MQTT-4.8.2-5]` was
    /// heeded by [`crate::session::Session::take_shared`].
    pub(super) fn pass_on(&self, orphans: &[Owed], now: Now) {
        let mut counts = Counts::default();
        let mut lost = 0;
        let burst = self.begin();
        for owed in orphans {
            if owed.is_over(now) {
                counts.tally.drop(tally::DropReason::Expired, 1);
                continue;
            }
            let parsed = owed.shared.as_ref().and_then(|whole| ParsedFilter::parse(whole).ok());
            let group = parsed.and_then(|parsed| self.routes.group(parsed.filter, parsed.share?));
            let fetched = owed.message.body_elsewhere().map(|body| self.message(body, now));
            let message = match &fetched {
                Some(None) => continue, // counted as damaged
                Some(Some(message)) => message,
                None => &owed.message,
            };
            let one = [message.view()];
            let delivered = group.is_some_and(|group| {
                deliver_shared(
                    &group,
                    SharedStrategy::RoundRobin,
                    &one,
                    Source::Broker,
                    burst.as_ref(),
                    now,
                    &mut counts.tally,
                    &mut Nobody,
                )
            });
            lost += u64::from(!delivered);
        }
        self.metrics.broker.messages_dropped[DropReason::SessionEnded].add(lost);
        counts.report(&self.metrics);
    }

    /// Publishes one message that no PUBLISH of a burst brought: a Will, a message of our own.
    pub(super) fn publish_one(&self, publication: &Publication<'_>, source: Source<'_>, now: Now) {
        let mut frames = RunFrames::default();
        let publications = [*publication];
        let mut run = Run::new(&publications, &mut frames, now);
        let mut counts = Counts::default();
        let routed = self.routes.targets(publication.topic);
        // Nobody waits for an answer.
        let mut refused = Vec::new();
        let tally = &mut counts.tally;
        if self.deliver(&mut run, &routed.targets, source, now, tally, &mut refused) == Reached::Nobody {
            counts.no_subscribers += 1;
        }
        counts.report(&self.metrics);
    }
}

/// One member of the group gets each message, at the QoS granted to it (`[MQTT-4.8.2-3]`): a connected one if
/// there is any. Whether somebody got or will get one.
#[expect(clippy::too_many_arguments, reason = "one delivery is the meeting point of all of these")]
fn deliver_shared(
    group: &SharedGroup<Arc<Client>>,
    strategy: SharedStrategy,
    publications: &[Publication<'_>],
    source: Source<'_>,
    burst: Option<&Burst<'_>>,
    now: Now,
    tally: &mut Tally,
    watch: &mut impl Watch,
) -> bool {
    let mut frames = RunFrames::default();
    let mut matched = false;
    for publication in publications {
        let start = start(strategy, publication, source);
        let Some(member) = group.pick(start, |client| client.eligibility()) else { continue };
        matched = true;
        let ids: &[u32] = &member.id.map(u32::from).into_iter().collect::<SmallVec<[u32; 1]>>();
        let grant = Grant {
            qos: member.options.qos,
            retain_as_published: member.options.retain_as_published,
            subscription_ids: ids,
            shared: Some(group.whole()),
        };
        let one = slice::from_ref(publication);
        member.destination.deliver_run(&mut Run::new(one, &mut frames, now), &grant, burst, now, tally);
        watch.handed(&member.destination, tally);
    }
    matched
}

/// Where the search for a member begins. A message of a link has no Client Identifier here: its topic stands in.
fn start(strategy: SharedStrategy, publication: &Publication<'_>, source: Source<'_>) -> Start {
    let hash = |text: &str| Start::Hash(rapidhash_v3(text.as_bytes()));
    match strategy {
        SharedStrategy::RoundRobin => Start::Turn,
        SharedStrategy::Random => Start::Anywhere,
        SharedStrategy::Sticky => Start::Last,
        SharedStrategy::HashTopic => hash(publication.topic),
        SharedStrategy::HashClientId => {
            hash(source.identity().map_or(publication.topic, |identity| &identity.client_id))
        }
    }
}
