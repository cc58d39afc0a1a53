//! Without the feature `template`: each worker is a new process.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::settings::Settings;
use crate::sys::process::PidFd;
use crate::worker::Mark;

#[derive(Debug)]
pub(super) struct Templates;

impl Templates {
    pub(super) fn new(_: &Settings) -> Self {
        Self
    }

    pub(super) fn is_awaited(&self) -> bool {
        false
    }

    pub(super) fn until(&self) -> Option<Instant> {
        None
    }

    pub(super) fn postpone(&mut self, _: Duration) {}

    pub(super) fn copy(
        &mut self,
        _: &Mark,
        _: [BorrowedFd<'_>; 3],
        _: &[BorrowedFd<'_>],
    ) -> crate::sys::Result<Option<PidFd>> {
        Ok(None)
    }
}
