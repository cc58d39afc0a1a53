//! Failures at a stage as data: which item, what the stage was given, why.

use std::fmt;

use crate::engine::map::backtrace;
use crate::engine::{Death, JobError};

/// An item that failed at a stage, as data: to be looked at, kept, or tried again elsewhere. Arrays in it are handles, not
/// copies.
///
/// It is read as that of a map or a job ([`arenite::DeadLetter`](crate::DeadLetter)). What it has of its own is the place: an item
/// of a stream has gone through stages, and what a stage is given is one [`input`](Self::input), not the arguments of its kernel.
#[derive(Clone, PartialEq, Eq)]
pub struct DeadLetter<I> {
    input: I,
    sequence: u64,
    stage: usize,
    error: JobError,
}

impl<I> DeadLetter<I> {
    pub(super) fn new(input: I, sequence: u64, stage: usize, error: JobError) -> Self {
        Self {
            input,
            sequence,
            stage,
            error,
        }
    }

    /// What the stage was given.
    pub fn input(&self) -> &I {
        &self.input
    }

    /// What the stage was given, to send it again.
    pub fn into_input(self) -> I {
        self.input
    }

    /// Which item of the source, or which window: the first is 0.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Which stage: the first is 1.
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// Why it failed the last time.
    pub fn error(&self) -> &JobError {
        &self.error
    }

    /// How often it was tried at this stage.
    pub fn attempts(&self) -> u32 {
        self.error.attempt()
    }

    /// How the attempts before the last one ended: see [`JobError::deaths`].
    pub fn deaths(&self) -> &[Death] {
        self.error.deaths()
    }

    /// The stack at the panic that ended it, where it was a panic.
    pub fn backtrace(&self) -> Option<&str> {
        backtrace(&self.error)
    }
}

impl<I> From<DeadLetter<I>> for JobError {
    fn from(letter: DeadLetter<I>) -> Self {
        letter.error
    }
}

/// As [`StreamError::Job`](super::StreamError::Job) says it.
impl<I> fmt::Display for DeadLetter<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stage {}, item {}: {}",
            self.stage, self.sequence, self.error
        )
    }
}

/// As that of a [`JobError`]: `{:?}` is the text, `{:#?}` shows the parts.
impl<I: fmt::Debug> fmt::Debug for DeadLetter<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        f.debug_struct("DeadLetter")
            .field("input", &self.input)
            .field("sequence", &self.sequence)
            .field("stage", &self.stage)
            .field("error", &self.error)
            .finish()
    }
}

impl<I: fmt::Debug> std::error::Error for DeadLetter<I> {}
