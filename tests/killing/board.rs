//! The board that this program shares with its workers.

use std::sync::OnceLock;

use arenite::points::{Board, POINTS, Point, Side, VARIABLE};
use tempfile::TempDir;

static BOARD: OnceLock<Board> = OnceLock::new();

/// Creates the board for all engines of this program. Dropping the returned value removes its file.
pub fn install() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for the board");
    let path = folder.path().join("board");
    let board = Board::create(&path).expect("a board can be made");
    // SAFETY: no other thread exists at the beginning of `main`.
    unsafe { std::env::set_var(VARIABLE, &path) };
    BOARD.set(board).expect("there is one board");
    folder
}

/// Returns the board of this program.
pub fn board() -> &'static Board {
    BOARD.get().expect("main has made it")
}

/// Returns the points of one side that are passed without a sandbox.
pub fn points(side: Side) -> impl Iterator<Item = &'static Point> {
    of(side).filter(|point| !LOCKED.contains(&point.name))
}

/// Returns the points of one side that are passed with sandboxed workers.
pub fn locked(side: Side) -> impl Iterator<Item = &'static Point> {
    of(side).filter(|point| LOCKED.contains(&point.name))
}

/// Steps that exist for sandboxed workers only.
const LOCKED: [&str; 3] = ["attach.locked", "copy.allocated", "copy.done"];

/// Returns all points of one side.
pub fn of(side: Side) -> impl Iterator<Item = &'static Point> {
    POINTS.iter().filter(move |point| point.side == side)
}
