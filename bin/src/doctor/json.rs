//! The report as JSON.

use arenite::platform::SegmentName;
use serde_json::{Value, json};

use super::finding::{Level, Report};
use super::machine::{Feature, Room};
use crate::text::json_line;

/// Returns the report as one object on one line.
pub(super) fn render(report: &Report, removed: &[SegmentName]) -> String {
    // Cannot fail: the report consists of texts and numbers.
    json_line(&value(report, removed)).unwrap_or_default()
}

fn value(report: &Report, removed: &[SegmentName]) -> Value {
    let machine = &report.machine;
    let bounds = &machine.bounds;
    json!({
        "verdict": level(report.worst()),
        "machine": {
            "kernel": machine.kernel,
            "arch": machine.arch,
            "cores": machine.cores,
            "page": machine.page,
            "memory": machine.memory.map(room),
            "container": machine.container.as_ref().map(|container| json!({
                "group": container.group.to_string_lossy(),
                "version": container.version,
                "size": container.room.size,
                "free": container.room.free,
            })),
            "container_tasks": machine.container_tasks.as_ref().map(|tasks| json!({
                "group": tasks.group.to_string_lossy(),
                "version": tasks.version,
                "limit": tasks.limit,
                "used": tasks.used,
            })),
            "dev_shm": machine.shm.map(room),
            "temporary": machine.temporary.to_string_lossy(),
            "default_capacity": machine.capacity,
            "limits": {
                "open_files": bounds.files,
                "processes": bounds.processes,
                "processes_now": bounds.processes_now,
                "address_space": bounds.address_space,
                "private_memory": bounds.data,
                "file_size": bounds.file_size,
                "cpu_seconds": bounds.cpu_seconds,
                "mappings": bounds.mappings,
            },
            "jpeg_assembly": machine.jpeg_assembly,
            "heic": machine.heic,
            "features": machine.features.iter().map(feature).collect::<Vec<_>>(),
        },
        "findings": report.findings.iter().map(|finding| json!({
            "subject": finding.subject,
            "level": level(finding.level),
            "found": finding.found,
            "means": finding.means,
            "advice": finding.advice,
        })).collect::<Vec<_>>(),
        "names": names(&machine.names),
        "removed": names(removed),
    })
}

fn names(names: &[SegmentName]) -> Vec<Value> {
    let one = |name: &SegmentName| {
        json!({
            "segment": name.segment,
            "arena": name.arena,
            "live": name.live,
            "bytes": name.bytes,
            "age_s": name.age.as_secs(),
        })
    };
    names.iter().map(one).collect()
}

fn feature(feature: &Feature) -> Value {
    let (works, detail) = match &feature.state {
        Ok(detail) => (true, detail),
        Err(why) => (false, why),
    };
    json!({
        "name": feature.name,
        "works": works,
        "detail": detail,
        "since": feature.since,
        "purpose": feature.purpose,
    })
}

/// Converts a size and its free part. Unbounded sizes become null.
fn room(room: Room) -> Value {
    let bounded = |bytes| (bytes != u64::MAX).then_some(bytes);
    json!({ "size": bounded(room.size), "free": bounded(room.free) })
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Fine => "fine",
        Level::Notice => "notice",
        Level::Trouble => "trouble",
    }
}
