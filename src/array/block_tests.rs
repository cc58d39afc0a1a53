//! Tests of arrays in the blocks of a real arena, as in the supervisor.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use super::*;
use crate::arena::{Arena, Backing, Block, BlockPlacement, Extent, Offset, Spec};

fn arena() -> Arc<Arena> {
    let spec = Spec {
        capacity: 16 << 20,
        backing: Backing::Memfd,
        ..Spec::default()
    };
    Arena::create(&spec).unwrap()
}

fn block(arena: &Arc<Arena>, len: u64) -> Block {
    arena.alloc_zeroed(0, len, BlockPlacement::Packed).unwrap()
}

fn part(of: Extent, skip: u64, len: u64) -> Extent {
    Extent {
        at: Offset::new(of.at.region(), of.at.offset() + skip),
        len,
    }
}

#[test]
fn a_block_is_freed_with_its_last_handle() {
    let arena = arena();
    // The block owns its pages, so lending tiles of the array does not move the array.
    let block = arena.alloc_zeroed(0, 4800, BlockPlacement::Pages).unwrap();
    let whole = block.extent();
    let mut array = ArrayMut::<u16>::from_block(block, 0, [24, 100].into());
    assert!(array.iter().all(|&element| element == 0));
    for mut tile in array.tiles_mut(10) {
        let rows = tile.rows();
        let expected = part(whole, rows.start as u64 * 200, rows.len() as u64 * 200);
        assert!(matches!(tile.location(), ArrayMutLocation::Block(_, found) if found == expected));
        tile.fill(rows.start as u16);
    }
    assert!(matches!(array.location(), ArrayMutLocation::Block(_, found) if found == whole));
    let array = array.seal();
    let row = array.rows(10..).row(3);
    drop(array);
    assert!(
        matches!(row.location(), ArrayLocation::Block(_, found) if found == part(whole, 2600, 200))
    );
    assert_eq!(row[..], [10; 100]);
    assert!(arena.stats().in_use > 0);
    drop(row);
    assert_eq!(arena.stats().in_use, 0);
}

#[test]
fn a_lease_keeps_an_array_sealed() {
    let arena = arena();
    let array = ArrayMut::<u8>::from_block(block(&arena, 100), 0, 100.into()).seal();
    let ArrayLocation::Block(block, _) = array.location() else {
        panic!("{array:?}")
    };
    let lease = Arc::clone(block);
    let array = array.try_into_mut().unwrap_err();
    drop(lease);
    let (block, shape) = array.try_into_mut().unwrap().into_block().unwrap();
    assert_eq!((block.len(), shape), (100, Shape::from(100)));
}

#[test]
fn a_sub_array_that_became_the_only_handle_converts_to_a_block_only_if_it_starts_one() {
    let arena = arena();
    let array = ArrayMut::<u32>::from_block(block(&arena, 800), 0, [10, 20].into()).seal();
    let (head, tail) = (array.rows(..4), array.rows(4..));
    drop(array);
    drop(head);
    let mut tail = tail.try_into_mut().unwrap().into_block().unwrap_err();
    tail.fill(1);
    let tail = tail.seal();
    let head = tail.rows(..1);
    assert!(
        matches!(head.location(), ArrayLocation::Block(block, extent)
        if extent == part(block.extent(), 320, 80))
    );
    drop((head, tail));

    let array = ArrayMut::<u32>::from_block(block(&arena, 800), 0, [10, 20].into()).seal();
    let head = array.rows(..4);
    drop(array);
    let (block, shape) = head.try_into_mut().unwrap().into_block().unwrap();
    assert_eq!((block.len(), shape), (800, Shape::from([4, 20])));
}

#[test]
fn an_array_that_does_not_fit_its_block_is_refused() {
    let arena = arena();
    let block = block(&arena, 100);
    let fits = |skip, shape: Shape| Array::<u32>::fits_block(&block, skip, shape);
    assert!(fits(0, 25.into()));
    assert!(fits(96, 1.into()));
    assert!(fits(100, 0.into()));
    assert!(!fits(0, 26.into()));
    assert!(
        fits(98, 0.into()),
        "without elements nothing needs to be aligned"
    );
    assert!(!fits(2, 1.into()), "not aligned");
    assert!(!fits(100, 1.into()));
    assert!(!fits(u64::MAX, 0.into()));
    assert!(!fits(u64::MAX - 3, 1.into()));
    assert!(!fits(0, [usize::MAX, 2].into()));
    assert!(
        !fits(0, [0, usize::MAX, 2].into()),
        "its strides cannot be counted"
    );
}

#[test]
fn empty_blocks_hold_empty_arrays() {
    let arena = arena();
    let array = ArrayMut::<f64>::from_block(block(&arena, 0), 0, [0, 3].into());
    assert!(array.is_empty());
    let array = array.seal().rows(0..0);
    assert!(matches!(array.location(), ArrayLocation::Block(_, extent) if extent.len == 0));
    let shared = Array::<u8>::from_block(Arc::new(block(&arena, 64)), 64, 0.into());
    assert!(shared.is_empty());
}

#[test]
fn a_npy_file_is_read_directly_into_a_block() {
    let arena = arena();
    let mut file = Vec::new();
    npy::write_to(
        &mut file,
        [3, 4],
        &std::array::from_fn::<f32, 12, _>(|i| i as f32),
    )
    .unwrap();
    let mut reader = file.as_slice();
    let header = npy::Header::read(&mut reader).unwrap();
    let block = block(&arena, header.check::<f32>().unwrap());
    let mut array = ArrayMut::<f32>::from_block(block, 0, header.shape());
    npy::read_into(&header, reader, &mut array).unwrap();
    assert_eq!(array.row(2), [8., 9., 10., 11.]);
}
