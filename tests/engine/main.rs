//! Engines with real worker processes, with and without faults.
//!
//! One binary, because a worker is a copy of the running program. Tests of a process run one after the other: each is
//! checked for what it leaves behind in the process and in the system.

#![allow(clippy::unwrap_used, reason = "tests")]

mod admission;
mod arguments;
mod bodies;
mod builder;
mod calls;
mod child_programs;
mod concurrency;
mod crashes;
mod deaths;
mod errors;
mod escapes;
mod events;
mod faults;
mod folders;
#[path = "../common/mod.rs"]
mod harness;
mod inline;
mod inputs;
mod jobs;
mod leftovers;
mod lifecycle;
mod limits;
mod logs;
mod map;
mod memory;
mod names;
mod ndarrays;
mod observers;
mod par;
mod policies;
mod raw;
mod recycling;
mod retained;
mod scope;
mod sharing;
mod shortages;
mod spares;
mod starts;
mod storms;
mod template;
mod watch;
mod worker_program;

fn main() {
    // A program that forgot `init()` is one of the scenarios.
    lifecycle::before_init();
    starts::before_init();
    template::before_init();
    worker_program::before_init();
    arenite::init();
    folders::without_proc();
    // Some tests kill a program: this one, started with a scenario.
    let scenarios = [
        folders::SCENARIOS,
        lifecycle::SCENARIOS,
        logs::SCENARIOS,
        limits::SCENARIOS,
        observers::SCENARIOS,
        shortages::SCENARIOS,
    ];
    harness::programs::play(&scenarios.concat());
    harness::share_out();

    let tests = [
        admission::tests(),
        arguments::tests(),
        bodies::tests(),
        builder::tests(),
        calls::tests(),
        child_programs::tests(),
        concurrency::tests(),
        crashes::tests(),
        deaths::tests(),
        errors::tests(),
        escapes::tests(),
        events::tests(),
        faults::tests(),
        folders::tests(),
        inline::tests(),
        inputs::tests(),
        jobs::tests(),
        leftovers::tests(),
        lifecycle::tests(),
        limits::tests(),
        logs::tests(),
        map::tests(),
        memory::tests(),
        names::tests(),
        ndarrays::tests(),
        observers::tests(),
        par::tests(),
        recycling::tests(),
        retained::tests(),
        policies::tests(),
        raw::tests(),
        scope::tests(),
        sharing::tests(),
        shortages::tests(),
        spares::tests(),
        storms::tests(),
        starts::tests(),
        watch::tests(),
        template::tests(),
        worker_program::tests(),
    ];
    harness::run(tests.into_iter().flatten().collect()).exit();
}
