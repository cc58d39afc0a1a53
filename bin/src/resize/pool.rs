//! The engine at work: file bytes go into the arena, a worker decodes, resizes and encodes, the encoded bytes come back.

use std::path::Path;
use std::time::{Duration, Instant};

use arenite::image::{ImageError, Output, ResizeSpec, resize_encoded};
use arenite::{Array, Engine, Job, JobError};

use super::args::ResizeArgs;
use super::fault::Fault;
use super::plan::Task;
use super::runner::{Made, Pool, Refused};

/// Jobs under way per worker: one runs, one waits beside it, and the rest covers reading and writing of files.
const PER_WORKER: usize = 4;

/// An engine whose workers make pictures.
#[derive(Debug)]
pub(crate) struct EnginePool {
    engine: Engine,
    spec: ResizeSpec,
    workers: usize,
}

/// The kernel: an encoded picture in, an encoded picture and the microseconds it took out.
fn resize_file(file: &Array<u8>, spec: ResizeSpec) -> Result<(Array<u8>, u64), ImageError> {
    let start = Instant::now();
    let picture = Array::from_slice(&resize_encoded(file, &spec)?.bytes);
    Ok((picture, start.elapsed().as_micros() as u64))
}

impl EnginePool {
    /// Starts the workers, no more of them than there are pictures.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub(crate) fn start(
        args: &ResizeArgs,
        spec: ResizeSpec,
        pictures: usize,
    ) -> Result<EnginePool, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = args.workers.map_or(cores, usize::from).min(pictures);
        let mut builder = Engine::builder()
            .workers(workers)
            .memory_limit(args.memory_limit)
            .label("resize");
        if let Some(capacity) = args.capacity {
            builder = builder.capacity(capacity);
        }
        let engine = builder.build().map_err(|error| error.to_string())?;
        Ok(EnginePool {
            engine,
            spec,
            workers,
        })
    }
}

impl Pool for EnginePool {
    type Ticket = Job<(Array<u8>, u64)>;
    type Bytes = Array<u8>;

    fn depth(&self) -> usize {
        self.workers * PER_WORKER
    }

    fn start(&self, path: &Path, task: &Task) -> Result<Self::Ticket, Refused> {
        let file = self.engine.read_file(path).map_err(refused)?;
        // The name is already fixed: the format is what it was named for, whatever the file turns into meanwhile.
        let output = Output::try_from(task.format)
            .map_err(|error| Refused::Failed(Fault::new("returned", error.to_string())))?;
        Ok(self.engine.submit(
            resize_file,
            (
                file,
                ResizeSpec {
                    output,
                    ..self.spec
                },
            ),
        ))
    }

    fn finish(&self, job: Self::Ticket) -> Result<Made<Array<u8>>, Fault> {
        let (bytes, micros) = job.wait().map_err(|error| fault(&error))?;
        Ok(Made {
            bytes,
            took: Duration::from_micros(micros),
        })
    }
}
fn refused(error: std::io::Error) -> Refused {
    Refused::Failed(Fault::read(&error))
}

fn fault(error: &JobError) -> Fault {
    Fault::new("returned", error.to_string())
}
