//! Open windows.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::rule::{Rule, starts};

/// How a window accumulates items.
pub(super) trait Fill<T> {
    type Held;
    fn empty(&mut self) -> Self::Held;
    fn add(&mut self, held: &mut Self::Held, arrival: u64, value: T);
    /// Merges a later window into an earlier one.
    fn merge(&mut self, held: &mut Self::Held, later: Self::Held);
    /// How much a window with `items` items counts towards [`max_items`](super::Windowed::max_items).
    fn weight(items: usize) -> usize;
    /// How many bytes a window retains for an item of `item` bytes.
    fn bytes(item: u64) -> u64;
}

/// An open window.
pub(super) struct OpenWindow<K, H> {
    pub(super) key: K,
    pub(super) start: u128,
    pub(super) held: H,
    pub(super) items: usize,
    pub(super) bytes: u64,
}

/// Orders open windows: by their end, then by the number that each got when it was opened.
type EndKey = (u128, u64);

struct OfKey {
    /// Number of items of this key so far, for windows by count.
    next: u128,
    /// The open windows of this key, by their start.
    open: BTreeMap<u128, EndKey>,
}

pub(super) struct OpenWindows<K, T, F: Fill<T>> {
    rule: Rule,
    pub(super) fill: F,
    by_end: BTreeMap<EndKey, OpenWindow<K, F::Held>>,
    by_key: HashMap<K, OfKey>,
    arrived: u64,
    opened: u64,
    /// The sum of [`Fill::weight`] over all open windows.
    pub(super) weight: usize,
}

/// An item whose windows have all closed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Late<T>(pub(super) T);

impl<K: Clone + Eq + Hash, T: Clone, F: Fill<T>> OpenWindows<K, T, F> {
    pub(super) fn new(rule: Rule, fill: F) -> Self {
        Self {
            rule,
            fill,
            by_end: BTreeMap::new(),
            by_key: HashMap::new(),
            arrived: 0,
            opened: 0,
            weight: 0,
        }
    }

    /// Adds an item to its windows. If these are windows in time, stops when the weight of all open windows exceeds
    /// `limit`. `at` is the item's time, `mark` the watermark; windows by count use neither.
    pub(super) fn add(
        &mut self,
        key: &K,
        value: T,
        bytes: u64,
        at: u128,
        mark: u128,
        limit: usize,
    ) -> Result<(), Late<T>> {
        let (length, step, at) = match self.rule {
            Rule::Session { gap } => return self.add_to_session(key, value, bytes, at, gap, mark),
            Rule::Time { length, step } => (length, step, at),
            Rule::Count { length, step } => {
                let of_key = self.of_key(key);
                of_key.next += 1;
                (length, step, of_key.next - 1)
            }
        };
        let mut left = starts(at, length, step)
            .filter(|start| start + length > mark)
            .peekable();
        let mut value = Some(value);
        while let Some(start) = left.next() {
            // The last window gets the item itself and not a copy, so that the only handle to an array stays the only
            // one.
            let copy = match left.peek() {
                Some(_) => value.clone(),
                None => value.take(),
            };
            let end_key = self.window(key, start, start + length);
            if let Some(copy) = copy {
                self.put(end_key, copy, bytes);
            }
            // An item may belong to any number of windows in time. (Windows by count are opened one at a time, after
            // full windows have been closed.)
            if self.rule.is_timed() && self.weight > limit {
                return Ok(());
            }
        }
        self.arrived += 1;
        value.map_or(Ok(()), |value| Err(Late(value)))
    }

    fn of_key(&mut self, key: &K) -> &mut OfKey {
        self.by_key.entry(key.clone()).or_insert_with(|| OfKey {
            next: 0,
            open: BTreeMap::new(),
        })
    }

    /// Returns the window with these bounds. Opens it if it does not exist.
    fn window(&mut self, key: &K, start: u128, end: u128) -> EndKey {
        let opened = self.opened;
        let open = &mut self.of_key(key).open;
        if let Some(end_key) = open.get(&start) {
            return *end_key;
        }
        open.insert(start, (end, opened));
        self.opened += 1;
        let window = OpenWindow {
            key: key.clone(),
            start,
            held: self.fill.empty(),
            items: 0,
            bytes: 0,
        };
        self.weight += F::weight(0);
        self.by_end.insert((end, opened), window);
        (end, opened)
    }

    fn put(&mut self, end_key: EndKey, value: T, bytes: u64) {
        let window = self.by_end.get_mut(&end_key).expect("the window is open");
        self.weight -= F::weight(window.items);
        window.items += 1;
        window.bytes += F::bytes(bytes);
        self.weight += F::weight(window.items);
        self.fill.add(&mut window.held, self.arrived, value);
    }

    fn add_to_session(
        &mut self,
        key: &K,
        value: T,
        bytes: u64,
        at: u128,
        gap: u128,
        mark: u128,
    ) -> Result<(), Late<T>> {
        let (mut start, mut end) = (at, at + gap);
        let mut joined = Vec::new();
        if let Some(of_key) = self.by_key.get_mut(key) {
            // Sessions do not overlap, so they end in the order in which they begin.
            let before = of_key.open.range(..end).rev();
            let touched = before.take_while(|(_, end_key)| end_key.0 > at);
            joined.extend(touched.map(|(&start, &end_key)| (start, end_key)));
            for (start, _) in &joined {
                of_key.open.remove(start);
            }
        }
        // The item is late unless it extends an open session.
        if end <= mark && joined.is_empty() {
            return Err(Late(value));
        }
        let earliest_first = joined.into_iter().rev();
        let windows: Vec<_> = earliest_first
            .filter_map(|(_, end_key)| Some((end_key, self.by_end.remove(&end_key)?)))
            .collect();
        let mut opened = self.opened;
        let mut merged: Option<OpenWindow<K, F::Held>> = None;
        for (end_key, window) in windows {
            (start, end) = (start.min(window.start), end.max(end_key.0));
            opened = opened.min(end_key.1);
            self.weight -= F::weight(window.items);
            match &mut merged {
                None => merged = Some(window),
                Some(merged) => {
                    merged.items += window.items;
                    merged.bytes += window.bytes;
                    self.fill.merge(&mut merged.held, window.held);
                }
            }
        }
        match merged {
            Some(mut window) => {
                window.start = start;
                self.weight += F::weight(window.items);
                self.by_end.insert((end, opened), window);
                self.of_key(key).open.insert(start, (end, opened));
            }
            None => {
                self.window(key, start, end);
            }
        }
        self.put((end, opened), value, bytes);
        self.arrived += 1;
        Ok(())
    }

    /// Closes the next window that ends at or before `mark`. Returns the window with its end.
    pub(super) fn close(&mut self, mark: u128) -> Option<(OpenWindow<K, F::Held>, u128)> {
        let first = self.by_end.first_entry()?;
        if first.key().0 > mark {
            return None;
        }
        let end_key = *first.key();
        Some(self.closed(end_key))
    }

    /// Closes the next full window of this key. Returns the window with its end.
    pub(super) fn close_full(&mut self, key: &K) -> Option<(OpenWindow<K, F::Held>, u128)> {
        let of_key = self.by_key.get(key)?;
        // All windows have the same length, so the window that began first ends first.
        let (_, &end_key) = of_key.open.first_key_value()?;
        (end_key.0 <= of_key.next).then(|| self.closed(end_key))
    }

    fn closed(&mut self, end_key: EndKey) -> (OpenWindow<K, F::Held>, u128) {
        let window = self.by_end.remove(&end_key).expect("the window is open");
        self.weight -= F::weight(window.items);
        if let Some(of_key) = self.by_key.get_mut(&window.key) {
            of_key.open.remove(&window.start);
            // Removes the key, so that its next item is counted from 0 again.
            if of_key.open.is_empty() {
                self.by_key.remove(&window.key);
            }
        }
        (window, end_key.0)
    }
}
