//! What errors say of crashes: the class of the address, and which argument it is in.

use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{ptr, thread};

use arenite::engine::{Crash, CrashClass, CrashedAccess};
use arenite::{Array, ArrayMut, JobError, JobErrorKind, WorkerExit};

use crate::harness::{Calls, Lab, assert_kind, assert_says, by_signal, tests};

tests![
    each_fault_is_described,
    a_null_call,
    a_write_to_each_input,
    a_write_to_long_arguments,
    a_write_to_a_published_array,
    a_write_to_memory_of_the_arena_that_is_free,
    a_write_to_a_lent_array_after_its_job,
    a_stack_overflow,
    with_a_wrong_stack_pointer,
    in_c,
    on_one_of_several_lanes,
    each_attempt_has_its_own,
    a_handler_of_the_program_still_runs,
    a_handler_without_effect_does_not_keep_a_worker_failing,
    a_handler_that_was_removed_is_not_called,
    a_handler_that_repairs_its_faults_goes_on,
    a_handler_that_jumps_out_of_its_fault_goes_on,
    nothing_for_ends_that_are_no_crash,
];

/// The crash of a job that ended by this signal; its text is part of the error's, and the engine continues.
fn crash_of(lab: &Lab, error: &JobError, signal: i32) -> Crash {
    assert_eq!(*error.kind(), by_signal(signal), "{error}");
    let crash = error.crash().unwrap_or_else(|| panic!("{error}")).clone();
    assert_eq!(crash.signal, signal);
    assert_says(&error, &crash.to_string());
    assert!(crash.instruction != 0 || crash.access == Some(CrashedAccess::Execute));
    assert_eq!(lab.value_of(|x: u32| x + 1, (1,)), 2);
    crash
}

fn assert_class(crash: &Crash, class: CrashClass, access: CrashedAccess) {
    assert_eq!(crash.class, class, "{crash}");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(crash.access, Some(access), "{crash}");
    }
}

#[inline(never)]
fn read_at(address: usize) -> u8 {
    // SAFETY: none: a bug, on purpose.
    unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() }
}

#[inline(never)]
fn write_at(address: usize) -> u8 {
    // SAFETY: none: a bug, on purpose.
    unsafe { ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(1) };
    1
}

/// The function is among the frames, with a line of this file if it is in Rust, and in the text of the error.
#[track_caller]
fn assert_in(crash: &Crash, function: &str) {
    let frames = crash.frames();
    let list = || {
        frames
            .iter()
            .map(|frame| format!("\n{frame}"))
            .collect::<String>()
    };
    let is_it = |frame: &&arenite::engine::CrashFrame| {
        frame
            .function
            .as_deref()
            .is_some_and(|name| name.contains(function))
    };
    let frame = frames.iter().find(is_it);
    let frame = frame.unwrap_or_else(|| panic!("{function} is not in:{}", list()));
    assert!(crash.to_string().contains(function), "{crash}:{}", list());
    assert!(frame.module.is_some() && frame.address > 0);
    if frame.file.is_some() {
        let line = frame.to_string();
        let file = ["crashes.rs", "crashing.c"];
        assert!(file.iter().any(|file| line.contains(file)), "{line}");
    }
    let own = frames.iter().filter_map(|frame| frame.function.as_deref());
    assert!(
        own.clone()
            .all(|name| !name.contains("arenite_runs_kernel")),
        "{}",
        list()
    );
}

fn a_null_call() {
    fn call(address: usize) -> u8 {
        let code = ptr::with_exposed_provenance::<()>(address);
        // SAFETY: none: a bug, on purpose.
        let function: extern "C" fn() -> u8 = unsafe { std::mem::transmute(code) };
        black_box(function)() + 1
    }
    let lab = Lab::new(1);
    // The address 0 is no valid function, and the compiler knows.
    let error = lab.error_of(call, (8,));
    let crash = crash_of(&lab, &error, libc::SIGSEGV);
    assert_in(&crash, "a_null_call::call");
    assert_eq!(crash.frames()[0].address, 8);
    assert_eq!(crash.class, CrashClass::Null);
    assert_eq!(crash.access, Some(CrashedAccess::Execute), "{crash}");
    assert_eq!((crash.address, crash.instruction), (Some(8), 8));
}

fn a_write_to_each_input() {
    fn vandal(one: &Array<u8>, which: usize, two: &Array<u32>, at: usize) -> u8 {
        let address = match which {
            1 => one.as_ptr().expose_provenance(),
            _ => two.as_ptr().expose_provenance(),
        };
        write_at(address + at)
    }
    let lab = Lab::new(1);
    let one = lab.from_fn(100, |i| i as u8).unwrap();
    let two = lab.from_fn(300_000, |i| i as u32).unwrap();
    for (which, at, len) in [(1, 0, 100), (1, 99, 100), (2, 7, 1_200_000)] {
        let error = lab.error_of(vandal, (&one, which, &two, at));
        let crash = crash_of(&lab, &error, libc::SIGSEGV);
        assert_in(&crash, "a_write_to_each_input::vandal");
        let class = CrashClass::Input {
            array: which,
            offset: at as u64,
            len,
        };
        assert_class(&crash, class, CrashedAccess::Write);
        let text = format!("a write to array {which} of its arguments (byte {at} of {len})");
        assert_says(&error, &text);
    }
    assert!(one.iter().enumerate().all(|(i, &x)| x == i as u8));
}

fn a_write_to_long_arguments() {
    /// Region 0 contains only these arguments, from its start.
    fn own_arguments(text: &str) -> u8 {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let region = maps.lines().find(|line| line.contains("region-0"));
        let start = region.and_then(|line| line.split('-').next()).unwrap();
        let start = usize::from_str_radix(start, 16).unwrap();
        assert_eq!(read_at(start), text.len() as u8, "these are the arguments");
        write_at(start)
    }
    let lab = Lab::with(1, |builder| builder.backing(arenite::Backing::Memfd));
    let text = "x".repeat(1000);
    let error = lab.error_of(own_arguments, (&text,));
    let crash = crash_of(&lab, &error, libc::SIGSEGV);
    assert_class(&crash, CrashClass::Arguments, CrashedAccess::Write);
}

fn a_write_to_a_published_array() {
    fn made(len: usize) -> (Array<u8>, usize) {
        let array = Array::from_fn(len, |i| i as u8);
        let address = array.as_ptr().expose_provenance();
        (array, address)
    }
    let lab = Lab::new(1);
    let (victim, address) = lab.value_of(made, (1 << 20,));
    let error = lab.error_of(write_at, (address + 5,));
    let crash = crash_of(&lab, &error, libc::SIGSEGV);
    assert_in(&crash, "write_at");
    let CrashClass::Published { region: 1, .. } = crash.class else {
        panic!("{error}");
    };
    assert!(victim.iter().enumerate().all(|(i, &x)| x == i as u8));
    // The next process is given it.
    fn vandal(victim: &Array<u8>) -> u8 {
        write_at(victim.as_ptr().expose_provenance() + 6)
    }
    let error = lab.error_of(vandal, (&victim,));
    let class = CrashClass::Input {
        array: 1,
        offset: 6,
        len: 1 << 20,
    };
    let crash = crash_of(&lab, &error, libc::SIGSEGV);
    assert_class(&crash, class, CrashedAccess::Write);
}

fn a_write_to_memory_of_the_arena_that_is_free() {
    fn beyond(by: usize) -> Array<u8> {
        let own = ArrayMut::<u8>::zeros(100);
        write_at(own.as_ptr().expose_provenance() + by);
        own.seal()
    }
    let lab = Lab::new(1);
    for by in [32 << 20, 200 << 20] {
        let error = lab.error_of(beyond, (by,));
        let JobErrorKind::Lost(WorkerExit::Signal(signal)) = *error.kind() else {
            panic!("{error}")
        };
        let crash = crash_of(&lab, &error, signal);
        assert!(
            matches!(crash.class, CrashClass::Unused { region: 1, .. }),
            "{error}"
        );
    }
    // Free memory of the program cannot be read either.
    let far = |values: &Array<u8>| read_at(values.as_ptr().expose_provenance() + (100 << 20));
    let error = lab.error_of(far, (&lab.from_slice(&[1u8]).unwrap(),));
    assert_kind!(error, JobErrorKind::Lost(WorkerExit::Signal(7 | 11)));
}

fn a_write_to_a_lent_array_after_its_job() {
    static PLACE: AtomicUsize = AtomicUsize::new(0);
    fn remember(values: &mut [u8]) {
        PLACE.store(values.as_mut_ptr().expose_provenance(), Relaxed);
        values.fill(1);
    }
    fn return_to_the_scene() -> u8 {
        write_at(PLACE.load(Relaxed))
    }
    let lab = Lab::balanced(1);
    for len in [100, 1 << 20] {
        let mut values = lab.zeros::<u8>(len).unwrap();
        lab.scope(|s| drop(s.submit(remember, (&mut values,))))
            .unwrap();
        let error = lab.error_of(return_to_the_scene, ());
        let crash = crash_of(&lab, &error, libc::SIGSEGV);
        assert!(
            matches!(crash.class, CrashClass::Published { region: 0, .. }),
            "{error}"
        );
        assert!(values.iter().all(|&x| x == 1));
    }
}

#[allow(unconditional_recursion, reason = "it is what is tested")]
#[inline(never)]
fn deeper(n: u64) -> u64 {
    let filler = black_box([n; 100]);
    deeper(n + 1) + filler[n as usize % 100]
}

fn a_stack_overflow() {
    for lab in [Lab::new(1), Lab::with(1, |builder| builder.lanes(2))] {
        let error = lab.error_of(deeper, (1,));
        let crash = crash_of(&lab, &error, libc::SIGSEGV);
        assert_in(&crash, "deeper");
        assert!(crash.omitted() > 100, "{}", crash.omitted());
        let CrashClass::StackOverflow { depth: Some(depth) } = crash.class else {
            panic!("{error}")
        };
        // The stack of a thread has 2 MiB, that of the first thread 8.
        assert!((1 << 20..1 << 30).contains(&depth), "{depth}");
        assert_says(&error, "a stack overflow, ");
    }
}

fn after_unmapping() -> u8 {
    // SAFETY: maps a page of memory and unmaps it.
    let page = unsafe {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(ptr::null_mut(), 4096, prot, anonymous, -1, 0);
        libc::munmap(page, 4096);
        page
    };
    read_at(page.expose_provenance() + 8)
}

fn truncated() -> u8 {
    // SAFETY: maps a file of memory that is truncated, on purpose.
    let page = unsafe {
        let file = libc::memfd_create(c"file".as_ptr(), 0);
        libc::ftruncate(file, 4096);
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let page = libc::mmap(ptr::null_mut(), 4096, prot, libc::MAP_SHARED, file, 0);
        libc::ftruncate(file, 0);
        page
    };
    read_at(page.expose_provenance())
}

fn to_a_constant() -> u8 {
    static CONSTANT: [u8; 4] = *b"abcd";
    write_at(black_box(&CONSTANT).as_ptr().expose_provenance())
}

/// Instructions that end a process: an illegal one, and a trap.
#[cfg(target_arch = "x86_64")]
macro_rules! ending {
    (illegal) => {
        std::arch::asm!("ud2")
    };
    (trap) => {
        std::arch::asm!("int3")
    };
}
#[cfg(not(target_arch = "x86_64"))]
macro_rules! ending {
    (illegal) => {
        std::arch::asm!("udf #0")
    };
    (trap) => {
        std::arch::asm!("brk #1")
    };
}

#[inline(never)]
fn illegal() -> u8 {
    // SAFETY: ends the process, on purpose.
    unsafe { ending!(illegal) };
    1
}

#[inline(never)]
fn trapping() -> u8 {
    // SAFETY: ends the process, on purpose.
    unsafe { ending!(trap) };
    1
}

/// As C code divides.
#[cfg(target_arch = "x86_64")]
fn divide(by: u32) -> u32 {
    let mut result = 100_u32;
    // SAFETY: ends the process if the divisor is 0, on purpose.
    unsafe {
        std::arch::asm!("div {by:e}", by = in(reg) by, inout("eax") result, inout("edx") 0 => _)
    };
    result
}

fn raise(signal: i32) -> u8 {
    // SAFETY: ends the process, on purpose.
    unsafe { libc::raise(signal) };
    1
}

#[inline(never)]
fn gives_up() -> u8 {
    std::process::abort()
}

fn on_a_thread(address: usize) -> u8 {
    thread::spawn(move || write_at(address)).join().unwrap()
}

/// The stack for signals of such a thread is small.
fn overflow_on_a_thread() -> u64 {
    thread::spawn(|| deeper(1)).join().unwrap()
}

/// Each row: the signal, the class, the access, the address unless it is any, a function among the frames, and the
/// kernel.
macro_rules! assert_described {
    ($lab:ident: $(
        $signal:ident, $class:expr, $access:expr, $address:expr, $function:literal =>
            $kernel:ident($($argument:expr)?);
    )+) => { $(
        let error = $lab.error_of($kernel, ($($argument,)?));
        let crash = crash_of(&$lab, &error, libc::$signal);
        assert_eq!(crash.class, $class, "{crash}");
        if cfg!(target_arch = "x86_64") {
            assert_eq!(crash.access, $access, "{crash}");
        }
        let address: Option<Option<u64>> = $address;
        assert!(address.is_none_or(|address| crash.address == address), "{crash}");
        assert_in(&crash, $function);
    )+ };
}

fn each_fault_is_described() {
    use CrashClass::*;
    let (read, write) = (Some(CrashedAccess::Read), Some(CrashedAccess::Write));
    let at = |address: u64| Some(Some(address));
    let (any, none) = (None, Some(None));
    let lab = Lab::new(1);
    assert_described!(lab:
        SIGSEGV, Null, read, at(0), "read_at" => read_at(0);
        SIGSEGV, Null, write, at(0x120), "write_at" => write_at(0x120);
        SIGSEGV, Unmapped, write, at(0x10_0000_0000), "write_at" => write_at(0x10_0000_0000);
        SIGSEGV, Unmapped, read, any, "after_unmapping" => after_unmapping();
        SIGSEGV, Protected, write, any, "to_a_constant" => to_a_constant();
        SIGBUS, BeyondFile, read, any, "truncated" => truncated();
        SIGILL, Instruction, None, none, "illegal" => illegal();
        SIGTRAP, Instruction, None, none, "trapping" => trapping();
        SIGSEGV, Raised, None, none, "raise" => raise(libc::SIGSEGV);
        SIGFPE, Raised, None, none, "raise" => raise(libc::SIGFPE);
        SIGABRT, Abort, None, none, "gives_up" => gives_up();
        SIGSEGV, Null, write, at(24), "on_a_thread" => on_a_thread(24);
        SIGSEGV, StackOverflow { depth: None }, write, any, "deeper" => overflow_on_a_thread();
    );
    #[cfg(target_arch = "x86_64")]
    {
        assert_eq!(lab.value_of(divide, (5,)), 20);
        assert_described!(lab:
            SIGSEGV, Impossible, None, none, "read_at" => read_at(0x4141_4141_4141_4141);
            SIGFPE, Division, None, none, "divide" => divide(0);
        );
    }
    let limited = Lab::with(2, |builder| builder.memory_limit(1 << 30));
    assert_described!(limited: SIGABRT, Abort, None, none, "gives_up" => gives_up(););
    // As sentences.
    for (error, text) in [
        (
            lab.error_of(read_at, (0,)),
            "SIGSEGV: a read of a null pointer (address 0x0)",
        ),
        (lab.error_of(trapping, ()), "SIGTRAP: a trap instruction"),
        (lab.error_of(gives_up, ()), "SIGABRT: an abort"),
    ] {
        assert_says(&error, text);
    }
}

/// The walk crashes: what it has found before is reported.
#[cfg(target_arch = "x86_64")]
fn with_a_wrong_stack_pointer() {
    #[inline(never)]
    fn lost() -> u8 {
        // SAFETY: ends the process, on purpose.
        unsafe { std::arch::asm!("mov rsp, {wrong}", "ud2", wrong = in(reg) 0x1000_usize) };
        1
    }
    let lab = Lab::new(1);
    let error = lab.error_of(lost, ());
    let crash = crash_of(&lab, &error, libc::SIGILL);
    assert_eq!(crash.class, CrashClass::Instruction);
    assert!(crash.frames().len() < 5, "{:#?}", crash.frames());
    assert_in(&crash, "lost");
}

#[cfg(not(target_arch = "x86_64"))]
fn with_a_wrong_stack_pointer() {}

/// Compiles `crashing.c` to a library. Returns its path.
fn compile_c(folder: &std::path::Path, text: &str) -> String {
    let source = folder.join("crashing.c");
    let library = folder.join("libcrashing.so");
    std::fs::write(&source, text).unwrap();
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut compiler = std::process::Command::new(compiler);
    compiler.args([
        "-g",
        "-O1",
        "-fno-optimize-sibling-calls",
        "-shared",
        "-fPIC",
        "-o",
    ]);
    compiler.arg(&library).arg(&source);
    assert!(compiler.status().unwrap().success());
    library.to_str().unwrap().into()
}

/// The address of a function of this library.
fn find_c(library: &str, function: &str) -> *mut libc::c_void {
    let name = |text: &str| std::ffi::CString::new(text).unwrap();
    // SAFETY: the library has no constructors.
    let function = unsafe {
        let library = libc::dlopen(name(library).as_ptr(), libc::RTLD_NOW);
        libc::dlsym(library, name(function).as_ptr())
    };
    assert!(!function.is_null());
    function
}

fn call_c(library: &str, function: &str) -> i32 {
    let function = find_c(library, function);
    // SAFETY: these functions take at most a pointer.
    unsafe {
        let function: extern "C" fn(*mut i32) -> i32 = std::mem::transmute(function);
        function(ptr::without_provenance_mut(0x50)) + 1
    }
}

/// A library that only the worker loads.
fn in_c() {
    const SOURCE: &str = "
        #include <stdlib.h>
        static int inner(int *at) { *at = 1; return *at; }
        int crashing(int *at) { return inner(at) + 1; }
        static int compare(const void *a, const void *b) { return *(volatile int *)16 + (a < b); }
        int sorting(void) { int two[2] = {2, 1}; qsort(two, 2, sizeof(int), compare); return two[0]; }
        int aborting(void) { abort(); }
    ";
    let folder = tempfile::tempdir().unwrap();
    let library = compile_c(folder.path(), SOURCE);
    let lab = Lab::new(1);
    for (function, signal, inner, line) in [
        ("crashing", libc::SIGSEGV, "inner", 3),
        ("sorting", libc::SIGSEGV, "compare", 5),
        ("aborting", libc::SIGABRT, "aborting", 7),
    ] {
        let error = lab.error_of(call_c, (&*library, function));
        let crash = crash_of(&lab, &error, signal);
        for name in [inner, function] {
            assert_in(&crash, name);
        }
        let frame = crash
            .frames()
            .iter()
            .find(|frame| frame.function.as_deref() == Some(inner));
        let frame = frame.unwrap_or_else(|| panic!("{error}"));
        assert_eq!(frame.line, Some(line), "{error}");
        assert!(
            frame.file.as_deref().unwrap().ends_with("crashing.c"),
            "{error}"
        );
        assert!(
            frame.module.as_deref().unwrap().ends_with("libcrashing.so"),
            "{error}"
        );
    }
}

/// Only the job that crashed has the crash, though another runs in the same process.
fn on_one_of_several_lanes() {
    let lab = Lab::with(1, |builder| builder.lanes(2));
    let (other, held) = lab.hold();
    let input = lab.from_slice(&[1_u8; 50]).unwrap();
    let vandal = |input: &Array<u8>| -> u8 { write_at(input.as_ptr().expose_provenance() + 49) };
    let error = lab.error_of(vandal, (&input,));
    let crash = crash_of(&lab, &error, libc::SIGSEGV);
    let class = CrashClass::Input {
        array: 1,
        offset: 49,
        len: 50,
    };
    assert_class(&crash, class, CrashedAccess::Write);
    let other = lab.failure_of(other);
    assert_kind!(other, JobErrorKind::Lost(WorkerExit::OtherJob { .. }));
    assert_eq!(other.crash(), None);
    drop(held);
}

fn each_attempt_has_its_own() {
    let lab = Lab::new(1);
    let job = lab.job(write_at, (0x30,)).retries(1);
    let error = lab.failure_of(job.backoff(arenite::Backoff::NONE).submit());
    let [death] = error.deaths() else {
        panic!("{error}")
    };
    for crash in [death.crash.as_ref(), error.crash()] {
        assert_eq!(crash.and_then(|crash| crash.address), Some(0x30));
    }
    assert_says(&death, "SIGSEGV: a write to");
}

/// Installs an async-signal-safe handler of SIGSEGV.
fn handle_with(handler: extern "C" fn(i32)) {
    // SAFETY: the handler is async-signal-safe.
    unsafe { libc::signal(libc::SIGSEGV, handler as libc::sighandler_t) };
}

extern "C" fn without_effect(_: i32) {}

extern "C" fn own_handler(signal: i32) {
    let text = b"the program's own handler\n";
    // SAFETY: writes bytes to a descriptor and restores an action; async-signal-safe.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::signal(signal, libc::SIG_DFL);
    }
}

/// One that `on_worker_start` has installed, as an interpreter does.
fn a_handler_of_the_program_still_runs() {
    let lab = Lab::with(1, |builder| {
        builder.on_worker_start(|| handle_with(own_handler))
    });
    let error = lab.error_of(read_at, (0x40,));
    let crash = crash_of(&lab, &error, libc::SIGSEGV);
    assert_class(&crash, CrashClass::Null, CrashedAccess::Read);
    assert_eq!(error.last_words(), ["the program's own handler"]);
}

/// Python's `faulthandler` is one while it is disabled.
fn a_handler_without_effect_does_not_keep_a_worker_failing() {
    let lab = Lab::with(1, |builder| {
        builder.on_worker_start(|| handle_with(without_effect))
    });
    let error = lab.error_of(read_at, (0x40,));
    let crash = crash_of(&lab, &error, libc::SIGSEGV);
    assert_class(&crash, CrashClass::Null, CrashedAccess::Read);
}

/// As a runtime has it that maps memory when it is touched.
mod repaired {
    const PAGE: usize = 4096;

    extern "C" fn repair(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: Linux passes a valid siginfo; the page is one of the kernel below, which waits for it, or there is none.
        unsafe {
            let page = ((*info).si_addr() as usize & !(PAGE - 1)) as *mut libc::c_void;
            if libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }

    pub fn start() {
        // SAFETY: the handler is async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = repair;
            action.sa_sigaction = handler as libc::sighandler_t;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut());
        }
    }

    pub fn touch(pages: u64) -> u64 {
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let len = pages as usize * PAGE;
        let none = std::ptr::null_mut();
        // SAFETY: a new map, of which each page is written once it has been repaired.
        unsafe {
            let map = libc::mmap(none, len, libc::PROT_NONE, anonymous, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            let map = map.cast::<u8>();
            (0..pages as usize).for_each(|page| map.add(page * PAGE).write_volatile(1));
            let sum =
                (0..pages as usize).map(|page| u64::from(map.add(page * PAGE).read_volatile()));
            let sum = sum.sum();
            libc::munmap(map.cast(), len);
            sum
        }
    }
}

/// One that the program has replaced by the one that it had found, as `faulthandler.disable()` does.
fn a_handler_that_was_removed_is_not_called() {
    static FOUND: OnceLock<libc::sigaction> = OnceLock::new();
    fn start() {
        // SAFETY: all zeros are a valid action; the handler does nothing.
        let found = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let handler = without_effect as extern "C" fn(i32);
            action.sa_sigaction = handler as libc::sighandler_t;
            let mut found = std::mem::zeroed();
            libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut found);
            found
        };
        FOUND.set(found).unwrap();
    }
    fn raise() {
        // SAFETY: the action is the one that `start` has found, and raising a signal touches no memory.
        unsafe {
            libc::sigaction(libc::SIGSEGV, FOUND.get().unwrap(), ptr::null_mut());
            libc::raise(libc::SIGSEGV);
        }
    }
    let lab = Lab::with(1, |builder| builder.on_worker_start(start));
    let error = lab.error_of(raise, ());
    crash_of(&lab, &error, libc::SIGSEGV);
}

/// What a worker has noted of a repaired fault is not what it dies of later, noted or not.
fn a_handler_that_repairs_its_faults_goes_on() {
    fn touch_and_read(pages: u64, address: usize) -> u64 {
        repaired::touch(pages) + u64::from(read_at(address))
    }
    let lab = Lab::with(1, |builder| builder.on_worker_start(repaired::start));
    let worker = lab.pid(0);
    for _ in 0..3 {
        assert_eq!(lab.value_of(repaired::touch, (40,)), 40);
    }
    assert_eq!(lab.pid(0), worker);
    lab.replace(0);
    // After many of them the program's handler is called directly.
    for (pages, is_noted) in [(3, true), (40, false)] {
        let error = lab.error_of(touch_and_read, (pages, 0x50));
        let address = error.crash().map(|crash| crash.address);
        assert_eq!(address, is_noted.then_some(Some(0x50)), "{error}");
    }
}

/// As an interpreter has it that turns faults into exceptions.
fn a_handler_that_jumps_out_of_its_fault_goes_on() {
    const SOURCE: &str = "
        #include <setjmp.h>
        #include <signal.h>
        static sigjmp_buf before;
        void leave(int signal) { siglongjmp(before, 1); }
        int survive(void) { return sigsetjmp(before, 1) ? 5 : *(volatile int *)16; }
    ";
    /// Where the handler jumps; 0: it gives up.
    static LEAVE: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(signal: i32) {
        // SAFETY: restores an action, or calls the function of the source above.
        unsafe {
            match LEAVE.swap(0, Relaxed) {
                0 => drop(libc::signal(signal, libc::SIG_DFL)),
                leave => std::mem::transmute::<usize, extern "C" fn(i32)>(leave)(signal),
            }
        }
    }
    fn survive_and_crash(library: &str, is_other_thread: bool) -> i32 {
        LEAVE.store(find_c(library, "leave").expose_provenance(), Relaxed);
        let survived = call_c(library, "survive");
        assert_eq!(survived, 6);
        let crash = || i32::from(read_at(0x70));
        match is_other_thread {
            false => survived + crash(),
            true => thread::spawn(crash).join().unwrap(),
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let library = compile_c(folder.path(), SOURCE);
    let lab = Lab::with(1, |builder| {
        builder.on_worker_start(|| handle_with(handler))
    });
    for is_other_thread in [false, true] {
        let error = lab.error_of(survive_and_crash, (&*library, is_other_thread));
        let crash = crash_of(&lab, &error, libc::SIGSEGV);
        assert_eq!(crash.address, Some(0x70), "{error}");
        assert_in(&crash, "read_at");
    }
}

fn nothing_for_ends_that_are_no_crash() {
    let lab = Lab::new(1);
    let exit = lab.error_of(|| -> u8 { std::process::exit(3) }, ());
    let panic = lab.error_of(|| -> u8 { panic!("on purpose") }, ());
    for error in [exit, panic] {
        assert_eq!(error.crash(), None, "{error}");
    }
    for signal in [libc::SIGSEGV, libc::SIGKILL] {
        let (job, held) = lab.hold();
        // SAFETY: signals a worker of this test.
        assert_eq!(unsafe { libc::kill(lab.pid(0), signal) }, 0);
        let error = lab.failure_of(job);
        drop(held);
        assert_eq!(*error.kind(), by_signal(signal));
        assert_eq!(error.crash(), None, "{error}");
    }
}
