//! Who published the retained messages: each publisher once, by a small number, for as long as a message of it is held.

use std::collections::HashMap;
use std::sync::Arc;

/// Stands for no publisher: the broker itself, or an operator.
pub(super) const NOBODY: u32 = u32::MAX;

/// See the module.
#[derive(Debug)]
pub(super) struct Sources<S> {
    slots: Vec<Option<Slot<S>>>,
    free: Vec<u32>,
    /// By address: a publisher in a slot keeps its own.
    numbers: HashMap<usize, u32>,
}

#[derive(Debug)]
struct Slot<S> {
    source: Arc<S>,
    messages: u32,
}

impl<S> Default for Sources<S> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), numbers: HashMap::new() }
    }
}

fn address<S>(source: &Arc<S>) -> usize {
    Arc::as_ptr(source) as usize
}

impl<S> Sources<S> {
    /// One more message of this publisher.
    pub(super) fn hold(&mut self, source: Option<&Arc<S>>) -> u32 {
        let Some(source) = source else { return NOBODY };
        if let Some(number) = self.numbers.get(&address(source)) {
            if let Some(Some(slot)) = self.slots.get_mut(*number as usize) {
                slot.messages += 1;
            }
            return *number;
        }
        let slot = Some(Slot { source: Arc::clone(source), messages: 1 });
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                // There are fewer messages than numbers.
                u32::try_from(self.slots.len() - 1).unwrap_or(NOBODY)
            }
        };
        self.numbers.insert(address(source), number);
        number
    }

    /// One message less.
    pub(super) fn release(&mut self, number: u32) {
        let Some(held @ Some(_)) = self.slots.get_mut(number as usize) else { return };
        let Some(slot) = held else { return };
        slot.messages -= 1;
        if slot.messages == 0 {
            self.numbers.remove(&address(&slot.source));
            *held = None;
            self.free.push(number);
        }
    }

    /// Who it is.
    pub(super) fn get(&self, number: u32) -> Option<&Arc<S>> {
        Some(&self.slots.get(number as usize)?.as_ref()?.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publisher_is_held_as_long_as_a_message_of_it_is() {
        let mut sources = Sources::default();
        let (ada, eve) = (Arc::new("ada"), Arc::new("eve"));
        let number = sources.hold(Some(&ada));
        assert_eq!((sources.hold(Some(&ada)), sources.hold(None)), (number, NOBODY));
        let other = sources.hold(Some(&eve));
        assert_ne!(other, number);
        sources.release(number);
        assert_eq!(sources.get(number), Some(&ada));
        sources.release(number);
        assert_eq!((sources.get(number), Arc::strong_count(&ada)), (None, 1));
        assert_eq!(sources.hold(Some(&Arc::new("new"))), number, "the place is used again");
        sources.release(NOBODY);
        assert_eq!((sources.get(NOBODY), sources.get(other)), (None, Some(&eve)));
    }
}
