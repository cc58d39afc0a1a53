//! Tests of the arena against real segments.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::*;

fn arena(backing: Backing, capacity: u64) -> Arc<Arena> {
    let spec = Spec {
        capacity,
        writers: 2,
        backing,
        control_len: 8192,
        name: None,
    };
    Arena::create(&spec).unwrap()
}

/// Fills a block with a byte.
fn fill(block: &Block, byte: u8) {
    // SAFETY: the test owns the block and no other process has been told of the arena.
    unsafe { block.as_ptr().write_bytes(byte, block.len() as usize) };
}

fn bytes(block: &Block) -> Vec<u8> {
    // SAFETY: as in `fill`; nothing writes while the slice exists.
    unsafe { std::slice::from_raw_parts(block.as_ptr().as_ptr(), block.len() as usize) }.to_vec()
}

#[test]
fn blocks_come_and_go() {
    for backing in [Backing::Named, Backing::Memfd, Backing::Sealed] {
        let arena = arena(backing, 64 << 20);
        let small = arena.alloc(0, 100, Placement::Packed).unwrap();
        let large = arena.alloc_zeroed(1, 10 << 20, Placement::Packed).unwrap();
        assert!(large.is_fresh());
        fill(&small, 7);
        fill(&large, 8);
        assert!(bytes(&small).iter().all(|&byte| byte == 7));
        drop((small, large));
        let again = arena.alloc_zeroed(1, 10 << 20, Placement::Packed).unwrap();
        assert!(!again.is_fresh());
        assert!(bytes(&again).iter().all(|&byte| byte == 0));
        drop(again);
        assert_eq!(arena.stats().in_use, 0);
        assert_eq!(arena.stats().blocks, 0);
        assert!(arena.trim() >= 10 << 20);
        assert_eq!(arena.stats().committed, 0);
    }
}
