//! A thread that closes descriptors: closing a file that a client has sent may block for as long as the client likes,
//! and freeing a large object takes time.

use std::sync::mpsc::{self, Sender};

use super::error::StoreError;

/// Drops the values that it is given, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Closer(Sender<Box<dyn Send>>);

impl Closer {
    pub(crate) fn start() -> Result<Closer, StoreError> {
        let (sender, receiver) = mpsc::channel::<Box<dyn Send>>();
        let builder = std::thread::Builder::new().name("arenite-closer".to_owned());
        builder
            .spawn(move || receiver.into_iter().for_each(drop))
            .map_err(|error| StoreError::io("cannot start a thread", &error))?;
        Ok(Closer(sender))
    }

    pub(crate) fn close(&self, what: impl Send + 'static) {
        // The thread lives as long as the sender.
        let _ = self.0.send(Box::new(what));
    }
}
