//! The program that workers run: [`WorkerProgram`].

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
#[cfg(feature = "template")]
use std::time::Duration;

use super::BuildError;
use crate::supervisor::{self, ProgramSpec, StartMethod, WorkerEntry};
use crate::sys::loader::{StartedBy, started_by};
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
    start: StartMethod,
}

impl WorkerProgram {
    /// Creates a program from the executable file at `path`. A relative path is relative to the working directory that
    /// this process has when the engine is built, and in which all workers start; `PATH` is not searched. The first
    /// argument of the program is `path`, unchanged.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            args: Vec::new(),
            env: None,
            identity: Vec::new(),
            start: StartMethod::Separate,
        }
    }

    /// Adds arguments after the path.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets the whole environment of workers, including sandboxed workers: leave out what their kernels must not know.
    /// The default is the environment of this process when the engine is built; in a sandbox, only the variables that
    /// the loader, the C library and Rust's standard library read.
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

    /// Sets bytes that the program must pass to [`run_worker`](crate::run_worker), such as its version; otherwise the
    /// worker fails to start. The build of the file that contains arenite is compared in any case. The default is
    /// empty.
    pub fn identity(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.identity = bytes.into();
        self
    }

    /// Returns the program to start, with the environment and the working directory that this process has at this
    /// moment.
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
        let mut program = ProgramSpec::new(program, self.identity, WorkerEntry::RunWorker);
        program.start = self.start;
        Ok(program)
    }
}

/// Templates (feature `template`).
#[cfg(feature = "template")]
impl WorkerProgram {
    /// Forks workers from one process of the program, the template, which has loaded `setup` by
    /// [`Template::load`](crate::Template::load): a fork takes milliseconds, and shares the loaded memory until it
    /// writes there. The program calls [`run_worker_from_template`](crate::run_worker_from_template).
    ///
    /// If a template cannot be forked, because loading fails, takes too long, or leaves threads or open files behind,
    /// then a notice is written to the [log](super::Builder::on_log), and workers are started separately. Workers are
    /// also started separately with a C library other than glibc, in an engine of more than 240 workers, and while a
    /// template that has ended is started again.
    ///
    /// Limits and the sandbox apply to the forked workers, and not to the template, which runs no job.
    ///
    /// ```standalone_crate
    /// use std::sync::OnceLock;
    ///
    /// use arenite::engine::WorkerProgram;
    /// use arenite::{Engine, Template};
    ///
    /// static WORDS: OnceLock<Vec<String>> = OnceLock::new();
    ///
    /// struct Dictionary;
    ///
    /// impl Template for Dictionary {
    ///     fn load(&self, setup: &[u8]) -> Result<(), String> {
    ///         let words = String::from_utf8_lossy(setup).into_owned(); // or what takes longer
    ///         WORDS.set(words.split(' ').map(str::to_owned).collect()).map_err(|_| "loaded twice".into())
    ///     }
    /// }
    ///
    /// if std::env::args().nth(1).as_deref() == Some("--worker") {
    ///     arenite::run_worker_from_template(b"", &Dictionary);
    /// }
    /// let program = WorkerProgram::new(std::env::current_exe()?)
    ///     .args(["--worker"])
    ///     .template("three short words");
    /// let engine = Engine::builder().workers(2).worker_program(program).build()?;
    /// let count = engine.submit(|| WORDS.get().map_or(0, Vec::len) as u64, ()).wait()?;
    /// assert_eq!(count, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn template(mut self, setup: impl Into<Vec<u8>>) -> Self {
        self.start = StartMethod::Template {
            setup: setup.into().into(),
            kept: Duration::ZERO,
            is_optional: false,
        };
        self
    }

    /// Copies workers from a fork of this process, which [`Engine::fork`](crate::Engine::fork) makes. They have all that
    /// the process had then: memory, files and settings, and `setup` as data for
    /// [`Template::load`](crate::Template::load). The engine starts in the background, and jobs wait for the fork.
    pub fn forked(mut self, setup: impl Into<Vec<u8>>) -> Self {
        self.start = StartMethod::Fork {
            setup: setup.into().into(),
            is_optional: false,
        };
        self
    }

    /// Shares the template with other engines of this process whose program, arguments, environment, setup and
    /// inherited limits are equal, and keeps it for so long after the end of the last of these engines. Without this,
    /// each engine has a template of its own. [`end_unused_templates`](Self::end_unused_templates) ends it earlier.
    pub fn keep_template(mut self, time: Duration) -> Self {
        if let StartMethod::Template { kept, .. } = &mut self.start {
            *kept = time;
        }
        self
    }

    /// If a template cannot be forked, writes no notice: only
    /// [`Stats::no_template`](crate::engine::Stats::no_template) says why.
    pub fn optional_template(mut self) -> Self {
        if let StartMethod::Template { is_optional, .. } | StartMethod::Fork { is_optional, .. } =
            &mut self.start
        {
            *is_optional = true;
        }
        self
    }

    /// Ends the templates of this process that are [kept](Self::keep_template) and that no engine uses. They run
    /// [`Template::at_end`](crate::Template::at_end). A program calls this at its end; templates that are left are killed
    /// when the program has ended.
    pub fn end_unused_templates() {
        supervisor::end_unused_templates();
    }
}

/// Returns this program, with the environment and the working directory that this process has at this moment.
pub(super) fn this(sandboxed: bool) -> Result<ProgramSpec, BuildError> {
    if started_by() == StartedBy::Valgrind {
        return Err(BuildError::Worker(
            "this program runs under valgrind, which cannot run a second process of it: use Engine::inline(), which \
             runs kernels in this process"
                .into(),
        ));
    }
    let program = Program::this(supervisor::environment(sandboxed)).map_err(BuildError::System)?;
    Ok(ProgramSpec::new(program, Vec::new(), WorkerEntry::Init))
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
