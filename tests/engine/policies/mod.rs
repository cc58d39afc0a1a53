//! What a caller may demand for a job: a deadline, another try, a place in the queue, an early end.

mod cancel;
mod deadlines;
mod priorities;
mod retries;

use std::io::Write;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

pub fn tests() -> Vec<libtest_mimic::Trial> {
    [
        cancel::tests(),
        deadlines::tests(),
        priorities::tests(),
        retries::tests(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A file in which kernels leave a line each time they run.
struct Diary(tempfile::NamedTempFile);

impl Diary {
    fn new() -> Self {
        Self(tempfile::NamedTempFile::new().unwrap())
    }

    fn path(&self) -> String {
        self.0.path().to_str().unwrap().to_owned()
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.path()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// In a kernel: leaves a line; how many there were before.
fn note(diary: &str, line: &str) -> usize {
    let before = std::fs::read_to_string(diary).unwrap().lines().count();
    let mut file = std::fs::File::options().append(true).open(diary).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
    before
}

/// In a kernel: never ends, and needs no processor for it.
fn hang() {
    loop {
        thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls when it is woken, and at no other time: whoever forgets to wake is found by the watchdog.
fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        let polled = std::pin::Pin::new(&mut future).poll(&mut Context::from_waker(&waker));
        match polled {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
