//! Signals at any moment: during start, search, work and end; once or twice; to the program or to its group.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::begun::start;
use crate::world::{Dice, End, WATCHDOG, World, gone, jpeg, judge, signal, signal_group};

const PICTURES: usize = 24;
const SIGNALS: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGPIPE,
];

/// The least number of rounds; `ARENITE_SIGNALS` sets more.
fn rounds() -> u64 {
    let asked = std::env::var("ARENITE_SIGNALS").ok();
    let default = if cfg!(debug_assertions) { 16 } else { 60 };
    asked.map_or(default, |text| text.parse().unwrap())
}

/// Further rounds, if some phase has not been hit: which phase a round hits is random.
const MORE: u64 = 300;

/// The seed of the random numbers, the same in each run.
const SEED: u64 = 1;

/// The number of rounds that hit each phase.
#[derive(Debug, Default)]
struct Seen {
    /// Before work: the program ended at once.
    early: u32,
    /// During work: pictures in flight finished.
    drained: u32,
    /// During work, twice: the program ended at once.
    twice: u32,
    /// After work, or with an ignored signal.
    late: u32,
}

impl Seen {
    fn all(&self) -> bool {
        [self.early, self.drained, self.twice, self.late]
            .iter()
            .all(|count| *count > 0)
    }
}

#[test]
fn a_signal_at_any_moment_leaves_only_whole_files() {
    let world = World::new();
    world.file("p/00.jpg", &jpeg(640, 480));
    for index in 1..PICTURES {
        let name = world.path(&format!("p/{index:02}.jpg"));
        fs::hard_link(world.path("p/00.jpg"), name).unwrap();
    }
    let begin = Instant::now();
    world.run("p -s 64 -o undisturbed -j 2").exits(0);
    // The time of a run: a first guess, which the rounds correct.
    let mut whole = begin.elapsed().as_micros() as u64;

    fs::create_dir(world.path("tmp")).unwrap();
    let enough = rounds();
    let mut dice = Dice::new(SEED);
    let mut seen = Seen::default();
    for round in 0..enough + MORE {
        if round >= enough && seen.all() {
            break;
        }
        let number = SIGNALS[dice.below(4) as usize];
        let second = (dice.below(3) == 0).then(|| SIGNALS[dice.below(3) as usize]);
        let to_group = dice.below(2) == 0;
        // Start-up is short: without this, few rounds would hit it.
        let within = if dice.below(4) == 0 { 16 } else { 1 };
        let after = [whole / within, whole / 4].map(|most| dice.micros(0, most));
        let what = format!(
            "round {round}: {number} after {:?}, then {second:?} after {:?}, to the group: {to_group}",
            after[0], after[1]
        );
        let out = format!("out{round}");
        let mut command = world.command(&format!("p -s 64 -o {out} -j 2"));
        command.env("TMPDIR", world.path("tmp"));
        let child = start(command);
        let id = child.id();
        let send = if to_group { signal_group } else { signal };
        // Not synchronization: the moment is what is tested.
        thread::sleep(after[0]);
        send(id, number as i32);
        if let Some(second) = second {
            thread::sleep(after[1]);
            send(id, second as i32);
        }
        let output = crate::world::output(child);
        gone(id);

        let status = output.status;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let what = format!("{what}: {status}\n{stderr}");
        let sent: Vec<Signal> = [Some(number), second].into_iter().flatten().collect();
        let tree = world.tree(&out);
        let end = judge(status, &stderr, &sent, (tree.len(), PICTURES));
        match end {
            // Without results, either of two signals may have ended it.
            Ok(End::Early) => seen.early += u32::from(second.is_none()),
            Ok(End::Drained) => seen.drained += 1,
            Ok(End::Twice) => seen.twice += 1,
            Ok(End::Late) => seen.late += 1,
            Err(why) => panic!("{what}: {why}"),
        }
        // Aims at a few signals after the end.
        whole = match end {
            Ok(End::Late) if number != Signal::SIGPIPE => whole * 7 / 8,
            Ok(End::Early | End::Drained) => whole * 17 / 16,
            _ => whole,
        };
        let left = fs::read_dir(world.path("tmp")).unwrap().count();
        assert_eq!(left, 0, "{what}: in the folder for temporary files");
        if world.path(&out).exists() {
            for name in world.all(&out) {
                assert!(!name.ends_with(".tmp"), "{what}: {name} is left");
            }
            for name in &tree {
                assert_eq!(world.sides(&format!("{out}/{name}")), (64, 48), "{what}");
            }
        }
        world
            .run(&format!("p -s 64 -o {out} -j 2 --resume"))
            .exits(0);
        assert_eq!(world.tree(&out).len(), PICTURES, "{what}");
        fs::remove_dir_all(world.path(&out)).unwrap();
    }
    assert!(seen.all(), "after {} rounds: {seen:?}", enough + MORE);
    println!("{seen:?}");
}

/// Each worker connects to the program through a socket that has a name for some microseconds.
#[test]
fn an_end_during_the_start_of_workers_leaves_no_temporary_file() {
    const ROUNDS: u64 = 40;
    let world = World::new();
    let names: Vec<String> = (0..PICTURES)
        .map(|index| format!("p/{index}.jpg"))
        .collect();
    world.photos(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let temporary = world.path("tmp");
    fs::create_dir(&temporary).unwrap();
    let count = || fs::read_dir(&temporary).unwrap().count();
    let mut dice = Dice::new(SEED);
    let mut met = 0;
    for round in 0..ROUNDS {
        let mut command = world.command(&format!("p -s 8 -o out{round} -j {PICTURES}"));
        command.env("TMPDIR", &temporary);
        let child = start(command);
        let id = child.id();
        // Until the first name appears, or the run is over.
        let begin = Instant::now();
        while count() == 0 && !world.path(&format!("out{round}/0.jpg")).exists() {
            assert!(begin.elapsed() < WATCHDOG, "the run does not start");
        }
        thread::sleep(dice.micros(0, 2000));
        signal(id, Signal::SIGINT as i32);
        let output = crate::world::output(child);
        gone(id);
        met += u32::from(output.status.signal() == Some(Signal::SIGINT as i32));
        assert_eq!(count(), 0, "round {round}: {output:?}");
    }
    assert!(met > 0, "no round was ended");
}
