//! Arrays that a worker claims to retain, and releases that it reports.

use super::*;
use crate::link::MAX_RETAINED;

/// An engine whose only worker retains arrays, and the worker's grant.
struct Retaining {
    shared: Arc<Supervisor>,
    consumer: Consumer,
    granted: Extent,
    number: u32,
}

impl Retaining {
    fn new() -> Self {
        let (shared, mut consumers) = fixture(1, 1);
        let mut consumer = consumers.remove(0);
        let mut state = shared.lock();
        state.config.retains = true;
        let block = shared.arena.grant(1, 16 * PAGE, false).unwrap();
        let granted = block.extent();
        state.lanes[0].grant(block).unwrap();
        drop(state);
        let number = consumer.next_grant().unwrap().number;
        Self {
            shared,
            consumer,
            granted,
            number,
        }
    }

    /// Submits a job that reads an array of 1,000 bytes, and claims it for the worker.
    fn run(&mut self) -> (JobId, Extent) {
        let block = self.alloc();
        let extent = block.extent();
        (self.run_with(Lease::Shared(block)), extent)
    }

    fn alloc(&self) -> Arc<Block> {
        let block = self.shared.arena.alloc(0, 1000, BlockPlacement::Packed);
        Arc::new(block.unwrap())
    }

    /// Submits a job with this lease, and claims it for the worker.
    fn run_with(&mut self, lease: Lease) -> JobId {
        let mut call = ArgWriter::new(self.shared.arena.id());
        call.leases.push(lease);
        let job = self
            .shared
            .submit(&kernel(), &mut call, Owner::Handle, None);
        assert_eq!(self.consumer.next(), Next::Run);
        job
    }

    /// Ends the job with an array as its value that the job has not allocated.
    fn send(&mut self, view: Extent) {
        let at = bytemuck::cast(view.at);
        let words = [at, view.len, at, view.len, 1, view.len];
        let answer = OutgoingReply {
            kind: kind::VALUE,
            arrays: 1,
            retained: 0,
            spilled: false,
            len: 6,
            grant: NO_GRANT,
            cursor: 0,
            words: &words,
        };
        self.consumer.finish(false, 10, Some(&answer));
    }

    /// Ends the job; handles to these arrays outlive it. `used`: bytes used of the grant.
    fn end(&mut self, left: &[Extent], used: u64) {
        let words: Vec<u64> = left
            .iter()
            .flat_map(|left| [bytemuck::cast(left.at), left.len])
            .collect();
        let answer = OutgoingReply {
            kind: kind::VALUE,
            arrays: 0,
            retained: left.len() as u32,
            spilled: false,
            len: words.len() as u32,
            grant: if used > 0 {
                self.number.into()
            } else {
                NO_GRANT
            },
            cursor: self.granted.at.offset() + used,
            words: &words,
        };
        self.consumer.finish(false, 10, Some(&answer));
    }

    fn release(&mut self, number: u64) {
        assert!(self.consumer.has_room_for_release());
        self.consumer.report_release(number);
    }

    fn retained(&self) -> u64 {
        self.shared.stats().retained()
    }

    /// Bytes in use in addition to the grant.
    fn in_use(&self) -> u64 {
        let stats = self.shared.stats();
        stats.arena.in_use - stats.workers[0].granted
    }

    fn is_condemned(&self) -> bool {
        self.shared.stats();
        self.shared.lock().workers[0].status() == Status::Leaving
    }

    /// Kills the worker, and checks that all memory is free.
    fn dies(self) {
        die(&self.shared, 0);
        assert_eq!(self.retained(), 0);
        let stats = self.shared.arena.stats();
        assert_eq!((stats.in_use, stats.blocks), (0, 0));
        assert_eq!(self.shared.arena.full_in_region_0(1).retained, 0);
    }
}

#[test]
fn retained_arrays_are_freed_when_they_are_released() {
    let mut it = Retaining::new();
    let (job, input) = it.run();
    let own = Extent {
        at: it.granted.at,
        len: 100,
    };
    it.end(&[input, own], 2 * PAGE);
    assert_eq!(it.retained(), 1024 + 128);
    assert_eq!(it.in_use(), 1024 + 128, "the rest of what it used is free");
    assert_eq!(it.shared.arena.full_in_region_0(1).retained, 1024 + 128);
    assert_eq!(answer(&it.shared, job).unwrap(), "value");
    it.release(1);
    assert_eq!((it.retained(), it.in_use()), (1024, 1024));
    // Two arrays in one block count once.
    let (_, other) = it.run();
    let part = Extent { len: 8, ..other };
    it.end(&[other, part], 0);
    assert_eq!(it.retained(), 2048);
    it.release(3);
    assert_eq!(it.retained(), 2048);
    it.release(0);
    it.release(2);
    assert_eq!((it.retained(), it.in_use()), (0, 0));
    assert!(!it.is_condemned());
    it.dies();
}

/// A later reply may contain an array that an earlier job has left.
#[test]
fn a_retained_array_may_be_sent() {
    let mut it = Retaining::new();
    let (_, input) = it.run();
    it.end(&[input], 0);
    let (_, _) = it.run();
    it.send(Extent { len: 64, ..input });
    assert!(!it.is_condemned());
    it.release(0);
    assert_eq!(it.retained(), 0);
    assert!(it.in_use() >= 1024, "the answer holds it");
}

/// A block may be sent while it has a retained array that its job could only read, and not while all its retained
/// arrays were lent, in whatever order they were added.
#[test]
fn a_block_that_was_only_lent_is_not_sent() {
    for (lent_first, released, is_sent) in [
        (true, None, true),
        (false, None, true),
        (true, Some(0), true),
        (true, Some(1), false),
        (false, Some(0), false),
        (false, Some(1), true),
    ] {
        let mut it = Retaining::new();
        let block = it.alloc();
        let extent = block.extent();
        for is_lent in [lent_first, !lent_first] {
            let block = Arc::clone(&block);
            let job = it.run_with(match is_lent {
                true => Lease::Loan { block, extent },
                false => Lease::Shared(block),
            });
            it.end(&[extent], 0);
            answer(&it.shared, job).unwrap();
        }
        if let Some(number) = released {
            it.release(number);
            // The report is read now, because a reply that arrives together with it may have been sent earlier.
            it.retained();
        }
        let (job, _) = it.run();
        it.send(Extent { len: 64, ..extent });
        let what = format!("{lent_first} {released:?}");
        assert_eq!(!it.is_condemned(), is_sent, "{what}");
        drop(block);
        die(&it.shared, 0);
        assert!(answer(&it.shared, job).is_some(), "{what}");
        it.dies();
    }
}

#[test]
fn more_releases_than_fit_wait_for_room() {
    let mut it = Retaining::new();
    for _ in 0..40 {
        let (job, input) = it.run();
        it.end(&[input], 0);
        answer(&it.shared, job).unwrap();
    }
    assert_eq!(it.retained(), 40 * 1024);
    for number in 0..32 {
        it.release(number);
    }
    assert!(!it.consumer.has_room_for_release() && !it.consumer.has_work());
    assert_eq!(it.retained(), 8 * 1024);
    assert!(it.consumer.has_work(), "there is room");
    (32..40).for_each(|number| it.release(number));
    assert!(it.retained() == 0 && !it.consumer.has_work());
    it.dies();
}

/// The worker dies before its reply is drained or its report is read.
#[test]
fn recovery_frees_what_was_retained() {
    for step in 0..4 {
        let mut it = Retaining::new();
        let (_, input) = it.run();
        let own = Extent {
            at: it.granted.at,
            len: 100,
        };
        it.end(&[input, own], PAGE);
        if step > 0 {
            assert!(it.retained() > 0);
        }
        if step > 1 {
            it.release(0);
        }
        if step > 2 {
            assert!(it.retained() > 0);
        }
        die(&it.shared, 0);
        assert_eq!((it.retained(), it.in_use()), (0, 0), "{step}");
        // The next process starts its numbers at 0.
        it.shared.lock().set_status(0, Status::Ready);
        let tail = it.shared.lock().lanes[0].producer.tail();
        let granted = it.shared.lock().lanes[0].producer.granted();
        let cells = Arc::clone(&it.shared.cells[0]);
        it.consumer = Consumer::new(cells, tail, granted);
        let (_, input) = it.run();
        it.end(&[input], 0);
        assert_eq!(it.retained(), 1024);
        it.release(0);
        assert_eq!(it.retained(), 0);
        assert!(!it.is_condemned());
        it.dies();
    }
}

#[test]
fn false_claims_cost_the_worker() {
    type Attack = fn(&mut Retaining, Extent);
    let attacks: [(&str, Attack); 9] = [
        ("released twice", |it, input| {
            it.end(&[input], 0);
            it.release(0);
            it.release(0);
        }),
        ("never retained", |it, input| {
            it.end(&[input], 0);
            it.release(1);
        }),
        ("released before its reply", |it, _| it.release(0)),
        ("more reports than there is room for", |it, _| {
            let reply = it.shared.cells[0].reply();
            reply.released.store(33, Ordering::Relaxed);
        }),
        ("of another owner", |it, input| {
            // No memory was allocated beyond the input.
            let at = Offset::new(0, input.at.offset() + (1 << 20));
            it.end(&[Extent { at, len: 64 }], 0);
        }),
        ("beyond the input", |it, input| {
            it.end(&[Extent { len: 1001, ..input }], 0);
        }),
        ("beyond what was used", |it, _| {
            let at = it.granted.at;
            it.end(&[Extent { at, len: PAGE + 1 }], PAGE);
        }),
        ("without bytes", |it, input| {
            it.end(&[Extent { len: 0, ..input }], 0);
        }),
        ("more than a lane may retain", |it, input| {
            let words = [bytemuck::cast(input.at), input.len];
            let answer = OutgoingReply {
                kind: kind::VALUE,
                arrays: 0,
                retained: MAX_RETAINED as u32 + 1,
                spilled: false,
                len: 2,
                grant: NO_GRANT,
                cursor: 0,
                words: &words,
            };
            it.consumer.finish(false, 10, Some(&answer));
        }),
    ];
    for (what, attack) in attacks {
        let mut it = Retaining::new();
        let (job, input) = it.run();
        attack(&mut it, input);
        assert!(it.is_condemned(), "{what}");
        die(&it.shared, 0);
        assert!(answer(&it.shared, job).is_some(), "{what}");
        it.dies();
    }
}

/// Without the option, a worker must not retain anything, and its reports are not read.
#[test]
fn an_engine_that_retains_nothing_refuses_claims() {
    let (shared, mut consumers) = fixture(1, 1);
    let job = submit(&shared);
    let consumer = &mut consumers[0];
    assert_eq!(consumer.next(), Next::Run);
    let answered = OutgoingReply {
        retained: 1,
        ..one_word(kind::VALUE, &[0])
    };
    consumer.report_release(7);
    consumer.finish(false, 10, Some(&answered));
    die(&shared, 0);
    let why = answer(&shared, job).unwrap();
    assert!(why.contains("a reply that retains 1 arrays"), "{why}");
}
