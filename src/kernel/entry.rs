//! The [`Kernel`] trait, and how one is called in another process.

use std::any::{TypeId, type_name};
use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr::NonNull;

use super::host::Host;
use super::param::{Arg, BadArgument, CallWriter, HostRef, Key, Param, Rejected, RetrySafe, Words};
use super::reply::{Reply, Sending, SpawnedFailed, Unsent};
use super::wire::{ReplyWriter, WordReader};
use crate::arena::ArenaFull;

/// A function, or a closure that captures nothing, which a worker can run: `P` is the tuple of its
/// parameters, `R` what it returns. Implemented for every such function of 0 to 8 parameters.
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
/// A closure that captures cannot cross into another process:
///
/// ```compile_fail,E0080
/// let engine = arenite::Engine::inline();
/// let factor: u32 = std::env::args().count() as u32;
/// let job = engine.submit(move |x: u32| x * factor, (2,));
/// ```
///
/// A worker makes the kernel anew, out of its type: a closure that captures nothing has no bytes. It does so in a process in
/// which nothing of the program has run but what runs before [`init`](crate::init), and
/// [`on_worker_start`](crate::engine::Builder::on_worker_start). So a closure must not capture a value without bytes
/// that stands for something which has been done: a token that only a library's initialisation gives out, and that has unsafe
/// code rely on it. Such a value has no bytes either, and no compiler can tell it from nothing. Pass what is needed as an
/// argument, and do in `on_worker_start` what has to be done in each process.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kernel",
    label = "cannot be run by a worker",
    note = "a kernel is a function, or a closure that captures nothing, of up to 8 parameters",
    note = "parameters: `&Array<T>`, `&[T]`, `&[Array<T>]`, `ArrayMut<T>`, `TileMut<'_, T>`, `&mut [T]`, `&str` (and no `String`), numbers, `bool`, `char`, `[S; N]`, your own `impl arenite::Scalar`",
    note = "replies: `()`, `Array<T>` (and no `Vec`: `Array::from_slice(&values)`), `ArrayMut<T>`, `String`, `Option`, tuples of up to 4, numbers, `bool`, `char`, your own `impl arenite::Scalar`, and `Result` of these with an error that can be displayed",
    note = "parameters borrow only for the job (no `&'static`), and the result borrows nothing"
)]
pub trait Kernel<P: Params, R>: Copy + Send + 'static {
    #[doc(hidden)]
    fn call(self, held: P::Held, key: Key) -> R;
}

/// The parameters of a kernel: a tuple of [`Param`]s. Sealed.
pub trait Params: params_sealed::Sealed {
    #[doc(hidden)]
    type Held: 'static;
    #[doc(hidden)]
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, Rejected>;
}

pub(super) mod params_sealed {
    #[allow(unnameable_types, reason = "sealed on purpose")]
    pub trait Sealed {}
}

/// Arguments for a kernel with the parameters `P`: a tuple of [`Arg`]s. Sealed.
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
    fn held(&self) -> u64;
}

macro_rules! kernels {
    ($(($($p:ident $a:ident $x:ident $i:tt),*))+) => { $(
        impl<$($p: Param),*> params_sealed::Sealed for ($($p,)*) {}
        impl<$($p: Param),*> Params for ($($p,)*) {
            type Held = ($($p::Held,)*);
            #[inline]
            #[allow(unused_variables, reason = "for a kernel without parameters")]
            fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, Rejected> {
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
            fn held(&self) -> u64 {
                0_u64 $(.saturating_add(self.$i.held()))*
            }
        }

        impl<$($a: RetrySafe),*> RetrySafe for ($($a,)*) {}

        impl<Func, Ret, $($p),*> Kernel<($($p,)*), Ret> for Func
        where
            Ret: Reply,
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
    )+ };
}
kernels! {
    ()
    (P0 A0 x0 0)
    (P0 A0 x0 0, P1 A1 x1 1)
    (P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2)
    (P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2, P3 A3 x3 3)
    (P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2, P3 A3 x3 3, P4 A4 x4 4)
    (P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2, P3 A3 x3 3, P4 A4 x4 4, P5 A5 x5 5)
    (P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2, P3 A3 x3 3, P4 A4 x4 4, P5 A5 x5 5, P6 A6 x6 6)
    (P0 A0 x0 0, P1 A1 x1 1, P2 A2 x2 2, P3 A3 x3 3, P4 A4 x4 4, P5 A5 x5 5, P6 A6 x6 6, P7 A7 x7 7)
}

/// Why a kernel gave no value, other than by panicking.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What it spawned in this thread gave none.
    Spawned(SpawnedFailed),
    /// Its arguments cannot be accepted here.
    Rejected(BadArgument),
    /// It returned `Err` with this text.
    Returned(String),
    /// There was no room for its result.
    Full(ArenaFull),
    /// It was asked to stop, and did so between two of its parts.
    Cancelled,
}

/// The first parameter of a kernel apart from the others, for chains. Sealed.
pub trait SplitFirst: Params {
    #[doc(hidden)]
    type First: Param;
    #[doc(hidden)]
    type Rest: Params;
    #[doc(hidden)]
    fn join(first: <Self::First as Param>::Held, rest: <Self::Rest as Params>::Held) -> Self::Held;
}

macro_rules! splits {
    ($(($p0:ident $(, $p:ident $x:ident)*))+) => { $(
        impl<$p0: Param, $($p: Param),*> SplitFirst for ($p0, $($p,)*) {
            type First = $p0;
            type Rest = ($($p,)*);
            fn join(first: $p0::Held, rest: ($($p::Held,)*)) -> Self::Held {
                let ($($x,)*) = rest;
                (first, $($x,)*)
            }
        }
    )+ };
}
splits! {
    (P0)
    (P0, P1 x1)
    (P0, P1 x1, P2 x2)
    (P0, P1 x1, P2 x2, P3 x3)
    (P0, P1 x1, P2 x2, P3 x3, P4 x4)
    (P0, P1 x1, P2 x2, P3 x3, P4 x4, P5 x5)
    (P0, P1 x1, P2 x2, P3 x3, P4 x4, P5 x5, P6 x6)
    (P0, P1 x1, P2 x2, P3 x3, P4 x4, P5 x5, P6 x6, P7 x7)
}

/// Arguments in two parts: the first, and a tuple of the others.
#[derive(Clone, Debug)]
pub struct Split<First, Rest>(pub(crate) First, pub(crate) Rest);

impl<'env, Q, First, Rest> Args<'env, Q> for Split<First, Rest>
where
    Q: SplitFirst,
    First: Arg<'env, Q::First>,
    Rest: Args<'env, Q::Rest>,
{
    fn send(self, call: &mut CallWriter) {
        self.0.send(call);
        self.1.send(call);
    }
    fn hold(self) -> Q::Held {
        Q::join(self.0.hold(), self.1.hold())
    }
    fn held(&self) -> u64 {
        self.0.held().saturating_add(self.1.held())
    }
}

impl<First: RetrySafe, Rest: RetrySafe> RetrySafe for Split<First, Rest> {}

/// What one job runs: a kernel, or several of which each takes over what the one before returned.
/// Sealed.
pub trait Program: params_sealed::Sealed {
    #[doc(hidden)]
    type Reply: Reply;
    #[doc(hidden)]
    type Id: 'static;
    #[doc(hidden)]
    fn name() -> &'static str;
    #[doc(hidden)]
    fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Reply, Stopped>;
}

/// A program whose arguments are `A`: those of its kernels, nested from the first on. Sealed.
pub trait Loads<A>: Program {
    #[doc(hidden)]
    fn load(args: A, call: &mut CallWriter);
    #[doc(hidden)]
    fn held(args: &A) -> u64;
    /// Runs it in this thread; `at` is the kernel that it has come to.
    #[doc(hidden)]
    fn run_here(args: A, at: &Cell<&'static str>) -> Result<<Self::Reply as Reply>::Out, Stopped>;
}

/// A program that ended before its last kernel.
#[derive(Debug)]
pub struct Stopped(pub(crate) Failure);

/// A program of one kernel.
#[derive(Debug)]
pub struct Single<F, P, R>(PhantomData<fn(F, P) -> R>);

/// A program, and then a kernel that takes over its result.
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
    fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<R, Stopped> {
        let held =
            P::receive(words, host).map_err(|Rejected(why)| Stopped(Failure::Rejected(why)))?;
        Ok(conjure::<F>().call(held, Key::new()))
    }
}

impl<F: Kernel<P, R>, P: Params, R: Reply, A: Args<'static, P>> Loads<A> for Single<F, P, R> {
    fn load(args: A, call: &mut CallWriter) {
        args.send(call);
    }
    fn held(args: &A) -> u64 {
        args.held()
    }
    fn run_here(args: A, at: &Cell<&'static str>) -> Result<R::Out, Stopped> {
        at.set(kernel_name::<F>());
        let value = conjure::<F>().call(args.hold(), Key::new());
        value.keep().map_err(|unsent| Stopped(unsent.into()))
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
    fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<R, Stopped> {
        const {
            assert!(
                !A::Reply::SPAWNS,
                "a kernel that spawns jobs can only be the last of those that run as one job: there is nothing to hand on before they have run"
            )
        };
        let first = A::run(words, host)?;
        let first = first.keep().map_err(|unsent| Stopped(unsent.into()))?;
        let rest = Q::Rest::receive(words, host)
            .map_err(|Rejected(why)| Stopped(Failure::Rejected(why)))?;
        Ok(conjure::<G>().call(Q::join(first.hold(), rest), Key::new()))
    }
}

impl<A, G, Q, R, First, Rest> Loads<(First, Rest)> for Chain<A, G, Q, R>
where
    A: Loads<First>,
    G: Kernel<Q, R>,
    Q: SplitFirst,
    R: Reply,
    Rest: Args<'static, Q::Rest>,
    <A::Reply as Reply>::Out: Arg<'static, Q::First>,
{
    fn load((first, rest): (First, Rest), call: &mut CallWriter) {
        A::load(first, call);
        rest.send(call);
    }
    fn held((first, rest): &(First, Rest)) -> u64 {
        A::held(first).saturating_add(rest.held())
    }
    fn run_here((first, rest): (First, Rest), at: &Cell<&'static str>) -> Result<R::Out, Stopped> {
        let first = A::run_here(first, at)?;
        at.set(type_name::<G>());
        let value = conjure::<G>().call(Q::join(first.hold(), rest.hold()), Key::new());
        value.keep().map_err(|unsent| Stopped(unsent.into()))
    }
}

/// The name of a kernel. Where it is one of this crate that calls a function of the program for each element or chunk, and so has
/// it in its type as `…Each<f>`, that is the name of the function.
pub(crate) fn kernel_name<F>() -> &'static str {
    let name = type_name::<F>();
    calls(name).unwrap_or(name)
}

/// The function in the name of such a kernel, or of what stands for the function in its type.
fn calls(name: &str) -> Option<&str> {
    // A private module: no type of a program has it in its name.
    const HOUSE: &str = "arenite::engine::par";
    let mut types = name.starts_with(HOUSE).then(|| name.match_indices(HOUSE))?;
    let function = types.find_map(|(at, _)| {
        let (each, function) = name[at..].split_once('<')?;
        each.ends_with("Each").then_some(function)
    })?;
    // Up to where the bracket is closed that was just opened; there is one that closes nothing, in `fn(_) -> _`.
    let bytes = function.as_bytes();
    let mut open = 1;
    let end = bytes.iter().enumerate().position(|(at, byte)| {
        match byte {
            b'<' => open += 1,
            b'>' if at == 0 || bytes[at - 1] != b'-' => open -= 1,
            _ => {}
        }
        open == 0
    })?;
    Some(&function[..end])
}

/// A value of a type without bytes, of which this program had one.
pub(crate) fn conjure<F: Copy + 'static>() -> F {
    const {
        assert!(
            size_of::<F>() == 0,
            "a kernel must capture nothing: pass what it needs as an argument, and functions by name, not as `fn` pointers"
        );
    }
    // SAFETY: `F` has no bytes (asserted), so every value is this one; the caller's program had a
    // value of it, which is `Copy`, so there may be another. That it was had in another process, where more may have been done
    // than in this one, is what `Kernel` tells those who write tokens into closures: nothing here can see them.
    unsafe { NonNull::<F>::dangling().read() }
}

/// A kernel as a worker calls it: reads the arguments, runs, writes the reply.
pub(crate) type Entry =
    for<'a> fn(WordReader<'a>, &'a dyn Host, &'a mut ReplyWriter) -> Result<(), Failure>;

/// What the supervisor knows of a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelInfo {
    /// For messages.
    pub(crate) name: &'static str,
    /// Identity: linkers fold equal functions, so an entry is none.
    pub(crate) id: TypeId,
    pub(crate) entry: Entry,
    /// It may spawn jobs.
    pub(crate) spawns: bool,
}

impl KernelInfo {
    /// The program `G`.
    #[inline]
    pub(crate) fn of<G: Program>() -> Self {
        Self {
            name: G::name(),
            id: TypeId::of::<G::Id>(),
            entry: entry::<G>,
            spawns: G::Reply::SPAWNS,
        }
    }
}

fn entry<G: Program>(
    words: WordReader<'_>,
    host: &dyn Host,
    writer: &mut ReplyWriter,
) -> Result<(), Failure> {
    let value = G::run(&mut Words(words), &HostRef(host)).map_err(|Stopped(why)| why)?;
    value
        .send(&mut Sending { writer, host })
        .map_err(Failure::from)
}

#[cfg(test)]
impl KernelInfo {
    /// With an entry that is not of this executable. Not to be called.
    pub(crate) fn of_a_library(self) -> Self {
        let elsewhere = libc::getpid as *const ();
        // SAFETY: a pointer to a function for another, which nobody calls.
        let entry = unsafe { std::mem::transmute::<*const (), Entry>(elsewhere) };
        Self { entry, ..self }
    }
}

impl From<Unsent> for Failure {
    fn from(unsent: Unsent) -> Self {
        match unsent {
            Unsent::Returned(text) => Self::Returned(text),
            Unsent::Full(full) => Self::Full(full),
            Unsent::Spawned(why) => Self::Spawned(why),
        }
    }
}

/// Distance of an entry from the start of the executable's image, the same in every process of this
/// executable; `None` for a function of a shared library.
pub(crate) fn to_offset(entry: Entry) -> Option<u64> {
    let image = crate::sys::image::image();
    let address = entry as usize;
    image
        .is_code(address)
        .then(|| (address - image.base) as u64)
}

/// The entry at this distance from the start of the executable's image.
///
/// # Safety
/// `offset` came from [`to_offset`] in a process of the same build.
pub(crate) unsafe fn from_offset(offset: u64) -> Entry {
    let address = crate::sys::image::image().base + offset as usize;
    // SAFETY: an `Entry` of this build lies there (the caller's promise).
    unsafe { std::mem::transmute::<*const (), Entry>(address as *const ()) }
}

#[cfg(test)]
mod tests {
    use super::calls;

    #[test]
    fn a_kernel_that_calls_a_function_has_its_name() {
        let kernel = |types: &str| format!("arenite::engine::par::apply<{types}>");
        for function in [
            "a::f",
            "a::{{closure}}",
            "a::f<b::Each<u8>>",
            "a::f<fn(u8) -> u8>",
        ] {
            let each = format!("arenite::engine::par_with::MapEach<{function}>");
            assert_eq!(calls(&each), Some(function));
            let whole = kernel(&format!(
                "a::Each<u8>, fn() -> u8, arenite::Nothing, {each}"
            ));
            assert_eq!(calls(&whole), Some(function));
        }
        for other in [
            "a::MapEach<b>",
            "arenite::engine::numbers::fill<a::f>",
            &kernel("u8, u8"),
        ] {
            assert_eq!(calls(other), None);
        }
    }
}
