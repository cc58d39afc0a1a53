//! Random graphs, compared with a plain program, while workers are killed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::stat::Mode;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use super::*;

tests![random_graphs_with_deaths_give_what_a_plain_program_gives,];

/// Retries of a node that has retries.
const RETRIES: u32 = 20;

/// A node of a random graph.
#[derive(Clone, Debug)]
struct Plain {
    /// Whether it takes the value of the previous node and has no retries, so that it is part of a chain.
    follows: bool,
    left: Option<Index>,
    right: Option<Index>,
    own: u32,
    fails: bool,
    /// Whether it has retries.
    retries: bool,
    /// Its share of the declared bytes.
    weight: u64,
}

/// A kill, as soon as this node is running.
#[derive(Clone, Debug)]
struct Kill {
    /// Index among the nodes that are needed and can run.
    at: Index,
    /// The worker to kill; `None`: the one that runs the node.
    worker: Option<usize>,
}

/// A random graph, and how to run it.
#[derive(Clone, Debug)]
struct Case {
    nodes: Vec<Plain>,
    /// Pairs for `after`, some of which would be cycles.
    afters: Vec<(Index, Index)>,
    asked: Vec<Index>,
    fuse: bool,
    /// Declares sizes such that running one job at a time needs this percentage of the free memory.
    sized: Option<u64>,
    kills: Vec<Kill>,
}

impl Case {
    /// The node whose value a node takes: any earlier one.
    fn source(at: usize, index: Option<&Index>) -> Option<usize> {
        index.filter(|_| at > 0).map(|index| index.index(at))
    }

    fn sources(&self, at: usize) -> [Option<usize>; 2] {
        let Plain {
            follows,
            left,
            right,
            ..
        } = &self.nodes[at];
        match (follows, at.checked_sub(1)) {
            (true, Some(before)) => [Some(before), None],
            _ => [left, right].map(|index| Self::source(at, index.as_ref())),
        }
    }

    fn wanted(&self) -> BTreeSet<usize> {
        let asked = self.asked.iter();
        asked.map(|index| index.index(self.nodes.len())).collect()
    }
}

/// Nodes of which the fraction `chained` is part of chains.
fn any_nodes(chained: f64) -> impl Strategy<Value = Vec<Plain>> {
    let node = (
        prop::bool::weighted(chained),
        prop::option::of(any::<Index>()),
        prop::option::of(any::<Index>()),
        any::<u32>(),
        prop::bool::weighted(0.03),
        any::<bool>(),
        0..8u64,
    );
    let node = node.prop_map(
        |(follows, left, right, own, fails, retries, weight)| Plain {
            follows,
            left,
            right,
            own,
            fails,
            retries: retries && !follows,
            weight,
        },
    );
    prop::collection::vec(node, 1..120)
}

fn any_case() -> impl Strategy<Value = Case> {
    let sized = prop_oneof![
        3 => Just(None),
        1 => (50..100u64).prop_map(Some),
        3 => (101..140u64).prop_map(Some),
    ];
    let kill = (any::<Index>(), prop::option::weighted(0.3, 0..3usize));
    let kill = kill.prop_map(|(at, worker)| Kill { at, worker });
    let case = (
        prop_oneof![any_nodes(0.0), any_nodes(0.85)],
        prop::collection::vec(any::<(Index, Index)>(), 0..10),
        prop::collection::vec(any::<Index>(), 1..8),
        any::<bool>(),
        sized,
        prop::collection::vec(kill, 0..4),
    );
    case.prop_map(|(nodes, afters, asked, fuse, sized, kills)| Case {
        nodes,
        afters,
        asked,
        fuse,
        sized,
        kills,
    })
}

fn mix(left: &[u32], right: &[u32], own: u32, i: usize) -> u32 {
    let value = |x: &[u32], i: usize| x.get(i).copied().unwrap_or(0);
    value(left, i)
        .wrapping_mul(31)
        .wrapping_add(value(right, 7 - i))
        ^ own
}

/// The gate of a node, at which it waits if the file exists.
fn gate_of(log: &str, node: u32) -> PathBuf {
    PathBuf::from(format!("{log}.{node}"))
}

fn pid_beside(gate: &Path) -> PathBuf {
    gate.with_added_extension("pid")
}

/// In the kernel: waits at the gate until met or killed.
fn stand(gate: &Path) {
    if gate.exists() {
        std::fs::write(pid_beside(gate), std::process::id().to_string()).unwrap();
        // The gate is removed after the first meeting.
        if let Ok(mut pipe) = File::open(gate) {
            pipe.read_to_end(&mut Vec::new()).unwrap();
        }
    }
}

/// The kernel of all nodes. It first records the number `at` of its node.
fn combine(
    log: &str,
    left: &[u32],
    right: &[u32],
    at: u32,
    own: u32,
    fails: bool,
) -> Result<Array<u32>, String> {
    note(log, at);
    stand(&gate_of(log, at));
    if fails {
        return Err(format!("{at} fails"));
    }
    Ok(Array::from_fn(8, |i| mix(left, right, own, i)))
}

/// The results of a plain program for a graph.
struct Reference {
    /// By node: the nodes that must end before it.
    befores: Vec<BTreeSet<usize>>,
    /// By node: its value, or the nodes that may be blamed for its failure. The node itself is one only if it can run.
    values: Vec<Result<Vec<u32>, BTreeSet<usize>>>,
}

impl Reference {
    fn new(case: &Case, befores: Vec<BTreeSet<usize>>) -> Self {
        let mut values: Vec<Option<Result<Vec<u32>, BTreeSet<usize>>>> = vec![None; befores.len()];
        // Repeats until nothing changes, since a dependent may have a lower index.
        while let Some(at) = (0..befores.len()).find(|&at| {
            values[at].is_none() && befores[at].iter().all(|&before| values[before].is_some())
        }) {
            let before = befores[at].iter().filter_map(|&n| values[n].as_ref());
            let mut roots: BTreeSet<usize> = before
                .filter_map(|value| value.as_ref().err())
                .flatten()
                .copied()
                .collect();
            let node = &case.nodes[at];
            if roots.is_empty() && node.fails {
                roots.insert(at);
            }
            let [left, right] = case.sources(at).map(|source| {
                let value = source.and_then(|source| values[source].as_ref()?.as_ref().ok());
                value.cloned().unwrap_or_default()
            });
            values[at] = Some(match roots.is_empty() {
                true => Ok((0..8).map(|i| mix(&left, &right, node.own, i)).collect()),
                false => Err(roots),
            });
        }
        let values = values.into_iter().map(|value| value.expect("no cycle"));
        Self {
            values: values.collect(),
            befores,
        }
    }

    /// A node and all nodes that it depends on.
    fn needed_by(&self, node: usize) -> BTreeSet<usize> {
        needed_by(&self.befores, node)
    }

    fn can_run(&self, node: usize) -> bool {
        match &self.values[node] {
            Ok(_) => true,
            Err(roots) => roots.contains(&node),
        }
    }
}

fn needed_by(befores: &[BTreeSet<usize>], node: usize) -> BTreeSet<usize> {
    let (mut needed, mut open) = (BTreeSet::new(), vec![node]);
    while let Some(node) = open.pop() {
        if needed.insert(node) {
            open.extend(&befores[node]);
        }
    }
    needed
}

/// A graph, the requested nodes, and the dependencies of each node.
type Built = (Graph, Vec<Node<Array<u32>>>, Vec<BTreeSet<usize>>);

/// Builds the graph of a case. `unit`: bytes per weight.
fn build(case: &Case, (engine, log): (&Engine, &str), unit: u64) -> Built {
    let nothing = engine.from_slice(&[]).unwrap();
    let mut graph = Graph::new();
    graph.fuse(case.fuse);
    let mut made: Vec<Node<Array<u32>>> = Vec::new();
    let mut befores: Vec<BTreeSet<usize>> = Vec::new();
    for (at, node) in case.nodes.iter().enumerate() {
        let sources = case.sources(at);
        macro_rules! made {
            ($left:expr, $right:expr) => {{
                let inputs = (log, $left, $right, at as u32, node.own, node.fails);
                let mut job = graph.job(combine, inputs);
                if node.retries {
                    job = job.retries(RETRIES).backoff(arenite::Backoff::NONE);
                }
                if case.sized.is_some() {
                    job = job.bytes(node.weight * unit);
                }
                job.add()
            }};
        }
        let next = match sources.map(|source| source.map(|source| &made[source])) {
            [Some(left), Some(right)] => made!(left, right),
            [Some(left), None] => made!(left, &nothing),
            [None, Some(right)] => made!(&nothing, right),
            [None, None] => made!(&nothing, &nothing),
        };
        made.push(next);
        befores.push(sources.into_iter().flatten().collect());
    }
    for (node, before) in &case.afters {
        let [node, before] = [node, before].map(|index| index.index(made.len()));
        let is_cycle = needed_by(&befores, before).contains(&node);
        match graph.after(&made[node], &made[before]) {
            Ok(()) => assert!(!is_cycle, "{node} after {before}"),
            Err(GraphError::Cycle { .. }) => assert!(is_cycle, "{node} after {before}"),
            Err(error) => panic!("{error}"),
        }
        if !is_cycle {
            befores[node].insert(before);
        }
    }
    let (wanted, mut at) = (case.wanted(), 0..);
    made.retain(|_| at.next().is_some_and(|at| wanted.contains(&at)));
    (graph, made, befores)
}

/// The planned kills, each with the gate of its node.
struct Storm<'a> {
    kills: Vec<(PathBuf, &'a Kill)>,
}

impl<'a> Storm<'a> {
    fn new(all: &'a [Kill], log: &str, can_run: &[usize]) -> Self {
        let mut kills = Vec::new();
        for kill in all.iter().filter(|_| !can_run.is_empty()) {
            let gate = gate_of(log, *kill.at.get(can_run) as u32);
            // Two kills at one node count as one.
            if nix::unistd::mkfifo(&gate, Mode::S_IRWXU).is_ok() {
                kills.push((gate, kill));
            }
        }
        Self { kills }
    }

    /// Kills workers until everything has ended. Returns the number of kills.
    fn rage(mut self, lab: &Lab, is_over: impl Fn() -> bool) -> usize {
        let mut done = 0;
        while !is_over() {
            self.kills.retain(|(gate, planned)| {
                // Fails at once unless a node waits at the gate.
                let met = File::options()
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(gate);
                let Ok(held) = met else { return true };
                // The next attempt does not stop here.
                std::fs::remove_file(gate).unwrap();
                let pid = match planned.worker {
                    Some(worker) => lab.stats().workers[worker].pid as i32,
                    None => {
                        let pid = std::fs::read_to_string(pid_beside(gate)).unwrap();
                        pid.parse().unwrap()
                    }
                };
                // A worker that is being replaced has no process.
                if pid != 0 && kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok() {
                    done += 1;
                }
                drop(held);
                false
            });
        }
        // All requested nodes may be decided while others still wait at gates.
        if !self.kills.is_empty() {
            wait_until("no node waits at a gate", || {
                for (gate, _) in &self.kills {
                    // Opening for both directions does not block; closing releases the waiting node.
                    drop(File::options().read(true).write(true).open(gate));
                }
                let stats = lab.stats();
                stats.open + stats.queued == 0
            });
        }
        done
    }
}

/// The deaths that failed jobs were blamed on.
#[derive(Default)]
struct Deaths {
    /// Numbers of the jobs that ended with their worker.
    jobs: BTreeSet<u64>,
}

impl Deaths {
    /// Checks the error of a node: a death is counted, any other cause must match the plain program.
    fn check(
        &mut self,
        (case, reference): (&Case, &Reference),
        node: usize,
        error: &arenite::JobError,
        fused: bool,
    ) -> Result<(), TestCaseError> {
        let (blamed, job, cause) = match error.kind() {
            JobErrorKind::Dependency(FailedDependency::Node {
                node, job, cause, ..
            }) => (Some(node), *job, &**cause),
            kind => (None, error.job(), kind),
        };
        let number = |name: &String| name.strip_prefix("node ").and_then(|n| n.parse().ok());
        let blamed: Option<usize> = blamed.and_then(number);
        match cause {
            JobErrorKind::Returned(text) => {
                let Err(roots) = &reference.values[node] else {
                    return Err(TestCaseError::fail(format!("node {node}: {error}")));
                };
                let root = text
                    .text()
                    .strip_suffix(" fails")
                    .and_then(|n| n.parse().ok());
                let root: usize = root.expect("the text of the kernel");
                prop_assert!(roots.contains(&root), "{error}; {roots:?} may be to blame");
                // The node itself, or the fused job that it was part of.
                let own = root == node || fused;
                prop_assert!(blamed.map_or(own, |blamed| blamed == root), "{error}");
                prop_assert!(blamed != Some(node), "{error}");
            }
            JobErrorKind::Lost(WorkerExit::Signal(9)) => {
                // A death fails only nodes without retries and their dependents.
                let blamed = blamed.unwrap_or(node);
                prop_assert!(!case.nodes[blamed].retries, "{error}");
                prop_assert!(reference.needed_by(node).contains(&blamed), "{error}");
                self.jobs.extend(job);
            }
            _ => return Err(TestCaseError::fail(format!("node {node}: {error}"))),
        }
        Ok(())
    }
}

/// Checks that each node has run at most once, or as often as retries and deaths allow; that nodes with values have
/// run, and each after its dependencies.
fn check_runs(
    (case, reference): (&Case, &Reference),
    done: &[usize],
    ran: &[u32],
    kills: usize,
) -> Result<(), TestCaseError> {
    let first = |node: usize| ran.iter().position(|&other| other as usize == node);
    for &node in ran {
        let node = node as usize;
        let times = ran.iter().filter(|&&other| other as usize == node).count();
        let most = match case.nodes[node].retries {
            true => 1 + kills.min(RETRIES as usize),
            false => 1,
        };
        prop_assert!(times <= most, "node {node} ran {times} times, not {most}");
        prop_assert!(reference.can_run(node), "node {node} ran");
        for &before in &reference.befores[node] {
            prop_assert!(
                first(before) < first(node) && first(before).is_some(),
                "node {node} ran before {before}"
            );
        }
    }
    for &node in done {
        for node in reference.needed_by(node) {
            prop_assert!(first(node).is_some(), "node {node} never ran");
        }
    }
    Ok(())
}

/// Bytes per weight, such that the case needs its declared share of the memory.
fn unit_of(case: &Case, lab: &Lab, place: (&Engine, &str)) -> u64 {
    let Some(percent) = case.sized else { return 0 };
    let (graph, made, _) = build(case, place, 1);
    let peak = graph.plan(&made).unwrap().peak_bytes.max(1);
    let arena = lab.stats().arena;
    (arena.capacity - arena.in_use) * percent / 100 / peak
}

/// Totals over all graphs.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    /// Jobs that failed with their worker.
    cost: usize,
    /// Nodes that were retried after a death and succeeded.
    survived: usize,
    /// Graphs that ran but would not have fitted in the order of addition.
    reordered: usize,
    /// Graphs that fit in no order.
    refused: usize,
}

fn play(
    lab: &Lab,
    engine: &Engine,
    case: &Case,
    kills: &[Kill],
    tally: &mut Tally,
) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let log = log.to_str().unwrap().to_owned();
    File::create(&log).unwrap();
    let unit = unit_of(case, lab, (engine, &log));
    let (graph, made, befores) = build(case, (engine, &log), unit);
    let reference = Reference::new(case, befores);
    let planned = graph.plan(&made).unwrap().peak_bytes;
    let wanted = case.wanted();
    let needed = wanted.iter().flat_map(|&node| reference.needed_by(node));
    let needed: BTreeSet<usize> = needed.filter(|&node| reference.can_run(node)).collect();
    let storm = Storm::new(kills, &log, &Vec::from_iter(needed));
    let free = {
        let arena = lab.stats().arena;
        arena.capacity - arena.in_use
    };
    let running = match graph.run(engine, made) {
        Ok(running) => running,
        Err(GraphError::DoesNotFit { peak, room }) => {
            prop_assert!(room < peak && peak <= planned, "{peak} in {room}");
            prop_assert!(numbers(&log).is_empty(), "a node has run");
            tally.refused += 1;
            return Ok(());
        }
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    };
    let is_here = std::ptr::eq(engine, &**lab);
    tally.reordered += usize::from(is_here && planned > free);
    let kills = storm.rage(lab, || running.wait_timeout(Duration::from_millis(1)));
    let fused = case.fuse && is_here;
    let mut deaths = Deaths::default();
    let mut done = Vec::new();
    for (result, node) in running.results().into_iter().zip(wanted) {
        match (result, &reference.values[node]) {
            (Ok(value), Ok(expected)) => {
                prop_assert_eq!(&value[..], &expected[..]);
                done.push(node);
            }
            (Ok(_), Err(roots)) => prop_assert!(false, "{node} in spite of {roots:?}"),
            (Err(error), _) => deaths.check((case, &reference), node, &error, fused)?,
        }
    }
    prop_assert!(
        deaths.jobs.len() <= kills,
        "{kills} deaths ended the jobs {:?}",
        deaths.jobs
    );
    let ran = numbers(&log);
    tally.kills += kills;
    tally.cost += deaths.jobs.len();
    let of_done = done.iter().flat_map(|&node| reference.needed_by(node));
    let of_done: BTreeSet<usize> = of_done.collect();
    let times = |node: usize| ran.iter().filter(|&&other| other as usize == node).count();
    tally.survived += of_done.into_iter().filter(|&node| times(node) > 1).count();
    check_runs((case, &reference), &done, &ran, kills)
}

fn random_graphs_with_deaths_give_what_a_plain_program_gives() {
    let lab = Lab::new(3);
    let inline = Engine::inline();
    let tally = RefCell::new(Tally::default());
    let config = Config {
        cases: 16,
        failure_persistence: None,
        ..Config::default()
    };
    let check = |case: Case| -> Result<(), TestCaseError> {
        step(format!(
            "a graph of {} nodes, with {} deaths",
            case.nodes.len(),
            case.kills.len()
        ));
        play(&lab, &lab, &case, &case.kills, &mut tally.borrow_mut())?;
        play(&lab, &inline, &case, &[], &mut Tally::default())?;
        for worker in 0..3 {
            wait_until("the workers are ready again", || {
                lab.stats().workers[worker].ready
            });
        }
        // Gives each worker an answered job: one that keeps dying without an answer would be restarted with a delay.
        let answers = lab.map(|n: u32| n, (0..300).map(|n| (n,)));
        assert!(answers.enumerate().all(|(n, m)| m.unwrap() as usize == n));
        lab.assert_in_use(0);
        Ok(())
    };
    // Fixed cases, which suffice for all counters, and random ones.
    let number = seeds(1).start;
    let mut other = [0; 32];
    other[..8].copy_from_slice(&number.to_le_bytes());
    let known = ("the seed that is always the same".to_owned(), [7; 32]);
    for (name, seed) in [known, (format!("seed {number}"), other)] {
        case(name);
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let mut runner = TestRunner::new_with_rng(config.clone(), rng);
        runner.run(&any_case(), check).unwrap();
    }
    let tally = tally.into_inner();
    println!("{tally:?}");
    let Tally {
        kills,
        cost,
        survived,
        reordered,
        refused,
    } = tally;
    assert!(cost > 0, "no death failed a job: {kills}");
    assert!(survived > 0, "no death was survived: {kills}");
    assert!(reordered > 0, "no graph had to run in another order");
    assert!(refused > 0, "no graph was rejected");
}
