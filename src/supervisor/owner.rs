//! What waits for the end of a job.

/// The jobs of one scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Group {
    pub(super) number: u32,
    /// The failure of one job does not cancel the others.
    pub(super) collects: bool,
}

/// What a job does for its actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Start,
    Call {
        /// A handle takes the answer.
        has_handle: bool,
    },
    Save,
    End,
}

/// What the end of a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Nothing: no handle is left. The record goes with the end.
    None,
    /// A handle takes the answer, or the run that has processed the end.
    Handle,
    /// A scope takes the answer. Unless it `is_wanted`, the scope asks only for the end, and not for the value.
    Scope { group: Group, is_wanted: bool },
    /// A run is notified.
    Unit { run: u32, unit: u32 },
    /// An actor is notified, unless a handle takes the answer of the call.
    Actor { actor: u32, role: Role },
}

impl Owner {
    /// The owner of a job of a scope.
    pub(crate) fn scope(group: Group) -> Self {
        Self::Scope {
            group,
            is_wanted: true,
        }
    }

    /// Whether the job belongs to a scope with this group.
    pub(super) fn is_in(self, of: Group) -> bool {
        matches!(self, Self::Scope { group, .. } if group == of)
    }

    /// Whether a handle will take the answer.
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

    /// The actor that the job belongs to.
    #[inline]
    pub(super) fn actor(self) -> Option<u32> {
        match self {
            Self::Actor { actor, .. } => Some(actor),
            _ => None,
        }
    }

    /// The same without a handle.
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
