//! A view of a picture that loads rows into the cache in order, before they are read in another order.
//!
//! The vertical pass over 8-bit samples computes a row of the target 64 bytes at a time, from the same columns of
//! several source rows: each step jumps ahead by a whole row. Hardware prefetches along a row, but not across rows, so
//! the pass would wait for each cache line of a large picture. [`Streamed`] touches each row once, one byte per cache
//! line, right before the first window that contains it; the pass then finds its window in the cache.
//!
//! This takes about half to two thirds of the time; `docs/design/pictures.md` has the measurements.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};

use fast_image_resize::{ArrayChunks, ImageView};

/// Bytes of a cache line, or fewer.
const LINE: usize = 64;

/// A view of a picture with its bytes, row by row without gaps.
///
/// Only pairs of rows are preloaded: the vertical pass reads its windows by pairs. The horizontal pass, which comes
/// first for 16-bit samples, reads rows in order.
pub(crate) struct Streamed<'a, V> {
    view: V,
    bytes: &'a [u8],
    /// Rows before this one have been preloaded, or are above the first requested row. One pass runs at a time; if two
    /// alternated, rows would be preloaded twice.
    until: AtomicU32,
}

impl<'a, V: ImageView> Streamed<'a, V> {
    pub(crate) fn new(view: V, bytes: &'a [u8]) -> Self {
        let until = AtomicU32::new(0);
        Self { view, bytes, until }
    }

    /// Preloads rows that are about to be read.
    #[inline]
    fn preload(&self, first: u32, rows: u32) {
        let end = first.saturating_add(rows);
        let until = self.until.load(Ordering::Relaxed);
        if end > until {
            self.until.store(end, Ordering::Relaxed);
            self.touch(until.max(first), end);
        }
    }

    #[cold]
    #[inline(never)]
    fn touch(&self, first: u32, end: u32) {
        let row = self.view.width() as usize * size_of::<V::Pixel>();
        let end = end.min(self.view.height());
        let rows = self.bytes.get(first as usize * row..end as usize * row);
        let lines = rows.unwrap_or_default().chunks(LINE);
        black_box(lines.fold(0, |all, line| all ^ line[0]));
    }
}

#[allow(unsafe_code, reason = "the trait is unsafe")]
// SAFETY: width and rows are those of `view`, unchanged, and its rows are as long as that says.
unsafe impl<V: ImageView> ImageView for Streamed<'_, V> {
    type Pixel = V::Pixel;

    fn width(&self) -> u32 {
        self.view.width()
    }

    fn height(&self) -> u32 {
        self.view.height()
    }

    fn iter_rows(&self, start_row: u32) -> impl Iterator<Item = &[Self::Pixel]> {
        self.view.iter_rows(start_row)
    }

    fn iter_2_rows(
        &self,
        start_y: u32,
        max_rows: u32,
    ) -> ArrayChunks<impl Iterator<Item = &[Self::Pixel]>, 2> {
        self.preload(start_y, max_rows);
        self.view.iter_2_rows(start_y, max_rows)
    }

    fn iter_rows_with_step(
        &self,
        start_y: f64,
        step: f64,
        max_rows: u32,
    ) -> impl Iterator<Item = &[Self::Pixel]> {
        self.view.iter_rows_with_step(start_y, step, max_rows)
    }
}
