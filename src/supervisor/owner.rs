//! The owner of a job: what is notified of its end.

/// The jobs of one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(super) number: u32,
    /// Whether the group continues when one of its jobs fails; otherwise the failure cancels the others.
    pub(super) collects: bool,
}

/// The purpose of a job of an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Start,
    Call {
        /// Whether the call has a handle, which takes the answer.
        has_handle: bool,
    },
    Save,
    End,
}

/// What takes the answer of a job, or is notified of its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// No handle is left. The record is freed when the job ends.
    None,
    /// A handle takes the answer, or the run that has processed the end takes it.
    Handle,
    /// A scope takes the answer. If `is_wanted` is false, the scope waits for the end only, and the value is dropped.
    Scope { group: Group, is_wanted: bool },
    /// The run of a spawned job is notified.
    Task { run: u32, task: u32 },
    /// An actor is notified. If the call has a handle, the handle takes the answer.
    Actor { actor: u32, role: Role },
}

impl Owner {
    /// Returns the owner of a job of a scope.
    pub(crate) fn scope(group: Group) -> Self {
        Self::Scope {
            group,
            is_wanted: true,
        }
    }

    /// Returns true if the job belongs to the scope of this group.
    pub(super) fn is_in(self, of: Group) -> bool {
        matches!(self, Self::Scope { group, .. } if group == of)
    }

    /// Returns true if a handle will take the answer, or jobs that [take the value](super::record::Link) in its place.
    #[inline]
    pub(super) fn has_handle(self) -> bool {
        matches!(
            self,
            Self::Handle
                | Self::Scope { .. }
                | Self::Actor {
                    role: Role::Call { has_handle: true },
                    ..
                }
        )
    }

    /// Returns false for a job of an actor whose value is dropped.
    #[cfg(feature = "sandbox")]
    pub(super) fn is_read(self) -> bool {
        let is_save = matches!(
            self,
            Self::Actor {
                role: Role::Save,
                ..
            }
        );
        self.has_handle() || self.actor().is_none() || is_save
    }

    /// Returns the actor that the job belongs to.
    #[inline]
    pub(super) fn actor(self) -> Option<u32> {
        match self {
            Self::Actor { actor, .. } => Some(actor),
            _ => None,
        }
    }

    /// Returns the same owner without a handle.
    pub(super) fn without_handle(self) -> Self {
        match self {
            Self::Actor {
                actor,
                role: Role::Call { .. },
            } => Self::Actor {
                actor,
                role: Role::Call { has_handle: false },
            },
            Self::Handle | Self::Scope { .. } => Self::None,
            other => other,
        }
    }
}
