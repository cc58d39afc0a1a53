//! Judges fictitious machines, and probes this one.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use arenite::platform::SegmentName;

use super::finding::{Finding, Level, Report};
use super::machine::{
    Bounds, ContainerRoom, ContainerTasks, Feature, Machine, Need, Room, is_root,
};
use super::text::render;

const GIB: u64 = 1 << 30;

/// A machine without a notice or trouble.
fn good() -> Machine {
    let feature = |name, need| Feature {
        name,
        purpose: "what it is for",
        since: "5.10",
        need,
        state: Ok(String::new()),
    };
    Machine {
        kernel: "5.10.0-33-amd64".into(),
        arch: "x86_64".into(),
        page: 4096,
        cores: 4,
        root: false,
        proc: true,
        memory: room(32 * GIB, 20 * GIB),
        container: None,
        container_tasks: None,
        shm: Some(Room {
            size: 16 * GIB,
            free: 16 * GIB,
        }),
        shm_writable: true,
        shm_read_only: false,
        temporary: "/tmp".into(),
        temporary_fault: None,
        capacity: Some(10 * GIB),
        bounds: Bounds {
            files: Some(1024),
            processes: Some(4096),
            processes_now: 300,
            mappings: Some(65_530),
            ..Bounds::default()
        },
        jpeg_assembly: true,
        heic: Some("1.0.11".into()),
        features: vec![
            feature("pidfd", Need::Always),
            feature("MADV_COLLAPSE", Need::Speed),
            feature("Landlock", Need::Sandbox),
        ],
        names: Vec::new(),
    }
}

#[track_caller]
fn finding(machine: &Machine, subject: &str) -> Finding {
    let findings = machine.judge();
    let mut found = findings.iter().filter(|finding| finding.subject == subject);
    let one = found.next().unwrap_or_else(|| panic!("no {subject}"));
    assert!(found.next().is_none(), "{subject} twice");
    one.clone()
}

#[test]
fn a_good_machine_has_only_fine_findings_each_with_an_explanation() {
    let findings = good().judge();
    for finding in &findings {
        assert_eq!(finding.level, Level::Fine, "{finding:?}");
        assert!(
            !finding.found.is_empty() && !finding.means.is_empty(),
            "{finding:?}"
        );
    }
    let mut subjects: Vec<_> = findings.iter().map(|finding| finding.subject).collect();
    subjects.sort_unstable();
    subjects.dedup();
    assert_eq!(subjects.len(), findings.len(), "each subject once");
}

#[test]
fn the_text_fits_the_terminal() {
    let mut machine = good();
    machine.heic = None;
    machine.jpeg_assembly = false;
    machine.memory = room(32 * GIB, GIB / 2);
    machine.container = container(8 * GIB, GIB);
    let findings = machine.judge();
    let report = Report { machine, findings };
    // Bars and their legend take what is left.
    let words = |text: &str| {
        let checks = text.split("Checks").nth(1).unwrap().split_whitespace();
        checks.map(str::to_owned).collect::<Vec<_>>()
    };
    let wide = render(&report, &[], false, None);
    for columns in [44, 60, 80, 96, 200] {
        let text = render(&report, &[], false, Some(columns));
        let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(longest <= columns.min(96), "{columns}: {text}");
        assert!(longest > columns.min(96) - 16, "{columns}: {text}");
        assert_eq!(words(&text), words(&wide));
        assert_eq!(
            text.matches(" free").count(),
            wide.matches(" free").count(),
            "{text}"
        );
    }
}

/// Makes one fact of a machine bad.
type Spoil = fn(&mut Machine);

#[test]
fn each_bad_fact_is_found_and_comes_with_advice() {
    let cases: [(&str, Level, &str, Spoil); 27] = [
        ("jpeg", Level::Notice, "nasm", |m| m.jpeg_assembly = false),
        ("kernel", Level::Trouble, "5.10", |m| {
            m.kernel = "5.9.16".into()
        }),
        ("kernel", Level::Notice, "features", |m| {
            m.kernel = "mystery".into()
        }),
        ("kernel", Level::Trouble, "65536", |m| m.page = 65_536),
        ("proc", Level::Trouble, "mount", |m| m.proc = false),
        ("memory", Level::Trouble, "capacity", |m| {
            m.memory = room(32 * GIB, GIB / 16)
        }),
        ("memory", Level::Notice, "capacity", |m| {
            m.memory = room(32 * GIB, GIB / 2)
        }),
        ("container", Level::Trouble, "--memory", |m| {
            m.container = container(GIB, GIB / 32)
        }),
        ("container", Level::Notice, "--memory", |m| {
            m.container = container(8 * GIB, GIB)
        }),
        ("container", Level::Fine, "", |m| {
            m.container = container(8 * GIB, 4 * GIB)
        }),
        ("dev-shm", Level::Notice, "mount", |m| m.shm = None),
        ("dev-shm", Level::Notice, "--shm-size", |m| {
            m.shm = room(64 << 20, 64 << 20)
        }),
        // `/dev/shm` is full: only named arenas need it.
        ("dev-shm", Level::Notice, "--shm-size", |m| {
            m.shm = room(64 << 20, 4096)
        }),
        ("dev-shm", Level::Notice, "chmod", |m| {
            m.shm_writable = false
        }),
        // `/dev/shm` is read-only for all users: no file mode would help.
        ("dev-shm", Level::Notice, "remount,rw", |m| {
            m.shm_writable = false;
            m.shm_read_only = true;
        }),
        ("temporary", Level::Trouble, "TMPDIR", |m| {
            m.temporary_fault = Some("it is not writable".into())
        }),
        ("open-files", Level::Trouble, "ulimit -n", |m| {
            m.bounds.files = Some(64)
        }),
        ("processes", Level::Trouble, "ulimit -u", |m| {
            m.bounds.processes = Some(305)
        }),
        // An engine with four workers adds 16 processes and threads.
        ("container-tasks", Level::Fine, "", |m| {
            m.container_tasks = tasks(116, 100)
        }),
        (
            "container-tasks",
            Level::Trouble,
            "workers, 3 at most",
            |m| {
                m.container_tasks = tasks(115, 100);
                m.root = true;
            },
        ),
        ("container-tasks", Level::Trouble, "end some", |m| {
            m.container_tasks = tasks(100, 100)
        }),
        ("address-space", Level::Trouble, "ulimit -v", |m| {
            m.bounds.address_space = Some(64 * GIB)
        }),
        ("file-size", Level::Trouble, "too little", |m| {
            m.bounds.file_size = Some(1024)
        }),
        ("file-size", Level::Trouble, "ulimit -f", |m| {
            m.bounds.file_size = Some(GIB)
        }),
        ("private-memory", Level::Trouble, "ulimit -d", |m| {
            m.bounds.data = Some(GIB / 4)
        }),
        ("cpu-time", Level::Notice, "ulimit -t", |m| {
            m.bounds.cpu_seconds = Some(60)
        }),
        ("mappings", Level::Trouble, "sysctl", |m| {
            m.bounds.mappings = Some(1000)
        }),
    ];
    for (subject, level, advice, spoil) in cases {
        let mut machine = good();
        spoil(&mut machine);
        let found = finding(&machine, subject);
        assert_eq!(found.level, level, "{found:?}");
        assert!(found.advice.contains(advice), "{found:?}");
        assert_eq!(found.advice.is_empty(), level == Level::Fine, "{found:?}");
        let others = machine.judge().into_iter();
        let others = others.filter(|finding| finding.subject != subject);
        for other in others {
            assert_eq!(other.level, Level::Fine, "beside {subject}: {other:?}");
        }
    }
}

fn room(size: u64, free: u64) -> Option<Room> {
    Some(Room { size, free })
}

fn container(size: u64, free: u64) -> Option<ContainerRoom> {
    Some(ContainerRoom {
        group: "/sys/fs/cgroup/x".into(),
        version: 2,
        room: Room { size, free },
    })
}

fn tasks(limit: u64, used: u64) -> Option<ContainerTasks> {
    Some(ContainerTasks {
        group: "/sys/fs/cgroup/x".into(),
        version: 2,
        limit,
        used,
    })
}

/// Reads control group files in a temporary root folder.
#[test]
fn container_limits_are_read_in_both_versions_of_control_groups() {
    for (version, of_this_process, memory, pids) in [
        (
            1,
            "7:memory:/x\n8:pids:/x\n",
            [
                "memory/x/memory.limit_in_bytes",
                "memory/x/memory.usage_in_bytes",
            ],
            ["pids/x/pids.max", "pids/x/pids.current"],
        ),
        (
            2,
            "0::/x\n",
            ["x/memory.max", "x/memory.current"],
            ["x/pids.max", "x/pids.current"],
        ),
    ] {
        let root = tempfile::tempdir().unwrap();
        let write = |path: String, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let group = |name: &str| format!("sys/fs/cgroup/{name}");
        write("proc/meminfo".into(), "MemTotal: 8388608 kB\n");
        write("proc/self/cgroup".into(), of_this_process);
        write(group(memory[0]), "1073741824");
        write(group(memory[1]), "1048576");
        write(group(pids[0]), "40");
        write(group(pids[1]), "39");
        let machine = Machine::probe_below(root.path());
        let container = machine.container.as_ref().unwrap();
        assert_eq!((container.version, container.room.size), (version, GIB));
        let tasks = machine.container_tasks.as_ref().unwrap();
        assert_eq!((tasks.version, tasks.limit, tasks.used), (version, 40, 39));
        let found = finding(&machine, "container-tasks");
        assert_eq!(found.level, Level::Trouble, "{found:?}");
        assert!(found.found.starts_with("1 of 40 "), "{found:?}");
    }
}

#[test]
fn a_process_limit_is_no_trouble_for_root() {
    let mut machine = good();
    machine.bounds.processes = Some(1);
    let found = finding(&machine, "processes");
    assert_eq!(found.level, Level::Trouble);
    // Processes in other containers count for the limit too, but are not visible.
    assert!(found.means.contains("at least 300"), "{found:?}");
    machine.root = true;
    assert_eq!(finding(&machine, "processes").level, Level::Fine);
}

#[test]
fn root_of_a_container_is_not_root_of_the_machine() {
    let root = tempfile::tempdir().unwrap();
    assert!(is_root(root.path(), 0), "Linux without user namespaces");
    std::fs::create_dir_all(root.path().join("proc/self")).unwrap();
    for (map, is_first) in [
        ("         0          0 4294967295\n", true),
        ("         0       1000          1\n", false),
        ("0 1000 1\n1 100000 65536\n", false),
        ("0 100000 65536\n", false),
    ] {
        std::fs::write(root.path().join("proc/self/uid_map"), map).unwrap();
        assert_eq!(is_root(root.path(), 0), is_first, "{map}");
        assert!(!is_root(root.path(), 1000), "{map}");
        let found = Machine::probe_below(root.path()).root;
        assert!(is_first || !found, "{map}");
    }
}

#[test]
fn a_missing_feature_is_as_grave_as_its_need() {
    for (index, subject, level) in [
        (0, "pidfd", Level::Trouble),
        (1, "huge-pages", Level::Notice),
        (2, "landlock", Level::Notice),
    ] {
        let mut machine = good();
        machine.features[index].state = Err("function not implemented".into());
        let found = finding(&machine, subject);
        assert_eq!(found.level, level, "{found:?}");
        assert!(
            found.found.contains("function not implemented"),
            "{found:?}"
        );
    }
}

#[test]
fn only_names_left_behind_count_as_stale() {
    let name = |segment: &str, live| SegmentName {
        segment: segment.into(),
        arena: None,
        live,
        bytes: 8192,
        age: Duration::from_secs(60),
    };
    let mut machine = good();
    machine.names = vec![
        name("/arenite-7-a.kept", true),
        name("/arenite-7-b.kept", true),
    ];
    assert_eq!(finding(&machine, "stale-names").level, Level::Fine);
    machine.names.push(name("/arenite-7-c.kept", false));
    machine.names.push(name("/arenite-7-d", false));
    let found = finding(&machine, "stale-names");
    assert_eq!(found.level, Level::Notice);
    assert!(found.found.starts_with("2 left behind"), "{found:?}");
    assert!(found.found.contains("16.0 KiB"), "{found:?}");
    assert!(found.advice.contains("--clean"), "{found:?}");
}

#[test]
fn the_worst_level_of_a_report_is_its_gravest_finding() {
    let mut machine = good();
    machine.shm = None;
    machine.bounds.files = Some(3);
    let report = Report {
        findings: machine.judge(),
        machine,
    };
    assert_eq!(report.worst(), Level::Trouble);
}

#[test]
fn this_machine_can_be_examined() {
    let report = Report::examine();
    let machine = &report.machine;
    // The tests of this package start workers, so the indispensable features work.
    for feature in machine
        .features
        .iter()
        .filter(|feature| feature.need == Need::Always)
    {
        assert_eq!(feature.state, Ok(String::new()), "{}", feature.name);
    }
    assert!(machine.proc && machine.cores > 0 && machine.memory.unwrap().size > 0);
    assert!(machine.bounds.processes_now > 0);
    assert!(report.findings.len() >= machine.features.len());
}

#[test]
fn unknown_memory_is_not_shown_as_a_number() {
    let root = tempfile::tempdir().unwrap();
    // There is no /proc/meminfo.
    let seen = Machine::probe_below(root.path());
    assert_eq!((seen.memory, seen.capacity), (None, None));
    let machine = Machine {
        memory: None,
        capacity: None,
        ..good()
    };
    let Finding { found, means, .. } = finding(&machine, "memory");
    assert!(found.contains("/proc/meminfo"), "{found}");
    assert!(
        !found.contains("iB") && !means.contains("iB"),
        "{found}; {means}"
    );
}
