//! Versions of Linux without a part of the sandbox: it is named, refused where required, and skipped otherwise.

use std::fs::File;

use arenite::{BuildError, Sandbox, SandboxReport};

use crate::harness::programs::{Program, Scenario, say};
use crate::harness::{Calls, assert_says, builder, status_of, tests};
use crate::kernels::without;

tests![missing_parts_are_named];

pub const SCENARIOS: &[Scenario] = &[("lacking", lacking)];

/// A system call, and the start of the sentence about its part of the sandbox.
const PARTS: [(libc::c_long, &str); 3] = [
    (libc::SYS_seccomp, "seccomp "),
    (libc::SYS_landlock_create_ruleset, "Landlock "),
    (libc::SYS_mseal, "mseal "),
];

fn missing_parts_are_named() {
    for mask in 1..1 << PARTS.len() {
        let parts = (0..).zip(PARTS).filter(|(at, _)| mask >> at & 1 == 1);
        without_parts(&parts.map(|(_, part)| part).collect::<Vec<_>>());
    }
}

/// Starts a program for which these calls are missing. Other gaps of this machine are reported as usual.
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
            // Not a message about an older version.
            assert!(!line.contains("scopes"), "{line}");
        } else {
            let own = here.iter().find(|line| line.starts_with(name));
            assert_eq!(line, own.copied(), "{said}");
        }
    }
}

/// Number of system call filters of a process.
fn filters(pid: u32) -> u32 {
    let count = status_of(pid, "Seccomp_filters").unwrap();
    count.parse().unwrap()
}

fn lacking() {
    let report = SandboxReport::of_this_kernel();
    report.lacking().into_iter().for_each(say);
    let build = |sandbox| builder(2, 64 << 20).sandbox(sandbox).build();
    let refused = build(Sandbox::Required).unwrap_err();
    assert!(
        matches!(refused, BuildError::SandboxLacks(lacking) if lacking == report),
        "{refused:?}"
    );
    for part in report.lacking() {
        assert_says(&refused, part);
    }
    let engine = build(Sandbox::Strict).unwrap();
    assert_eq!(engine.sandbox_report(), Some(report));
    // The rest of the sandbox is applied: either of two parts denies files, and calls are filtered on top of this
    // program's own filter.
    let has = |name: &str| !report.lacking().iter().any(|part| part.starts_with(name));
    let shut = || File::open("/proc/self/exe").is_err();
    assert_eq!(
        engine.value_of(shut, ()),
        has("seccomp ") || has("Landlock (")
    );
    for worker in engine.stats().workers {
        let own = if has("seccomp ") { 3 } else { 0 };
        assert_eq!(filters(worker.pid), filters(std::process::id()) + own);
    }
    let values = engine.from_fn(10_000, |i| i as u64).unwrap();
    let sum = |values: &[u64]| values.iter().sum::<u64>();
    assert_eq!(engine.value_of(sum, (&values,)), 49_995_000);
    drop(values);
    engine.shutdown();
}
