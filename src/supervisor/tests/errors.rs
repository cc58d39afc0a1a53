//! Typed errors, as a worker may send them.

use super::*;
use crate::kernel::{Kernel, Returned, Typed};
use crate::link::INLINE_WORDS;

fn refuses() -> Result<(), Typed<bool>> {
    Err(Typed(true))
}

fn info<F: Kernel<(), R>, R: Reply>(_: F) -> KernelInfo {
    KernelInfo::of::<Single<F, (), R>>()
}

/// A reply as an honest worker writes it: text, tag of the type, encoding.
fn reply(text: &str, tag: u64, bytes: &[u8]) -> Vec<u64> {
    let mut writer = crate::kernel::wire::ReplyWriter::default();
    writer.word(text.len() as u64);
    writer.word(tag);
    writer.word(bytes.len() as u64);
    writer.bytes(text.as_bytes());
    writer.bytes(bytes);
    writer.words.to_vec()
}

fn tag_of_bool() -> u64 {
    let returned = Returned::encode(&true);
    returned.encoded().unwrap().0
}

/// The answer to a job of this kernel whose worker sends these words.
fn answered(kernel: &KernelInfo, words: &[u64]) -> JobErrorKind {
    let (shared, mut takers) = fixture(1, 1);
    let id = shared.submit(
        kernel,
        &mut ArgWriter::new(shared.arena.id()),
        Owner::Handle,
        None,
    );
    assert_eq!(takers[0].next(), Next::Run);
    let answer = OutgoingReply {
        len: words.len() as u32,
        words: &words[..words.len().min(INLINE_WORDS)],
        ..one_word(kind::TYPED_ERROR, &[0])
    };
    takers[0].finish(true, 1, Some(&answer));
    let answer = || shared.wait_timeout(id, <() as Reply>::receive, Duration::ZERO);
    let answer = answer().or_else(|| {
        assert_eq!(shared.lock().workers[0].status(), Status::Leaving);
        die(&shared, 0);
        answer()
    });
    answer.unwrap().unwrap_err().kind().clone()
}

/// Other attempts may have ended without the end of a worker.
#[test]
fn a_quarantined_job_says_how_many_workers_it_has_ended() {
    for (deaths, workers) in [(1, "1 worker,"), (3, "3 workers,")] {
        let text = JobErrorKind::from(JobLimit::Quarantined { deaths }).to_string();
        let expected = format!("its attempts ended {workers} and it is not tried again");
        assert_eq!(text, expected);
    }
}

#[test]
fn a_typed_error_is_read_as_its_type() {
    let kind = answered(&info(refuses), &reply("yes", tag_of_bool(), &[1]));
    assert_eq!(
        kind,
        JobErrorKind::Returned(Returned::from_parts("yes".into(), tag_of_bool(), &[1]))
    );
    assert_eq!(kind.returned(), Some(true));
}

#[test]
fn an_error_that_its_kernel_cannot_have_returned_is_a_fault() {
    let tag = tag_of_bool();
    let refuses = info(refuses);
    for (kernel, words) in [
        // What is sent is not the encoding of a `bool`, or the error has another type.
        (&refuses, reply("yes", tag, &[2])),
        (&refuses, reply("yes", tag, &[1, 1])),
        (&refuses, reply("yes", tag, &[])),
        (&refuses, reply("yes", tag ^ 1, &[1])),
        // The kernel returns no typed errors.
        (&kernel(), reply("yes", tag, &[1])),
    ] {
        let kind = answered(kernel, &words);
        assert!(
            matches!(kind, JobErrorKind::Lost(WorkerExit::Protocol(_))),
            "{kind}"
        );
    }
}

#[test]
fn lengths_that_do_not_fit_are_a_fault() {
    let good = reply("yes", tag_of_bool(), &[1]);
    for (at, lie) in [
        (0, 0),
        (0, 9),
        (0, 1 << 31),
        (0, u64::from(u32::MAX)),
        (2, 0),
        (2, 9),
        (2, 1 << 21),
        (2, u64::MAX),
    ] {
        let mut words = good.clone();
        words[at] = lie;
        let kind = answered(&info(refuses), &words);
        assert!(
            matches!(kind, JobErrorKind::Lost(WorkerExit::Protocol(_))),
            "{at} {lie}: {kind}"
        );
    }
    for len in 0..good.len() {
        let kind = answered(&info(refuses), &good[..len]);
        assert!(
            matches!(kind, JobErrorKind::Lost(WorkerExit::Protocol(_))),
            "{len}: {kind}"
        );
    }
    let longer = [&good[..], &[0]].concat();
    let kind = answered(&info(refuses), &longer);
    assert!(
        matches!(kind, JobErrorKind::Lost(WorkerExit::Protocol(_))),
        "{kind}"
    );
}

#[test]
fn a_text_that_is_no_text_is_a_fault() {
    let mut words = reply("yes", tag_of_bool(), &[1]);
    words[3] = u64::from_ne_bytes([0xff; 8]);
    let kind = answered(&info(refuses), &words);
    assert!(
        matches!(kind, JobErrorKind::Lost(WorkerExit::Protocol(_))),
        "{kind}"
    );
}
