//! `arenite serve`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

use arenite::store::Server;
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use super::{Failure, default_name, print_json};
use crate::resize::stop::end_signals;
use crate::text::show_path;
use crate::units::{bytes, duration, show_bytes};

const DETAILS: &str = "\
The server stays in the foreground; end it with Ctrl-C, SIGTERM or
'arenite stop'. Its objects go with it, except for programs that have mapped
them. It listens on $XDG_RUNTIME_DIR/arenite/NAME.sock (without that variable
on /tmp/arenite-UID/NAME.sock), which only this user can open.

As a service of systemd: Type=notify, ExecStart=arenite serve. A socket that
systemd passes for that path (ListenSequentialPacket=) is taken.

--json:
  One line once clients can connect: name, socket, pid, capacity (bytes).

Exit codes: 0 ended by a client, a signal or --idle-exit, 2 wrong usage, or
the store is served already.";

/// Serve named arrays in shared memory to all programs of this user
///
/// Programs put and map arrays by name with `arenite put`, `get`, `ls`, `rm` and `top`, with arenite::store in Rust and
/// arenite.connect() in Python. What is mapped is neither copied nor can it change.
#[derive(Args, Debug)]
#[command(after_long_help = DETAILS)]
pub(crate) struct ServeArgs {
    /// The store's name, or the path of its socket [env: ARENITE_STORE] [default: main]
    #[arg(
        long,
        value_name = "NAME",
        default_value_t = default_name(),
        hide_default_value = true
    )]
    name: String,

    /// Bytes that all objects together may have, such as 20GiB [default: half of the available memory]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    capacity: Option<u64>,

    /// End once no program has been connected for this long, such as 10m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    idle_exit: Option<Duration>,

    /// Print a line of JSON once clients can connect
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Ready<'a> {
    name: &'a str,
    socket: String,
    pid: u32,
    capacity: u64,
}

pub(super) fn serve(args: &ServeArgs) -> Result<(), Failure> {
    // A descriptor for each large object and each client: the soft limit is that of programs that use `select`.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let mut server = Server::bind(&args.name)?;
    if let Some(capacity) = args.capacity {
        server = server.capacity(capacity);
    }
    if let Some(after) = args.idle_exit {
        server = server.idle_exit(after);
    }
    let stopper = server.stopper();
    let mut signals =
        end_signals().map_err(|error| Failure::io("cannot handle signals", &error))?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            stopper.stop();
        }
    });
    let socket = server.socket_path().to_owned();
    let capacity = server.max_bytes();
    eprintln!(
        "serving {} at {}, capacity {}; Ctrl-C ends it",
        args.name,
        show_path(&socket),
        show_bytes(capacity)
    );
    if args.json {
        print_json(&Ready {
            name: &args.name,
            socket: socket.display().to_string(),
            pid: std::process::id(),
            capacity,
        })?;
    }
    notify("READY=1");
    let result = server.run();
    notify("STOPPING=1");
    Ok(result?)
}

/// Tells systemd, or what stands in for it, about this service (`sd_notify`). Nothing if it does not ask.
fn notify(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(PathBuf::from(&path)),
    };
    let sent = address
        .and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        eprintln!("warning: NOTIFY_SOCKET: {error}");
    }
}
