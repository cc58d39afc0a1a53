//! The order in which waiting calls begin: clients take turns.

use std::collections::{HashMap, VecDeque};

/// The waiting calls, by client. Pure state.
#[derive(Debug)]
pub(super) struct Turns<C> {
    queues: HashMap<u64, VecDeque<C>>,
    /// The clients with waiting calls, the next one first.
    order: VecDeque<u64>,
}

impl<C> Turns<C> {
    pub(super) fn new() -> Turns<C> {
        Turns {
            queues: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// Adds a call after the other calls of its client.
    pub(super) fn push(&mut self, client: u64, call: C) {
        let queue = self.queues.entry(client).or_default();
        if queue.is_empty() {
            self.order.push_back(client);
        }
        queue.push_back(call);
    }

    /// Removes and returns the oldest call of the client whose turn it is.
    pub(super) fn next(&mut self) -> Option<(u64, C)> {
        let client = self.order.pop_front()?;
        let queue = self.queues.get_mut(&client)?;
        let call = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&client);
        } else {
            self.order.push_back(client);
        }
        Some((client, call))
    }

    /// Removes and returns the client's first call for which `is_wanted` holds.
    pub(super) fn remove(&mut self, client: u64, is_wanted: impl Fn(&C) -> bool) -> Option<C> {
        let queue = self.queues.get_mut(&client)?;
        let at = queue.iter().position(is_wanted)?;
        let call = queue.remove(at);
        if queue.is_empty() {
            self.remove_all(client);
        }
        call
    }

    /// Removes and returns all calls of a client.
    pub(super) fn remove_all(&mut self, client: u64) -> VecDeque<C> {
        self.order.retain(|&waiting| waiting != client);
        self.queues.remove(&client).unwrap_or_default()
    }

    /// Returns true if a call of the client for which `is_wanted` holds waits.
    pub(super) fn has(&self, client: u64, is_wanted: impl Fn(&C) -> bool) -> bool {
        self.queues
            .get(&client)
            .is_some_and(|queue| queue.iter().any(is_wanted))
    }

    /// Returns the number of waiting calls of a client.
    pub(super) fn waiting(&self, client: u64) -> usize {
        self.queues.get(&client).map_or(0, VecDeque::len)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::Turns;

    fn rest(turns: &mut Turns<u32>) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn clients_take_turns() {
        let mut turns = Turns::new();
        (0..3).for_each(|call| turns.push(1, call));
        assert_eq!(turns.next(), Some((1, 0)));
        turns.push(2, 10);
        turns.push(2, 11);
        turns.push(3, 20);
        let order = [(1, 1), (2, 10), (3, 20), (1, 2), (2, 11)];
        assert_eq!(rest(&mut turns), order);
        assert!(turns.is_empty());
    }

    #[test]
    fn a_client_that_has_gone_has_no_turn() {
        let mut turns = Turns::new();
        turns.push(1, 0);
        turns.push(2, 10);
        turns.push(1, 1);
        assert_eq!(turns.remove_all(1), [0, 1]);
        assert_eq!(turns.waiting(1), 0);
        assert_eq!(rest(&mut turns), [(2, 10)]);
    }

    #[test]
    fn a_call_that_is_cancelled_leaves_the_others() {
        let mut turns = Turns::new();
        (0..3).for_each(|call| turns.push(1, call));
        assert_eq!(turns.remove(1, |&call| call == 1), Some(1));
        assert_eq!(turns.remove(1, |&call| call == 1), None);
        assert_eq!(turns.remove(2, |_| true), None);
        assert_eq!(rest(&mut turns), [(1, 0), (1, 2)]);
        turns.push(1, 5);
        assert_eq!(turns.remove(1, |&call| call == 5), Some(5));
        turns.push(1, 6);
        assert_eq!(rest(&mut turns), [(1, 6)]);
    }
}
