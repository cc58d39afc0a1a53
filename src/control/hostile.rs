//! Tests with peers that are not workers: anything that they send to the handshake socket ends the handshake with an
//! error.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::os::fd::AsRawFd;
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};

use super::tests::id;
use super::{Server, Welcome};
use crate::sys::asked;

fn welcome() -> Welcome {
    // Not sent in these tests.
    super::tests::welcome()
}

/// Reproducible random numbers.
fn seeded(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Packets of a hostile peer: truncated, oversized, or with wrong lengths. A packet begins with its own length and the
/// length of its message.
fn packets(seed: u64) -> Vec<Vec<u8>> {
    let mut next = seeded(seed);
    let count = next() % 4;
    (0..count)
        .map(|_| {
            let len = match next() % 4 {
                0 => next() % 17,
                1 => next() % 100,
                2 => next() % 4096,
                _ => next() % 60_000,
            };
            let mut bytes: Vec<u8> = (0..len).map(|_| next() as u8).collect();
            let pick = next();
            if bytes.len() >= 16 {
                let own = match pick % 3 {
                    0 => next() % 70_000,
                    _ => len,
                };
                // At most a gigabyte: the channel allocates this much.
                let all = match pick / 3 % 4 {
                    0 => len - 16,
                    1 => next() % (1 << 20),
                    2 => 1 << 30,
                    _ => 0,
                };
                bytes[..8].copy_from_slice(&own.to_ne_bytes());
                bytes[8..16].copy_from_slice(&all.to_ne_bytes());
            }
            bytes
        })
        .collect()
}

#[test]
fn arbitrary_packets_end_the_handshake() {
    let (sender, receiver) = channel();
    let driver = std::thread::spawn(move || {
        let first = asked::first_seed();
        for seed in first..first + u64::from(asked::cases(10_000)) {
            sender.send(seed).unwrap();
            let server = Server::new().unwrap();
            let address = super::address(server.socket());
            let open = std::sync::Arc::clone(&server.sockets);
            let answering = std::thread::spawn(move || server.answer(&id("id", ""), welcome()));
            let kind = SockType::SeqPacket;
            let peer = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
            connect(peer.as_raw_fd(), &UnixAddr::new(address.as_str()).unwrap()).unwrap();
            for packet in packets(seed) {
                // The server may have disconnected already.
                let _ = send(peer.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL);
            }
            drop((peer, open));
            let answer = answering.join().expect("`answer` catches panics");
            assert!(answer.is_err(), "seed {seed}");
        }
    });
    let mut at = 0;
    loop {
        match receiver.recv_timeout(Duration::from_secs(60)) {
            Ok(seed) => at = seed,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            Err(_) => panic!("the handshake of seed {at} hangs"),
        }
    }
    driver.join().unwrap();
}
