//! Whatever a worker sends, reading it costs the program little time, memory and stack.

use std::process::Command;

use crate::sys::asked;

/// Tests of what reads the words, texts, notes and lines of workers. Most generate what a worker writes, and change it.
const DECODERS: [&str; 8] = [
    "kernel::wire::tests::",
    "link::recorder::tests::",
    "supervisor::crash::tests::",
    "supervisor::depend::spawn_reply::tests::",
    "supervisor::failed_reply::tests::",
    "supervisor::output::",
    "supervisor::tests::replies::",
    "trace::escape::tests::",
];

#[test]
fn decoders_need_little() {
    let cases = asked::cases(25_000);
    // A gibibyte of addresses, a mebibyte of stack, and ten times the processor time that this takes.
    let limits = format!(
        "ulimit -v 1048576 && ulimit -t {} && exec \"$0\" \"$@\"",
        60 + cases / 80
    );
    let child = Command::new("sh")
        .args(["-c", &limits])
        .arg(std::env::current_exe().unwrap())
        .args(DECODERS)
        .arg("--test-threads=1")
        .env("RUST_MIN_STACK", (1 << 20).to_string())
        .env("ARENITE_CASES", cases.to_string())
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{}\n{output}\n{}",
        child.status,
        String::from_utf8_lossy(&child.stderr)
    );
    for decoder in DECODERS {
        assert!(
            output.contains(&format!("test {decoder}")),
            "no test of {decoder} ran:\n{output}"
        );
    }
}
