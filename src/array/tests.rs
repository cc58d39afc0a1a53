#![allow(clippy::unwrap_used, reason = "tests")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::Mutex;

use proptest::prelude::*;

use super::lane::{self, LaneChunk, LaneCount, LaneMemory};
use super::*;
use crate::arena::{ArenaFull, BlockPlacement, Extent, Offset};

/// A lane that allocates chunks in order from a leaked buffer.
struct MockLane {
    start: usize,
    capacity: usize,
    state: Mutex<MockState>,
}

#[derive(Default)]
struct MockState {
    /// Bytes in use, rolled back when the newest chunk is released.
    top: usize,
    /// Chunks handed out and not released.
    out: Vec<(Offset, u64)>,
    released: Vec<(Offset, u64)>,
}

const REGION: u16 = 3;

impl MockLane {
    fn new(capacity: usize) -> (&'static MockLane, &'static LaneCount) {
        // Fill the buffer, to detect an array that assumes zeros.
        let buffer: &'static mut [u8] = Box::leak(vec![0xaa; capacity + 64].into_boxed_slice());
        let start = buffer.as_mut_ptr();
        let start = start
            .wrapping_add(start.align_offset(64))
            .expose_provenance();
        let lane = MockLane {
            start,
            capacity,
            state: Mutex::default(),
        };
        (Box::leak(Box::new(lane)), Box::leak(Box::default()))
    }

    fn top(&self) -> usize {
        self.state.lock().unwrap().top
    }

    fn released(&self) -> usize {
        self.state.lock().unwrap().released.len()
    }

    fn ptr(&self, at: Offset) -> NonNull<u8> {
        let address = self.start + at.offset() as usize;
        NonNull::new(std::ptr::with_exposed_provenance_mut(address)).unwrap()
    }
}

// SAFETY: chunks are consecutive parts of a leaked buffer, and only the newest is handed out again after release.
unsafe impl LaneMemory for MockLane {
    fn alloc(&self, len: usize, _: BlockPlacement) -> Result<LaneChunk, ArenaFull> {
        let mut state = self.state.lock().unwrap();
        let at = Offset::new(REGION, state.top as u64);
        let taken = len.next_multiple_of(64);
        if taken > self.capacity - state.top {
            return Err(ArenaFull {
                requested: len as u64,
                free: (self.capacity - state.top) as u64,
                capacity: self.capacity as u64,
                largest_free: (self.capacity - state.top) as u64,
                shm_free: 0,
                retained: 0,
                source: 0,
            });
        }
        state.top += taken;
        state.out.push((at, len as u64));
        Ok(LaneChunk {
            ptr: self.ptr(at),
            at,
            fresh: false,
        })
    }

    fn release(&self, chunk: (Offset, u64)) {
        let mut state = self.state.lock().unwrap();
        let index = state.out.iter().position(|&out| out == chunk);
        state
            .out
            .remove(index.expect("released a chunk that was handed out"));
        state.released.push(chunk);
        let taken = (chunk.1 as usize).next_multiple_of(64);
        if chunk.0.offset() as usize + taken == state.top {
            state.top -= taken;
        }
    }
}

fn extent(offset: u64, len: u64) -> Extent {
    Extent {
        at: Offset::new(REGION, offset),
        len,
    }
}

#[test]
fn handles_are_send_and_sync_and_tiles_are_covariant() {
    fn send_and_sync<T: Send + Sync>() {}
    fn shorter<'short, 'long: 'short>(tile: TileMut<'long, u8>) -> TileMut<'short, u8> {
        tile
    }
    send_and_sync::<Array<u8>>();
    send_and_sync::<ArrayMut<u8>>();
    send_and_sync::<TileMut<'static, u8>>();
    let mut array = ArrayMut::<u8>::zeros(2);
    assert_eq!(shorter(array.as_tile_mut()).len(), 2);
}

#[test]
fn arrays_outside_a_kernel_are_private() {
    let array = Array::from_slice(&[1_u16, 2, 3]);
    assert!(matches!(array.location(), ArrayLocation::Private));
    assert!(matches!(array.rows(1..).location(), ArrayLocation::Private));
    assert!(array.as_ptr().addr().is_multiple_of(64));
    let array = array.take_lane(|_| true).unwrap_err();
    let array = array.try_into_mut().unwrap();
    assert!(matches!(array.location(), ArrayMutLocation::Private));
    let array = array.into_block().unwrap_err();
    assert_eq!(array[..], [1, 2, 3]);
}

#[test]
fn zeros_are_zero_and_aligned_at_every_size() {
    for len in [0, 1, 7, 64, 4096, 1 << 20] {
        let array = Array::<u32>::zeros(len);
        assert_eq!(array.len(), len);
        assert!(array.iter().all(|&element| element == 0));
        assert!(len == 0 || array.as_ptr().addr().is_multiple_of(64));
    }
}

#[test]
fn uninit_does_not_clear_in_a_lane_and_is_readable_everywhere() {
    let (memory, count) = MockLane::new(1 << 20);
    {
        let _guard = lane::enter(memory, count);
        assert!(ArrayMut::<u8>::zeros(5000).iter().all(|&byte| byte == 0));
        // Memory beyond what has been written.
        let _first = ArrayMut::<u8>::zeros(5000);
        let uninit = ArrayMut::<u16>::uninit([50, 50]);
        assert_eq!(uninit.shape().dims(), [50, 50]);
        assert!(uninit.iter().all(|&element| element == 0xaaaa));
    }
    let own = ArrayMut::<u64>::uninit(10_000);
    assert_eq!(
        own.iter().map(|element| element.count_ones()).max(),
        Some(0)
    );
}

#[test]
fn empty_arrays_are_arrays() {
    for shape in [Shape::from(0), Shape::from([0, 3]), Shape::from((3, 0, 2))] {
        let mut array = ArrayMut::<f64>::from_fn(shape, |_| unreachable!());
        assert!(array.is_empty());
        assert_eq!(array.tiles_mut(2).len(), shape.rows().div_ceil(2));
        assert!(array.tiles_mut(2).all(|tile| tile.is_empty()));
        let array = array.seal();
        assert_eq!(array.rows(..).shape(), shape);
        assert!(array.rows(shape.rows()..).is_empty());
        if shape.rows() > 0 {
            assert!(array.row(1).is_empty());
        }
    }
    assert!(Array::<u8>::from_slice(&[]).is_empty());
}

#[test]
fn zero_sized_elements_take_no_memory() {
    let mut array = ArrayMut::from_slice(&[(); 10]);
    assert_eq!(array.tiles_mut(3).map(|tile| tile.len()).sum::<usize>(), 10);
    assert_eq!(array.seal().rows(2..5).len(), 3);
}

#[test]
fn a_shape_that_does_not_fit_panics_with_the_shape() {
    for shape in [Shape::from([usize::MAX, 2]), Shape::from(usize::MAX / 2)] {
        let panic = catch_unwind(|| Array::<u16>::zeros(shape)).unwrap_err();
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(&shape.to_string()), "{message}");
    }
}

#[test]
fn only_the_only_handle_becomes_exclusive() {
    let array = Array::from_fn([4, 2], |i| i as u8);
    let sub = array.rows(1..3);
    let array = array.try_into_mut().unwrap_err();
    let sub = sub.try_into_mut().unwrap_err();
    drop(array);
    let mut sub = sub.try_into_mut().unwrap();
    sub[0] = 9;
    assert_eq!(sub.shape(), Shape::from([2, 2]));
    assert_eq!(sub[..], [9, 3, 4, 5]);
}

#[test]
fn a_kernels_handles_are_counted() {
    let (memory, count) = MockLane::new(4096);
    let input: Vec<u32> = (0..8).collect();
    let ptr = NonNull::from(&input[..]).cast();
    let guard = lane::enter(memory, count);

    // SAFETY: `input` outlives the handles and is not written.
    let parameter =
        unsafe { Array::<u32>::from_lane(ptr, Offset::new(0, 640), [4, 2].into(), count) };
    assert_eq!(count.live(), 1);
    let clone = parameter.clone();
    let sub = parameter.rows(1..3);
    assert_eq!(count.live(), 3);
    assert!(matches!(sub.location(), ArrayLocation::Lane(extent)
        if extent == Extent { at: Offset::new(0, 648), len: 16 }));
    let fresh = ArrayMut::<u32>::zeros(3);
    assert_eq!(fresh[..], [0, 0, 0]);
    assert_eq!(count.live(), 4);
    let fresh = fresh.seal();
    let row = fresh.row(2);
    assert_eq!(count.live(), 5);
    assert!(matches!(row.location(), ArrayLocation::Lane(found) if found == extent(8, 4)));
    let parameter = parameter.try_into_mut().unwrap_err();
    drop((parameter, clone, sub));
    assert_eq!(count.live(), 2);
    let fresh = fresh.try_into_mut().unwrap_err();
    drop(row);
    let fresh = fresh.try_into_mut().unwrap();
    assert_eq!((count.live(), memory.released()), (1, 0));
    drop(fresh);
    assert_eq!((count.live(), memory.released(), memory.top()), (0, 1, 0));
    drop(guard);
    assert!(matches!(
        Array::from_slice(&[1]).location(),
        ArrayLocation::Private
    ));
}

#[test]
fn dropping_the_last_handle_of_the_newest_array_rolls_back() {
    let (memory, count) = MockLane::new(4096);
    let _guard = lane::enter(memory, count);
    let older = Array::from_slice(&[1_u8; 100]);
    let newer = Array::from_slice(&[2_u8; 100]);
    let sub = newer.rows(50..);
    drop(newer);
    assert_eq!((memory.top(), memory.released()), (256, 0));
    drop(sub);
    assert_eq!((memory.top(), memory.released()), (128, 1));
    drop(older);
    assert_eq!((memory.top(), memory.released()), (0, 2));
}

#[test]
fn a_forgotten_handle_stays_counted() {
    let (memory, count) = MockLane::new(4096);
    let _guard = lane::enter(memory, count);
    let array = Array::from_slice(&[1_u8]);
    std::mem::forget(array.clone());
    drop(array);
    assert_eq!((count.live(), memory.released()), (1, 0));
    std::mem::forget(ArrayMut::<u8>::zeros(1));
    assert_eq!(count.live(), 2);
}

#[test]
fn another_thread_counts_down_but_releases_nothing() {
    let (memory, count) = MockLane::new(4096);
    let _guard = lane::enter(memory, count);
    let array = Array::from_slice(&[1_u8, 2]);
    let sealed = ArrayMut::from_slice(&[3_u8]);
    std::thread::spawn(move || {
        assert_eq!(array.clone()[1] + sealed[0], 5);
        // No lane on this thread: new arrays are private.
        assert!(matches!(
            Array::from_slice(&[1]).location(),
            ArrayLocation::Private
        ));
    })
    .join()
    .unwrap();
    assert_eq!((count.live(), memory.released()), (0, 0));
}

#[test]
fn dropping_under_another_lane_releases_nothing() {
    let (memory, count) = MockLane::new(4096);
    let (inner_memory, inner_count) = MockLane::new(4096);
    let guard = lane::enter(memory, count);
    let array = Array::from_slice(&[1_u8]);
    {
        let _inner = lane::enter(inner_memory, inner_count);
        drop(array);
    }
    assert_eq!(
        (count.live(), memory.released(), inner_memory.released()),
        (0, 0, 0)
    );
    // The outer lane is set again.
    drop(Array::from_slice(&[1_u8]));
    drop(guard);
    assert_eq!(memory.released(), 1);
}

#[test]
fn published_results_outlive_their_handles() {
    let (memory, count) = MockLane::new(4096);
    let _guard = lane::enter(memory, count);
    let whole = Array::from_slice(&[1_u32; 20]);
    let sub = whole.rows(4..6);
    let exclusive = ArrayMut::<u8>::zeros([2, 3]);
    let own = |of: &'static LaneCount| std::ptr::eq(of, count);
    let sub = sub.take_lane(|of| !own(of)).unwrap_err();
    assert_eq!(count.live(), 3, "another lane's is not taken");
    assert_eq!(sub.take_lane(own).unwrap(), extent(16, 8));
    assert_eq!(exclusive.seal().take_lane(own).unwrap(), extent(128, 6));
    assert_eq!(count.live(), 1);
    drop(whole);
    assert_eq!((count.live(), memory.released(), memory.top()), (0, 0, 192));
}

#[test]
fn a_truncated_result_has_its_reduced_length() {
    let (memory, count) = MockLane::new(4096);
    let _guard = lane::enter(memory, count);
    let mut array = ArrayMut::<u16>::zeros([10, 4]);
    array.truncate(11);
    assert_eq!(array.len(), 40);
    array.truncate(3);
    assert_eq!((array.shape(), array.len()), (Shape::from([3, 4]), 12));
    assert_eq!(array.seal().take_lane(|_| true).unwrap(), extent(0, 24));
    let mut array = ArrayMut::<u16>::zeros([10, 4]);
    array.truncate(0);
    drop(array);
    assert_eq!((count.live(), memory.released(), memory.top()), (0, 1, 128));
}

#[test]
fn a_lent_window_is_written_and_never_released() {
    let (memory, count) = MockLane::new(4096);
    let _guard = lane::enter(memory, count);
    let mut lent = vec![0_u64; 4];
    let ptr = NonNull::from(&mut lent[..]).cast();
    // SAFETY: `lent` outlives the handles and is not touched before they are gone.
    let mut window =
        unsafe { ArrayMut::<u64>::from_lane_window(ptr, Offset::new(0, 4096), 4.into(), count) };
    for mut tile in window.tiles_mut(3) {
        let rows = tile.rows();
        assert!(
            matches!(tile.location(), ArrayMutLocation::Lane(found) if found
            == Extent { at: Offset::new(0, 4096 + rows.start as u64 * 8), len: rows.len() as u64 * 8 })
        );
        tile.fill(rows.end as u64);
    }
    let sealed = window.seal();
    let clone = sealed.clone();
    assert_eq!(count.live(), 2);
    let sealed = sealed.try_into_mut().unwrap_err();
    drop(clone);
    let window = sealed.try_into_mut().unwrap();
    drop(window);
    assert_eq!((count.live(), memory.released()), (0, 0));
    assert_eq!(lent, [3, 3, 3, 4]);
}

#[test]
fn a_full_lane_is_an_error_or_a_panic_with_the_numbers() {
    let (memory, count) = MockLane::new(128);
    let _guard = lane::enter(memory, count);
    let full = ArrayMut::<u8>::try_zeros(200).unwrap_err();
    assert_eq!((full.requested, full.free, full.capacity), (200, 128, 128));
    assert_eq!(Array::try_from_slice(&[0_u8; 200]).unwrap_err(), full);
    assert_eq!(
        ArrayMut::<u8>::try_from_fn(200, |_| unreachable!()).unwrap_err(),
        full
    );
    let panic = catch_unwind(|| Array::<u8>::zeros(200)).unwrap_err();
    assert_eq!(*panic.downcast_ref::<ArenaFull>().unwrap(), full);
    assert_eq!((count.live(), memory.top()), (0, 0));
}

#[test]
fn a_panic_while_filling_frees_the_memory() {
    let (memory, count) = MockLane::new(4096);
    let _guard = lane::enter(memory, count);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        Array::from_fn(10, |i| if i == 5 { panic!("five") } else { i })
    }));
    panic.unwrap_err();
    assert_eq!((count.live(), memory.released(), memory.top()), (0, 1, 0));
}

#[test]
fn tiles_can_move_to_threads() {
    let mut array = ArrayMut::<usize>::zeros([10, 3]);
    std::thread::scope(|scope| {
        for mut tile in array.tiles_mut(4) {
            scope.spawn(move || {
                let start = tile.rows().start;
                for (i, element) in tile.iter_mut().enumerate() {
                    *element = start * 3 + i;
                }
            });
        }
    });
    assert!(array.iter().enumerate().all(|(i, &element)| i == element));
}

#[test]
fn rows_out_of_range_panic() {
    let array = Array::from_fn([4, 2], |i| i);
    for (start, end) in [(0, 5), (3, 2), (5, 5), (usize::MAX, usize::MAX)] {
        catch_unwind(|| array.rows(start..end)).unwrap_err();
    }
    catch_unwind(|| array.rows(..=usize::MAX)).unwrap_err();
    catch_unwind(|| array.row(4)).unwrap_err();
    assert_eq!(array.rows(1..=2)[..], [2, 3, 4, 5]);
}

#[test]
fn reshaping_keeps_the_elements() {
    let array = Array::from_fn(12, |i| i as u8);
    let array = array.reshape([3, 2, 2]).unwrap();
    assert_eq!(array.row(1).row(1)[..], [6, 7]);
    let error = array.clone().reshape([5, 2]).unwrap_err();
    let (from, to) = ((3, 2, 2).into(), [5, 2].into());
    let (from, to) = (Box::new(from), Box::new(to));
    assert_eq!(error, ShapeError::Elements { from, to });
    let copy = array.clone().copy();
    assert_eq!(copy.shape(), Shape::from([3, 2, 2]));
    assert_eq!(copy[..], array[..]);
    let empty = Array::<u8>::zeros([0, 4]);
    assert!(empty.clone().reshape([7, 0]).is_ok());
    assert!(empty.reshape([0, usize::MAX, 2]).is_err());
}

fn extents() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(0..6_usize, 1..=6)
}

/// The product in a type that cannot overflow.
fn product(dims: &[usize]) -> Option<u128> {
    dims.iter()
        .filter(|&&extent| extent != 0)
        .try_fold(1_u128, |product, &extent| {
            product.checked_mul(extent as u128)
        })
}

#[test]
fn tiles_can_be_taken_by_rows_in_order() {
    let mut array = ArrayMut::<u32>::zeros([10, 2]);
    let mut tiles = array.tiles(1);
    let some = [1..3, 3..3, 3..4, 8..10].map(|rows| {
        let mut tile = tiles.at(rows.clone());
        assert_eq!(tile.shape(), Shape::from([rows.len(), 2]));
        tile.fill(rows.start as u32);
        tile
    });
    assert_eq!(some.map(|tile| tile.rows().start), [1, 3, 3, 8]);
    let firsts: Vec<_> = array.chunks(2).map(|row| row[0]).collect();
    assert_eq!(firsts, [0, 1, 1, 3, 0, 0, 0, 0, 8, 8]);
}

#[test]
#[should_panic(expected = "rows 2..4 of 3..10 that are left")]
fn a_row_is_never_lent_twice() {
    let mut array = ArrayMut::<u32>::zeros(10);
    let mut tiles = array.tiles(1);
    let _first = tiles.at(0..3);
    let _second = tiles.at(2..4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
    #[test]
    fn sizes_are_exact_or_refused(
        dims in proptest::collection::vec(
            prop_oneof![0..9_usize, any::<usize>(), (0..64_u32).prop_map(|bit| 1 << bit)],
            1..=6,
        ),
    ) {
        let shape = Shape::try_from(&dims[..]).unwrap();
        let strides = product(&dims);
        let zero = dims.contains(&0);
        let len = strides.filter(|&n| n <= usize::MAX as u128).map(|n| if zero { 0 } else { n as usize });
        prop_assert_eq!(shape.len(), len);
        let bytes = strides
            .and_then(|n| n.checked_mul(8))
            .filter(|&n| n <= isize::MAX as u128)
            .map(|n| if zero { 0 } else { n as usize });
        prop_assert_eq!(shape.bytes::<f64>(), bytes);
        prop_assert_eq!(shape.dims(), &dims[..]);
        prop_assert_eq!(shape.is_empty(), zero);
        let text: Vec<_> = dims.iter().map(usize::to_string).collect();
        prop_assert_eq!(shape.to_string(), text.join("x"));
    }

    #[test]
    fn sub_arrays_are_slices_of_the_array(dims in extents(), a: prop::sample::Index, b: prop::sample::Index) {
        let shape = Shape::try_from(&dims[..]).unwrap();
        let array = Array::from_fn(shape, |i| i as u64);
        let row_len: usize = dims[1..].iter().product();
        let (a, b) = (a.index(dims[0] + 1), b.index(dims[0] + 1));
        let (start, end) = (a.min(b), a.max(b));

        let rows = array.rows(start..end);
        prop_assert_eq!(rows.shape(), shape.with_rows(end - start));
        prop_assert_eq!(&rows[..], &array[start * row_len..end * row_len]);
        for i in start..end {
            let row = array.row(i);
            prop_assert_eq!(&row[..], &rows.row(i - start)[..]);
            prop_assert_eq!(row.shape(), shape.row());
            prop_assert_eq!(row.len(), row_len);
        }
    }

    /// Tiles taken from either side cover every element once, in order.
    #[test]
    fn tiles_cover_the_array_once(dims in extents(), step in 1..8_usize, sides: Vec<bool>) {
        let shape = Shape::try_from(&dims[..]).unwrap();
        let row_len: usize = dims[1..].iter().product();
        let mut array = ArrayMut::<u32>::zeros(shape);
        let mut tiles = array.tiles(step);
        let count = tiles.len();
        prop_assert_eq!(count, dims[0].div_ceil(step));
        let mut taken = Vec::new();
        let mut sides = sides.into_iter().chain(std::iter::repeat(true));
        while let Some(tile) = if sides.next().unwrap() { tiles.next() } else { tiles.next_back() } {
            taken.push(tile);
            prop_assert_eq!(tiles.len(), count - taken.len());
        }
        for tile in &mut taken {
            let rows = tile.rows();
            prop_assert_eq!(rows.start % step, 0);
            prop_assert_eq!(rows.len(), step.min(dims[0] - rows.start));
            prop_assert_eq!(tile.shape(), shape.with_rows(rows.len()));
            prop_assert_eq!(tile.len(), rows.len() * row_len);
            for (i, element) in tile.iter_mut().enumerate() {
                *element += (rows.start * row_len + i) as u32 + 1;
            }
        }
        drop(taken);
        prop_assert!(array.iter().enumerate().all(|(i, &element)| element == i as u32 + 1));
    }
}

#[cfg(feature = "ndarray")]
mod with_ndarray {
    use ndarray::{Array2, ArrayD, IxDyn};

    use super::*;

    #[test]
    fn any_order_becomes_row_major() {
        let table = Array2::from_shape_fn((2, 3), |(y, x)| (10 * y + x) as u8);
        let ours = Array::from(table.t());
        assert_eq!(ours.shape(), Shape::from([3, 2]));
        assert_eq!(ours[..], [0, 10, 1, 11, 2, 12]);
        assert_eq!(ours.view(), table.t().into_dyn());
        assert_eq!(Array::from(table.view())[..], [0, 1, 2, 10, 11, 12]);
    }

    #[test]
    fn dynamic_dimensions_are_checked() {
        let six = ArrayD::<u8>::zeros(IxDyn(&[1; 6]));
        assert_eq!(Array::try_from(six).unwrap().shape(), Shape::from([1; 6]));
        let seven = ArrayD::<u8>::zeros(IxDyn(&[1; 7]));
        assert_eq!(Array::try_from(seven).unwrap_err(), ShapeError::Rank(7));
        let none = ArrayD::from_elem(IxDyn(&[]), 5_u8);
        assert_eq!(ArrayMut::try_from(none).unwrap()[..], [5]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
        #[test]
        fn views_have_the_shape_and_the_elements(dims in extents()) {
            let shape = Shape::try_from(&dims[..]).unwrap();
            let mut array = ArrayMut::from_fn(shape, |i| i as u32);
            prop_assert!(array.view().shape() == dims);
            array.view_mut().mapv_inplace(|element| element + 1);
            for mut tile in array.tiles_mut(2) {
                tile.view_mut().mapv_inplace(|element| element * 2);
                prop_assert!(tile.view().shape() == tile.shape().dims());
            }
            let array = array.seal();
            prop_assert!(array.view().iter().enumerate().all(|(i, &element)| element == 2 * (i as u32 + 1)));
            prop_assert_eq!(Array::try_from(array.view()).unwrap(), array);
        }
    }
}

#[test]
fn a_published_array_never_becomes_exclusive_again() {
    let (memory, count) = MockLane::new(4096);
    let _guard = lane::enter(memory, count);
    let publish = |array: Array<u8>| array.take_lane(|_| true).unwrap();
    // Publish a whole array, a part, a part through its last handle, and no element.
    let whole = Array::from_slice(&[1_u8; 20]);
    publish(whole.clone());
    let whole = whole.try_into_mut().unwrap_err();
    let part = whole.rows(3..5);
    drop(whole);
    part.try_into_mut().unwrap_err();
    let other = Array::from_slice(&[2_u8; 20]);
    publish(other.rows(7..8));
    publish(other.rows(7..7));
    other.try_into_mut().unwrap_err();
    let moved = ArrayMut::from_slice(&[3_u8; 20]).seal();
    let moved = moved.take_lane(|_| false).unwrap_err();
    assert_eq!(moved.try_into_mut().unwrap()[..], [3; 20]);

    let mut lent = [4_u8; 64];
    let ptr = NonNull::from(&mut lent[..]).cast();
    // SAFETY: `lent` outlives the handles and is not touched before they are gone.
    let window =
        unsafe { ArrayMut::<u8>::from_lane_window(ptr, Offset::new(0, 4096), 64.into(), count) };
    let window = window.seal();
    publish(window.rows(1..2));
    window.try_into_mut().unwrap_err();
    assert_eq!(count.live(), 0);
}

/// A step of a random program on the handles of a lane; a handle is chosen by a number.
#[derive(Clone, Copy, Debug)]
enum Step {
    Make(usize),
    Clone(usize),
    Rows(usize),
    Seal(usize),
    Unseal(usize),
    Write(usize, u8),
    Publish(usize),
    Drop(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let n = || 0..64_usize;
    proptest::collection::vec(
        prop_oneof![
            n().prop_map(Step::Make),
            n().prop_map(Step::Clone),
            n().prop_map(Step::Rows),
            n().prop_map(Step::Seal),
            n().prop_map(Step::Unseal),
            (n(), any::<u8>()).prop_map(|(at, value)| Step::Write(at, value)),
            n().prop_map(Step::Publish),
            n().prop_map(Step::Drop),
        ],
        0..60,
    )
}

enum Handle {
    Sealed(Array<u8>),
    Exclusive(ArrayMut<u8>),
}

impl Handle {
    fn bytes(&self) -> &[u8] {
        match self {
            Handle::Sealed(array) => array,
            Handle::Exclusive(array) => array,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
    /// Each handle shows the bytes that a plain `Vec` in its place would have. So does the memory that was sent to
    /// another process, whatever this process does with its remaining handles.
    #[test]
    fn handles_have_values_of_their_own(steps in steps()) {
        let (memory, count) = MockLane::new(1 << 14);
        let _guard = lane::enter(memory, count);
        let mut handles: Vec<(Handle, Vec<u8>)> = Vec::new();
        let mut sent: Vec<(Extent, Vec<u8>)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Make(len) => {
                    let values = vec![number as u8; len];
                    let array = ArrayMut::from_slice(&values);
                    handles.push((Handle::Exclusive(array), values));
                    continue;
                }
                _ if handles.is_empty() => continue,
                _ => {}
            }
            let (Step::Clone(at) | Step::Rows(at) | Step::Seal(at) | Step::Unseal(at) | Step::Write(at, _)
            | Step::Publish(at) | Step::Drop(at) | Step::Make(at)) = step;
            let (handle, mut values) = handles.swap_remove(at % handles.len());
            let handle = match (step, handle) {
                (Step::Drop(_), _) => continue,
                (Step::Clone(_), Handle::Sealed(array)) => {
                    handles.push((Handle::Sealed(array.clone()), values.clone()));
                    Handle::Sealed(array)
                }
                (Step::Rows(_), Handle::Sealed(array)) => {
                    let half = array.len() / 2;
                    handles.push((Handle::Sealed(array.rows(half..)), values[half..].to_vec()));
                    Handle::Sealed(array)
                }
                (Step::Seal(_), Handle::Exclusive(array)) => Handle::Sealed(array.seal()),
                (Step::Unseal(_), Handle::Sealed(array)) => match array.try_into_mut() {
                    Ok(array) => Handle::Exclusive(array),
                    Err(shared) => Handle::Sealed(shared),
                },
                (Step::Write(_, value), Handle::Exclusive(mut array)) => {
                    array.fill(value);
                    values.fill(value);
                    Handle::Exclusive(array)
                }
                (Step::Publish(_), handle) => {
                    let array = match handle {
                        Handle::Sealed(array) => array,
                        Handle::Exclusive(array) => array.seal(),
                    };
                    sent.push((array.take_lane(|_| true).unwrap(), values));
                    continue;
                }
                (_, handle) => handle,
            };
            handles.push((handle, values));
            for (handle, values) in &handles {
                prop_assert_eq!(handle.bytes(), &values[..]);
            }
            for (extent, values) in &sent {
                // SAFETY: published bytes stay in the leaked buffer; that nothing writes them is what is tested.
                let bytes = unsafe {
                    std::slice::from_raw_parts(memory.ptr(extent.at).as_ptr(), extent.len as usize)
                };
                prop_assert_eq!(bytes, &values[..]);
            }
        }
    }
}

#[test]
fn a_sealed_file_is_one_array_and_says_when_it_is_unused() {
    let kept = std::sync::Arc::new(());
    let handles = || std::sync::Arc::strong_count(&kept) - 1;
    let mut file = MemoryFile::new("test", 1 << 20).unwrap();
    file[..4].copy_from_slice(&[1, 2, 3, 4]);
    let sealed = file.seal().unwrap();
    let map = |len: usize| {
        let file = sealed.try_clone().unwrap();
        Array::<u32>::map_sealed(file, len, std::sync::Arc::clone(&kept))
    };
    let (expected, found) = (12, 1 << 20);
    assert_eq!(map(3).unwrap_err(), MapError::Length { expected, found });
    assert_eq!(handles(), 0);

    let array = map(1 << 18).unwrap();
    assert_eq!(array[..2], [0x0403_0201, 0]);
    let again = array.sealed_file().unwrap();
    let again = Array::<u32>::map_sealed(again, [1 << 9, 1 << 9], ()).unwrap();
    assert_eq!(again[..], array[..]);
    let part = array.rows(1..);
    assert!(part.sealed_file().is_none());
    drop(array);
    assert_eq!(handles(), 1);
    drop(part);
    assert_eq!(handles(), 0);
    assert!(Array::from_slice(&[1_u8]).sealed_file().is_none());
}

/// A handle may be dropped while an engine waits for a scope.
#[test]
fn a_panic_of_what_keeps_a_file_goes_no_further() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the program's drop");
        }
    }
    let file = MemoryFile::new("test", 10).unwrap().seal().unwrap();
    drop(Array::<u8>::map_sealed(file, 10, Bomb).unwrap());
}

#[test]
fn what_can_be_changed_is_not_mapped() {
    let unsealed = crate::sys::Segment::create_memfd("test", true).unwrap();
    unsealed.set_len(8).unwrap();
    let error = Array::<u8>::map_sealed(unsealed.into(), 8, ()).unwrap_err();
    assert_eq!(error, MapError::NotSealed);
    let plain = tempfile::tempfile().unwrap();
    let error = Array::<u8>::map_sealed(plain.into(), 0, ()).unwrap_err();
    // The folder may be in memory, where files have seals.
    assert!(
        matches!(error, MapError::System(_) | MapError::NotSealed),
        "{error}"
    );
    assert!(MemoryFile::new("zero\0byte", 1).is_err());
}
