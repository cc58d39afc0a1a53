//! `arenite serve`.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::PathBuf;
use std::time::Duration;

use arenite_store::Server;
use clap::Args;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use super::page::{Address, Page};
use super::{Failure, default_name, print_json};
use crate::batch::stop::end_signals;
use crate::text::USAGE;
use crate::text::{bytes, duration, show_bytes, show_path};

const DETAILS: &str = "\
The server stays in the foreground; end it with Ctrl-C, SIGTERM or
'arenite stop'. Its objects go with it, except for programs that have mapped
them. It listens on $XDG_RUNTIME_DIR/arenite/NAME.sock (without that variable
on /tmp/arenite-UID/NAME.sock), which only this user can open.

As a service of systemd: Type=notify, ExecStart=arenite serve. A socket that
systemd passes for that path (ListenSequentialPacket=) is taken.

--http serves a page for a browser: memory, objects, programs, and the services
of this user with their workers and failures. Its address, which is printed to
stderr, contains a token that each request needs. ADDRESS is a loopback address
such as 127.0.0.1:0 (port 0 is any free one) or the path of a Unix socket
(unix:PATH, or one with a '/'); other machines cannot reach either.

--json:
  One line once clients can connect: name, socket, pid, capacity (bytes), and
  page (the address for a browser) with --http.

Exit codes: 0 ended by a client, a signal or --idle-exit, 2 wrong usage, or
the store is served already.";

/// Serve named arrays in shared memory to all programs of this user
///
/// Programs put and map arrays by name with `arenite put`, `get`, `ls`, `rm` and `top`, with arenite_store in Rust and
/// arenite.connect() in Python. What is mapped is neither copied nor can it change.
#[derive(Args, Debug)]
#[command(after_long_help = DETAILS)]
pub(crate) struct ServeArgs {
    /// The store's name, or the path of its socket [env: ARENITE_STORE] [default: main]
    #[arg(
        long,
        visible_alias = "store",
        value_name = "NAME",
        default_value_t = default_name(),
        hide_default_value = true
    )]
    name: String,

    /// Bytes that all objects together may have, such as 20GiB [default: half of the available memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = bytes)]
    capacity: Option<u64>,

    /// End once no program has been connected for this long, such as 10m
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = duration)]
    idle_exit: Option<Duration>,

    /// Show the store in a browser, at an address of this machine such as 127.0.0.1:0
    #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
    http: Option<Address>,

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
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<&'a str>,
}

pub(super) fn serve(args: &ServeArgs) -> Result<(), Failure> {
    // Each large object and each client needs a descriptor. The soft limit is low only for programs that use `select`.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let mut server = Server::bind(&args.name).map_err(|error| Failure {
        code: USAGE,
        ..error.into()
    })?;
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
    // Requests that arrive before the server runs wait for it.
    let page = match &args.http {
        Some(address) => Some(serve_page(&args.name, address)?),
        None => None,
    };
    let socket = server.socket_path().to_owned();
    let capacity = server.max_bytes();
    eprintln!(
        "serving {} at {}, capacity {}; Ctrl-C ends it",
        args.name,
        show_path(&socket),
        show_bytes(capacity)
    );
    if let Some(page) = &page {
        eprintln!("page at {page}");
    }
    if args.json {
        print_json(&Ready {
            name: &args.name,
            socket: socket.display().to_string(),
            pid: std::process::id(),
            capacity,
            page: page.as_ref().map(Page::url),
        })?;
    }
    notify("READY=1");
    let result = server.run();
    notify("STOPPING=1");
    drop(page);
    Ok(result?)
}

fn serve_page(name: &str, address: &Address) -> Result<Page, Failure> {
    Page::serve(name, address).map_err(|error| Failure {
        code: USAGE,
        ..Failure::io(&format!("cannot serve the page at {address}"), &error)
    })
}

/// Notifies systemd, or a replacement of it, about this service (`sd_notify`). Does nothing if no service manager
/// requests it.
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
