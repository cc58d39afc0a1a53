//! A supervisor that is killed at each of its points.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use arenite::points::{Deed, Point, Side};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::board::points;
use crate::harness::{Invariant, expect_figure, named, step};
use crate::programs::Home;

/// How soon the workers of a killed supervisor are gone.
const PROMISED: Duration = Duration::from_secs(1);

/// When the supervisor is killed, and whether its arena keeps a name.
#[derive(Clone, Copy)]
pub enum Round {
    /// When it comes by for the first time.
    First { kept: bool },
    /// When it comes by for the so manieth time with busy workers, one of them stopped.
    Later { kept: bool, passing: u64 },
}

fn rounds(point: &Point) -> [Round; 3] {
    use Round::{First, Later};
    match point.name {
        "create.unnamed" => [First { kept: false }; 3],
        _ if point.step() == "create" => [true, false, true].map(|kept| First { kept }),
        // A worker has been welcomed before one is busy; the engine ends later than that anyway.
        _ => [
            First { kept: true },
            Later {
                kept: false,
                passing: 1,
            },
            Later {
                kept: true,
                passing: 1,
            },
        ],
    }
}

/// One trial for each point.
pub fn trials() -> Vec<Trial> {
    let at = |point: &'static Point| {
        let name = format!("supervisors::{}", point.name);
        named(name, move || at(point, "whole", rounds(point).into_iter()))
    };
    points(Side::Supervisor).map(at).collect()
}

/// Its workers go with it, the busy and the stopped one too; nothing stays but a name, which the next start
/// sweeps away.
pub fn at(point: &'static Point, role: &str, rounds: impl Iterator<Item = Round>) {
    let mut slowest = Duration::ZERO;
    for round in rounds {
        let (Round::First { kept } | Round::Later { kept, .. }) = round;
        let invariant = Invariant::before();
        let home = Home::new(kept);
        let mut running = match round {
            Round::First { .. } => {
                home.board.arm(point.name, Deed::Kill, 1..2);
                home.start(role)
            }
            Round::Later { passing, .. } => home.start_armed(role, point, passing),
        };
        let ended = running.wait();
        assert_eq!(
            (home.board.done(point.name).0, ended.signal),
            (1, Some(Signal::SIGKILL as i32)),
            "{}: {ended:?}",
            point.name,
        );
        running.await_all_gone();
        slowest = slowest.max(ended.at.elapsed());
        drop(running);
        if !kept && !between_name_and_unlink(point) {
            invariant.names_as_before().unwrap();
        }
        as_if_long_ago(&home);
        step("the next start");
        home.start("next").end().assert_done();
        invariant.nothing_left().unwrap();
        assert_eq!(home.sockets(), Vec::<PathBuf>::new(), "{}", point.name);
    }
    println!("{}: all gone after {slowest:.1?} at most", point.name);
    expect_figure(
        "the workers of a killed supervisor were gone after",
        slowest,
        PROMISED,
    );
}

/// A program that is killed between making the socket of a start and removing its name leaves that, whichever point it is at;
/// a later one removes it when it is old enough. There is one from the start, as that is rare.
fn as_if_long_ago(home: &Home) {
    home.leave_a_socket();
    for socket in home.sockets() {
        let folder = File::open(socket.parent().unwrap()).unwrap();
        let old = SystemTime::now() - Duration::from_secs(3600);
        folder.set_modified(old).unwrap();
    }
}

/// The one exception: a name that has been made and not yet been unlinked stays for the next sweep.
fn between_name_and_unlink(point: &Point) -> bool {
    matches!(
        point.name,
        "create.named" | "create.locked" | "create.sized" | "create.region_named"
    )
}
