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

/// Promised time until the workers of a killed supervisor have ended.
const PROMISED: Duration = Duration::from_secs(1);

/// When the supervisor is killed, and whether its arena has a persistent name.
#[derive(Clone, Copy)]
pub enum Round {
    /// At the first passing.
    First { kept: bool },
    /// At this passing with busy workers, one of which is stopped.
    Later { kept: bool, passing: u64 },
}

fn rounds(point: &Point) -> [Round; 3] {
    use Round::{First, Later};
    match point.name {
        "create.unnamed" => [First { kept: false }; 3],
        _ if point.step() == "create" => [true, false, true].map(|kept| First { kept }),
        // Workers start before they are busy, and the engine ends after.
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

/// Returns a trial for each point.
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

/// The roles in which an undisturbed supervisor passes a point in time for this round. Chance may decide whether it does in a role;
/// in at least one it always does.
fn lives_with(point: &Point, round: Round) -> Vec<&'static str> {
    /// Points passed in each role: from the beginning, and with busy workers.
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
        // Which of these are passed depends on the name, not on the role.
        Round::First { .. } if point.step() == "create" => return vec![LIVES[0]],
        Round::First { .. } => 0,
        Round::Later { .. } => 1,
    };
    let lives = LIVES.iter().zip(passed);
    let lives = lives.filter(|(_, passed)| passed[later].contains(&point.name));
    lives.map(|(role, _)| *role).collect()
}

/// Its workers end with it, the busy and the stopped one included. Nothing is left except a name, which the next start sweeps.
/// `roles` are tried in order until the supervisor was killed in one.
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
            .unwrap_or_else(|| panic!("{}: not passed in any of {roles:?}", point.name));
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
        assert!(
            !home.complaint().exists(),
            "a copy made by fork has wrong bytes: {}",
            point.name
        );
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

/// A program that is killed between the creation of a handshake socket and the removal of its name leaves the name; a later program
/// removes it when it is old enough. The test creates one in advance, because this is rare.
fn as_if_long_ago(home: &Home) {
    home.leave_a_socket();
    for socket in home.sockets() {
        let folder = File::open(socket.parent().unwrap()).unwrap();
        let old = SystemTime::now() - Duration::from_secs(3600);
        folder.set_modified(old).unwrap();
    }
}

/// The exception: a name that has been created and not yet unlinked remains until the next sweep.
fn between_name_and_unlink(point: &Point) -> bool {
    matches!(
        point.name,
        "create.named" | "create.locked" | "create.sized" | "create.region_named"
    )
}
