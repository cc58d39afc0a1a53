//! Accepting clients, as the servers of stores and of services do.

use std::fs::File;

use rustix::io::Errno;

use crate::sys::effective_user;
use crate::sys::packet::{PacketSocket, Peer};

/// Accepts connections, and keeps a descriptor back to refuse a client when there is no other one.
#[derive(Debug)]
pub(crate) struct Door {
    spare: Option<File>,
}

impl Door {
    pub(crate) fn new() -> Door {
        Door {
            spare: File::open("/dev/null").ok(),
        }
    }

    /// The next client, if there is one of this user. One for which there is no descriptor gets the message `refusal`.
    pub(crate) fn accept(
        &mut self,
        listener: &PacketSocket,
        refusal: impl FnOnce() -> Vec<u8>,
    ) -> Option<(PacketSocket, Peer)> {
        let socket = match listener.accept() {
            Ok(socket) => socket?,
            Err(error) if matches!(error.errno(), Errno::MFILE | Errno::NFILE) => {
                // Otherwise the client would wait, and the server would spin.
                self.spare = None;
                if let Ok(Some(socket)) = listener.accept() {
                    let _ = socket.send_now(&refusal());
                }
                *self = Door::new();
                return None;
            }
            // The client is gone, or memory is short for a moment.
            Err(_) => return None,
        };
        let peer = socket.peer().ok()?;
        // The folder lets no other user in; this holds if its mode was changed.
        (peer.uid == effective_user()).then_some((socket, peer))
    }
}
