//! A program without arenite, as an interpreter is: it loads the shared object of this package, runs its tests, and is
//! the program of its workers.

use std::ffi::{CStr, CString, c_char};
use std::os::unix::ffi::OsStrExt;

fn main() {
    let program = std::env::current_exe().expect("a program has a name");
    // Cargo places both in one folder.
    let object = program.with_file_name("libarenite_tests_object.so");
    let object = CString::new(object.as_os_str().as_bytes()).expect("no zero byte");
    // SAFETY: the object's constructors are those of Rust's standard library.
    let handle = unsafe { libc::dlopen(object.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{object:?} cannot be loaded");
    let function = |name: &CStr| {
        // SAFETY: the handle is valid and the name a C string.
        let function = unsafe { libc::dlsym(handle, name.as_ptr()) };
        assert!(!function.is_null(), "{name:?} is missing");
        function
    };
    if std::env::args().nth(1).as_deref() == Some("worker") {
        // SAFETY: the object defines it with this type.
        let worker: extern "C" fn() = unsafe { std::mem::transmute(function(c"object_worker")) };
        worker();
    }
    // SAFETY: the object defines it with this type.
    let test: unsafe extern "C" fn(*const c_char) -> bool =
        unsafe { std::mem::transmute(function(c"object_test")) };
    let program = CString::new(program.as_os_str().as_bytes()).expect("no zero byte");
    // SAFETY: `program` is a C string.
    if !unsafe { test(program.as_ptr()) } {
        std::process::exit(1);
    }
}
