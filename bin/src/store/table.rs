//! Tables of text: objects, clients, kernels, services and engines.

use arenite_store::service::KernelInfo;
use arenite_store::{Client, Object};

use super::engines::Engine;
use crate::text::{show_bytes, show_name};

/// The number of blanks between columns.
const GAP: usize = 2;

/// The name of an engine that the program has not named.
const DEFAULT_NAME: &str = "arenite";

/// The alignment of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// Returns the objects, one per line, below a heading. Lines longer than `width` are truncated.
pub(super) fn objects(objects: &[Object], now: f64, width: Option<usize>) -> String {
    let heading = ["NAME", "KIND", "SIZE", "AGE", "LEASES", "MAKER"];
    let align = [
        Align::Left,
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Left,
    ];
    let rows = objects.iter().map(|object| {
        [
            show_name(&object.name),
            object.kind.to_string(),
            show_bytes(object.bytes),
            age(now - object.created),
            object.leases.to_string(),
            format!("{} ({})", show_name(&object.program), object.pid),
        ]
    });
    render(heading, align, rows, width)
}

/// Returns the clients, one per line, below a heading.
pub(super) fn clients(clients: &[Client], width: Option<usize>) -> String {
    let heading = ["CLIENT", "PROCESS", "LEASES", "HOLDS"];
    let align = [Align::Left, Align::Right, Align::Right, Align::Right];
    let rows = clients.iter().map(|client| {
        [
            show_name(&client.program),
            client.pid.to_string(),
            client.leases.to_string(),
            show_bytes(client.bytes),
        ]
    });
    render(heading, align, rows, width)
}

/// Returns the kernels of a service, one per line, below a heading.
pub(super) fn kernels(kernels: &[KernelInfo], width: Option<usize>) -> String {
    let rows = kernels
        .iter()
        .map(|kernel| [show_name(&kernel.name), show_name(&kernel.signature)]);
    render(["KERNEL", "SIGNATURE"], [Align::Left; 2], rows, width)
}

/// Returns a line for each service, from its status, below a heading.
pub(super) fn running(services: &[serde_json::Value], width: Option<usize>) -> String {
    let heading = [
        "SERVICE", "PROGRAM", "KERNELS", "CLIENTS", "CALLS", "FAILED",
    ];
    let mut align = [Align::Right; 6];
    align[..2].fill(Align::Left);
    let rows = services.iter().map(|service| {
        let text = |member: &str| show_name(service[member].as_str().unwrap_or_default());
        let list = |member: &str| service[member].as_array().map_or(&[][..], Vec::as_slice);
        let sum = |member: &str| -> u64 {
            let kernels = list("kernels").iter();
            kernels.filter_map(|kernel| kernel[member].as_u64()).sum()
        };
        [
            text("name"),
            format!("{} ({})", text("program"), service["pid"]),
            list("kernels").len().to_string(),
            list("clients").len().to_string(),
            (sum("done") + sum("failed")).to_string(),
            sum("failed").to_string(),
        ]
    });
    render(heading, align, rows, width)
}

/// Returns a line for each engine, below a heading.
pub(super) fn engines(engines: &[Engine], width: Option<usize>) -> String {
    let heading = [
        "ENGINE", "PROCESS", "UP", "WORKERS", "RUNNING", "WAITING", "DONE", "FAILED", "RESTARTS",
        "ARENA", "RUNS",
    ];
    let mut align = [Align::Right; 11];
    align[0] = Align::Left;
    align[10] = Align::Left;
    let rows = engines.iter().map(|engine| {
        let waiting = engine.queued + engine.waiting + engine.limited + engine.ahead;
        let sandboxed = if engine.sandboxed { " (sandboxed)" } else { "" };
        let running = engine.kernels.iter().filter(|kernel| kernel.running > 0);
        let runs = running.map(|kernel| match kernel.running {
            1 => show_name(&kernel.name),
            many => format!("{} ×{many}", show_name(&kernel.name)),
        });
        [
            match engine.name.as_str() {
                DEFAULT_NAME => show_name(&engine.program),
                name => format!("{}: {}", show_name(&engine.program), show_name(name)),
            },
            engine.pid.to_string(),
            age(engine.elapsed),
            format!("{}{sandboxed}", engine.worker_count),
            engine.running.to_string(),
            waiting.to_string(),
            engine.done.to_string(),
            engine.failed.to_string(),
            engine.restarts.to_string(),
            format!(
                "{} of {}",
                show_bytes(engine.arena.used),
                show_bytes(engine.arena.capacity)
            ),
            match &engine.start_failure {
                Some(why) => format!("no worker starts: {}", show_name(why)),
                None => runs.collect::<Vec<_>>().join(", "),
            },
        ]
    });
    render(heading, align, rows, width)
}

fn render<const N: usize>(
    heading: [&str; N],
    align: [Align; N],
    rows: impl Iterator<Item = [String; N]>,
    width: Option<usize>,
) -> String {
    let mut rows: Vec<[String; N]> = rows.collect();
    rows.insert(0, heading.map(str::to_owned));
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for ((cell, &width), align) in row.iter().zip(&widths).zip(align) {
            match align {
                Align::Left => line.push_str(&format!("{cell:<width$}")),
                Align::Right => line.push_str(&format!("{cell:>width$}")),
            }
            line.push_str(&" ".repeat(GAP));
        }
        text.push_str(&cut(line.trim_end(), width));
        text.push('\n');
    }
    text
}

/// Returns the line; if it is too wide, its beginning with an ellipsis.
pub(super) fn cut(line: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if line.chars().count() > width && width > 0 => {
            let start: String = line.chars().take(width - 1).collect();
            format!("{start}…")
        }
        _ => line.to_owned(),
    }
}

/// Formats a time in the largest unit that is not longer than the time: `3 s`, `12 min`, `5 h`, `9 d`.
pub(super) fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_long_lines_cut() {
        let rows = [
            ["a".to_owned(), "10".to_owned()],
            ["long name".to_owned(), "7".to_owned()],
        ];
        let text = render(
            ["NAME", "SIZE"],
            [Align::Left, Align::Right],
            rows.into_iter(),
            Some(12),
        );
        assert_eq!(text, "NAME       …\na          …\nlong name  …\n");
        let text = render(
            ["N", "S"],
            [Align::Left, Align::Right],
            std::iter::empty(),
            None,
        );
        assert_eq!(text, "N  S\n");
    }

    #[test]
    fn ages_have_one_unit() {
        let shown: Vec<String> = [-1.0, 59.9, 60.0, 7200.0, 200_000.0].map(age).into();
        assert_eq!(shown, ["0 s", "59 s", "1 min", "2 h", "2 d"]);
    }
}
