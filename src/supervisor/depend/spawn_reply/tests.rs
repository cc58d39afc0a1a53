//! Valid lists are read. All others are refused, without other effects.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

/// Values of one argument: the number of words and of arrays of each value.
type Values = Vec<(usize, usize)>;

/// A list as a correct worker writes it: names of kernels; for each task its kernel and its arguments, as numbers of
/// words and arrays of each value; for the last task the number of children that each argument takes.
#[derive(Clone, Debug)]
struct List {
    names: Vec<String>,
    tasks: Vec<(usize, Vec<Values>)>,
    taken: Vec<usize>,
}

/// Half of the lists have no arrays: only their calls are written completely.
fn list() -> impl Strategy<Value = List> {
    prop_oneof![list_with(1), list_with(3)]
}

/// Lists with fewer than this number of arrays per value.
fn list_with(arrays: usize) -> impl Strategy<Value = List> {
    let value = (0usize..4, 0..arrays);
    let arguments = prop::collection::vec(prop::collection::vec(value, 0..3), 0..4);
    let tasks = prop::collection::vec((any::<prop::sample::Index>(), arguments), 1..6);
    let names = prop::collection::vec("[a-z:]{0,40}", 1..4);
    (names, tasks, 1usize..4).prop_map(|(names, tasks, ways)| {
        let children = tasks.len() - 1;
        let mut taken = vec![children / ways; ways];
        taken[0] += children % ways;
        let kernel = |pick: prop::sample::Index| pick.index(names.len());
        List {
            tasks: tasks
                .into_iter()
                .map(|(pick, arguments)| (kernel(pick), arguments))
                .collect(),
            names,
            taken,
        }
    })
}

impl List {
    /// The words of the list, and the number of arrays in it.
    fn write(&self) -> (Vec<u64>, usize) {
        let last = self.tasks.len() - 1;
        let mut words = vec![self.names.len() as u64 | (last as u64) << 32];
        for (at, name) in self.names.iter().enumerate() {
            words.extend([at as u64, 1_000, name.len() as u64 | SPAWNS]);
            for chunk in name.as_bytes().chunks(8) {
                let mut word = [0; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                words.push(u64::from_ne_bytes(word));
            }
        }
        let mut arrays = 0;
        for (number, (kernel, arguments)) in self.tasks.iter().enumerate() {
            let more = if number == last { self.taken.len() } else { 0 };
            words.push(*kernel as u64 | ((arguments.len() + more) as u64) << 32);
            for values in arguments {
                words.push(GIVEN | (values.len() as u64) << 32);
                for &(len, with) in values {
                    words.push(with as u64 | (len as u64) << 32);
                    words.extend((0..len).map(|word| word as u64));
                    arrays += with;
                }
            }
            if number == last {
                let taken = self.taken.iter();
                words.extend(taken.map(|&taken| CHILDREN | MOVED | (taken as u64) << 32));
            }
        }
        (words, arrays)
    }
}

fn forged_values(correct: u64) -> [u64; 12] {
    [
        0,
        1,
        2,
        u64::MAX,
        u64::from(u32::MAX),
        1 << 63,
        1 << 32,
        correct.wrapping_add(1),
        correct.wrapping_sub(1),
        correct ^ 1 << 32,
        correct ^ MOVED,
        correct.rotate_left(32),
    ]
}

/// An accepted list is complete: the call of each task can be written, without reading beyond the list.
fn check(words: &[u64], arrays: usize) -> bool {
    let Ok((kernels, tasks)) = read(words, arrays) else {
        return false;
    };
    assert!(!kernels.is_empty() && !tasks.is_empty());
    assert!(
        tasks
            .iter()
            .all(|task| (task.kernel as usize) < kernels.len())
    );
    let mut reply = SpawnReply {
        words: words.to_vec(),
        arrays: Vec::new(),
        kernels,
        tasks,
    };
    let mut children = reply.tasks.len() - 1;
    for task in 0..reply.tasks.len() {
        let mut call = ArgWriter::new(0);
        let is_last = task + 1 == reply.tasks.len();
        let mut child = || {
            children = children.checked_sub(1).filter(|_| is_last)?;
            Some(ChildValue {
                words: vec![7],
                arrays: smallvec::SmallVec::new(),
            })
        };
        match reply.load(task, &mut call, &mut child) {
            Ok(()) => {}
            // The test provides no arrays.
            Err(Unloaded::Malformed) if arrays > 0 => return true,
            Err(why) => panic!("{why:?}"),
        }
    }
    assert_eq!(children, 0, "each value is taken");
    true
}

/// A task may wait long for its children, which may have children of their own.
#[test]
fn words_of_sent_tasks_are_freed() {
    let list = List {
        names: vec!["k".into()],
        tasks: vec![
            (0, vec![vec![(1_000, 0)]]),
            (0, vec![vec![(2_000, 0)]]),
            (0, vec![vec![(3, 0)]]),
        ],
        taken: vec![2],
    };
    let (words, arrays) = list.write();
    let (kernels, tasks) = read(&words, arrays).unwrap();
    let mut reply = SpawnReply {
        words,
        arrays: Vec::new(),
        kernels,
        tasks,
    };
    let mut load = |task| {
        let mut call = ArgWriter::new(0);
        let child = || {
            Some(ChildValue {
                words: vec![7],
                arrays: smallvec::SmallVec::new(),
            })
        };
        reply.load(task, &mut call, child).unwrap();
        (call.words().len(), reply.words.len())
    };
    let (first, retained) = load(0);
    assert!(
        first > 1_000 && retained > 3_000,
        "the second is to be sent"
    );
    let (second, retained) = load(1);
    assert!(
        second > 2_000 && retained < 20,
        "{retained} words are retained"
    );
    let (last, retained) = load(2);
    assert!(last > 3 && retained == 0, "{retained} words are retained");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
    #[test]
    fn valid_lists_are_read(list in list()) {
        let (words, arrays) = list.write();
        let (kernels, tasks) = read(&words, arrays).unwrap();
        let names: Vec<_> = kernels.iter().map(|kernel| kernel.name.clone()).collect();
        prop_assert_eq!(names, list.names);
        let which: Vec<_> = tasks.iter().map(|task| task.kernel as usize).collect();
        let expected: Vec<_> = list.tasks.iter().map(|(kernel, _)| *kernel).collect();
        prop_assert_eq!(which, expected);
        prop_assert!(check(&words, arrays));
        prop_assert!(!check(&words, arrays + 1), "an array that no task takes");
        prop_assert!(arrays == 0 || !check(&words, arrays - 1));
    }

    #[test]
    fn truncated_or_longer_lists_are_refused(list in list(), more in any::<u64>()) {
        let (mut words, arrays) = list.write();
        for len in 0..words.len() {
            prop_assert!(!check(&words[..len], arrays));
        }
        words.push(more);
        prop_assert!(!check(&words, arrays));
    }

    #[test]
    fn any_words_are_read_or_refused(
        words in prop::collection::vec(
            prop_oneof![0u64..4, (0u64..3, 0u64..4).prop_map(|(a, b)| a | b << 32), any::<u64>()],
            0..30,
        ),
        arrays in 0usize..3,
    ) {
        check(&words, arrays);
    }
}

proptest! {
    // Each list is changed some hundred times.
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000).div_ceil(20)))]
    /// Replaces each word by each forged value, alone and together with another one.
    #[test]
    fn forged_words_do_no_harm(list in list(), other in any::<prop::sample::Index>(), forged in any::<u64>()) {
        let (words, arrays) = list.write();
        for at in 0..words.len() {
            for reply in forged_values(words[at]) {
                let mut words = words.clone();
                words[at] = reply;
                check(&words, arrays);
                let second = other.index(words.len());
                words[second] = forged;
                check(&words, arrays);
            }
        }
    }
}

#[test]
fn names_are_escaped_and_entries_must_be_code() {
    let list = List {
        names: vec!["x".into()],
        tasks: vec![(0, Vec::new())],
        taken: Vec::new(),
    };
    let (mut words, _) = list.write();
    words[4] = u64::from_ne_bytes(*b"\x1b\0\0\0\0\0\0\0");
    let (kernels, _) = read(&words, 0).unwrap();
    assert_eq!(kernels[0].name, "\\u{1b}");
    // Offset 0 is in the program's header, and so is 1,000.
    let error = SpawnReply::read(words.clone(), Vec::new()).unwrap_err();
    assert!(error.contains("not code"), "{error}");
    for stray in [u64::MAX, 1 << 63, u64::MAX - image().base as u64] {
        words[1] = stray;
        assert!(SpawnReply::read(words.clone(), Vec::new()).is_err());
    }
}
