//! Arguments that mean harm, as a worker reads them: whatever words a call has, each argument is refused for what is wrong
//! with it, or lies exactly where its words say.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use proptest::prelude::*;

use super::affinity::Affinity;
use super::lane::{Lane, WorkerContext};
use super::pages::Pages;
use crate::arena::{Arena, AttachSpec, Backing, Block, BlockPlacement, Extent, Offset, Spec, View};
use crate::array::{Array, ArrayMut, MAX_DIMS, TileMut};
use crate::kernel::raw::{Buffers, Received};
use crate::kernel::wire::WordReader;
use crate::kernel::{Host, HostRef, Key, Param, Words};
use crate::link::{Consumer, LinkCells};
use crate::sys::event::EventFd;

/// Regions of the arena: the supervisor's, that of this worker, a neighbour's, and one without memory.
const REGIONS: u16 = 4;
const OWN: u16 = 1;
const PAGE: u64 = 4096;

/// A lane as in a worker, with a view of an arena whose every byte tells its place.
struct Place {
    lane: &'static Lane,
    /// What the file of each region has.
    lens: [u64; REGIONS as usize],
    _arena: Arc<Arena>,
    _blocks: Vec<Block>,
}

/// What lies at this place.
fn byte_at(region: u16, offset: u64) -> u8 {
    let mixed = (offset ^ u64::from(region) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as u8
}

fn file(fd: &BorrowedFd<'_>) -> std::fs::File {
    fd.try_clone_to_owned().unwrap().into()
}

impl Place {
    fn new() -> Self {
        let spec = Spec {
            capacity: 1 << 20,
            writers: REGIONS - 1,
            backing: Backing::Memfd,
            control_len: 0,
            ..Spec::default()
        };
        let arena = Arena::create(&spec).unwrap();
        let block = |region| arena.alloc(region, 3000, BlockPlacement::Packed).unwrap();
        let blocks = (0..REGIONS - 1).map(block).collect();
        arena.set_ready();
        let fds = arena.descriptors();
        let mut lens = [0; REGIONS as usize];
        for (region, fd) in fds[1..].iter().enumerate() {
            let file = file(fd);
            lens[region] = file.metadata().unwrap().len();
            let bytes: Vec<u8> = (0..lens[region])
                .map(|at| byte_at(region as u16, at))
                .collect();
            file.write_all_at(&bytes, 0).unwrap();
        }
        assert_eq!(lens[3], 0);
        assert!(lens[..3].iter().all(|&len| len >= PAGE), "{lens:?}");
        let attach = AttachSpec {
            fds: fds
                .iter()
                .map(|fd| fd.try_clone_to_owned().unwrap())
                .collect(),
            own: OWN,
            reservation: arena.reservation(),
            lend: true,
        };
        let view = Box::leak(Box::new(View::attach(attach).unwrap()));
        let cells = Arc::new(LinkCells::on_heap());
        let consumer = Consumer::new(Arc::clone(&cells), 0, 0);
        let monitor_event = EventFd::new().unwrap();
        let worker = Box::leak(Box::new(WorkerContext {
            view,
            region: OWN,
            guard: true,
            pages: Pages::new(view, true),
            retain: None,
            has_memory_limit: false,
            has_one_lane: true,
            seed: 0,
            cores: 1,
            monitor_event,
        }));
        let affinity = Affinity::new(Arc::clone(&cells), worker, 0);
        let lane = Lane::new(consumer, affinity, cells, 0, worker);
        Self {
            lane: Box::leak(Box::new(lane)),
            lens,
            _arena: arena,
            _blocks: blocks,
        }
    }

    /// Reads the arguments of a call as an entry does, and compares each with what it has to be.
    fn call(&self, kinds: &[Kind], words: &[u64]) -> Result<usize, String> {
        let mut reader = Words(WordReader::new(words));
        let mut rest = words;
        let mut held = Vec::new();
        let mut verdict = Ok(());
        for &kind in kinds {
            let expected = self.judge(kind, &mut rest, &held);
            let got = kind.receive(&mut reader, self.lane);
            verdict = match (expected, got) {
                (Err(why), Err(got)) if got.starts_with(why) => break,
                (Ok(places), Ok(got)) if places.len() == got.parts.len() => {
                    held.push((kind, places, got));
                    Ok(())
                }
                (expected, got) => Err(format!(
                    "{kind:?} is to be {expected:?}, and is {:?}",
                    got.map(|it| it.parts)
                )),
            };
            if verdict.is_err() {
                break;
            }
        }
        // All are there at once, and each is what its words say.
        for (kind, places, held) in &held {
            for (place, part) in places.iter().zip(&held.parts) {
                if verdict.is_ok() {
                    verdict = part.check(*kind, place.seen);
                }
            }
        }
        let accepted = held.len();
        drop(held);
        self.lane.close_lent(&[], &mut []);
        assert_eq!(Host::count(self.lane).live(), 0);
        verdict.map(|()| accepted)
    }

    /// What has to become of an argument, in numbers too large to overflow: where its arrays lie.
    fn judge(
        &self,
        kind: Kind,
        words: &mut &[u64],
        before: &[(Kind, Vec<Accepted>, Held)],
    ) -> Result<Vec<Accepted>, &'static str> {
        let mut all: Vec<_> = before
            .iter()
            .flat_map(|(_, places, _)| places)
            .copied()
            .collect();
        let first = all.len();
        if !kind.is_list() {
            let how = (kind.changes(), false);
            return Ok(vec![self.judge_array(kind, how, words, &all)?]);
        }
        let count = words.split_off_first().copied().ok_or(MALFORMED)?;
        for _ in 0..count {
            let how = match words.split_off_first() {
                Some(0) => (false, false),
                Some(1) => (true, false),
                Some(2) => (true, true),
                // The value of a job: a number, bytes, and arrays.
                Some(3) => {
                    let mut word = || words.split_off_first().copied().ok_or(MALFORMED);
                    let (_, len) = (word()?, word()?);
                    let len = usize::try_from(len).map_err(|_| MALFORMED)?;
                    words.split_off(..len.div_ceil(8)).ok_or(MALFORMED)?;
                    let arrays = words.split_off_first().copied().ok_or(MALFORMED)?;
                    for _ in 0..arrays {
                        all.push(self.judge_array(kind, (false, false), words, &all)?);
                    }
                    continue;
                }
                _ => return Err(MALFORMED),
            };
            all.push(self.judge_array(kind, how, words, &all)?);
        }
        Ok(all.split_off(first))
    }

    /// `changes`: whether the job changes the array; `has_gaps`: only a part of it, so that it is compared with none.
    fn judge_array(
        &self,
        kind: Kind,
        (changes, has_gaps): (bool, bool),
        words: &mut &[u64],
        before: &[Accepted],
    ) -> Result<Accepted, &'static str> {
        let mut word = || words.split_off_first().copied().ok_or(MALFORMED);
        let mut at = word()?;
        // An array in a sealed file of the supervisor, which has none; or the copy of one.
        let mut is_in_file = false;
        if at >> 48 == 0xffff && !changes && !kind.is_tile() {
            let (fd, copy, _) = (word()?, word()?, word()?);
            is_in_file = fd != u64::MAX;
            if !is_in_file {
                at = copy;
            } else if fd > u64::from(u32::MAX) {
                return Err(MALFORMED);
            }
        }
        let rank = word()?;
        if rank < 1 || rank > MAX_DIMS as u64 {
            return Err(MALFORMED);
        }
        let mut product = 1u128;
        let mut empty = false;
        let mut rows = None;
        for _ in 0..rank {
            let dim = word()?;
            rows.get_or_insert(dim);
            empty |= dim == 0;
            product = product.saturating_mul(u128::from(dim.max(1)));
        }
        let size = kind.size();
        let most = product.saturating_mul(u128::from(size));
        if most > i64::MAX as u128 {
            return Err(MALFORMED);
        }
        if is_in_file {
            return Err("NoFile");
        }
        let len = if empty { 0 } else { most as u64 };
        let mut behind = 0;
        if kind.is_tile() {
            let mut row = word()?;
            if len > 0 {
                (row, behind) = (row & ((1 << 48) - 1), (row >> 48) * PAGE);
            }
            if u128::from(row) + u128::from(rows.unwrap()) > u64::MAX.into() {
                return Err(MALFORMED);
            }
        }
        let (region, offset) = ((at >> 48) as u16, at & ((1 << 48) - 1));
        let extent = Extent {
            at: Offset::new(region, offset),
            len,
        };
        let committed = self.lens.get(usize::from(region)).ok_or(UNREACHABLE)?;
        let end = u128::from(offset) + u128::from(len);
        let end = match behind {
            0 => end,
            _ => end.next_multiple_of(PAGE.into()) + u128::from(behind),
        };
        if end > u128::from(*committed) {
            return Err(UNREACHABLE);
        }
        let opened = Extent {
            len: end as u64 - offset,
            ..extent
        };
        let shares = |other: &Extent| {
            len.min(other.len) > 0
                && other.at.region() == region
                && offset < other.at.offset() + other.len
                && other.at.offset() < offset + opened.len
        };
        let is_compared =
            |other: &Accepted| (changes || other.changes) && !has_gaps && !other.has_gaps;
        if before
            .iter()
            .any(|other| is_compared(other) && shares(&other.opened))
        {
            return Err(UNREACHABLE);
        }
        if len > 0 && !offset.is_multiple_of(size) {
            return Err(MALFORMED);
        }
        Ok(Accepted {
            seen: extent,
            opened,
            changes,
            has_gaps,
        })
    }
}

/// What a refusal begins with.
const MALFORMED: &str = "Malformed";
const UNREACHABLE: &str = "Unreachable";

/// Where an accepted array lies.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    seen: Extent,
    /// With the pages behind it that are opened with it.
    opened: Extent,
    changes: bool,
    has_gaps: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    ReadBytes,
    ReadLong,
    Move,
    Tile,
    Slice,
    /// A list of one buffer, unless its words lie.
    ReadBuffer,
    ReadValue,
    Loan,
    LoanOfParts,
}

const KINDS: [Kind; 9] = [
    Kind::ReadBytes,
    Kind::ReadLong,
    Kind::Move,
    Kind::Tile,
    Kind::Slice,
    Kind::ReadBuffer,
    Kind::ReadValue,
    Kind::Loan,
    Kind::LoanOfParts,
];

/// An argument that was accepted.
struct Held {
    parts: Vec<Part>,
    _held: Box<dyn std::any::Any>,
}

/// An array of it.
#[derive(Debug)]
struct Part {
    seen: Vec<u8>,
    /// Its first byte, where it can be changed.
    first: Option<*mut u8>,
}

impl Part {
    fn check(&self, kind: Kind, extent: Extent) -> Result<(), String> {
        let Extent { at, len } = extent;
        if let (Some(first), true) = (self.first, self.seen.len() as u64 == len && len > 0) {
            for byte in [0, len as usize - 1] {
                // SAFETY: an accepted argument that is changed, which `_held` keeps; it is written with what it has.
                unsafe {
                    let place = first.add(byte);
                    place.write_volatile(place.read_volatile());
                }
            }
        }
        // Its ends say where it lies; what is between them is not worth the time.
        let mut ends = (0..len.min(64)).chain(len.saturating_sub(64)..len);
        let there = |byte: u64| byte_at(at.region(), at.offset() + byte);
        let same = ends.all(|byte| self.seen[byte as usize] == there(byte));
        match self.seen.len() as u64 == len && same {
            true => Ok(()),
            false => Err(format!("{kind:?} at {extent:?} has other bytes")),
        }
    }
}

impl Kind {
    fn size(self) -> u64 {
        match self {
            Self::ReadBytes
            | Self::Slice
            | Self::ReadBuffer
            | Self::ReadValue
            | Self::Loan
            | Self::LoanOfParts => 1,
            Self::ReadLong => 8,
            Self::Move => 4,
            Self::Tile => 2,
        }
    }

    fn changes(self) -> bool {
        !matches!(
            self,
            Self::ReadBytes | Self::ReadLong | Self::ReadBuffer | Self::ReadValue
        )
    }

    fn is_list(self) -> bool {
        matches!(
            self,
            Self::ReadBuffer | Self::ReadValue | Self::Loan | Self::LoanOfParts
        )
    }

    /// The words before those of its array.
    fn head(self) -> &'static [u64] {
        match self {
            Self::ReadBuffer => &[1, 0],
            Self::ReadValue => &[1, 3, 9, 4, 0x0403_0201, 1],
            Self::Loan => &[1, 1],
            Self::LoanOfParts => &[1, 2],
            _ => &[],
        }
    }

    /// Its words end with the number of the first row.
    fn is_tile(self) -> bool {
        matches!(self, Self::Tile | Self::Slice)
    }

    fn receive(self, words: &mut Words<'_>, lane: &'static Lane) -> Result<Held, String> {
        fn take<P: Param<Held: 'static>>(
            words: &mut Words<'_>,
            lane: &'static Lane,
            look: impl FnOnce(&mut P::Held) -> (Vec<u8>, Option<*mut u8>),
        ) -> Result<Held, String> {
            let held = P::receive(words, &HostRef(lane));
            let mut held = Box::new(held.map_err(|why| format!("{why:?}"))?);
            let (seen, first) = look(&mut held);
            Ok(Held {
                parts: vec![Part { seen, first }],
                _held: held,
            })
        }
        fn open(bytes: &mut [u8]) -> (Vec<u8>, Option<*mut u8>) {
            (bytes.to_vec(), Some(bytes.as_mut_ptr()))
        }
        if self.is_list() {
            let held = Buffers::receive(words, &HostRef(lane));
            let mut held = held.map_err(|why| format!("{why:?}"))?;
            let buffers = held.iter_mut().flat_map(|buffer| match buffer {
                Received::Read(array) => vec![(array.to_vec(), None)],
                Received::Write(array) => vec![open(array)],
                Received::Value((_, _, arrays)) => {
                    arrays.iter().map(|array| (array.to_vec(), None)).collect()
                }
            });
            return Ok(Held {
                parts: buffers.map(|(seen, first)| Part { seen, first }).collect(),
                _held: Box::new(held),
            });
        }
        match self {
            Self::ReadBytes => take::<&Array<u8>>(words, lane, |array| (array.to_vec(), None)),
            Self::ReadLong => take::<&[u64]>(words, lane, |array| {
                (bytemuck::cast_slice(array).to_vec(), None)
            }),
            Self::Move => take::<ArrayMut<f32>>(words, lane, |array| {
                open(bytemuck::cast_slice_mut(array.as_mut().unwrap()))
            }),
            Self::Tile => take::<TileMut<'_, u16>>(words, lane, |range| {
                open(bytemuck::cast_slice_mut(
                    &mut <TileMut<'_, u16> as Param>::at(range, Key::new())[..],
                ))
            }),
            Self::Slice => take::<&mut [u8]>(words, lane, |range| {
                open(<&mut [u8] as Param>::at(range, Key::new()))
            }),
            Self::ReadBuffer | Self::ReadValue | Self::Loan | Self::LoanOfParts => {
                unreachable!("a list")
            }
        }
    }
}

/// The words of an honest argument.
fn words_of(kind: Kind, region: u16, offset: u64, rows: u64) -> Vec<u64> {
    let mut words = kind.head().to_vec();
    words.extend([bytemuck::cast(Offset::new(region, offset)), 1, rows]);
    words.extend(kind.is_tile().then_some(0));
    words
}

fn number() -> impl Strategy<Value = u64> {
    let edge = prop_oneof![
        Just(0u64),
        Just(u64::MAX),
        Just(u64::MAX / 2),
        Just(1 << 32),
        Just(1 << 47),
        Just(1 << 48),
        Just(1 << 62),
        Just(1 << 63),
        any::<u64>(),
    ];
    let about = edge.prop_flat_map(|edge| {
        prop_oneof![
            Just(edge),
            Just(edge.wrapping_add(1)),
            Just(edge.wrapping_sub(1))
        ]
    });
    prop_oneof![8 => 0u64..9, 4 => 0u64..3000, 1 => about]
}

/// A place: a small offset, one at the end of a page or of a region, or anything.
fn place() -> impl Strategy<Value = u64> {
    let region = prop_oneof![12 => 0u64..4, 1 => 4u64..8, 1 => Just(0xffff)];
    let around = |at: u64| (at - 9..at + 9).boxed();
    let offset = prop_oneof![
        6 => (0u64..400).prop_map(|at| at * 8),
        3 => 0u64..4000,
        2 => around(PAGE),
        2 => around(64 << 10),
        1 => around(2 << 20),
        1 => number().prop_map(|at| at & ((1 << 48) - 1)),
    ];
    (region, offset).prop_map(|(region, offset)| region << 48 | offset)
}

fn argument() -> impl Strategy<Value = (Kind, Vec<u64>)> {
    let dims = prop::collection::vec(number(), 1..=MAX_DIMS);
    let dims = prop_oneof![3 => prop::collection::vec(number(), 1..3), 1 => dims];
    let rank = prop_oneof![20 => Just(None), 1 => number().prop_map(Some)];
    let kind = prop::sample::select(KINDS.as_slice());
    (kind, place(), rank, dims, number()).prop_map(|(kind, at, rank, dims, row)| {
        let mut words = kind.head().to_vec();
        words.extend([at, rank.unwrap_or(dims.len() as u64)]);
        words.extend(dims);
        words.extend(kind.is_tile().then_some(row));
        (kind, words)
    })
}

#[test]
fn any_descriptors_are_refused_or_in_range() {
    let place = Place::new();
    let cases = crate::sys::asked::cases(10_000);
    let mut accepted = [0; 5];
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(cases));
    let calls = (
        prop::collection::vec(argument(), 1..5),
        prop_oneof![20 => Just(0usize), 1 => 1usize..4],
    );
    let counts = std::cell::RefCell::new(&mut accepted);
    let run = runner.run(&calls, |(arguments, cut)| {
        let kinds: Vec<_> = arguments.iter().map(|(kind, _)| *kind).collect();
        let mut words: Vec<_> = arguments.into_iter().flat_map(|(_, words)| words).collect();
        words.truncate(words.len() - cut.min(words.len()));
        let taken = place.call(&kinds, &words).map_err(TestCaseError::fail)?;
        counts.borrow_mut()[taken] += 1;
        Ok(())
    });
    run.unwrap_or_else(|error| panic!("{error}"));
    // Few cases may miss the rarer counts.
    assert!(
        cases < 1_000 || accepted[..4].iter().all(|&count| count > cases / 100),
        "{accepted:?}"
    );
}

/// Each place and length on a small grid, around each end that there is.
#[test]
fn every_descriptor_on_a_small_grid() {
    let place = Place::new();
    let mut accepted = 0;
    for kind in KINDS {
        for region in 0..=REGIONS {
            let len = place.lens.get(usize::from(region)).copied().unwrap_or(0);
            let edges = [0, PAGE, len, Offset::MAX_REGION_LEN - 1];
            for edge in edges {
                let least = edge.saturating_sub(17);
                for offset in least..(edge + 17).min(Offset::MAX_REGION_LEN) {
                    for rows in 0..18 {
                        let words = words_of(kind, region, offset, rows);
                        accepted += place.call(&[kind], &words).unwrap();
                    }
                }
            }
        }
    }
    assert!(accepted > 1000, "{accepted}");
}

/// Each two arguments on a small grid: together only where neither changes a byte of the other.
#[test]
fn every_overlap_on_a_small_grid() {
    let place = Place::new();
    let mut apart = 0;
    let mut refused = 0;
    for first in KINDS {
        for second in KINDS {
            for (a, b) in (0..10).flat_map(|a| (0..10).map(move |b| (a, b))) {
                for (rows, more) in (0..5).flat_map(|rows| (0..5).map(move |more| (rows, more))) {
                    let size = |kind: Kind| kind.size();
                    for region in [0, OWN] {
                        let mut words = words_of(first, region, a * size(first), rows);
                        words.extend(words_of(second, 0, b * size(second), more));
                        match place.call(&[first, second], &words).unwrap() {
                            2 => apart += 1,
                            _ => refused += 1,
                        }
                    }
                }
            }
        }
    }
    assert!(apart > 10_000 && refused > 5000, "{apart} {refused}");
}

/// An array without bytes lies in a page that holds what the worker writes: that page stays as it was.
#[test]
fn an_array_without_bytes_opens_and_closes_no_page() {
    let place = Place::new();
    let written = Extent {
        at: Offset::new(OWN, 64),
        len: 64,
    };
    place.lane.worker.view.open_own(0..PAGE).unwrap();
    let words = words_of(Kind::Move, OWN, 64, 0);
    assert_eq!(place.call(&[Kind::Move], &words), Ok(1));
    let writable = |at: usize| {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| {
            let (range, rest) = line.split_once(' ').unwrap();
            let (start, end) = range.split_once('-').unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(start)..number(end)).contains(&at) && rest.starts_with("rw")
        })
    };
    let own = place.lane.worker.view.pointer(written).unwrap();
    assert!(writable(own.addr().get()));
    place.lane.worker.view.close_own(0..PAGE).unwrap();
    assert!(!writable(own.addr().get()));
    // Nor is a neighbour's page opened for nothing.
    let nothing = Extent {
        at: Offset::new(2, 64),
        len: 0,
    };
    let first = place.lane.worker.view.lend_open(nothing).unwrap();
    assert!(!writable(first.addr().get()));
}
