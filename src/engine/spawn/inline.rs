//! Spawned jobs of an inline engine: they run on the calling thread, depth first, with an explicit stack.

use std::any::Any;
use std::vec;

use super::{Plan, Ran, Task};
use crate::engine::{FailedDependency, JobErrorKind, JobLimit};
use crate::kernel::{AnyValue, Failure, SpawnedFailed, seed_of_task};
use crate::supervisor::{Because, MAX_SPAWN_DEPTH};
use crate::worker::{enter_inline_job, inline_job_seeds};

/// A dynamic task group: the jobs that one job has spawned.
struct TaskGroup {
    /// The seed of the job's random numbers.
    seed: u64,
    next: u64,
    children: vec::IntoIter<Box<dyn Task>>,
    values: Vec<AnyValue>,
    last: Option<Box<dyn Task>>,
}

impl TaskGroup {
    fn new(mut plan: Plan, seed: u64) -> Self {
        let last = plan.tasks.pop();
        Self {
            seed,
            next: 0,
            values: Vec::with_capacity(plan.tasks.len()),
            children: plan.tasks.into_iter(),
            last,
        }
    }
}

/// Downcasts the value that a spawning kernel has returned to a plan.
pub(super) fn plan(plan: AnyValue) -> Box<Plan> {
    plan.downcast()
        .expect("what a kernel returns to spawn is a plan")
}

/// Runs a plan. Its jobs derive their random numbers from the seed of the job that runs on this thread.
pub(super) fn run<V: 'static>(plan: Plan) -> Result<V, Failure> {
    let (run, seed) = inline_job_seeds();
    let value = drive(plan, run, seed).map_err(|why| Failure::Spawned(SpawnedFailed(why)))?;
    let value: Box<dyn Any> = value;
    let value = value
        .downcast()
        .expect("the last kernel returns the job's type");
    Ok(*value)
}

fn drive(plan: Plan, run: u64, seed: u64) -> Result<AnyValue, Box<Because>> {
    let mut open = vec![TaskGroup::new(plan, seed)];
    loop {
        let deep = open.len();
        let Some(family) = open.last_mut() else {
            unreachable!("the value of the first family is returned");
        };
        let seed = seed_of_task(family.seed, family.next);
        family.next += 1;
        let (task, values) = match family.children.next() {
            Some(child) => (child, Vec::new()),
            None => {
                let last = family.last.take().expect("it goes on once");
                (last, std::mem::take(&mut family.values))
            }
        };
        let is_last = family.last.is_none();
        let kernel = task.kernel().name();
        let ran = {
            let _entered = enter_inline_job(run, seed);
            task.run(values)
                .map_err(|error| Box::new(error.of_child()))?
        };
        match ran {
            Ran::Value(value) => {
                if is_last {
                    open.pop();
                }
                match open.last_mut() {
                    Some(family) => family.values.push(value),
                    None => return Ok(value),
                }
            }
            Ran::More(plan) => {
                if is_last {
                    // The last kernel of a group has spawned in turn. Its new group replaces the old one, because both
                    // give the same value.
                    open.pop();
                } else if deep == MAX_SPAWN_DEPTH as usize {
                    let depth = MAX_SPAWN_DEPTH + 1;
                    let open = open.iter().map(|family| family.children.len() as u64 + 1);
                    let open = open.sum();
                    let cause = Box::new(JobErrorKind::Limit(JobLimit::Spawned { depth, open }));
                    let why = JobErrorKind::Dependency(FailedDependency::Child {
                        job: None,
                        kernel,
                        cause,
                    });
                    return Err(Box::new(why.into()));
                }
                open.push(TaskGroup::new(*plan, seed));
            }
        }
    }
}

/// Returns why a job ended without a value, if a job that it has spawned failed.
pub(in crate::engine) fn inline_failure(failed: SpawnedFailed) -> Because {
    let why = failed.0.downcast::<Because>();
    *why.expect("what was spawned fails for a reason")
}
