//! The report: one HTML page that loads no other file.

use std::fmt::Write as _;

use super::LaneId;
use super::chrome::short;
use super::escape::needs_escape;
use super::summary::{COLOURS, Histogram, Incident, Incidents, KernelFigures, Summary};
use super::timeline;

/// Max number of stack frames of a crash.
const MAX_FRAMES: usize = 8;

/// The data of the page other than the figures.
#[derive(Debug)]
pub(super) struct ReportHead<'a> {
    pub(super) label: &'a str,
    /// The number of events that are not in the figures.
    pub(super) lost: u64,
}

/// Returns the whole page.
pub(super) fn page(summary: &Summary, head: &ReportHead<'_>) -> String {
    let label = escaped(head.label);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{label}: what its workers did</title>\n<style>\n{}</style>\n</head>\n<body>\n\
         <header><h1>{label}</h1><p>What its workers did in {}.</p></header>\n",
        include_str!("report.css"),
        Time(summary.end),
    );
    tiles(&mut page, summary);
    page.push_str("<section><h2>Over time</h2>\n");
    if summary.lanes.is_empty() {
        page.push_str("<p>No worker was ready.</p>\n");
    } else {
        page.push_str("<div class=\"wide\">\n");
        timeline::draw(&mut page, summary);
        page.push_str("</div>\n");
        legend(&mut page, summary);
    }
    page.push_str("</section>\n");
    kernels(&mut page, summary);
    slowest(&mut page, summary);
    lanes(&mut page, summary);
    incidents(&mut page, "Failures", &summary.failures);
    incidents(&mut page, "Workers that died", &summary.deaths);
    page.push_str("<footer>");
    if head.lost > 0 {
        let _ = write!(
            page,
            "<span class=\"bad\">{} events came faster than they could be written, and are missing here.</span> ",
            Count(head.lost)
        );
    }
    let _ = write!(
        page,
        "Waiting: from submission, or the end of the attempt before, until the kernel is entered. Idle: while the \
         worker's process was ready, the time outside of kernels. Quantiles are accurate to 3 %. Written by arenite \
         {}.</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    page
}

fn tiles(page: &mut String, summary: &Summary) {
    let ended: u64 = summary.kernels.iter().map(|kernel| kernel.ended).sum();
    let busy: u64 = summary.lanes.values().map(|lane| lane.busy_ns).sum();
    let available = summary.end.max(1) as f64 * summary.lanes.len().max(1) as f64;
    let seconds = summary.end.max(1) as f64 / 1e9;
    page.push_str("<div class=\"tiles\">\n");
    let mut tile = |value: String, what: &str, bad: bool| {
        let class = if bad { " class=\"bad\"" } else { "" };
        let _ = writeln!(page, "<div><b{class}>{value}</b><span>{what}</span></div>");
    };
    tile(Count(ended).to_string(), "runs of kernels", false);
    tile(rate(ended as f64 / seconds), "per second", false);
    let failed = summary.failures.count;
    tile(Count(failed).to_string(), "failures", failed > 0);
    let died = summary.deaths.count;
    tile(Count(died).to_string(), "workers that died", died > 0);
    tile(
        format!("{:.0} %", 100.0 * busy as f64 / available),
        "of the lanes' time in kernels",
        false,
    );
    let idle = summary.lanes.keys().map(|id| summary.idle(*id)).sum();
    tile(Time(idle).to_string(), "idle, all workers together", false);
    if summary.cancelled > 0 {
        tile(
            Count(summary.cancelled).to_string(),
            "cancelled before they began",
            false,
        );
    }
    if summary.memory_waits.0 > 0 {
        let (count, ns) = summary.memory_waits;
        let what = format!("waited for memory, {} times", Count(count));
        tile(Time(ns).to_string(), &what, false);
    }
    page.push_str("</div>\n");
}

fn legend(page: &mut String, summary: &Summary) {
    page.push_str("<ul class=\"legend\">");
    for (index, kernel) in summary.kernels.iter().take(COLOURS).enumerate() {
        let name = escaped(&named(kernel));
        let _ = write!(page, "<li><i class=\"k{index}\"></i>{name}</li>");
    }
    if summary.kernels.len() > COLOURS {
        let _ = write!(page, "<li><i class=\"k{COLOURS}\"></i>other kernels</li>");
    }
    page.push_str("</ul>\n");
}

fn kernels(page: &mut String, summary: &Summary) {
    let has_labels = summary.kernels.iter().any(|kernel| kernel.label.is_some());
    let _ = writeln!(
        page,
        "<section><h2>Kernels</h2>\n<div class=\"wide\"><table>\n<tr><th>kernel</th>{}<th>runs</th><th>failed</th>\
         <th>total</th><th>mean</th><th>median</th><th>90 %</th><th>99 %</th><th>longest</th><th>waiting, median</th>\
         <th>99 %</th><th>bytes in</th><th>bytes out</th></tr>",
        if has_labels {
            "<th class=\"text\">label</th>"
        } else {
            ""
        }
    );
    let mut order: Vec<_> = summary.kernels.iter().enumerate().collect();
    order.sort_by_key(|(_, kernel)| std::cmp::Reverse(kernel.took.total));
    for (index, kernel) in order {
        let class = if kernel.failed > 0 {
            " class=\"bad\""
        } else {
            ""
        };
        let (took, waited) = (&kernel.took, &kernel.waited);
        let quantile = |of: &Histogram, part: f64| Time(of.quantile(part));
        let _ = writeln!(
            page,
            "<tr><td title=\"{}\"><i class=\"k{}\"></i>{}</td>{}<td>{}</td><td{class}>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(kernel.name),
            index.min(COLOURS),
            escaped(&short(kernel.name)),
            label(kernel, has_labels),
            Count(kernel.ended),
            Count(kernel.failed),
            Time(took.total),
            Time(took.mean()),
            quantile(took, 0.5),
            quantile(took, 0.9),
            quantile(took, 0.99),
            Time(took.max),
            quantile(waited, 0.5),
            quantile(waited, 0.99),
            bytes(kernel.bytes_in),
            bytes(kernel.bytes_out),
        );
    }
    page.push_str("</table></div></section>\n");
}

/// Returns the cell with the label, if there are such cells.
fn label(kernel: &KernelFigures, has_labels: bool) -> String {
    let label = kernel.label.as_deref().unwrap_or_default();
    match has_labels {
        true => format!("<td class=\"text\">{}</td>", escaped(label)),
        false => String::new(),
    }
}

/// Returns the name of a kernel and the label of its jobs.
pub(super) fn named(kernel: &KernelFigures) -> String {
    let name = short(kernel.name);
    match &kernel.label {
        Some(label) => format!("{name} {label:?}"),
        None => name,
    }
}

fn slowest(page: &mut String, summary: &Summary) {
    if summary.slowest.is_empty() {
        return;
    }
    page.push_str(
        "<section><h2>Slowest runs</h2>\n<div class=\"wide\"><table>\n<tr><th>kernel</th><th class=\"text\">label</th>\
         <th>job</th><th>took</th><th class=\"text\">worker</th><th>began at</th></tr>\n",
    );
    for run in &summary.slowest {
        let kernel = &summary.kernels[run.kernel];
        let _ = writeln!(
            page,
            "<tr><td title=\"{}\">{}</td>{}<td>{}</td><td>{}</td><td class=\"text\">{}{}</td><td>{}</td></tr>",
            escaped(kernel.name),
            escaped(&short(kernel.name)),
            label(kernel, true),
            run.job,
            Time(run.took()),
            place(run.lane),
            if run.failed { ", failed" } else { "" },
            Time(run.began),
        );
    }
    page.push_str("</table></div></section>\n");
}

fn lanes(page: &mut String, summary: &Summary) {
    if summary.lanes.is_empty() {
        return;
    }
    page.push_str(
        "<section><h2>Workers</h2>\n<div class=\"wide\"><table>\n<tr><th>worker</th><th>runs</th><th>in kernels</th>\
         <th>idle</th></tr>\n",
    );
    for (id, lane) in &summary.lanes {
        let (name, runs) = (place(*id), Count(lane.jobs));
        let (busy, idle) = (Time(lane.busy_ns), Time(summary.idle(*id)));
        let _ = writeln!(
            page,
            "<tr><td>{name}</td><td>{runs}</td><td>{busy}</td><td>{idle}</td></tr>"
        );
    }
    page.push_str("</table></div></section>\n");
}

/// Names a lane.
fn place(id: LaneId) -> String {
    match id.lane {
        0 => format!("worker {}", id.worker),
        lane => format!("worker {} lane {lane}", id.worker),
    }
}

fn incidents(page: &mut String, title: &str, incidents: &Incidents) {
    if incidents.count == 0 {
        return;
    }
    let _ = writeln!(
        page,
        "<section><h2>{title}: {}</h2>",
        Count(incidents.count)
    );
    if incidents.count > incidents.list.len() as u64 {
        let _ = writeln!(page, "<p>The first {} of them.</p>", incidents.list.len());
    }
    page.push_str(
        "<div class=\"wide\"><table class=\"incidents\">\n<tr><th>at</th><th class=\"text\">what</th><th class=\"text\">why</th></tr>\n",
    );
    for incident in &incidents.list {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td class=\"text\">{}</td><td class=\"text\">{}{}{}</td></tr>",
            Time(incident.at),
            escaped(&describe(incident)),
            escaped(&incident.why),
            if incident.is_retried {
                " (retried)"
            } else {
                ""
            },
            crash(incident),
        );
    }
    page.push_str("</table></div></section>\n");
}

/// The description of a crash, and the first frames of its stack.
fn crash(incident: &Incident) -> String {
    let Some(crash) = &incident.crash else {
        return String::new();
    };
    let mut text = format!("<div>{}</div><ol>", escaped(&crash.what()));
    let frames = crash.frames();
    for frame in frames.iter().take(MAX_FRAMES) {
        let _ = write!(text, "<li>{}</li>", escaped(frame));
    }
    if frames.len() > MAX_FRAMES {
        let _ = write!(text, "<li>… ({} more)</li>", frames.len() - MAX_FRAMES);
    }
    text + "</ol>"
}

fn describe(incident: &Incident) -> String {
    let mut text = String::new();
    if let Some((job, kernel, attempt)) = incident.job {
        let _ = write!(text, "job {job}, {}", short(kernel));
        if let Some(label) = &incident.label {
            let _ = write!(text, " {label:?}");
        }
        if attempt > 1 {
            let _ = write!(text, ", attempt {attempt}");
        }
    }
    if let Some(lane) = incident.lane {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{}", place(lane));
    }
    text
}

/// Escapes text for any position in the page.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if needs_escape(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Nanoseconds, displayed with three significant digits.
#[derive(Clone, Copy)]
pub(super) struct Time(pub(super) u64);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ns = self.0 as f64;
        let (value, unit) = match self.0 {
            0 => return f.write_str("0"),
            1..1_000 => (ns, "ns"),
            1_000..1_000_000 => (ns / 1e3, "µs"),
            1_000_000..1_000_000_000 => (ns / 1e6, "ms"),
            _ => (ns / 1e9, "s"),
        };
        let digits = match value {
            _ if unit == "ns" => 0,
            value if value < 9.995 => 2,
            value if value < 99.95 => 1,
            _ => 0,
        };
        write!(f, "{value:.digits$} {unit}")
    }
}

/// A number, displayed in groups of three digits.
#[derive(Clone, Copy)]
pub(super) struct Count(pub(super) u64);

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = self.0.to_string();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

fn rate(per_second: f64) -> String {
    if per_second < 10.0 {
        format!("{per_second:.2}")
    } else {
        Count(per_second as u64).to_string()
    }
}

fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0 => "0".into(),
        1..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", value / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", value / 1e6),
        _ => format!("{:.2} GB", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        let time = |ns| Time(ns).to_string();
        assert_eq!(
            [0, 7, 999, 1_500, 99_960, 12_345_678, 3_000_000_000].map(time),
            [
                "0", "7 ns", "999 ns", "1.50 µs", "100 µs", "12.3 ms", "3.00 s"
            ]
        );
        assert_eq!(
            [1, 999, 1_000, 1_234_567].map(|n| Count(n).to_string()),
            ["1", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [12, 1_500, 2_000_000].map(bytes),
            ["12 B", "1.5 kB", "2.0 MB"]
        );
    }

    #[test]
    fn text_cannot_inject_markup() {
        let text = escaped("<script>'\"&\u{1b}[0m</script>");
        assert_eq!(
            text,
            "&lt;script&gt;&#39;&quot;&amp;\u{fffd}[0m&lt;/script&gt;"
        );
        let head = ReportHead {
            label: "</title><script>",
            lost: 3,
        };
        let page = page(&Summary::default(), &head);
        assert!(!page.contains("<script>") && page.contains("3 events"));
    }
}
