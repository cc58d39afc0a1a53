//! Accepts clients, for the servers of stores and of services.

use std::fs::File;

use rustix::io::Errno;

use crate::sys::packet::{PacketSocket, Peer};
use crate::sys::{Result, effective_user, room_for_descriptors};

/// The number of descriptors that must be free after a client was accepted: requests of all clients need some for a
/// moment, and a server keeps some free when it stores an object.
const FREE: u64 = 24;

/// The number of descriptors that a server opens before it accepts clients, and that its program opens beside it.
const AT_START: u64 = 8;

/// Checks that this process may open the descriptors of a server, and those of a client. Called before a server starts.
pub(crate) fn check_room() -> Result<()> {
    room_for_descriptors(AT_START + FREE)
}

/// Accepts connections. Reserves a descriptor, with which it can refuse a client when this process may open no others.
#[derive(Debug)]
pub(crate) struct Acceptor {
    spare: Option<File>,
}

impl Acceptor {
    pub(crate) fn new() -> Acceptor {
        Acceptor {
            spare: File::open("/dev/null").ok(),
        }
    }

    /// Returns the next client, if one of this user has connected. If this process may open few more descriptors, the
    /// client gets the message `refusal`, and `None` is returned.
    pub(crate) fn accept(
        &mut self,
        listener: &PacketSocket,
        refusal: impl FnOnce() -> Vec<u8>,
    ) -> Option<(PacketSocket, Peer)> {
        let socket = match listener.accept() {
            Ok(socket) => socket?,
            Err(error) if matches!(error.errno(), Errno::MFILE | Errno::NFILE) => {
                // Without the reserved descriptor, the client would wait, and the server would spin.
                self.spare = None;
                if let Ok(Some(socket)) = listener.accept() {
                    let _ = socket.send_now(&refusal());
                }
                *self = Acceptor::new();
                return None;
            }
            // The client is gone, or memory is short for a moment.
            Err(_) => return None,
        };
        if room_for_descriptors(FREE).is_err() {
            let _ = socket.send_now(&refusal());
            return None;
        }
        let peer = socket.peer().ok()?;
        // No other user can enter the folder of the sockets. This check matters if the folder's mode was changed.
        (peer.uid == effective_user()).then_some((socket, peer))
    }
}
