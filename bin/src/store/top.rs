//! `arenite top`: shows the state of a store and of this user's engines, updated each second.

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use arenite_store::{Client, Object, Store, StoreInfo};
use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::client::now;
use super::engines::{self, Engine};
use super::table::{age, clients, cut, objects};
use super::{Failure, StoreName, print, print_json, table};
use crate::text::{Choice, duration, show_bytes, show_name, wants_color};

const DETAILS: &str = "\
Engines are those of Rust programs and of Python's executors, from their first
task on. One that does not answer within half a second is left out, such as that
of a stopped program. Without a server and a named store, only engines are
shown. Objects are sorted by size; q or Ctrl-C quits. Where stdout is no
terminal, and with --json, one view is printed and the command ends.

Exit codes: 0 done, 2 wrong usage or no server of a named store.";

/// Show this user's engines, and a store's memory, objects and clients, live
#[derive(Args, Debug)]
#[command(after_help = DETAILS)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    store: StoreName,

    /// Time between two views
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = duration, default_value = "1s")]
    interval: Duration,

    /// Print one JSON object: store (null without a server), objects, clients and engines
    #[arg(long)]
    json: bool,

    /// When to use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Choice::Auto)]
    color: Choice,
}

/// The state of a store, if there is one, and of all engines at one moment.
#[derive(Serialize)]
struct View {
    store: Option<StoreInfo>,
    objects: Vec<Object>,
    clients: Vec<Client>,
    engines: Vec<Engine>,
}

impl View {
    fn of(store: Option<&Store>) -> Result<View, Failure> {
        let mut view = View {
            store: None,
            objects: Vec::new(),
            clients: Vec::new(),
            engines: engines::engines(),
        };
        if let Some(store) = store {
            view.objects = store.objects()?;
            view.objects
                .sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
            view.store = Some(store.info()?);
            view.clients = store.clients()?;
        }
        Ok(view)
    }

    /// Returns the view as text. Without a size, nothing is truncated.
    fn text(&self, now: f64, size: Option<(usize, usize)>, color: bool) -> String {
        let (width, height) = (size.map(|(width, _)| width), size.map(|(_, height)| height));
        let bold = if color {
            Style::new().bold()
        } else {
            Style::new()
        };
        let mut text = String::new();
        let mut tables = Vec::new();
        if let Some(info) = &self.store {
            text += &store_lines(info, now, width, color, bold);
            tables.push(objects(&self.objects, now, width));
            tables.push(clients(&self.clients, width));
        } else {
            let line = format!("no store   {}", count(self.engines.len() as u64, "engine"));
            text += &format!("{bold}{}{bold:#}\n", cut(&line, width));
        }
        if !self.engines.is_empty() {
            tables.push(table::engines(&self.engines, width));
        }
        // A blank line is above each table, and one below the last.
        let above = text.lines().count() + tables.len() + 1;
        let mut left = height.map(|height| height.saturating_sub(above));
        // A table gets the lines that the later ones leave, which get at least a third each.
        let third = left.map_or(0, |left| left / 3);
        for (at, table) in tables.iter().enumerate() {
            let later = tables[at + 1..].iter();
            let others: usize = later.map(|table| third.min(table.lines().count())).sum();
            let most = left.map(|left| left.saturating_sub(others));
            text.push('\n');
            let used = append(&mut text, table, most, bold);
            left = left.map(|left| left - used);
        }
        text
    }
}

/// Returns the lines about a store as a whole.
fn store_lines(
    info: &StoreInfo,
    now: f64,
    width: Option<usize>,
    color: bool,
    bold: Style,
) -> String {
    let heading = format!(
        "store {}   process {}   up {}   {}   {}",
        show_name(&info.name),
        info.pid,
        age(now - info.started),
        count(info.objects, "object"),
        count(info.clients, "client")
    );
    let share = info.used as f64 / info.capacity.max(1) as f64;
    let memory = format!(
        "memory {} {} of {} ({:.0} %)",
        bar(share),
        show_bytes(info.used),
        show_bytes(info.capacity),
        share * 100.0
    );
    let style = match share {
        _ if !color => Style::new(),
        share if share >= 0.95 => AnsiColor::Red.on_default(),
        share if share >= 0.8 => AnsiColor::Yellow.on_default(),
        _ => AnsiColor::Green.on_default(),
    };
    let painted = |style: Style, line: &str| format!("{style}{}{style:#}\n", cut(line, width));
    let mut text = painted(bold, &heading) + &painted(style, &memory);
    if info.retained > 0 {
        let retained = format!(
            "       {} of removed objects, in use",
            show_bytes(info.retained)
        );
        text += &painted(Style::new(), &retained);
    }
    text
}

/// Appends at most `most` lines of a table, whose first line is the heading. Returns the number of lines.
fn append(text: &mut String, table: &str, most: Option<usize>, heading: Style) -> usize {
    let all = table.lines().count();
    let shown = most.map_or(all, |most| most.min(all));
    for (at, line) in table.lines().take(shown).enumerate() {
        let is_last = at + 1 == shown && shown < all;
        match (at, is_last) {
            (0, _) => text.push_str(&format!("{heading}{line}{heading:#}")),
            (_, true) => text.push_str(&format!("… {} more", all - at)),
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    shown
}

fn count(number: u64, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}

fn bar(share: f64) -> String {
    const WIDTH: usize = 20;
    let full = ((share * WIDTH as f64).round() as usize).min(WIDTH);
    format!("[{}{}]", "#".repeat(full), ".".repeat(WIDTH - full))
}

pub(super) fn top(args: &TopArgs) -> Result<(), Failure> {
    let mut store = args.store.connect_if_any()?;
    if args.json {
        return print_json(&View::of(store.as_ref())?);
    }
    let is_terminal = io::stdout().is_terminal();
    let color = wants_color(args.color, is_terminal);
    if !is_terminal {
        return print(
            View::of(store.as_ref())?
                .text(now(), None, color)
                .as_bytes(),
        );
    }
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended))
            .map_err(|error| Failure::io("cannot handle signals", &error))?;
    }
    let screen = Screen::open()?;
    while !ended.load(Ordering::Relaxed) {
        let size = terminal_size::terminal_size()
            .map(|(width, height)| (usize::from(width.0), usize::from(height.0)));
        screen.show(&View::of(store.as_ref())?.text(now(), size, color))?;
        if screen.quits(args.interval) {
            break;
        }
        // A server may have been started meanwhile.
        if store.is_none() {
            store = args.store.connect_if_any()?;
        }
    }
    Ok(())
}

/// The alternate screen of the terminal, with line editing off. Dropping it restores the previous screen and settings.
struct Screen {
    before: Option<Termios>,
}

impl Screen {
    fn open() -> Result<Screen, Failure> {
        let stdin = io::stdin();
        // Without a terminal there are no keys, but Ctrl-C works.
        let before = tcgetattr(&stdin).ok();
        if let Some(before) = &before {
            let mut quiet = before.clone();
            quiet.local_flags -= LocalFlags::ICANON | LocalFlags::ECHO;
            let _ = tcsetattr(&stdin, SetArg::TCSANOW, &quiet);
        }
        let screen = Screen { before };
        print(b"\x1b[?1049h\x1b[?25l")?;
        Ok(screen)
    }

    fn show(&self, text: &str) -> Result<(), Failure> {
        // Each line clears the rest of an older line; at the end the rest of the screen is cleared.
        let lines = text.replace('\n', "\x1b[K\n");
        print(format!("\x1b[H{}\x1b[J", lines.trim_end_matches('\n')).as_bytes())
    }

    /// Waits for a key, at most for `time`. Returns whether the user wants to quit.
    fn quits(&self, time: Duration) -> bool {
        let millis = u16::try_from(time.as_millis()).unwrap_or(u16::MAX);
        if self.before.is_none() {
            std::thread::sleep(Duration::from_millis(millis.into()));
            return false;
        }
        let stdin = io::stdin();
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        // A signal ends the wait early: the size of the terminal has changed, or the stop flag is set.
        if poll(&mut fds, PollTimeout::from(millis)) != Ok(1) {
            return false;
        }
        let mut keys = [0; 16];
        match stdin.lock().read(&mut keys) {
            Ok(0) | Err(_) => true,
            Ok(some) => keys[..some].iter().any(|key| b"qQ\x03".contains(key)),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = io::stdout().lock();
        let _ = out
            .write_all(b"\x1b[?25h\x1b[?1049l")
            .and_then(|()| out.flush());
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}
