//! Subscriptions that an operator makes and ends for a client, as EMQX's API does. The ACL is not asked, for the
//! operator is whoever holds an API key; `$LINK/` stays closed, and so does what the settings do not offer.

use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::client::Client;
use crate::broker::filters::AskedFilter;
use crate::broker::inspect::SubscriptionView;
use crate::broker::replay::REPLAYS_MAX;
use crate::broker::replay::Replay;
use crate::mqtt::packet::RetainHandling;
use crate::mqtt::packet::SubscriptionOptions;
use crate::mqtt::topic;
use crate::mqtt::topic::ParsedFilter;
use crate::mqtt::topic::TopicError;
use crate::session::Subscription;

/// Why a subscription was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// There is no such client.
    #[error("Client ID not found")]
    NoClient,
    /// No Topic Filter.
    #[error("topic: {0}")]
    Filter(#[from] TopicError),
    /// What belongs to links.
    #[error("topic: `$LINK/` is not subscribed to")]
    Reserved,
    /// What the settings do not offer.
    #[error("topic: {0} does not allow it")]
    Setting(&'static str),
    /// `[MQTT-3.8.3-4]`
    #[error("nl: a shared subscription has no No Local")]
    NoLocal,
    /// `mqtt.max_subscriptions`, or somebody else has it exclusively.
    #[error("the client has as many subscriptions as it may, or another has this one exclusively")]
    Quota,
}

impl Broker {
    /// Subscribes a client, connected or not; retained messages are sent as if it had asked itself.
    ///
    /// # Errors
    /// Why it was not.
    pub fn subscribe_client(
        &self,
        client_id: &str,
        filter: &str,
        options: SubscriptionOptions,
    ) -> Result<SubscriptionView, SubscribeError> {
        let client = self.registered(client_id).ok_or(SubscribeError::NoClient)?;
        let asked = AskedFilter::parse(filter)?;
        let parsed = asked.parsed()?;
        self.check_offered(&asked, &parsed, options)?;
        let options = SubscriptionOptions { qos: options.qos.min(self.limits().server.max_qos), ..options };
        let subscription = Subscription { options, id: None };
        let epoch = client.lock().epoch;
        let is_new =
            self.subscribe(&client, epoch, &parsed, &asked, subscription).ok_or(SubscribeError::Quota)?;
        let wants_retained = match options.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        if wants_retained && parsed.share.is_none() {
            client.replay(Replay::new(parsed.filter, options.qos, None));
        }
        Ok(SubscriptionView {
            client_id: Arc::clone(&client.id),
            filter: (&*asked.plain).into(),
            subscription,
        })
    }

    /// Ends a subscription of a client. Whether there was one.
    ///
    /// # Errors
    /// There is no such client, or no such filter.
    pub fn unsubscribe_client(&self, client_id: &str, filter: &str) -> Result<bool, SubscribeError> {
        let client = self.registered(client_id).ok_or(SubscribeError::NoClient)?;
        let asked = AskedFilter::parse(filter)?;
        let epoch = client.lock().epoch;
        Ok(self.unsubscribe(&client, epoch, &asked.parsed()?, &asked.plain))
    }

    fn registered(&self, client_id: &str) -> Option<Arc<Client>> {
        self.clients.get(client_id).map(|entry| Arc::clone(&entry))
    }

    /// What SUBSCRIBE of a client would be refused for, but by the ACL.
    fn check_offered(
        &self,
        asked: &AskedFilter<'_>,
        parsed: &ParsedFilter<'_>,
        options: SubscriptionOptions,
    ) -> Result<(), SubscribeError> {
        let limits = self.limits();
        if topic::first_level(parsed.filter) == "$LINK" {
            return Err(SubscribeError::Reserved);
        }
        if parsed.filter.split('/').count() > limits.max_topic_levels {
            return Err(SubscribeError::Setting("mqtt.max_topic_levels"));
        }
        if parsed.share.is_some() && !limits.server.shared_subscription {
            return Err(SubscribeError::Setting("mqtt.shared_subscription"));
        }
        if topic::has_wildcard(parsed.filter) && !limits.server.wildcard_subscription {
            return Err(SubscribeError::Setting("mqtt.wildcard_subscription"));
        }
        if asked.exclusive && !limits.exclusive_subscription {
            return Err(SubscribeError::Setting("mqtt.exclusive_subscription"));
        }
        if parsed.share.is_some() && options.no_local {
            return Err(SubscribeError::NoLocal);
        }
        Ok(())
    }
}

impl Client {
    /// Has the connection send retained messages. Without one there is nobody to send them to; with too many under
    /// way further ones are not begun.
    fn replay(&self, replay: Replay) {
        let bell = {
            let mut state = self.lock();
            if !state.session.is_connected() {
                return;
            }
            let waiting = state.replays.get_or_insert_default();
            if waiting.len() < REPLAYS_MAX {
                waiting.push(replay);
            }
            state.bell()
        };
        if let Some(bell) = bell {
            bell.ring();
        }
    }
}
