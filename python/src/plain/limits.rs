//! The resources that reading a pickle may take ([`Limits`]), and why a pickle is refused ([`Refusal`]).

use std::convert::Infallible;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyType;

use super::keys::Keys;

/// The deepest nesting of containers. A value's destructor, hash or comparison recurses to this depth.
const DEEPEST: u32 = 100;
/// The longest integer, in bytes: 157,000 digits. Many operations on integers take time quadratic in their length.
pub const LONGEST_INT: usize = 1 << 16;
/// The memory in bytes that the objects of any pickle may take.
const MEMORY: u64 = 16 << 20;
/// The bytes that the objects may take in addition for each received byte: as many as a dictionary with one key takes.
const MEMORY_PER_BYTE: u64 = 64;
/// The limit for long pickles: this number of bytes, plus 2 for each received byte.
const MAX_MEMORY: u64 = 512 << 20;
/// The number of elements that any value may have when it is written out in full, where a shared object counts as
/// often as it occurs. Printing or comparing the value takes this number of steps.
const ELEMENTS: u64 = 10_000_000;
/// The number of elements that a value may have in addition for each byte of its pickle.
const ELEMENTS_PER_BYTE: u64 = 100;
/// The number of elements that may be hashed or compared as keys of dictionaries and members of sets, or passed as
/// arguments of functions. An element counts each time that this happens.
const HASHED: u64 = 1_000_000;
/// The number of elements in addition for each byte of the pickle.
const HASHED_PER_BYTE: u64 = 64;
/// The number of steps that reading may take: instructions, and items that are added to containers. An instruction may
/// have no effect that another limit counts.
const STEPS: u64 = 64 << 20;
/// The number of steps after which the clock is read, and the time after which other threads run.
const UNTIMED: u64 = 4096;
const SLICE: Duration = Duration::from_millis(5);

/// Why a pickle is refused.
pub enum Refusal {
    /// What is wrong with the pickle, as the end of a sentence.
    Damaged(String),
    /// The limit that the value exceeds, as the end of a sentence.
    Beyond(String),
    /// An exception that Python has raised.
    Raised(PyErr),
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl From<Infallible> for Refusal {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Refusal {
    pub fn into_error(self, py: Python<'_>) -> PyErr {
        let text = match self {
            Self::Raised(error) => return error,
            Self::Damaged(what) => format!("the pickle of a sandboxed worker {what}"),
            Self::Beyond(what) => format!(
                "the value of a sandboxed task {what}: return arrays, or less at a time, or run the task without a \
                 sandbox"
            ),
        };
        // The text may quote bytes that the worker has sent.
        let text = arenite::escape_text(&text).to_string();
        unpickling_error(py).map_or_else(|error| error, |kind| PyErr::from_type(kind, text))
    }
}

/// Returns the class `pickle.UnpicklingError`.
pub fn unpickling_error(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let kind = py.import("pickle")?.getattr("UnpicklingError")?;
    Ok(kind.cast_into::<PyType>()?)
}

pub type Step<T> = Result<T, Refusal>;

pub fn damaged<T>(what: impl Into<String>) -> Step<T> {
    Err(Refusal::Damaged(what.into()))
}

pub fn beyond<T>(what: impl Into<String>) -> Step<T> {
    Err(Refusal::Beyond(what.into()))
}

/// The resources that a pickle may take, and the resources taken so far.
pub struct Limits {
    most_memory: u64,
    memory: u64,
    most_hashed: u64,
    hashed: u64,
    /// The largest number of elements of a value.
    most_elements: u64,
    steps: u64,
    /// When other threads last ran.
    paused: Instant,
}

impl Limits {
    /// Returns the limits for a pickle of `len` bytes with `buffered` bytes in its buffers.
    pub fn new(len: u64, buffered: u64) -> Self {
        let sent = len.saturating_add(buffered);
        let most = MEMORY.saturating_add(MEMORY_PER_BYTE.saturating_mul(sent));
        Self {
            most_memory: most.min(MAX_MEMORY.saturating_add(sent.saturating_mul(2))),
            memory: 0,
            most_hashed: HASHED + HASHED_PER_BYTE * len,
            hashed: 0,
            most_elements: ELEMENTS + ELEMENTS_PER_BYTE * len,
            steps: 0,
            paused: Instant::now(),
        }
    }

    /// Counts a step. From time to time, lets other threads run and handles signals.
    pub fn step(&mut self, py: Python<'_>) -> Step<()> {
        self.steps += 1;
        if !self.steps.is_multiple_of(UNTIMED) {
            return Ok(());
        }
        if self.steps > STEPS {
            return beyond(format!("takes more than {STEPS} steps to read"));
        }
        if self.paused.elapsed() >= SLICE {
            py.detach(|| ());
            py.check_signals()?;
            self.paused = Instant::now();
        }
        Ok(())
    }

    pub fn memory(&mut self, bytes: u64) -> Step<()> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > self.most_memory {
            return beyond(format!(
                "takes more than {} bytes of memory",
                self.most_memory
            ));
        }
        Ok(())
    }

    pub fn hashed(&mut self, elements: u64) -> Step<()> {
        self.hashed = self.hashed.saturating_add(elements);
        if self.hashed > self.most_hashed {
            let most = self.most_hashed;
            return beyond(format!(
                "has keys and arguments of more than {most} elements"
            ));
        }
        Ok(())
    }

    /// Checks the depth and the number of elements of a container.
    pub fn container(&self, depth: u32, elements: u64) -> Step<()> {
        if depth > DEEPEST {
            return beyond(format!(
                "has containers in containers more than {DEEPEST} levels deep"
            ));
        }
        if elements > self.most_elements {
            return beyond(format!(
                "has more than {} elements, counting a shared object as often as it occurs",
                self.most_elements
            ));
        }
        Ok(())
    }

    /// Returns the hash of a key with this number of elements. Fails if adding the key to a container with `keys` would
    /// exceed a limit.
    pub fn look(&mut self, keys: &mut Keys, key: &Bound<'_, PyAny>, elements: u64) -> Step<isize> {
        // The key is hashed here, and again when it is added.
        self.hashed(elements.saturating_mul(2))?;
        let hash = key.hash()?;
        let Some(equal) = keys.look(hash) else {
            return beyond("has a set or a dictionary whose keys collide");
        };
        // A comparison may convert an integer to decimal, which takes time quadratic in its length.
        let longest = keys.longest().max(elements);
        self.hashed(equal.saturating_mul(longest.saturating_mul(longest)))?;
        Ok(hash)
    }
}
