//! The messages: one JSON object for each packet. docs/service-protocol.md describes them for other clients.

use serde::{Deserialize, Serialize};

/// Version of the protocol: raised by changes that old clients do not understand.
pub(super) const PROTOCOL: u32 = 1;

/// What a client asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Request {
    /// About the service. Answer: [`ServiceInfo`].
    Info,
    /// With the files of the arguments: runs a kernel. Answer, at any time: [`Answer`].
    Call {
        /// A number that no open call of this client has.
        id: u64,
        kernel: String,
        #[serde(default)]
        args: Vec<serde_json::Value>,
        /// Seconds that it may run.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<f64>,
    },
    /// Cancels a call, which is answered.
    Cancel { id: u64 },
    /// What the service does now. Answer: [`Status`].
    Status,
}

/// The answer to a call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub id: u64,
    #[serde(flatten)]
    pub outcome: Outcome,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Outcome {
    // First: only it has the member `error`.
    Failed(Failure),
    Done { value: serde_json::Value },
}

/// Why a call gave no value, or a request was none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub error: ErrorCode,
    /// For people.
    pub message: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_words: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "for serde")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

impl Failure {
    pub(super) fn new(error: ErrorCode, message: impl Into<String>) -> Failure {
        Failure {
            error,
            message: message.into(),
            attempts: 0,
            signal: None,
            code: None,
            last_words: Vec::new(),
        }
    }
}

/// The kinds of failure that clients tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ErrorCode {
    NoKernel,
    BadArgument,
    BadRequest,
    Busy,
    Limit,
    Returned,
    Panicked,
    Crashed,
    Exited,
    Timeout,
    MemoryLimit,
    ArenaFull,
    Cancelled,
    Quarantined,
    NoWorkers,
    /// Or a code of a newer service.
    #[serde(other)]
    Other,
}

/// A service as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceInfo {
    /// Distinguishes it from a store.
    service: bool,
    /// Version of the protocol.
    pub protocol: u32,
    /// Version of arenite that serves.
    pub version: String,
    /// The service's name.
    pub name: String,
    /// The server's process.
    pub pid: i32,
    /// When it started, in seconds since 1970.
    pub started: f64,
    /// Calls that a client may have open.
    pub max_calls: usize,
    /// What it can run.
    pub kernels: Vec<KernelInfo>,
}

impl ServiceInfo {
    pub(super) fn new(
        name: &str,
        started: f64,
        max_calls: usize,
        kernels: Vec<KernelInfo>,
    ) -> Self {
        ServiceInfo {
            service: true,
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: name.to_owned(),
            pid: std::process::id().cast_signed(),
            started,
            max_calls,
            kernels,
        }
    }
}

/// A kernel of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KernelInfo {
    /// Its name.
    pub name: String,
    /// What it takes and returns: `(array f4, f32) -> array f4`. Arrays have NumPy's names of element types.
    pub signature: String,
}

impl KernelInfo {
    pub(super) fn new(name: &str, signature: String) -> KernelInfo {
        KernelInfo {
            name: name.to_owned(),
            signature,
        }
    }
}

/// What a service does now.
#[derive(Debug, Serialize)]
pub(super) struct Status<'a> {
    pub service: bool,
    pub protocol: u32,
    pub version: &'static str,
    pub name: &'a str,
    pub pid: u32,
    pub started: f64,
    pub max_calls: usize,
    pub program: String,
    pub workers: Vec<WorkerStatus>,
    pub kernels: Vec<KernelStatus<'a>>,
    pub clients: Vec<ClientStatus<'a>>,
    pub memory: MemoryStatus,
    pub failures: Vec<&'a FailureStatus>,
}

#[derive(Debug, Serialize)]
pub(super) struct WorkerStatus {
    pub pid: u32,
    pub state: &'static str,
    pub jobs: u64,
    pub restarts: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct KernelStatus<'a> {
    pub name: &'a str,
    pub signature: &'a str,
    #[serde(flatten)]
    pub counts: KernelCounts,
}

/// Calls of a kernel.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct KernelCounts {
    /// Calls that wait for their turn.
    pub queued: u64,
    pub running: u64,
    /// Calls that gave a value.
    pub done: u64,
    /// Calls that gave none.
    pub failed: u64,
    /// Time that all ended calls together ran, arguments and results included.
    pub seconds: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct ClientStatus<'a> {
    pub id: u64,
    pub pid: i32,
    pub program: &'a str,
    pub queued: usize,
    pub running: usize,
    pub done: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct MemoryStatus {
    pub capacity: u64,
    pub in_use: u64,
}

/// A call that gave no value.
#[derive(Debug, Serialize)]
pub(super) struct FailureStatus {
    pub at: f64,
    pub kernel: String,
    pub client: u64,
    pub cause: ErrorCode,
    pub message: String,
    pub last_words: String,
}
