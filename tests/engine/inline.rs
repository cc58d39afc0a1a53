//! The inline engine, without processes. That its answers are those of workers is in `calls` and `model::programs`.

use arenite::{Array, Engine};

use crate::harness::{Calls, tests};

tests![no_processes, handles_may_outlive_their_job,];

fn no_processes() {
    let engine = Engine::inline();
    let pid = engine.value_of(std::process::id, ());
    assert_eq!(pid, std::process::id());
    assert_eq!((engine.stats().workers.len(), engine.trim()), (0, 0));
    assert!(crate::harness::children().is_empty());
    engine.shutdown();
}

/// No worker has to keep their memory.
fn handles_may_outlive_their_job() {
    static KEPT: std::sync::Mutex<Vec<Array<u8>>> = std::sync::Mutex::new(Vec::new());
    let engine = Engine::inline();
    let values = Array::from_slice(&[1u8, 2]);
    engine.value_of(
        |values: &Array<u8>| KEPT.lock().unwrap().push(values.clone()),
        (&values,),
    );
    assert_eq!(KEPT.lock().unwrap()[0][..], [1, 2]);
}
