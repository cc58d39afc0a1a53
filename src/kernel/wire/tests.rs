//! Tests round trips of words, and the rejection of words that no writer wrote.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::ptr::NonNull;

use proptest::prelude::*;

use super::*;
use crate::arena::{Arena, Backing, BlockPlacement, Spec};
use crate::array::{Array, ArrayMut, LaneChunk, LaneCount, TileMut};
use crate::kernel::raw::Buffers;
use crate::kernel::{
    BadArgument, BadReply, Bytes, Host, HostRef, Param, Receiving, Reply, Unreachable, Words,
};

/// A host without reachable memory.
struct NoMemory;

// SAFETY: it returns no address.
unsafe impl Host for NoMemory {
    fn read(&self, _: Extent) -> Result<NonNull<u8>, Unreachable> {
        Err(Unreachable("no memory is".into()))
    }
    fn open_file(&self, _: FileName, _: (u64, u64)) -> Result<Arc<SealedFile>, BadArgument> {
        Err(BadArgument::NoFile("no file is".into()))
    }
    fn lend(&self, _: Extent, _: u64, _: bool) -> Result<NonNull<u8>, Unreachable> {
        Err(Unreachable("no memory is".into()))
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
    P::receive(&mut Words(WordReader::new(words)), &HostRef(&NoMemory)).is_ok()
}

fn receives<R: Reply>(words: &[u64], arrays: Vec<ReceivedArray>) -> Result<R::Out, BadReply> {
    let arrays = SmallVec::<[ReceivedArray; 1]>::from_vec(arrays).into_iter();
    let words = WordReader::new(words);
    R::receive(&mut Receiving(ReplyReader { words, arrays }))
}

/// Returns the words after an array of elements of `size` bytes that are among the words.
fn after_inline_array(words: &[u64], size: usize) -> Option<&[u64]> {
    let (&[at, len], rest) = words.split_first_chunk()?;
    let bytes = usize::try_from(len).ok()?.checked_mul(size)?;
    let rest = rest.get(bytes.div_ceil(8)..);
    rest.filter(|_| at >> 48 == u64::from(INLINE_REGION))
}

/// Whether the words begin with a number, followed by that many entries; `after` returns the words after an entry.
fn is_list(words: &[u64], after: impl Fn(&[u64]) -> Option<&[u64]>) -> bool {
    let list = words.split_first();
    list.is_some_and(|(&count, rest)| (0..count).try_fold(rest, |rest, _| after(rest)).is_some())
}

/// Skips a number, bytes and arrays.
fn after_value(words: &[u64]) -> Option<&[u64]> {
    let (&[_, len], rest) = words.split_first_chunk()?;
    let rest = rest.get(usize::try_from(len).ok()?.div_ceil(8)..)?;
    let (&count, rest) = rest.split_first()?;
    (0..count).try_fold(rest, |rest, _| after_inline_array(rest, 1))
}

/// Words of a broken or hostile writer: mostly small, sometimes huge, sometimes the first word of an array in the call.
fn words() -> impl Strategy<Value = Vec<u64>> {
    let inline = u64::from(INLINE_REGION) << 48;
    let word = prop_oneof![
        4 => 0u64..20, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(1 << 63), 2 => Just(inline)
    ];
    prop::collection::vec(word, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
    #[test]
    fn reading_arbitrary_words_never_panics(words in words(), take in prop::collection::vec(0u8..5, 0..12)) {
        let mut reader = WordReader::new(&words);
        for what in take {
            match what {
                0 => { let _ = reader.word(); }
                1 => { let _ = reader.offset(); }
                2 => { let _ = reader.shape(); }
                3 => { let _ = SentArray::read(&mut reader); }
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
    fn arbitrary_words_are_arguments_or_rejected(words in words()) {
        accepts::<u8>(&words);
        accepts::<bool>(&words);
        accepts::<char>(&words);
        accepts::<[u16; 7]>(&words);
        // A list of scalars: its length, then its values.
        let count = words.first().and_then(|&count| usize::try_from(count).ok());
        let rest = words.get(1..).unwrap_or_default();
        let first = |count: usize| bytemuck::cast_slice::<u64, u8>(rest).get(..count);
        let flags = count.and_then(first);
        prop_assert_eq!(accepts::<Vec<u8>>(&words), flags.is_some());
        prop_assert_eq!(accepts::<Vec<bool>>(&words), flags.is_some_and(|flags| flags.iter().all(|&flag| flag < 2)));
        let first = |count: usize| bytemuck::cast_slice::<u64, u32>(rest).get(..count);
        let letters = count.and_then(first);
        let is_letter = |&letter: &u32| char::from_u32(letter).is_some();
        prop_assert_eq!(accepts::<Vec<char>>(&words), letters.is_some_and(|letters| letters.iter().all(is_letter)));
        let pairs = count.and_then(|count| rest.get(..count));
        prop_assert_eq!(accepts::<Vec<[u32; 2]>>(&words), pairs.is_some());
        accepts::<&str>(&words);
        accepts::<&Bytes>(&words);
        // Without memory, only an array whose bytes are in the call is accepted.
        prop_assert_eq!(accepts::<&Array<u64>>(&words), after_inline_array(&words, 8).is_some());
        prop_assert_eq!(accepts::<&[u8]>(&words), after_inline_array(&words, 1).is_some());
        prop_assert_eq!(accepts::<&[Array<u8>]>(&words), is_list(&words, |words| after_inline_array(words, 1)));
        // Before each buffer there is a word: for one that is only read, or for the value of a job.
        let are_buffers = is_list(&words, |words| match words.split_first()? {
            (0, rest) => after_inline_array(rest, 1),
            (3, rest) => after_value(rest),
            _ => None,
        });
        prop_assert_eq!(accepts::<Buffers<'_>>(&words), are_buffers);
        prop_assert!(!accepts::<ArrayMut<f32>>(&words));
        prop_assert!(!accepts::<TileMut<'_, u16>>(&words));
        prop_assert!(!accepts::<&mut [u8]>(&words));
    }

    #[test]
    fn arbitrary_words_are_a_reply_or_rejected(words in words()) {
        let _ = receives::<()>(&words, Vec::new());
        let _ = receives::<bool>(&words, Vec::new());
        let _ = receives::<(char, u128)>(&words, Vec::new());
        let _ = receives::<String>(&words, Vec::new());
        let bytes = receives::<Bytes>(&words, Vec::new());
        prop_assert!(bytes.is_err() || words[0] == bytes.unwrap().len() as u64);
        let _ = receives::<(Bytes, Option<Vec<Array<u8>>>)>(&words, Vec::new());
        let _ = receives::<Option<(String, Option<i8>)>>(&words, Vec::new());
        let _ = receives::<(Vec<char>, Vec<u16>)>(&words, Vec::new());
        let _ = receives::<Result<(u8, String, bool, [u32; 3]), String>>(&words, Vec::new());
        // An array that was not sent is rejected, whatever its shape.
        prop_assert!(receives::<Array<u8>>(&words, Vec::new()).is_err());
        prop_assert!(receives::<ArrayMut<u64>>(&words, Vec::new()).is_err());
        let list = receives::<Vec<Array<u8>>>(&words, Vec::new());
        prop_assert_eq!(list.is_ok(), words.first() == Some(&0));
    }

    #[test]
    fn written_words_read_back(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        dims in prop::collection::vec(0usize..1000, 1..=crate::array::MAX_DIMS),
        numbers in any::<[u64; 4]>(),
    ) {
        let shape = Shape::try_from(&*dims).unwrap();
        let sent = SentArray {
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
        prop_assert_eq!(SentArray::read(&mut reader), Ok(sent));
        prop_assert_eq!(reader.offset(), Ok(sent.view.at));
        prop_assert_eq!(reader.shape(), Ok(shape));
        prop_assert_eq!(reader.bytes(bytes.len()), Ok(&*bytes));
        prop_assert_eq!(reader.word(), Err(Malformed));
    }

    #[test]
    fn a_received_array_matches_its_shape_and_fits_its_block(words in words(), skip in 0u64..300, len in 0u64..300) {
        let spec = Spec { capacity: 8 << 20, writers: 1, backing: Backing::Memfd, control_len: 0, ..Spec::default() };
        thread_local! {
            static ARENA: std::cell::OnceCell<Arc<Arena>> = const { std::cell::OnceCell::new() };
        }
        let arena = ARENA.with(|arena| Arc::clone(arena.get_or_init(|| Arena::create(&spec).unwrap())));
        let block = Arc::new(arena.alloc(1, 256, BlockPlacement::Packed).unwrap());
        let sent = || vec![ReceivedArray { block: Arc::clone(&block), skip, len }];
        if let Ok(array) = receives::<Array<u32>>(&words, sent()) {
            prop_assert_eq!(array.len() as u64 * 4, len);
            prop_assert!(len == 0 || skip + len <= 256 && skip % 4 == 0);
        }
        let sent_twice = || sent().into_iter().chain(sent()).collect();
        if let Ok(list) = receives::<Vec<Array<u32>>>(&words, sent_twice()) {
            prop_assert_eq!(list.len() as u64, words[0]);
            prop_assert!(list.len() <= 2 && list.iter().all(|array| array.len() as u64 * 4 == len));
        }
        // The array has another owner, so it cannot be received as mutable.
        prop_assert!(receives::<ArrayMut<u8>>(&words, sent()).is_err());
    }
}

#[test]
fn a_long_call_keeps_its_first_words() {
    let mut call = ArgWriter::new(0);
    for word in 0..40 {
        call.word(word);
        assert_eq!(call.words(), (0..=word).collect::<Vec<_>>());
    }
}

#[test]
fn a_long_text_does_not_retain_its_memory() {
    let mut writer = ArgWriter::new(0);
    for (len, keeps) in [(100, true), (1 << 20, false), (100, true)] {
        writer.extend(&vec![7; len]);
        assert_eq!(writer.words().len(), len);
        writer.reset();
        assert_eq!(writer.long.capacity() > 0, keeps, "{len} words");
        assert!(writer.words().is_empty());
    }
}
