//! The words of a chain's reply in addition to its value.

use super::super::record::Outcome;
use super::*;
use crate::kernel::wire::ArgWriter;
use crate::kernel::{KernelInfo, Shares};

/// Returns an engine with one job that gets this reply.
fn answer_with(
    kernel: &KernelInfo,
    kind: u8,
    words: &[u64],
) -> (Arc<Supervisor>, Vec<Consumer>, JobId) {
    let (shared, mut consumers) = fixture(1, 1);
    let id = shared.submit(
        kernel,
        &mut ArgWriter::new(shared.arena.id()),
        Owner::Handle,
        None,
    );
    assert_eq!(consumers[0].next(), Next::Run);
    let answer = OutgoingReply {
        len: words.len() as u32,
        words,
        ..one_word(kind, &[0])
    };
    consumers[0].finish(false, 1000, Some(&answer));
    (shared, consumers, id)
}

/// Returns the words in the record of a job that gets this reply; `None` if its worker is killed.
fn answered(kernel: &KernelInfo, kind: u8, words: &[u64]) -> Option<Vec<u64>> {
    let (shared, _consumers, id) = answer_with(kernel, kind, words);
    assert_eq!(
        shared.is_done(id),
        shared.lock().workers[0].status() == Status::Ready
    );
    let mut state = shared.lock();
    let record = state.records.get(id);
    let payload = record.payload;
    match &record.outcome {
        Some(Outcome::Inline { len }) => Some(payload[..*len as usize].to_vec()),
        Some(Outcome::Failed(error)) => panic!("{error}"),
        Some(_) => panic!("another kind of value"),
        None => None,
    }
}

#[test]
fn times_of_a_chain_are_removed_before_the_value_is_read() {
    let chain = KernelInfo::of_chain();
    let all = [42, 43, 44, 45, 46];
    assert_eq!(answered(&chain, kind::VALUE, &all).unwrap(), all);
    for words in 2..=5 {
        let value = answered(&chain, kind::TIMED, &all[..words]).unwrap();
        assert_eq!(value, all[..words - 2]);
    }
}

#[test]
fn times_without_a_chain_are_faults() {
    assert_eq!(answered(&KernelInfo::of_chain(), kind::TIMED, &[7]), None);
    assert_eq!(answered(&kernel(), kind::TIMED, &[7, 8, 9]), None);
}

#[test]
fn times_of_a_chain_are_counted_for_its_nodes() {
    let words = [42, 1 << 16 | 3, 0];
    let (shared, _consumers, id) = answer_with(&KernelInfo::of_chain(), kind::TIMED, &words);
    assert!(shared.is_done(id));
    let shares = shared.lock().runs.drained().shares;
    assert_eq!(shares, Shares::of([1 << 16 | 3, 0]));
    assert!(shares.unwrap().of_nodes(2, 400).eq([300, 100]));
}
