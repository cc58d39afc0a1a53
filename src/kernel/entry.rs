//! The [`Kernel`] trait, and how a kernel is called in another process.

use std::any::{TypeId, type_name};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::arity::for_each_arity;
use super::error::Returned;
use super::failure::{BadArgument, Failure};
use super::host::Host;
use super::inputs::no_value;
use super::param::{Arg, CallWriter, HostRef, Key, Param, RetrySafe, Words};
use super::reply::{AnyValue, BadReply, Reply, Sending};
use super::wire::{ReplyWriter, WordReader};

/// A function, or a closure that captures nothing, that a worker can run. `P` is the tuple of its parameters, `R` its
/// return type. Implemented for every such function of 0 to 8 parameters.
///
/// A kernel borrows its parameters only while its job runs:
///
/// ```compile_fail,E0277
/// use arenite::array::Array;
///
/// fn keep(_: &'static Array<u8>) {}
///
/// let engine = arenite::Engine::inline();
/// engine.submit(keep, (Array::from_slice(&[1]),));
/// ```
///
/// and returns nothing that borrows from them:
///
/// ```compile_fail,E0277
/// use arenite::array::Array;
///
/// fn first<'a>(array: &'a Array<u8>) -> &'a str { "" }
///
/// let engine = arenite::Engine::inline();
/// engine.submit(first, (Array::from_slice(&[1]),));
/// ```
///
/// A closure that captures cannot cross into another process. Name what it needs in a [`kernel!`](crate::kernel!), here
/// `kernel!(|factor: u32| |x: u32| x * factor)`, or pass it as an argument.
///
/// ```compile_fail,E0080
/// let engine = arenite::Engine::inline();
/// let factor: u32 = std::env::args().count() as u32;
/// let job = engine.submit(move |x: u32| x * factor, (2,));
/// ```
///
/// A `fn` pointer does not name its function in another process. Pass the function itself, by its name:
///
/// ```compile_fail,E0080
/// let engine = arenite::Engine::inline();
/// let kernel: fn(u32) -> u32 = |x| 2 * x;
/// let job = engine.submit(kernel, (2,));
/// ```
///
/// Only `cargo build` and `cargo test` refuse these two, not `cargo check`: no trait tells a closure that captures from
/// one that does not, and the compiler evaluates the size of a generic type only when it generates code. In a
/// [`kernel!`](crate::kernel!), `cargo check` refuses every variable that is not named.
///
/// A worker recreates the kernel from its type alone. In the worker's process, nothing else has run than the code
/// before [`init`](crate::init) and the function of [`on_worker_start`](crate::engine::Builder::on_worker_start). So a
/// closure must not capture a zero-sized token which proves to unsafe code that something was initialised: the compiler
/// cannot tell such a closure from one that captures nothing. Pass what the kernel needs as an argument, and initialise
/// each worker in `on_worker_start`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kernel",
    label = "cannot be run by a worker",
    note = "a kernel is a function, or a closure that captures nothing, of up to 8 parameters, and not `async`: it may block on a future, with an executor of its own",
    note = "parameters: `&Array<T>`, `&[T]`, `&[Array<T>]`, `ArrayMut<T>`, `TileMut<'_, T>`, `&mut [T]`, `&str` (and no `String`), `&Bytes`, numbers, `bool`, `char`, `[S; N]`, `Vec` of these, tuples of up to 8 of these, your own `impl arenite::Scalar`",
    note = "replies: `()`, `Array<T>`, `Vec<Array<T>>`, `Vec` of numbers, `ArrayMut<T>`, `String`, `Bytes`, `Option`, tuples of up to 4, numbers, `bool`, `char`, your own `impl arenite::Scalar`, and `Result` of these with an error that implements `Display`, or in `arenite::Typed`",
    note = "instead of other types: `&str` for a `String` or a `Path`; `&[T]` for a `Vec<T>` (pass the `Vec`, or an array, which is not copied); a number (`as_secs_f64()`) for a `Duration`; a number that stands for none, or an empty array, for an `Option`; `&Bytes` with their encoded form for maps and types of serde; elements `u8` for `bool`",
    note = "parameters borrow only for the job (no `&'static`), and the result borrows nothing"
)]
pub trait Kernel<P: Params, R>: Copy + Send + 'static {
    #[doc(hidden)]
    fn call(self, held: P::Held, key: Key) -> R;
}

/// The parameters of a kernel: a tuple of [`Param`]s. This trait is sealed.
pub trait Params: params_sealed::Sealed {
    #[doc(hidden)]
    type Held: 'static;
    #[doc(hidden)]
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument>;
}

pub(super) mod params_sealed {
    #[allow(unnameable_types, reason = "sealed on purpose")]
    pub trait Sealed {}
}

/// Arguments for a kernel with the parameters `P`: a tuple of [`Arg`]s. This trait is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` are not arguments for a kernel with the parameters `{P}`",
    label = "not the arguments that this kernel takes",
    note = "pass a tuple with one argument for each parameter; for one parameter: `(x,)`"
)]
pub trait Args<'env, P: Params> {
    #[doc(hidden)]
    fn send(self, call: &mut CallWriter);
    #[doc(hidden)]
    fn hold(self) -> P::Held;
    #[doc(hidden)]
    fn bytes_held(&self) -> u64;
    #[doc(hidden)]
    fn failed(&self) -> Option<AnyValue>;
}

macro_rules! impl_kernel {
    ($($p:ident $a:ident $x:ident $i:tt),*) => {
        impl<$($p: Param),*> params_sealed::Sealed for ($($p,)*) {}
        impl<$($p: Param),*> Params for ($($p,)*) {
            type Held = ($($p::Held,)*);
            #[inline]
            #[allow(unused_variables, reason = "for a kernel without parameters")]
            fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument> {
                Ok(($($p::receive(words, host)?,)*))
            }
        }

        impl<'env, $($p: Param, $a: Arg<'env, $p>),*> Args<'env, ($($p,)*)> for ($($a,)*) {
            #[inline]
            #[allow(unused_variables, reason = "for a kernel without parameters")]
            fn send(self, call: &mut CallWriter) {
                $(self.$i.send(call);)*
            }
            #[inline]
            #[allow(clippy::unused_unit, reason = "for a kernel without parameters")]
            fn hold(self) -> ($($p::Held,)*) {
                ($(self.$i.hold(),)*)
            }
            fn bytes_held(&self) -> u64 {
                0_u64 $(.saturating_add(self.$i.bytes_held()))*
            }
            fn failed(&self) -> Option<AnyValue> {
                None$(.or_else(|| self.$i.failed()))*
            }
        }

        impl<$($a: RetrySafe),*> RetrySafe for ($($a,)*) {}

        impl<Func, Ret, $($p),*> Kernel<($($p,)*), Ret> for Func
        where
            $($p: Param,)*
            Func: Copy + Send + 'static
                + Fn($($p),*) -> Ret
                + for<'j> Fn($($p::At<'j>),*) -> Ret,
        {
            #[inline]
            #[allow(unused_variables, reason = "for a kernel without parameters")]
            fn call(self, held: ($($p::Held,)*), key: Key) -> Ret {
                let ($(mut $x,)*) = held;
                self($($p::at(&mut $x, key)),*)
            }
        }
    };
}
for_each_arity!(impl_kernel);

/// Separates the first parameter of a kernel from the others, for chains. This trait is sealed.
pub trait SplitFirst: Params {
    #[doc(hidden)]
    type First: Param;
    #[doc(hidden)]
    type Rest: Params;
    #[doc(hidden)]
    fn join(first: <Self::First as Param>::Held, rest: <Self::Rest as Params>::Held) -> Self::Held;
}

macro_rules! impl_split_first {
    () => {};
    ($p0:ident $a0:ident $x0:ident $i0:tt $(, $p:ident $a:ident $x:ident $i:tt)*) => {
        impl<$p0: Param, $($p: Param),*> SplitFirst for ($p0, $($p,)*) {
            type First = $p0;
            type Rest = ($($p,)*);
            fn join(first: $p0::Held, rest: ($($p::Held,)*)) -> Self::Held {
                let ($($x,)*) = rest;
                (first, $($x,)*)
            }
        }
    };
}
for_each_arity!(impl_split_first);

/// Arguments in two parts: the first argument, and a tuple of the others.
#[derive(Clone, Copy, Debug)]
pub struct SplitArgs<First, Rest>(pub First, pub Rest);

impl<'env, P, First, Rest> Args<'env, P> for SplitArgs<First, Rest>
where
    P: SplitFirst,
    First: Arg<'env, P::First>,
    Rest: Args<'env, P::Rest>,
{
    fn send(self, call: &mut CallWriter) {
        self.0.send(call);
        self.1.send(call);
    }
    fn hold(self) -> P::Held {
        P::join(self.0.hold(), self.1.hold())
    }
    fn bytes_held(&self) -> u64 {
        self.0.bytes_held().saturating_add(self.1.bytes_held())
    }
    fn failed(&self) -> Option<AnyValue> {
        self.0.failed().or_else(|| self.1.failed())
    }
}

impl<First: RetrySafe, Rest: RetrySafe> RetrySafe for SplitArgs<First, Rest> {}

/// What one job runs: a kernel, or a chain of kernels in which each takes the value of the previous kernel. This trait
/// is sealed.
pub trait Program: params_sealed::Sealed {
    #[doc(hidden)]
    type Reply: Reply;
    #[doc(hidden)]
    type Id: 'static;
    #[doc(hidden)]
    fn name() -> &'static str;
    #[doc(hidden)]
    fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Reply, Failure>;
    /// Checks that a kernel of the program can have returned this typed error.
    #[doc(hidden)]
    fn check_error(error: &Returned) -> Result<(), BadReply> {
        Self::Reply::check_error(error)
    }
}

/// A program that takes the arguments `A`: the arguments of its kernels, as nested pairs that begin with those of the
/// first kernel. This trait is sealed.
///
/// Only the engine runs a program: the type of a program shows no value of its kernels.
///
/// ```compile_fail,E0061
/// fn run<G: arenite::kernel::Accepts<()>>() {
///     let _ = G::run_inline((), &std::cell::Cell::new(""));
/// }
/// ```
pub trait Accepts<A>: Program {
    #[doc(hidden)]
    fn send(args: A, call: &mut CallWriter);
    #[doc(hidden)]
    fn bytes_held(args: &A) -> u64;
    /// Runs the program on the caller's thread. Sets `at` to the name of each kernel before it runs. Has a key, because
    /// the caller must have had values of the kernels: a type without values is the type of a program, too.
    #[doc(hidden)]
    fn run_inline(
        args: A,
        at: &Cell<&'static str>,
        key: Key,
    ) -> Result<<Self::Reply as Reply>::Out, Failure>;
}

/// A program that consists of one kernel.
#[derive(Debug)]
pub struct Single<F, P, R>(PhantomData<fn(F, P) -> R>);

/// A program followed by a kernel that takes its value.
#[derive(Debug)]
pub struct Chain<A, G, Q, R>(PhantomData<fn(A, G, Q) -> R>);

impl<F, P, R> params_sealed::Sealed for Single<F, P, R> {}
impl<F: Kernel<P, R>, P: Params, R: Reply> Program for Single<F, P, R> {
    type Reply = R;
    type Id = F;
    fn name() -> &'static str {
        kernel_name::<F>()
    }
    #[inline]
    fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<R, Failure> {
        let held = P::receive(words, host)?;
        Ok(zst_value::<F>().call(held, Key::new()))
    }
}

impl<F: Kernel<P, R>, P: Params, R: Reply, A: Args<'static, P>> Accepts<A> for Single<F, P, R> {
    fn send(args: A, call: &mut CallWriter) {
        args.send(call);
    }
    fn bytes_held(args: &A) -> u64 {
        args.bytes_held()
    }
    fn run_inline(args: A, at: &Cell<&'static str>, key: Key) -> Result<R::Out, Failure> {
        at.set(kernel_name::<F>());
        no_value(args.failed())?;
        zst_value::<F>().call(args.hold(), key).into_value()
    }
}

impl<A, G, Q, R> params_sealed::Sealed for Chain<A, G, Q, R> {}
impl<A, G, Q, R> Program for Chain<A, G, Q, R>
where
    A: Program,
    G: Kernel<Q, R>,
    Q: SplitFirst,
    R: Reply,
    <A::Reply as Reply>::Out: Arg<'static, Q::First>,
{
    type Reply = R;
    type Id = (A::Id, G);
    fn name() -> &'static str {
        type_name::<(A::Id, G)>()
    }
    fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<R, Failure> {
        const {
            assert!(
                !A::Reply::SPAWNS,
                "a kernel that spawns jobs can only be the last of those that run as one job: it has no value to pass on before they have run"
            )
        };
        let first = A::run(words, host)?.into_value()?;
        let rest = Q::Rest::receive(words, host)?;
        Ok(zst_value::<G>().call(Q::join(first.hold(), rest), Key::new()))
    }
    fn check_error(error: &Returned) -> Result<(), BadReply> {
        A::check_error(error).or_else(|_| R::check_error(error))
    }
}

impl<A, G, Q, R, First, Rest> Accepts<(First, Rest)> for Chain<A, G, Q, R>
where
    A: Accepts<First>,
    G: Kernel<Q, R>,
    Q: SplitFirst,
    R: Reply,
    Rest: Args<'static, Q::Rest>,
    <A::Reply as Reply>::Out: Arg<'static, Q::First>,
{
    fn send((first, rest): (First, Rest), call: &mut CallWriter) {
        A::send(first, call);
        rest.send(call);
    }
    fn bytes_held((first, rest): &(First, Rest)) -> u64 {
        A::bytes_held(first).saturating_add(rest.bytes_held())
    }
    fn run_inline(
        (first, rest): (First, Rest),
        at: &Cell<&'static str>,
        key: Key,
    ) -> Result<R::Out, Failure> {
        let first = A::run_inline(first, at, key)?;
        at.set(type_name::<G>());
        no_value(rest.failed())?;
        let held = Q::join(first.hold(), rest.hold());
        zst_value::<G>().call(held, key).into_value()
    }
}

/// Returns the name of a kernel, for messages. A kernel of this crate that calls a function `f` of the program for each
/// element or chunk has `…Each<f>` or `…EachWith<f, …>` in its type; for such a kernel, the name of `f` is returned.
pub(crate) fn kernel_name<F>() -> &'static str {
    let name = type_name::<F>();
    called_function(name).unwrap_or(name)
}

/// Returns the function `f` in a type name with `…Each<f>` or `…EachWith<f, …>`, if the type is a kernel of this crate.
fn called_function(name: &str) -> Option<&str> {
    // A private module, which cannot be part of the name of a program's type.
    const MODULE: &str = "arenite::engine::par";
    let mut types = name
        .starts_with(MODULE)
        .then(|| name.match_indices(MODULE))?;
    let function = types.find_map(|(at, _)| {
        let (each, function) = name[at..].split_once('<')?;
        let calls = each.ends_with("Each") || each.ends_with("EachWith");
        calls.then_some(function)
    })?;
    // Finds the comma after it, or the matching `>`. The `>` of an arrow, as in `fn(_) -> _`, closes no bracket.
    let bytes = function.as_bytes();
    let mut open = 1;
    let end = bytes.iter().enumerate().position(|(at, byte)| {
        match byte {
            b'<' | b'(' | b'[' => open += 1,
            b'>' if at > 0 && bytes[at - 1] == b'-' => {}
            b'>' | b')' | b']' => open -= 1,
            b',' => return open == 1,
            _ => {}
        }
        open == 0
    })?;
    Some(&function[..end])
}

/// Fails to compile if values of the type have bytes. Every public function that takes a kernel calls this first, in a
/// `const` block: then rustc names the line of the program that calls the public function.
pub(crate) const fn captures_nothing<F>() {
    assert!(
        size_of::<F>() == 0,
        "a kernel must capture nothing: name what it needs in `arenite::kernel!(|x: u32, table: &Array<f32>| |item: u64| ...)`, or pass it as an argument (`(x, &table)`, `.with(x)`), and functions by name, not as `fn` pointers"
    );
}

/// Returns a value of a zero-sized type. A worker gets a kernel from its type by this function; the program had a value
/// of that type.
pub(crate) fn zst_value<F: Copy + 'static>() -> F {
    const { captures_nothing::<F>() };
    // SAFETY: `F` has no bytes (asserted), so all its values are the same. The program had a value of it, which is
    // `Copy`, so another may exist. The value may depend on initialisation that happened only in the other process: the
    // docs of `Kernel` warn against closures that capture such a token, which cannot be detected.
    unsafe { NonNull::<F>::dangling().read() }
}

/// The function that a worker calls for a kernel: it reads the arguments, runs the kernel and writes the reply.
pub(crate) type Entry =
    for<'a> fn(WordReader<'a>, &'a dyn Host, &'a mut ReplyWriter) -> Result<(), Failure>;

/// What the supervisor knows about a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelInfo {
    /// The name of the kernel's type.
    pub(crate) name: &'static str,
    /// The [stored](super::names::stored) name that the program gave the kernel for this job. Messages and statistics
    /// show it instead of `name`.
    pub(crate) given: Option<&'static str>,
    /// The identity of the kernel. The entry does not identify it, because linkers merge functions with equal code.
    pub(crate) id: TypeId,
    pub(crate) entry: Entry,
    /// Whether the kernel may spawn jobs.
    pub(crate) spawns: bool,
    /// Checks a typed error that a worker has sent for the kernel.
    pub(crate) check_error: ErrorCheck,
}

/// A function that checks whether a kernel can have returned this typed error.
pub(crate) type ErrorCheck = fn(&Returned) -> Result<(), BadReply>;

impl KernelInfo {
    /// Describes the program `G`.
    #[inline]
    pub(crate) fn of<G: Program>() -> Self {
        Self {
            name: G::name(),
            given: None,
            id: TypeId::of::<G::Id>(),
            entry: entry::<G>,
            spawns: G::Reply::SPAWNS,
            check_error: G::check_error,
        }
    }

    /// Returns the same kernel with the name that the program has given it.
    #[inline]
    pub(crate) fn named(self, given: Option<&'static str>) -> Self {
        Self { given, ..self }
    }
}

fn entry<G: Program>(
    words: WordReader<'_>,
    host: &dyn Host,
    writer: &mut ReplyWriter,
) -> Result<(), Failure> {
    G::run(&mut Words(words), &HostRef(host))?.send(&mut Sending { writer, host })
}

#[cfg(test)]
impl KernelInfo {
    /// Replaces the entry by the address of a function outside this image, which must not be called.
    pub(crate) fn of_a_library(self) -> Self {
        // A static program has the code of all its libraries in its own image, so this uses an address that is no
        // function.
        let elsewhere = if cfg!(target_feature = "crt-static") {
            std::ptr::without_provenance(1)
        } else {
            libc::getpid as *const ()
        };
        // SAFETY: function pointers have the same layout, and this pointer is never called.
        let entry = unsafe { std::mem::transmute::<*const (), Entry>(elsewhere) };
        Self { entry, ..self }
    }
}

/// Returns the distance of an entry from the start of the image (executable or shared object) that contains this crate.
/// The distance is the same in every process of the same build. `None` for a function of another shared object.
pub(crate) fn to_offset(entry: Entry) -> Option<u64> {
    let image = crate::sys::image::image();
    let address = entry as usize;
    image
        .is_code(address)
        .then(|| (address - image.base) as u64)
}

/// Returns the entry at distance `offset` from the start of the image that contains this crate.
///
/// # Safety
/// `offset` came from [`to_offset`] in a process of the same build.
pub(crate) unsafe fn from_offset(offset: u64) -> Entry {
    let address = crate::sys::image::image().base + offset as usize;
    // SAFETY: the address is that of an `Entry` of this build: the caller guarantees it.
    unsafe { std::mem::transmute::<*const (), Entry>(address as *const ()) }
}

#[cfg(test)]
mod tests {
    use super::called_function;

    #[test]
    fn a_kernel_that_applies_a_function_is_named_after_it() {
        let kernel = |types: &str| format!("arenite::engine::par::apply<{types}>");
        for function in [
            "a::f",
            "a::{{closure}}",
            "a::f<b::Each<u8>>",
            "a::f<fn(u8, [u8; 2]) -> u8, u8>",
        ] {
            let each = format!("arenite::engine::par_with::MapEach<{function}>");
            assert_eq!(called_function(&each), Some(function));
            let whole = kernel(&format!(
                "a::Each<u8>, fn() -> u8, arenite::Nothing, {each}"
            ));
            assert_eq!(called_function(&whole), Some(function));
            let with = format!("arenite::engine::par::functions::EachWith<{function}, (), [u32]>");
            assert_eq!(called_function(&with), Some(function));
        }
        for other in [
            "a::MapEach<b>",
            "arenite::engine::numbers::fill<a::f>",
            &kernel("u8, u8"),
        ] {
            assert_eq!(called_function(other), None);
        }
    }
}
