//! Tests as users write them: ordinary `#[test]` functions that start engines, which takes one line.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::process::Command;

use arenite::{Array, Engine, JobErrorKind, WorkerExit};

arenite::test_workers!();

fn brighten(pixels: &Array<u8>, by: u8) -> Array<u8> {
    Array::from_fn(pixels.shape(), |i| pixels[i].saturating_add(by))
}

/// What is in `kernel!` is an expression, which rustfmt formats like any other.
#[test]
fn loop_bodies_are_formatted() {
    let written = "fn f() {
engine.map(kernel!(|photo:&Array<u8>,by:u8|  |row:usize|->u64{let x=&photo[row];u64::from(*x)+u64::from(by)}), 0..9);
    engine.submit(kernel!(|by:u8|||by+1),());
  engine.submit(kernel!(|mut x:u32,[a,b]:[u8;2]|   {x+=1; x}),(3,[1,2]));
}
";
    let formatted = "fn f() {
    engine.map(
        kernel!(|photo: &Array<u8>, by: u8| |row: usize| -> u64 {
            let x = &photo[row];
            u64::from(*x) + u64::from(by)
        }),
        0..9,
    );
    engine.submit(kernel!(|by: u8| || by + 1), ());
    engine.submit(
        kernel!(|mut x: u32, [a, b]: [u8; 2]| {
            x += 1;
            x
        }),
        (3, [1, 2]),
    );
}
";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body.rs");
    std::fs::write(&file, written).unwrap();
    let mut rustfmt = Command::new("rustfmt");
    let ended = rustfmt.args(["--edition", "2024"]).arg(&file).status();
    assert!(ended.unwrap().success());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), formatted);
}

/// A kernel is a plain function, and can be tested without an engine.
#[test]
fn brightens() {
    let pixels = Array::from_slice(&[1, 100, 250]);
    assert_eq!(brighten(&pixels, 10)[..], [11, 110, 255]);
}

#[test]
fn brightens_in_another_process() {
    let engine = Engine::builder()
        .workers(2)
        .capacity(32 << 20)
        .build()
        .unwrap();
    let pixels = engine.from_slice(&[1, 100, 250]).unwrap();
    assert_eq!(
        engine.submit(brighten, (&pixels, 10)).wait().unwrap()[..],
        [11, 110, 255]
    );
    let pid = engine.submit(std::process::id, ()).wait().unwrap();
    assert_ne!(pid, std::process::id());
}

#[test]
fn survives_a_crash() {
    let engine = Engine::builder()
        .workers(1)
        .capacity(32 << 20)
        .build()
        .unwrap();
    let error = engine
        .submit(|| -> u8 { std::process::abort() }, ())
        .wait()
        .unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::Lost(WorkerExit::Signal(6)));
    let error = engine
        .submit(|n: u32| assert_eq!(n, 1), (2,))
        .wait()
        .unwrap_err();
    assert!(
        matches!(error.kind(), JobErrorKind::Panicked { .. }),
        "{error}"
    );
    engine.shutdown();
}

#[test]
fn a_stack_overflow_fails_one_job() {
    #[allow(unconditional_recursion, reason = "it is what is tested")]
    fn deeper(n: u64) -> u64 {
        let filler = std::hint::black_box([n; 1000]);
        deeper(n + 1) + filler[n as usize % 1000]
    }
    let engine = Engine::builder()
        .workers(1)
        .capacity(32 << 20)
        .build()
        .unwrap();
    let error = engine.submit(deeper, (1,)).wait().unwrap_err();
    assert!(
        matches!(error.kind(), JobErrorKind::Lost(WorkerExit::Signal(6 | 11))),
        "{error}"
    );
    assert_eq!(engine.submit(|| 5u8, ()).wait().unwrap(), 5);
}
