//! The board that this program shares with its workers.

use std::sync::OnceLock;

use arenite::points::{Board, POINTS, Point, Side, VARIABLE};
use tempfile::TempDir;

static BOARD: OnceLock<Board> = OnceLock::new();

/// Makes the board, for all engines of this program. Its file is gone with the answer.
pub fn install() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder for the board");
    let path = folder.path().join("board");
    let board = Board::create(&path).expect("a board can be made");
    // SAFETY: nobody else is there yet: this is the beginning of `main`.
    unsafe { std::env::set_var(VARIABLE, &path) };
    BOARD.set(board).expect("there is one board");
    folder
}

/// The board of this program.
pub fn board() -> &'static Board {
    BOARD.get().expect("main has made it")
}

/// Points of one side that processes come by without a sandbox.
pub fn points(side: Side) -> impl Iterator<Item = &'static Point> {
    of(side).filter(|point| !LOCKED.contains(&point.name))
}

/// Points of one side that processes come by where workers are locked down.
pub fn locked(side: Side) -> impl Iterator<Item = &'static Point> {
    of(side).filter(|point| LOCKED.contains(&point.name))
}

/// Steps that are taken for locked-down workers alone.
const LOCKED: [&str; 3] = ["attach.locked", "copy.allocated", "copy.done"];

/// All points of one side.
pub fn of(side: Side) -> impl Iterator<Item = &'static Point> {
    POINTS.iter().filter(move |point| point.side == side)
}
