//! Windows that are open.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::rule::{Rule, starts};

/// How a window is filled.
pub(super) trait Fill<T> {
    type Held;
    fn empty(&mut self) -> Self::Held;
    fn add(&mut self, held: &mut Self::Held, arrival: u64, value: T);
    /// The later one into the earlier one.
    fn merge(&mut self, held: &mut Self::Held, later: Self::Held);
    /// What so many items in one window count for.
    fn weight(items: usize) -> usize;
    /// What a window keeps of an item of so many bytes.
    fn bytes(item: u64) -> u64;
}

/// A window, from its first item until it closes.
pub(super) struct OpenWindow<K, H> {
    pub(super) key: K,
    pub(super) start: u128,
    pub(super) held: H,
    pub(super) items: usize,
    pub(super) bytes: u64,
}

/// By its end, then by when it was opened.
type Place = (u128, u64);

struct OfKey {
    /// Items of this key so far, for windows by count.
    next: u128,
    /// The open windows of this key: where they start, and their places.
    open: BTreeMap<u128, Place>,
}

pub(super) struct OpenWindows<K, T, F: Fill<T>> {
    rule: Rule,
    pub(super) fill: F,
    by_end: BTreeMap<Place, OpenWindow<K, F::Held>>,
    by_key: HashMap<K, OfKey>,
    arrived: u64,
    opened: u64,
    /// See [`Fill::weight`].
    pub(super) weight: usize,
}

/// Why an item is in no window.
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

    /// Puts an item into its windows, those by time until they weigh more than `limit`. `at` is its time, and `mark` the watermark; windows by
    /// count know neither.
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
            // The last window gets the item itself: a handle that is the only one stays so.
            let copy = match left.peek() {
                Some(_) => value.clone(),
                None => value.take(),
            };
            let place = self.window(key, start, start + length);
            if let Some(copy) = copy {
                self.put(place, copy, bytes);
            }
            // One item may belong to any number of them. (Those by count come one by one, and full ones close first.)
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

    /// The place of this window, which is opened if it is not.
    fn window(&mut self, key: &K, start: u128, end: u128) -> Place {
        let opened = self.opened;
        let open = &mut self.of_key(key).open;
        if let Some(place) = open.get(&start) {
            return *place;
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

    fn put(&mut self, place: Place, value: T, bytes: u64) {
        let window = self.by_end.get_mut(&place).expect("the window is open");
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
            // No two of them overlap, so they end in the order in which they begin.
            let before = of_key.open.range(..end).rev();
            let touched = before.take_while(|(_, place)| place.0 > at);
            joined.extend(touched.map(|(&start, &place)| (start, place)));
            for (start, _) in &joined {
                of_key.open.remove(start);
            }
        }
        // A session that is open takes it however early it is.
        if end <= mark && joined.is_empty() {
            return Err(Late(value));
        }
        let earliest_first = joined.into_iter().rev();
        let windows: Vec<_> = earliest_first
            .filter_map(|(_, place)| Some((place, self.by_end.remove(&place)?)))
            .collect();
        let mut opened = self.opened;
        let mut merged: Option<OpenWindow<K, F::Held>> = None;
        for (place, window) in windows {
            (start, end) = (start.min(window.start), end.max(place.0));
            opened = opened.min(place.1);
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

    /// The next window that ends at `mark` or before, and its end.
    pub(super) fn close(&mut self, mark: u128) -> Option<(OpenWindow<K, F::Held>, u128)> {
        let first = self.by_end.first_entry()?;
        if first.key().0 > mark {
            return None;
        }
        let place = *first.key();
        Some(self.closed(place))
    }

    /// The next window of this key that is full.
    pub(super) fn close_full(&mut self, key: &K) -> Option<(OpenWindow<K, F::Held>, u128)> {
        let of_key = self.by_key.get(key)?;
        // All are as long, so the first one to begin ends first.
        let (_, &place) = of_key.open.first_key_value()?;
        (place.0 <= of_key.next).then(|| self.closed(place))
    }

    fn closed(&mut self, place: Place) -> (OpenWindow<K, F::Held>, u128) {
        let window = self.by_end.remove(&place).expect("the window is open");
        self.weight -= F::weight(window.items);
        if let Some(of_key) = self.by_key.get_mut(&window.key) {
            of_key.open.remove(&window.start);
            // Full windows of a count that does not slide: the next item begins anew.
            if of_key.open.is_empty() {
                self.by_key.remove(&window.key);
            }
        }
        (window, place.0)
    }
}
