//! A supervisor that is killed at each of its points.

use std::fs::File;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use arenite::points::{Fault, Point, Side};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::board::points;
use crate::harness::{Invariant, expect_figure, named, step};
use crate::programs::{Home, LIVES, run_to_its_end};

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
        named(name, move || {
            let roles = |round| lives_with(point, round);
            at(point, roles, rounds(point).into_iter());
        })
    };
    points(Side::Supervisor).map(at).collect()
}

/// The lives in which a supervisor that nobody kills comes by in time for this round, the first one first. Whether it does may be
/// chance, so there may be a life in which it does not; in one of them it does each time.
fn lives_with(point: &Point, round: Round) -> Vec<&'static str> {
    /// What is passed in each life: from its beginning, and with busy workers.
    type Passed = [Vec<&'static str>; 2];
    static PASSED: OnceLock<[Passed; LIVES.len()]> = OnceLock::new();
    let passed = PASSED.get_or_init(|| {
        LIVES.map(|role| {
            let home = Home::new(true);
            run_to_its_end(&home, role);
            [false, true].map(|since_busy| home.passed(since_busy))
        })
    });
    let later = match round {
        // Which of these it comes by depends on the name, and not on the life.
        Round::First { .. } if point.step() == "create" => return vec![LIVES[0]],
        Round::First { .. } => 0,
        Round::Later { .. } => 1,
    };
    let lives = LIVES.iter().zip(passed);
    let lives = lives.filter(|(_, passed)| passed[later].contains(&point.name));
    lives.map(|(role, _)| *role).collect()
}

/// Its workers go with it, the busy and the stopped one too; nothing stays but a name, which the next start
/// sweeps away. `roles` are tried in their order, until it was killed in one.
pub fn at(
    point: &'static Point,
    roles: impl Fn(Round) -> Vec<&'static str>,
    rounds: impl Iterator<Item = Round>,
) {
    let mut slowest = Duration::ZERO;
    for round in rounds {
        let (Round::First { kept } | Round::Later { kept, .. }) = round;
        let invariant = Invariant::before();
        let play = |role| {
            let home = Home::new(kept);
            let mut running = match round {
                Round::First { .. } => {
                    home.board.arm(point.name, Fault::Kill, 1..2);
                    home.start(role)
                }
                Round::Later { passing, .. } => home.start_armed(role, point, passing),
            };
            let ended = running.wait();
            (home, running, ended)
        };
        let roles = roles(round);
        let mut plays = roles.iter().map(|role| (role, play(role)));
        let (role, (home, running, ended)) = plays
            .find(|(_, (home, _, ended))| {
                ended.code != Some(0) || home.board.done(point.name).0 > 0
            })
            .unwrap_or_else(|| panic!("{}: nobody comes by in any of {roles:?}", point.name));
        drop(plays);
        assert_eq!(
            (home.board.done(point.name).0, ended.signal),
            (1, Some(Signal::SIGKILL as i32)),
            "{}, {role}: {ended:?}",
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
