//! `arenite doctor` from outside: on this machine, under limits, and with a private `/dev/shm`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[allow(dead_code, reason = "made for the tests of resize")]
#[path = "resize/world.rs"]
mod world;

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use serde_json::Value;
use world::{Run, World, not_tried, unless_forbidden};

const PROGRAM: &str = env!("CARGO_BIN_EXE_arenite");

fn doctor(flags: &str) -> Run {
    let mut command = Command::new(PROGRAM);
    command.arg("doctor").args(flags.split_whitespace());
    World::new().finish(command)
}

/// Runs a shell script with `$arenite` set.
fn shell(script: &str) -> Run {
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("arenite", PROGRAM);
    World::new().finish(command)
}

/// Runs a shell script with a private `/dev/shm` of this size; `None` where mounting is forbidden.
fn with_own_shm(size: &str, script: &str) -> Option<Run> {
    let script = format!("mount -t tmpfs -o size={size} none /dev/shm && {{\n{script}\n}}");
    let mut command = Command::new("unshare");
    command
        .args(["-r", "-m", "sh", "-c", &script])
        .env("arenite", PROGRAM);
    unless_forbidden(World::new().finish(command))
}

fn finding<'a>(report: &'a Value, subject: &str) -> &'a Value {
    let findings = report["findings"].as_array().unwrap();
    let mut found = findings.iter().filter(|one| one["subject"] == subject);
    found
        .next()
        .unwrap_or_else(|| panic!("no {subject} in {report}"))
}

fn report(run: &Run) -> Value {
    let lines = run.json();
    assert_eq!(lines.len(), 1, "{}", run.stdout);
    lines.into_iter().next().unwrap()
}

#[test]
fn the_text_and_the_json_report_agree() {
    let run = doctor("--json");
    let seen = report(&run);
    let trouble = seen["verdict"] == "trouble";
    assert_eq!(run.code, Some(i32::from(trouble)), "{}", run.stderr);
    assert_eq!(finding(&seen, "trial")["level"], "fine", "{seen}");
    assert!(seen["machine"]["memory"]["size"].as_u64().unwrap() > 0);
    assert!(seen["machine"]["features"].as_array().unwrap().len() >= 7);

    let run = doctor("");
    assert_eq!(run.code, Some(i32::from(trouble)));
    assert!(
        run.stdout.contains("memory     ") && run.stdout.contains('░'),
        "{}",
        run.stdout
    );
    for one in seen["findings"].as_array().unwrap() {
        let subject = one["subject"].as_str().unwrap();
        assert!(run.stdout.contains(&format!(" {subject} ")), "{subject}");
        let advice = one["advice"].as_str().unwrap();
        assert_eq!(advice.is_empty(), one["level"] == "fine", "{one}");
    }
    let last = run.stdout.lines().last().unwrap();
    assert_eq!(last.contains("No trouble found"), !trouble, "{last}");
}

#[test]
fn a_limit_that_is_too_low_is_exit_code_1_with_advice() {
    let run = shell("ulimit -n 40; exec $arenite doctor --json").exits(1);
    let seen = report(&run);
    assert_eq!(seen["verdict"], "trouble");
    let files = finding(&seen, "open-files");
    assert_eq!(files["level"], "trouble", "{files}");
    assert!(files["found"].as_str().unwrap().contains("40"), "{files}");
    let run = shell("ulimit -n 40; exec $arenite doctor").exits(1);
    assert!(run.stdout.contains("✘ open-files"), "{}", run.stdout);
    assert!(
        run.stdout.contains("→ raise it (ulimit -n"),
        "{}",
        run.stdout
    );
}

/// Any user may make a file in `/dev/shm` that is named like another user's arena.
#[test]
fn foreign_files_with_arena_names_neither_block_nor_inject_control_characters() {
    // Only root can act as a second user.
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let script = r#"
        mount -t tmpfs none /dev/shm && cd /dev/shm || exit 9
        mkfifo -m 666 arenite-0-pipe arenite-0-pipe.kept
        touch "$(printf 'arenite-0-mine\033[31m\302\233.kept')"
        touch arenite-0-other && chmod 666 arenite-0-other && $chown 65534 arenite-0-other || exit 9
        $arenite doctor; echo ====; $arenite doctor --clean; ls >&2"#;
    let mut command = Command::new("unshare");
    command
        .args(if is_root { &["-m"][..] } else { &["-r", "-m"] })
        .args(["sh", "-c", script])
        .env("chown", if is_root { "chown" } else { ":" })
        .env("arenite", PROGRAM);
    let Some(run) = unless_forbidden(World::new().finish(command)) else {
        return;
    };
    let run = run.exits(0);
    assert!(!run.stdout.contains(['\u{1b}', '\u{9b}']), "{}", run.stdout);
    let (before, after) = run.stdout.split_once("====").unwrap();
    for (said, state) in [(before, "left behind"), (after, "removed")] {
        let lines = said.lines().filter(|line| line.contains("/arenite-0-"));
        let lines: Vec<&str> = lines.filter(|line| line.contains(state)).collect();
        let mine = r"/arenite-0-mine\u{1b}[31m\u{9b}.kept  (mine\u{1b}[31m\u{9b})";
        assert!(lines[0].contains(mine), "{said}");
        assert_eq!(lines.len(), if is_root { 1 } else { 2 }, "{said}");
        assert!(!said.contains("pipe"), "{said}");
    }
    let left: Vec<&str> = run.stderr.lines().collect();
    let pipes = ["arenite-0-pipe", "arenite-0-pipe.kept"];
    assert!(left.ends_with(&pipes), "{left:?}");
    assert_eq!(left.contains(&"arenite-0-other"), is_root, "{left:?}");
}

/// Runs in a new control group, where one can be made, with room for one small engine but not for a worker per core.
#[test]
fn a_container_with_too_few_processes_is_trouble() {
    let script = r#"
        name=arenite-doctor-$$
        for group in /sys/fs/cgroup/pids/$name /sys/fs/cgroup/$name; do
            mkdir $group 2>/dev/null && break
        done
        if [ -w $group/pids.max ]; then
            echo 10 >$group/pids.max
            sh -c "echo \$\$ >$group/cgroup.procs && exec $arenite doctor --json"
            code=$?
        else
            echo "no group" >&2
        fi
        # The group notices the end of its processes a little later.
        for look in $(seq 1000); do rmdir $group 2>/dev/null && break; done
        exit $code
    "#;
    let run = shell(script);
    if run.stderr.contains("no group") {
        not_tried("no control group can be made here");
        return;
    }
    let seen = report(&run);
    assert_eq!(run.code, Some(1), "{seen}");
    let tasks = finding(&seen, "container-tasks");
    assert_eq!(tasks["level"], "trouble", "{tasks}");
    assert!(
        tasks["advice"].as_str().unwrap().contains("--pids-limit"),
        "{tasks}"
    );
    assert_eq!(seen["machine"]["container_tasks"]["limit"], 10, "{seen}");
    assert_eq!(finding(&seen, "trial")["level"], "fine", "{seen}");
}

#[test]
fn an_engine_that_cannot_start_is_trouble_with_its_error() {
    // Not even the first memory file can be opened.
    let run = shell("ulimit -n 5; exec $arenite doctor --json").exits(1);
    let seen = report(&run);
    let trial = finding(&seen, "trial");
    assert_eq!(trial["level"], "trouble", "{trial}");
    assert!(!trial["means"].as_str().unwrap().is_empty(), "{trial}");
}

#[test]
fn a_missing_temporary_folder_is_named_with_advice() {
    let line = "mount -o remount,ro /dev/shm && TMPDIR=/nonexistent exec $arenite doctor --json";
    let Some(run) = with_own_shm("4m", line) else {
        return;
    };
    let seen = report(&run.exits(1));
    let temporary = finding(&seen, "temporary");
    assert_eq!(temporary["level"], "trouble", "{temporary}");
    for (key, word) in [("found", "/nonexistent"), ("advice", "set TMPDIR")] {
        let text = temporary[key].as_str().unwrap();
        assert!(text.contains(word), "{temporary}");
    }
    // The trial refers to the marks above: there is one.
    assert_eq!(finding(&seen, "trial")["level"], "trouble", "{seen}");
}

#[test]
fn another_folder_takes_the_place_of_a_missing_temporary_one() {
    let run = shell("unset XDG_RUNTIME_DIR; TMPDIR=/nonexistent exec $arenite doctor --json");
    let seen = report(&run);
    let temporary = finding(&seen, "temporary");
    assert_eq!(temporary["level"], "fine", "{temporary}");
    assert!(
        temporary["found"].as_str().unwrap().contains("/dev/shm"),
        "{temporary}"
    );
    assert_eq!(finding(&seen, "trial")["level"], "fine", "{seen}");
}

#[test]
fn a_small_or_full_dev_shm_is_only_a_notice() {
    let Some(run) = with_own_shm("64m", "$arenite doctor --json") else {
        return;
    };
    let seen = report(&run);
    assert_eq!(finding(&seen, "dev-shm")["level"], "notice", "{seen}");
    assert_eq!(seen["machine"]["dev_shm"]["size"], 64 << 20);
    assert_eq!(finding(&seen, "trial")["level"], "fine", "{seen}");

    let fill = "head -c 64m /dev/zero >/dev/shm/other 2>/dev/null; $arenite doctor --json";
    let Some(run) = with_own_shm("4m", fill) else {
        return;
    };
    let seen = report(&run);
    let trouble = seen["verdict"] == "trouble";
    assert_eq!(run.code, Some(i32::from(trouble)), "{seen}");
    let shm = finding(&seen, "dev-shm");
    assert_eq!(shm["level"], "notice", "{shm}");
    assert!(
        shm["advice"].as_str().unwrap().contains("--shm-size"),
        "{shm}"
    );
    assert_eq!(
        finding(&seen, "trial")["level"],
        "fine",
        "memory files are used: {seen}"
    );
}

#[test]
fn a_read_only_dev_shm_gets_advice_to_remount_it() {
    let script = "mount -o remount,ro /dev/shm; $arenite doctor --json";
    let Some(run) = with_own_shm("16m", script) else {
        return;
    };
    let seen = report(&run);
    let shm = finding(&seen, "dev-shm");
    let advice = shm["advice"].as_str().unwrap();
    assert!(advice.contains("remount,rw"), "{shm}");
}

#[test]
fn unknown_memory_is_null_and_has_no_bar() {
    let script = "mount --bind /dev/null /proc/meminfo; $arenite doctor --json; $arenite doctor";
    let Some(run) = with_own_shm("16m", script) else {
        return;
    };
    let (json, text) = run.stdout.split_once('\n').unwrap();
    let seen: Value = serde_json::from_str(json).unwrap();
    let memory = &seen["machine"]["memory"];
    let contained = seen["machine"]["container"].is_object();
    assert_eq!(memory.is_null(), !contained, "{seen}");
    assert!(contained || !text.contains("TiB"), "{text}");
}

#[test]
fn a_report_that_cannot_be_written_is_exit_code_1() {
    for flags in ["", "--json"] {
        let run = shell(&format!("exec $arenite doctor {flags} >/dev/full"));
        let run = run.exits(1);
        assert!(run.stderr.contains("error: stdout: "), "{}", run.stderr);
    }
}

#[test]
fn clean_removes_names_left_behind_and_keeps_those_in_use() {
    // Three names as a killed program leaves them, one in use, and two foreign ones.
    let script = r#"
        cd /dev/shm
        for name in old.kept young.kept 0123456789abcdef; do head -c 8192 /dev/zero >arenite-$(id -u)-$name; done
        touch -d '3 hours ago' arenite-$(id -u)-old.kept
        echo x >arenite-4242-others.kept
        echo x >precious
        flock --shared live.lock true
        : >arenite-$(id -u)-live.kept
        flock arenite-$(id -u)-live.kept sh -c '
            "$arenite" doctor --json
            "$arenite" doctor --clean --json
            "$arenite" doctor
        ' >report
        sed -n 1,2p report
        ls | grep -v '^report$\|^live.lock$' | while read name; do echo "\"$name\""; done
        grep -c "in use" report | sed 's/.*/{"in_use": &}/'
    "#;
    let Some(run) = with_own_shm("16m", script) else {
        return;
    };
    let lines = run.json();
    let (before, after) = (&lines[0], &lines[1]);
    let stale = finding(before, "stale-names");
    assert_eq!(stale["level"], "notice", "{stale}");
    assert!(
        stale["found"]
            .as_str()
            .unwrap()
            .starts_with("3 left behind"),
        "{stale}"
    );
    let names = before["names"].as_array().unwrap();
    assert_eq!(names.len(), 4, "{names:?}");
    let old = names.iter().find(|name| name["arena"] == "old").unwrap();
    assert_eq!(old["bytes"], 8192);
    assert!(
        (10_700..20_000).contains(&old["age_s"].as_u64().unwrap()),
        "{old}"
    );
    assert_eq!(old["live"], false);

    assert_eq!(after["removed"].as_array().unwrap().len(), 3, "{after}");
    assert_eq!(finding(after, "stale-names")["level"], "fine");
    let left = after["names"].as_array().unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(
        (&left[0]["arena"], &left[0]["live"]),
        (&"live".into(), &true.into())
    );

    let there: Vec<_> = lines[2..].iter().filter_map(Value::as_str).collect();
    assert_eq!(
        there,
        [
            "arenite-0-live.kept",
            "arenite-4242-others.kept",
            "precious"
        ]
    );
    assert_eq!(
        lines.last().unwrap()["in_use"],
        1,
        "the name in use is shown"
    );
}

#[test]
fn colours_appear_on_terminals_or_on_request() {
    let run = doctor("");
    assert!(!run.stdout.contains('\x1b'), "none in a pipe");
    assert!(doctor("--color always").stdout.contains("\x1b[32m"));
    let mut command = Command::new(PROGRAM);
    command
        .args(["doctor", "--color", "auto"])
        .env("NO_COLOR", "1");
    assert!(!World::new().finish(command).stdout.contains('\x1b'));
}

#[test]
fn wrong_usage_is_exit_code_2_and_help_and_manual_exist() {
    for flags in ["--nonsense", "photo.jpg", "--color sometimes"] {
        let run = doctor(flags);
        assert_eq!(run.code, Some(2), "{flags}");
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{flags}");
    }
    let help = doctor("--help").exits(0).stdout;
    for word in [
        "--clean",
        "--json",
        "Exit codes",
        "control groups",
        "NO_COLOR",
    ] {
        assert!(help.contains(word), "{word} is missing in:\n{help}");
    }
    // Text wrapped by hand fits 80 columns, or it would be wrapped again.
    let by_hand = help.split("What is examined:").nth(1).unwrap();
    for line in by_hand.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(
        doctor("--generate man")
            .exits(0)
            .stdout
            .contains("arenite\\-doctor")
    );
}

#[test]
fn it_says_how_jpeg_was_built() {
    let contains = |name: &str| {
        let program = std::fs::read(PROGRAM).unwrap();
        program
            .windows(name.len())
            .any(|found| found == name.as_bytes())
    };
    // The names of functions of the assembly.
    let has = contains("jsimd_idct_islow_avx2") || contains("jsimd_idct_islow_neon");
    let seen = report(&doctor("--json"));
    assert_eq!(seen["machine"]["jpeg_assembly"], has, "{seen}");
    let level = if has { "fine" } else { "notice" };
    assert_eq!(finding(&seen, "jpeg")["level"], level);
    let mut command = Command::new(PROGRAM);
    command.arg("--version");
    let version = World::new().finish(command).exits(0).stdout;
    let line = if has {
        "JPEG: with assembly"
    } else {
        "JPEG: without assembly"
    };
    assert!(version.lines().any(|found| found == line), "{version}");
}

/// A terminal by `script`.
#[test]
fn its_lines_are_as_wide_as_the_terminal() {
    if Command::new("script").arg("--version").output().is_err() {
        return not_tried("there is no `script`");
    }
    for columns in [50, 70] {
        let line = format!("stty rows 40 cols {columns}; {PROGRAM} doctor --color never");
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", &line, "/dev/null"]);
        let text = World::new().finish(command).stdout;
        let (_, checks) = text.split_once("Checks").unwrap();
        // Names of arenas and their folders are not wrapped.
        let lines = checks
            .lines()
            .take_while(|line| !line.starts_with("Arenas"));
        let longest = lines.map(|line| line.trim_end().chars().count()).max();
        let longest = longest.unwrap();
        assert!(
            longest <= columns && longest > columns - 10,
            "{longest}: {text}"
        );
    }
}

#[test]
fn colours_can_be_forced_and_forbidden() {
    let shown = |variables: &[(&str, &str)]| {
        let mut command = Command::new(PROGRAM);
        command.arg("doctor").env_remove("NO_COLOR");
        command.envs(variables.iter().copied());
        World::new().finish(command).stdout.contains('\u{1b}')
    };
    assert!(!shown(&[]));
    assert!(shown(&[("CLICOLOR_FORCE", "1"), ("TERM", "dumb")]));
    for off in [("CLICOLOR_FORCE", "0"), ("CLICOLOR_FORCE", "")] {
        assert!(!shown(&[off]), "{off:?}");
    }
    assert!(!shown(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}
