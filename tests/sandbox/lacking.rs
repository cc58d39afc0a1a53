//! Kernels that lack a part of the sandbox: it is named, refused where it is required, and done without otherwise.

use std::fs::File;

use arenite::{BuildError, Engine, Sandbox, SandboxReport};

use crate::harness::programs::{Program, Scenario, say};
use crate::harness::tests;
use crate::kernels::without;

tests![
    one_part_is_lacking,
    several_parts_are_lacking,
    nothing_is_there,
];

pub const SCENARIOS: &[Scenario] = &[("lacking", lacking)];

/// A system call, and how the sentence about its part begins.
const PARTS: [(libc::c_long, &str); 3] = [
    (libc::SYS_seccomp, "seccomp "),
    (libc::SYS_landlock_create_ruleset, "Landlock "),
    (libc::SYS_mseal, "mseal "),
];

fn one_part_is_lacking() {
    for part in PARTS {
        without_parts(&[part]);
    }
}

fn several_parts_are_lacking() {
    for spared in 0..PARTS.len() {
        let mut parts = PARTS.to_vec();
        parts.remove(spared);
        without_parts(&parts);
    }
}

fn nothing_is_there() {
    without_parts(&PARTS);
}

/// A program on a kernel without these, which is told the same kernel's other gaps as this one.
fn without_parts(parts: &[(libc::c_long, &str)]) {
    let calls: Vec<_> = parts.iter().map(|(call, _)| *call).collect();
    let ended = Program::start("lacking", without(&calls)).end();
    let said = ended.output.strip_suffix("done\n");
    let said = said.unwrap_or_else(|| panic!("{parts:?}: {ended:?}"));
    let here = SandboxReport::of_this_kernel().lacking();
    for (_, name) in PARTS {
        let line = said.lines().find(|line| line.starts_with(name));
        if parts.iter().any(|(_, taken)| *taken == name) {
            let line = line.unwrap_or_else(|| panic!("{name} is not named: {said}"));
            // Not that an older version is there.
            assert!(!line.contains("scopes"), "{line}");
        } else {
            let own = here.iter().find(|line| line.starts_with(name));
            assert_eq!(line, own.copied(), "{said}");
        }
    }
}

/// Filters on system calls that a process has.
fn filters(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let count = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp_filters:"));
    count.unwrap().trim().parse().unwrap()
}

fn lacking() {
    let report = SandboxReport::of_this_kernel();
    report.lacking().into_iter().for_each(say);
    let build = |sandbox| {
        Engine::builder()
            .workers(2)
            .capacity(64 << 20)
            .sandbox(sandbox)
            .build()
    };
    let refused = build(Sandbox::Required).unwrap_err();
    assert!(
        matches!(refused, BuildError::SandboxLacks(lacking) if lacking == report),
        "{refused:?}"
    );
    for part in report.lacking() {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    let engine = build(Sandbox::Strict).unwrap();
    assert_eq!(engine.sandbox_report(), Some(report));
    // What is left of it is there: either of two shuts files, and calls are filtered on top of what filters this program.
    let has = |name: &str| !report.lacking().iter().any(|part| part.starts_with(name));
    let shut = || File::open("/proc/self/exe").is_err();
    assert_eq!(
        engine.submit(shut, ()).wait().unwrap(),
        has("seccomp ") || has("Landlock (")
    );
    for worker in engine.stats().workers {
        let own = if has("seccomp ") { 3 } else { 0 };
        assert_eq!(filters(worker.pid), filters(std::process::id()) + own);
    }
    let values = engine.from_fn(10_000, |i| i as u64).unwrap();
    let sum = |values: &[u64]| values.iter().sum::<u64>();
    assert_eq!(engine.submit(sum, (&values,)).wait().unwrap(), 49_995_000);
    drop(values);
    engine.shutdown();
}
