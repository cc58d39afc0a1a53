//! The messages: one JSON object for each packet. docs/service-protocol.md describes them for other clients.

use serde::{Deserialize, Serialize};

/// Version of the protocol. Raised by changes that old clients do not understand.
pub(super) const PROTOCOL: u32 = 1;

/// A request of a client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Request {
    /// Asks for the service's version and kernels. Answer: [`ServiceInfo`].
    Info,
    /// Runs a kernel. The packet carries the files of the arguments. Answer, when the call has ended: [`Answer`].
    Call {
        /// A number that no other open call of this client has.
        id: u64,
        kernel: String,
        #[serde(default)]
        args: Vec<serde_json::Value>,
        /// The longest time that the call may run, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<f64>,
    },
    /// Cancels a call. The call is still answered.
    Cancel { id: u64 },
    /// Asks for the present state of the service. Answer: [`Status`].
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
    // This variant is first, because only a failure has the member `error`.
    Failed(Failure),
    Done { value: serde_json::Value },
}

/// Why a call gave no value, or why a packet is no request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub error: ErrorCode,
    /// A sentence for a person.
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
    /// Another cause, or a code that only newer services send.
    #[serde(other)]
    Other,
}

/// The version, the process and the kernels of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceInfo {
    /// Always true. A store's answer lacks this member.
    service: bool,
    /// Version of the protocol.
    pub protocol: u32,
    /// The version of arenite that runs the service.
    pub version: String,
    /// The service's name.
    pub name: String,
    /// The server's process.
    pub pid: i32,
    /// When the server started, in seconds since 1970.
    pub started: f64,
    /// The number of calls that a client may have open.
    pub max_calls: usize,
    /// The kernels that the service offers.
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
    /// The kernel's name.
    pub name: String,
    /// The types of the parameters and of the result: `(array f4, f32) -> array f4`. Element types have NumPy's names.
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

/// The present state of a service.
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

/// The number of calls of a kernel, by state.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct KernelCounts {
    /// Calls that wait to begin.
    pub queued: u64,
    pub running: u64,
    /// Calls that returned a value.
    pub done: u64,
    /// Calls that failed.
    pub failed: u64,
    /// The total time of all ended calls in seconds, including conversions of arguments and results.
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

/// A call that failed.
#[derive(Debug, Serialize)]
pub(super) struct FailureStatus {
    pub at: f64,
    pub kernel: String,
    pub client: u64,
    pub cause: ErrorCode,
    pub message: String,
    pub last_words: String,
}
