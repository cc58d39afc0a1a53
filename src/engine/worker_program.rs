//! The program that workers run: [`WorkerProgram`].

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::BuildError;
use crate::supervisor::{self, ProgramSpec, WorkerEntry};
use crate::sys::process::Program;

/// A program that workers run instead of a copy of this program; see [`Builder::worker_program`].
///
/// [`Builder::worker_program`]: super::Builder::worker_program
#[derive(Clone, Debug)]
#[must_use = "it is started by an engine that is built with it"]
pub struct WorkerProgram {
    path: PathBuf,
    args: Vec<OsString>,
    env: Option<Vec<(OsString, OsString)>>,
    identity: Vec<u8>,
}

impl WorkerProgram {
    /// The executable file at `path`. A relative path starts at the working directory that this process has when the
    /// engine is built, which is that of all workers; `PATH` is not searched. The program finds the path, as it is
    /// given here, in its first argument.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            env: None,
            identity: Vec::new(),
        }
    }

    /// Adds arguments after the path.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets the whole environment of workers, also of sandboxed ones: leave out what their kernels must not know. The
    /// default is the environment of this process when the engine is built; in a sandbox only what the loader, the C
    /// library and Rust's standard library read.
    pub fn env(
        mut self,
        vars: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Self {
        let vars = vars.into_iter();
        self.env = Some(
            vars.map(|(name, value)| (name.into(), value.into()))
                .collect(),
        );
        self
    }

    /// Sets what the program must pass to [`run_worker`](crate::run_worker), or the worker fails to start: say, its
    /// version. It is compared in addition to the build of the file that contains arenite. The default is empty.
    pub fn identity(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.identity = bytes.into();
        self
    }

    /// What is started, with the environment and the working directory that this process has now.
    pub(super) fn resolve(self, sandboxed: bool) -> Result<ProgramSpec, BuildError> {
        let file = std::path::absolute(&self.path).map_err(|error| {
            BuildError::Worker(format!(
                "the worker program {} cannot be found: {error}",
                self.path.display()
            ))
        })?;
        let mut arguments = vec![c_string(self.path.as_os_str(), "its path")?];
        for argument in &self.args {
            arguments.push(c_string(argument, "an argument")?);
        }
        let environment = match self.env {
            Some(vars) => vars.into_iter().map(variable).collect::<Result<_, _>>()?,
            None => supervisor::environment(sandboxed),
        };
        let program = Program::in_file(
            c_string(file.as_os_str(), "its path")?,
            arguments,
            environment,
        )
        .map_err(BuildError::System)?;
        Ok(ProgramSpec::new(
            program,
            self.identity,
            WorkerEntry::RunWorker,
        ))
    }
}

fn c_string(text: &OsStr, what: &str) -> Result<CString, BuildError> {
    CString::new(text.as_bytes()).map_err(|_| {
        BuildError::Worker(format!(
            "{what} of the worker program contains a zero byte: {text:?}"
        ))
    })
}

fn variable((name, value): (OsString, OsString)) -> Result<CString, BuildError> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(BuildError::Worker(format!(
            "{name:?} is no name for an environment variable of the worker program"
        )));
    }
    let mut pair = name;
    pair.push("=");
    pair.push(value);
    c_string(&pair, "an environment variable")
}
