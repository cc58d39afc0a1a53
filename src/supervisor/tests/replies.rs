//! The contents of replies, compared with a model of the worker's grants and the job's inputs: an array is taken over
//! exactly if the model says so, and the accounting balances after each reply.

use std::os::unix::fs::FileExt;

use super::*;
use crate::kernel::wire::SENT_WORDS;
use crate::link::{INLINE_WORDS, Reply as ReportedReply};

/// The reported position of an array of a reply.
#[derive(Clone, Copy, Debug)]
enum Where {
    /// After the previous positions, in the last grant.
    Next,
    /// A part of the previous array.
    Before,
    /// This number of bytes after the start of the previous array.
    Behind(u64),
    /// At the start of a grant, which may be an older one.
    Grant(prop::sample::Index),
    /// In an input of the job, or in an array that is no longer an input.
    Input(prop::sample::Index),
}

#[derive(Clone, Debug)]
struct Said {
    place: Where,
    skip: u64,
    len: u64,
    lies: [Lie; 4],
}

#[derive(Clone, Debug)]
struct ReplyPlan {
    pages: Vec<u64>,
    arrays: Vec<Said>,
    spilled: bool,
    keep: bool,
    grant: Lie,
    cursor: Lie,
    count: Lie,
    words: Lie,
    spill: [Lie; 2],
}

fn said() -> impl Strategy<Value = Said> {
    let behind = prop_oneof![Just(8u64), Just(64), Just(128), Just(PAGE)];
    let any = any::<prop::sample::Index>;
    let place = prop_oneof![
        12 => Just(Where::Next),
        2 => Just(Where::Before),
        1 => behind.prop_map(Where::Behind),
        2 => any().prop_map(Where::Grant),
        2 => any().prop_map(Where::Input),
    ];
    let skip = prop_oneof![4 => Just(0u64), 1 => 0..2 * PAGE];
    let len = prop_oneof![1 => Just(0u64), 6 => 0u64..5000, 1 => 65_000u64..70_000];
    let rarely = || prop_oneof![3 => Just(Lie::None), 1 => lie()];
    (place, skip, len, [rarely(), rarely(), rarely(), rarely()]).prop_map(
        |(place, skip, len, lies)| Said {
            place,
            skip,
            len,
            lies,
        },
    )
}

fn plan() -> impl Strategy<Value = ReplyPlan> {
    let pages = prop::collection::vec(1u64..40, 0..3);
    let arrays = prop::collection::vec(said(), 0..5);
    let rarely = || prop_oneof![3 => Just(Lie::None), 1 => lie()];
    let spill = [rarely(), rarely()];
    let lies = (rarely(), rarely(), rarely(), rarely(), spill);
    (pages, arrays, any::<[bool; 2]>(), lies).prop_map(
        |(pages, arrays, [spilled, keep], (grant, cursor, count, words, spill))| ReplyPlan {
            pages,
            arrays,
            spilled,
            keep,
            grant,
            cursor,
            count,
            words,
            spill,
        },
    )
}

/// A block that the job has leased, and the part of it that may come back.
struct Input {
    block: Arc<Block>,
    part: Extent,
}

impl Input {
    fn whole(block: &Arc<Block>) -> Self {
        Self::part(block, 0, block.extent().len)
    }

    fn part(block: &Arc<Block>, skip: u64, len: u64) -> Self {
        let at = block.extent().at;
        let at = Offset::new(at.region(), at.offset() + skip);
        Self {
            block: Arc::clone(block),
            part: Extent { at, len },
        }
    }
}

/// What an array of a reply must become.
#[derive(Debug, PartialEq)]
enum Comes {
    /// An array without bytes, with a block of its own.
    Empty,
    /// A part of this input.
    Input(usize),
    /// A block that is carved out of the grants as this chunk.
    Fresh(Extent),
}

/// Memory that the worker was granted and has not used: number, offset, bytes.
#[derive(Default)]
struct Model(Vec<(u64, u64, u64)>);

fn within(at: u64, len: u64, from: u64, held: u64) -> bool {
    at >= from && u128::from(at) + u128::from(len) <= u128::from(from) + u128::from(held)
}

fn holds(outer: Extent, inner: Extent) -> bool {
    let (at, from) = (inner.at, outer.at);
    at.region() == from.region() && within(at.offset(), inner.len, from.offset(), outer.len)
}

impl Model {
    /// Classifies the whole reply, in the order of its words.
    fn classify(
        &mut self,
        arena: &Arena,
        reported: &ReportedReply,
        inputs: &[Input],
    ) -> Option<Vec<(Extent, Comes)>> {
        let skip = usize::from(reported.arrays) * SENT_WORDS;
        let long;
        let words = if reported.spilled {
            let place = extent_of(&reported.words[..2]);
            let granted = self
                .0
                .iter()
                .any(|&(_, at, held)| holds(extent(at, held), place));
            let whole = u64::from(reported.len) * 8 == place.len && reported.len <= 8 << 20;
            if !granted || !whole || !place.at.offset().is_multiple_of(8) {
                return None;
            }
            long = arena.copy_words(place).unwrap();
            &long[..]
        } else {
            reported.words.get(..reported.len as usize)?
        };
        let mut sent: Vec<_> = words
            .get(..skip)?
            .chunks(SENT_WORDS)
            .map(|words| (extent_of(&words[..2]), extent_of(&words[2..])))
            .collect();
        if reported.spilled {
            let place = extent_of(&reported.words[..2]);
            sent.push((place, place));
        }
        let used = self.advance(reported.grant, reported.cursor)?;
        let mut taken: Vec<Extent> = Vec::new();
        let mut comes = Vec::new();
        for (chunk, view) in sent {
            let input = inputs.iter().position(|input| holds(input.part, view));
            let what = match input {
                _ if view.len == 0 => Comes::Empty,
                Some(input) => Comes::Input(input),
                None => {
                    let unit = if chunk.len >= 64 * 1024 { PAGE } else { 64 };
                    let held = chunk.len.checked_next_multiple_of(unit)?;
                    let padded = Extent { len: held, ..chunk };
                    let known = taken.contains(&chunk);
                    let free = chunk.at.offset().is_multiple_of(64)
                        && used.iter().any(|piece| holds(*piece, padded))
                        && !taken.iter().any(|other| {
                            let unit = if other.len >= 64 * 1024 { PAGE } else { 64 };
                            let end = other.at.offset() + other.len.next_multiple_of(unit);
                            other.at.offset() < chunk.at.offset() + held && chunk.at.offset() < end
                        });
                    if !holds(chunk, view) || !known && !free {
                        return None;
                    }
                    taken.push(chunk);
                    Comes::Fresh(chunk)
                }
            };
            comes.push((view, what));
        }
        Some(comes)
    }

    /// Uses up the grants ahead of this one, and this one up to the cursor.
    fn advance(&mut self, number: u64, cursor: u64) -> Option<Vec<Extent>> {
        if number == NO_GRANT {
            return Some(Vec::new());
        }
        let position = self.0.iter().position(|grant| grant.0 == number)?;
        let (_, at, held) = self.0[position];
        // The position of a grant that is used up is not known any more.
        if held > 0 && !(within(cursor, 0, at, held) && (cursor - at).is_multiple_of(64)) {
            return None;
        }
        let mut used: Vec<_> = self
            .0
            .drain(..position)
            .map(|(_, at, held)| extent(at, held))
            .collect();
        if held > 0 {
            used.push(extent(at, cursor - at));
            self.0[0] = (number, cursor, at + held - cursor);
        }
        Some(used)
    }
}

fn extent_of(words: &[u64]) -> Extent {
    Extent {
        at: bytemuck::cast(words[0]),
        len: words[1],
    }
}

/// The worker, which writes the words of its replies into its own memory.
struct Worker {
    shared: Arc<Supervisor>,
    consumer: Consumer,
    memory: std::fs::File,
}

impl Worker {
    fn new() -> Self {
        let (shared, mut consumers) = fixture(1, 1);
        let region = shared.arena.descriptors()[2];
        let memory = region.try_clone_to_owned().unwrap().into();
        let consumer = consumers.remove(0);
        Self {
            shared,
            consumer,
            memory,
        }
    }

    /// The reply as the worker reports it; the model determines the correct values.
    fn report(&self, plan: &ReplyPlan, model: &Model, inputs: &[Input]) -> ReportedReply {
        let last = model.0.last().copied();
        let (number, start, held) = last.unwrap_or((NO_GRANT, 0, 0));
        let mut next = start;
        let mut before = extent(start, 0);
        let mut words = Vec::new();
        for said in &plan.arrays {
            let unit = if said.len >= 64 * 1024 { PAGE } else { 64 };
            let (chunk, skip) = match said.place {
                Where::Before => (before, said.skip.min(before.len)),
                Where::Behind(by) => (extent(before.at.offset() + by, said.len), 0),
                Where::Grant(pick) if !model.0.is_empty() => {
                    let (_, at, _) = model.0[pick.index(model.0.len())];
                    (extent(at, said.len), 0)
                }
                Where::Input(pick) if !inputs.is_empty() => {
                    let input = &inputs[pick.index(inputs.len())];
                    (input.block.extent(), said.skip % 900)
                }
                _ => {
                    let at = (next + said.skip / 64 * 64).next_multiple_of(unit);
                    let fits = within(at, said.len.next_multiple_of(unit), start, held);
                    let (at, len) = if fits { (at, said.len) } else { (next, 0) };
                    next = at + len.next_multiple_of(unit);
                    (extent(at, len), 0)
                }
            };
            before = chunk;
            let truth = [
                bytemuck::cast(chunk.at),
                chunk.len,
                bytemuck::cast::<_, u64>(chunk.at) + skip,
                chunk.len.saturating_sub(skip),
            ];
            words.extend(std::iter::zip(said.lies, truth).map(|(lie, truth)| lie.about(truth)));
        }
        let arrays = plan.count.about(plan.arrays.len() as u64) as u16;
        // Appends a word that belongs to no array.
        words.push(7);
        let mut reported = ReportedReply {
            kind: kind::VALUE,
            arrays,
            spilled: plan.spilled || words.len() > INLINE_WORDS,
            len: plan.words.about(words.len() as u64) as u32,
            ..ReportedReply::default()
        };
        if reported.spilled {
            let at = next;
            next = (next + words.len() as u64 * 8).next_multiple_of(64);
            if next <= start + held && held > 0 {
                let bytes: &[u8] = bytemuck::cast_slice(&words);
                self.memory.write_all_at(bytes, at).unwrap();
            }
            reported.words[0] = plan.spill[0].about(bytemuck::cast(Offset::new(1, at)));
            reported.words[1] = plan.spill[1].about(words.len() as u64 * 8);
        } else {
            reported.words[..words.len()].copy_from_slice(&words);
        }
        reported.grant = plan.grant.about(number);
        reported.cursor = plan.cursor.about(next);
        reported
    }

    /// Sends some replies of one worker. Returns how many were accepted, and how many were refused.
    fn play(&mut self, plans: &[ReplyPlan]) -> Result<(usize, usize), TestCaseError> {
        let arena = Arc::clone(&self.shared.arena);
        let mut state = self.shared.lock();
        state.lanes[0].revoke(&arena);
        let mut model = Model::default();
        let input = Arc::new(
            arena
                .alloc(0, 1000, crate::arena::BlockPlacement::Packed)
                .unwrap(),
        );
        let lent = Arc::new(
            arena
                .alloc(0, 1000, crate::arena::BlockPlacement::Packed)
                .unwrap(),
        );
        let mut kept: Vec<Arc<Block>> = Vec::new();
        let (mut taken, mut refused) = (0, 0);
        for plan in plans {
            for pages in &plan.pages {
                let number = state.lanes[0].producer.granted();
                let block = arena.grant(1, pages * PAGE, false).unwrap();
                let (at, held) = (block.extent().at.offset(), block.held());
                state.lanes[0].grant(block).unwrap();
                while self.consumer.next_grant().is_some() {}
                model.0.push((number.into(), at, held));
            }
            // One array of the job was published by this worker earlier.
            let mut inputs = vec![Input::whole(&input), Input::part(&lent, 200, 600)];
            inputs.extend(kept.first().map(Input::whole));
            let mut leases: Leases = [Lease::Lent(0..1)].into_iter().collect();
            leases.push(Lease::Shared(Arc::clone(&input)));
            leases.push(Lease::Loan {
                block: Arc::clone(&lent),
                extent: inputs[1].part,
            });
            leases.extend(kept.first().map(|block| Lease::Owned(Arc::clone(block))));
            let reported = self.report(plan, &model, &inputs);
            let expected = model.classify(&arena, &reported, &inputs);
            let EngineState {
                lanes,
                arena: own,
                config,
                ..
            } = &mut *state;
            let checked = lanes.unpack(0, (&*own, &*config), &reported, &leases, false);
            match (checked, expected) {
                (Err(_), None) => {
                    refused += 1;
                    check_accounting(&arena, &state.lanes[0], &kept, &[&input, &lent])?;
                    // The worker is killed because of the reply.
                    state.lanes[0].revoke(&arena);
                    model.0.clear();
                }
                (Ok(checked), Some(mut comes)) => {
                    taken += 1;
                    if reported.spilled {
                        comes.pop();
                    }
                    prop_assert_eq!(checked.arrays.len(), comes.len());
                    for (array, (view, comes)) in checked.arrays.iter().zip(&comes) {
                        prop_assert_eq!(array.len, view.len);
                        let block = array.block.extent();
                        let at = Offset::new(block.at.region(), block.at.offset() + array.skip);
                        match comes {
                            Comes::Empty => prop_assert_eq!(array.block.held(), 0),
                            Comes::Input(index) => {
                                prop_assert!(Arc::ptr_eq(&array.block, &inputs[*index].block));
                                prop_assert_eq!(at, view.at);
                            }
                            Comes::Fresh(chunk) => {
                                prop_assert_eq!(block.at, chunk.at);
                                prop_assert_eq!(at, view.at);
                                prop_assert!(array.skip + array.len <= array.block.held());
                            }
                        }
                    }
                    for (a, one) in std::iter::zip(&checked.arrays, &comes) {
                        for (b, other) in std::iter::zip(&checked.arrays, &comes) {
                            // Arrays in one chunk share one block.
                            if matches!(one.1, Comes::Fresh(_)) {
                                prop_assert_eq!(Arc::ptr_eq(&a.block, &b.block), one.1 == other.1);
                            }
                        }
                        let known = |block: &Arc<Block>| Arc::ptr_eq(block, &a.block);
                        if plan.keep
                            && !a.block.is_empty()
                            && !known(&input)
                            && !known(&lent)
                            && !kept.iter().any(known)
                        {
                            kept.push(Arc::clone(&a.block));
                        }
                    }
                    drop(checked);
                    let held: Vec<_> = state.lanes[0]
                        .grants()
                        .blocks()
                        .filter(|held| held.1 > 0)
                        .collect();
                    let mut left: Vec<_> =
                        model.0.iter().map(|&(_, at, held)| (at, held)).collect();
                    left.retain(|&(_, held)| held > 0);
                    prop_assert_eq!(held, left);
                    check_accounting(&arena, &state.lanes[0], &kept, &[&input, &lent])?;
                }
                (got, expected) => {
                    let got = got.map(|checked| checked.arrays);
                    return Err(TestCaseError::fail(format!(
                        "{reported:?} is to be {expected:?}, and is {got:?}"
                    )));
                }
            }
        }
        state.lanes[0].revoke(&arena);
        check_accounting(&arena, &state.lanes[0], &kept, &[&input, &lent])?;
        drop((kept, input, lent));
        prop_assert_eq!((arena.stats().in_use, arena.stats().blocks), (0, 0));
        Ok((taken, refused))
    }
}

#[test]
fn any_replies_are_taken_over_or_refused_as_the_model_says() {
    const REPLIES: usize = 20;
    let worker = std::cell::RefCell::new(Worker::new());
    let counts = std::cell::Cell::new((0, 0));
    let cases = crate::sys::asked::cases(10_000) / REPLIES as u32;
    let config = ProptestConfig::with_cases(cases);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let run = runner.run(&prop::collection::vec(plan(), REPLIES), |plans| {
        let (taken, refused) = worker.borrow_mut().play(&plans)?;
        let before = counts.get();
        counts.set((before.0 + taken, before.1 + refused));
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
    let (taken, refused) = counts.get();
    let fifth = cases as usize * REPLIES / 5;
    assert!(
        taken > fifth && refused > fifth,
        "{taken} taken, {refused} refused"
    );
}
