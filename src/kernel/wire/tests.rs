//! What is written is read again, and what nobody wrote is refused.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::ptr::NonNull;

use proptest::prelude::*;

use super::*;
use crate::arena::{Arena, Backing, Placement, Spec};
use crate::array::{Array, ArrayMut, LaneChunk, LaneCount, TileMut};
use crate::kernel::{BadReply, Host, HostRef, Param, Receiving, Reply, Unreachable, Words};

/// A place where no memory is in reach.
struct Nowhere;

// SAFETY: it returns no address.
unsafe impl Host for Nowhere {
    fn read(&self, _: Extent) -> Result<NonNull<u8>, Unreachable> {
        Err(Unreachable("nothing is".into()))
    }
    fn lend(&self, _: Extent, _: u64) -> Result<NonNull<u8>, Unreachable> {
        Err(Unreachable("nothing is".into()))
    }
    fn count(&self) -> &'static LaneCount {
        static COUNT: LaneCount = LaneCount::new();
        &COUNT
    }
    fn alloc(&self, _: usize) -> Result<LaneChunk, ArenaFull> {
        unreachable!("arguments allocate nothing")
    }
}

fn accepts<P: Param>(words: &[u64]) -> bool {
    P::receive(&mut Words(WordReader::new(words)), &HostRef(&Nowhere)).is_ok()
}

fn receives<R: Reply>(words: &[u64], arrays: Vec<Received>) -> Result<R::Out, BadReply> {
    let arrays = SmallVec::<[Received; 1]>::from_vec(arrays).into_iter();
    let words = WordReader::new(words);
    R::receive(&mut Receiving(ReplyReader { words, arrays }))
}

/// Words as a broken or hostile writer has them: mostly small, now and then huge.
fn words() -> impl Strategy<Value = Vec<u64>> {
    let word =
        prop_oneof![4 => 0u64..20, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(1 << 63)];
    prop::collection::vec(word, 0..24)
}

proptest! {
    #[test]
    fn any_words_are_read_or_refused(words in words(), take in prop::collection::vec(0u8..5, 0..12)) {
        let mut reader = WordReader::new(&words);
        for what in take {
            match what {
                0 => { let _ = reader.word(); }
                1 => { let _ = reader.offset(); }
                2 => { let _ = reader.shape(); }
                3 => { let _ = Sent::read(&mut reader); }
                _ => {
                    let len = reader.clone().word().unwrap_or(0) as usize;
                    if let Ok(bytes) = reader.bytes(len) {
                        prop_assert_eq!(bytes.len(), len);
                    }
                }
            }
        }
    }

    #[test]
    fn any_words_are_arguments_or_not(words in words()) {
        accepts::<u8>(&words);
        accepts::<bool>(&words);
        accepts::<char>(&words);
        accepts::<[u16; 7]>(&words);
        accepts::<&str>(&words);
        // No memory is in reach, so there is nothing to accept but the words could be understood.
        prop_assert!(!accepts::<&Array<u64>>(&words));
        prop_assert!(!accepts::<&[u8]>(&words));
        // A list may be empty, whatever follows.
        prop_assert_eq!(accepts::<&[Array<u8>]>(&words), words.first() == Some(&0));
        prop_assert!(!accepts::<ArrayMut<f32>>(&words));
        prop_assert!(!accepts::<TileMut<'_, u16>>(&words));
        prop_assert!(!accepts::<&mut [u8]>(&words));
    }

    #[test]
    fn any_words_are_a_reply_or_not(words in words()) {
        let _ = receives::<()>(&words, Vec::new());
        let _ = receives::<bool>(&words, Vec::new());
        let _ = receives::<(char, u128)>(&words, Vec::new());
        let _ = receives::<String>(&words, Vec::new());
        let _ = receives::<Option<(String, Option<i8>)>>(&words, Vec::new());
        let _ = receives::<Result<(u8, String, bool, [u32; 3]), String>>(&words, Vec::new());
        // An array that nobody sent is none, whatever its shape.
        prop_assert!(receives::<Array<u8>>(&words, Vec::new()).is_err());
        prop_assert!(receives::<ArrayMut<u64>>(&words, Vec::new()).is_err());
    }

    #[test]
    fn what_is_written_is_read(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        dims in prop::collection::vec(0usize..1000, 1..=crate::array::MAX_DIMS),
        numbers in any::<[u64; 4]>(),
    ) {
        let shape = Shape::try_from(&*dims).unwrap();
        let sent = Sent {
            chunk: Extent { at: bytemuck::cast(numbers[0]), len: numbers[1] },
            view: Extent { at: bytemuck::cast(numbers[2]), len: numbers[3] },
        };
        let mut call = ArgWriter::new(0);
        let mut reply = ReplyWriter::default();
        for words in sent.words() {
            call.word(words);
            reply.word(words);
        }
        call.array(sent.view, &shape);
        call.bytes(&bytes);
        reply.word(numbers[2]);
        reply.shape(&shape);
        reply.bytes(&bytes);
        prop_assert_eq!(call.words(), &*reply.words);
        let mut reader = WordReader::new(call.words());
        prop_assert_eq!(Sent::read(&mut reader), Ok(sent));
        prop_assert_eq!(reader.offset(), Ok(sent.view.at));
        prop_assert_eq!(reader.shape(), Ok(shape));
        prop_assert_eq!(reader.bytes(bytes.len()), Ok(&*bytes));
        prop_assert_eq!(reader.word(), Err(Malformed));
    }

    /// An array of a reply is what its shape says, or nothing.
    #[test]
    fn a_received_array_fits_its_block(words in words(), skip in 0u64..300, len in 0u64..300) {
        let spec = Spec { capacity: 8 << 20, writers: 1, backing: Backing::Memfd, control_len: 0, ..Spec::default() };
        thread_local! {
            static ARENA: std::cell::OnceCell<Arc<Arena>> = const { std::cell::OnceCell::new() };
        }
        let arena = ARENA.with(|arena| Arc::clone(arena.get_or_init(|| Arena::create(&spec).unwrap())));
        let block = Arc::new(arena.alloc(1, 256, Placement::Packed).unwrap());
        let sent = || vec![Received { block: Arc::clone(&block), skip, len }];
        if let Ok(array) = receives::<Array<u32>>(&words, sent()) {
            prop_assert_eq!(array.len() as u64 * 4, len);
            prop_assert!(len == 0 || skip + len <= 256 && skip % 4 == 0);
        }
        // Somebody else holds it, so nobody may change it.
        prop_assert!(receives::<ArrayMut<u8>>(&words, sent()).is_err());
    }
}

#[test]
fn long_calls_keep_their_beginning() {
    let mut call = ArgWriter::new(0);
    for word in 0..40 {
        call.word(word);
        assert_eq!(call.words(), (0..=word).collect::<Vec<_>>());
    }
}

#[test]
fn a_long_text_leaves_no_memory_behind() {
    let mut writer = ArgWriter::new(0);
    for (len, keeps) in [(100, true), (1 << 20, false), (100, true)] {
        writer.extend(&vec![7; len]);
        assert_eq!(writer.words().len(), len);
        writer.reset();
        assert_eq!(writer.long.capacity() > 0, keeps, "{len} words");
        assert!(writer.words().is_empty());
    }
}
