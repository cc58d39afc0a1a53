//! Kernels with captured variables: [`kernel!`](crate::kernel!), and what the engine makes of them.
//!
//! Captured variables are the last argument of a kernel. [`Bound`] has both, the kernel and that argument, and
//! [`Bind`] adds the argument to those of the call. From there on the call is like any other.

use super::arity::for_each_arity;
use super::entry::Args;
use super::param::{Arg, CallWriter, Param};
use super::reply::AnyValue;
use super::scalar::Scalar;
use crate::array::{Array, Element};

/// A kernel, or a [`kernel!`](crate::kernel!) with the variables that it captures. `A` are the arguments of a call
/// without these.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a kernel",
    label = "cannot be run by a worker",
    note = "a kernel is a function, a closure that captures nothing, or an `arenite::kernel!`, which names what it captures: `kernel!(|scale: f32, table: &Array<f32>| |row: u64| …)`"
)]
pub trait Bind<A>: Sized {
    /// The function that the worker runs.
    type Kernel;
    /// The arguments of the call, with the captured variables.
    type Args;
    /// An iterator of such arguments.
    type Items<I: Iterator<Item = A>>: Iterator<Item = Self::Args>
    where
        Self: Clone;

    #[doc(hidden)]
    fn bind(self, args: A) -> (Self::Kernel, Self::Args);
    #[doc(hidden)]
    fn bind_each<I: Iterator<Item = A>>(self, items: I) -> (Self::Kernel, Self::Items<I>)
    where
        Self: Clone;
}

// `Copy` keeps this apart from `Bound`, which is not. Every kernel is.
impl<F: Copy, A> Bind<A> for F {
    type Kernel = F;
    type Args = A;
    type Items<I: Iterator<Item = A>> = I;

    #[inline]
    fn bind(self, args: A) -> (F, A) {
        (self, args)
    }
    #[inline]
    fn bind_each<I: Iterator<Item = A>>(self, items: I) -> (F, I) {
        (self, items)
    }
}

/// A kernel with the variables that it captures: the value of a [`kernel!`](crate::kernel!) that captures some. They
/// are the last argument of the kernel.
#[derive(Clone, Debug)]
pub struct Bound<F, C> {
    pub(crate) kernel: F,
    pub(crate) captured: C,
}

impl<F, C> Bound<F, C> {
    #[doc(hidden)]
    #[inline]
    pub fn new(kernel: F, captured: C) -> Self {
        Self { kernel, captured }
    }
}

impl<F: Copy, C, A: Append<C>> Bind<A> for Bound<F, C> {
    type Kernel = F;
    type Args = A::Appended;
    type Items<I: Iterator<Item = A>>
        = BoundItems<I, Self>
    where
        Self: Clone;

    #[inline]
    fn bind(self, args: A) -> (F, A::Appended) {
        (self.kernel, args.append(self.captured))
    }
    fn bind_each<I: Iterator<Item = A>>(self, items: I) -> (F, BoundItems<I, Self>)
    where
        Self: Clone,
    {
        let kernel = self.kernel;
        (kernel, BoundItems { items, bound: self })
    }
}

/// The items of a map, each with a copy of the captured variables.
#[derive(Clone, Debug)]
pub struct BoundItems<I, B> {
    items: I,
    bound: B,
}

impl<I: Iterator, B: Bind<I::Item> + Clone> Iterator for BoundItems<I, B> {
    type Item = B::Args;

    fn next(&mut self) -> Option<B::Args> {
        let item = self.items.next()?;
        Some(self.bound.clone().bind(item).1)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

/// Arguments to which one more can be added: a tuple, or a single argument that is none.
pub trait Append<C> {
    #[doc(hidden)]
    type Appended;
    #[doc(hidden)]
    fn append(self, last: C) -> Self::Appended;
}

macro_rules! impl_append {
    ($($p:ident $a:ident $x:ident $i:tt),*) => {
        impl<$($a,)* C> Append<C> for ($($a,)*) {
            type Appended = ($($a,)* C,);
            #[inline]
            fn append(self, last: C) -> Self::Appended {
                let ($($x,)*) = self;
                ($($x,)* last,)
            }
        }
    };
}
for_each_arity!(impl_append);

/// A kernel with one parameter takes a scalar or an array without a tuple around it, too.
macro_rules! single_arguments {
    ($([$($a:lifetime,)? $kind:ident: $bound:path] [$($p:ident)?] $arg:ty as $param:ty;)*) => { $(
        impl<$($a,)? $kind: $bound, C> Append<C> for $arg {
            type Appended = ($arg, C);
            #[inline]
            fn append(self, last: C) -> ($arg, C) {
                (self, last)
            }
        }
        impl<'env, $($a,)? $kind: $bound, $($p: Param)?> Args<'env, ($param,)> for $arg
        where
            $arg: Arg<'env, $param>,
        {
            #[inline]
            fn send(self, call: &mut CallWriter) {
                Arg::<$param>::send(self, call);
            }
            #[inline]
            fn hold(self) -> (<$param as Param>::Held,) {
                (Arg::<$param>::hold(self),)
            }
            fn bytes_held(&self) -> u64 {
                Arg::<$param>::bytes_held(self)
            }
            fn failed(&self) -> Option<AnyValue> {
                Arg::<$param>::failed(self)
            }
        }
    )* };
}
single_arguments! {
    [S: Scalar] [] S as S;
    [T: Element] [P] Array<T> as P;
    ['a, T: Element] [P] &'a Array<T> as P;
}

/// What the expansion of [`kernel!`](crate::kernel!) calls.
pub mod expanded {
    pub use super::Bound;

    /// Borrows a variable, or copies the reference that it is.
    pub trait ByReference {
        #[doc(hidden)]
        #[inline]
        fn captured_by_reference(&self) -> &Self {
            self
        }
    }
    impl<T: ?Sized> ByReference for T {}
}

/// Makes a kernel of a loop body that uses variables of the place where it is written. It names them, with the types
/// that a [kernel takes](crate::kernel::Param), in a first list; the second list has the parameters.
///
/// ```
/// use arenite::{Array, Engine, kernel};
///
/// # fn main() -> Result<(), arenite::Error> {
/// # let engine = Engine::inline();
/// let photo = engine.from_fn([4, 3], |i| i as u8)?;
/// let by = 250u8;
/// let bright = engine.map(
///     kernel!(|photo: &Array<u8>, by: u8| |row: usize| -> u64 {
///         photo[3 * row..][..3].iter().map(|&level| u64::from(level.saturating_add(by))).sum()
///     }),
///     0..4,
/// );
/// assert_eq!(bright.collect::<Result<Vec<_>, _>>()?, [753, 762, 765, 765]);
/// # Ok(())
/// # }
/// ```
///
/// The variables become the last argument of each call, as a tuple if there are several: arrays travel without a copy,
/// and the [table of arguments](crate::kernel::Arg) says what may be passed for which type. For `name: &Type` the
/// variable is borrowed, or is a reference; for every other type it is moved, or copied. Up to 8 variables.
///
/// | as kernel of | with |
/// |---|---|
/// | [`submit`](crate::Engine::submit), [`job`](crate::Engine::job), [`then`](crate::JobBuilder::then), [`map`](crate::Engine::map), [`Graph::add`](crate::Graph::add) | read-only variables, and [jobs](crate::Job), whose values are taken |
/// | [`Scope::submit`](crate::Scope::submit) | also tiles and `&mut` arrays |
/// | [`Par::map_kernel`](crate::Par::map_kernel), [`Par::apply_kernel`](crate::Par::apply_kernel), [`ParMut::apply_kernel`](crate::ParMut::apply_kernel), [`Par::reduce`](crate::Par::reduce) | read-only variables |
/// | [`Engine::actor`](crate::Engine::actor), [`Actor::call`](crate::Actor::call), whose first parameter is the state | read-only variables |
/// | [`Stream::stage`](crate::stream::Stream::stage), and kernels of windows | read-only variables |
///
/// ```
/// use arenite::{Array, Engine, TileMut, kernel};
///
/// # fn main() -> Result<(), arenite::Error> {
/// # let engine = Engine::inline();
/// // The value of a job that may not have ended.
/// let table = engine.submit(|n: u32| Array::from_fn(n as usize, |i| i as f32 / 2.0), (256,));
/// let scale = 10.0;
///
/// let sum = engine.submit(kernel!(|table: &[f32], scale: f32| || table.iter().sum::<f32>() * scale), ());
/// assert_eq!(sum.wait()?, 163_200.0);
///
/// // In place, from all workers.
/// let mut out = engine.uninit([256, 2])?;
/// engine.scope(|s| {
///     for tile in out.tiles_mut(64) {
///         let fill = kernel!(|table: &[f32], scale: f32| |mut tile: TileMut<'_, f32>| {
///             for (row, out) in tile.rows().zip(tile.chunks_mut(2)) {
///                 out.fill(table[row] * scale);
///             }
///         });
///         s.submit(fill, (tile,));
///     }
/// })?;
/// assert_eq!(out[[255, 1]], 1275.0);
///
/// // A method of an actor.
/// let list = engine.actor(Vec::<f32>::new, ()).start();
/// let push = kernel!(|scale: f32| |list: &mut Vec<f32>, x: f32| {
///     list.push(x * scale);
///     list.len() as u64
/// });
/// assert_eq!(list.call(push, (1.5,)).wait()?, 1);
/// # Ok(())
/// # }
/// ```
///
/// Without captured variables there is one list: `kernel!(|x: u32| x + 1)`. In both forms `cargo check` refuses a
/// variable that is not named (a closure that captures is refused by `cargo build` only). rustc calls it a
/// "non-constant value in a constant", since a kernel is one:
///
/// ```compile_fail,E0435
/// use arenite::kernel;
///
/// let engine = arenite::Engine::inline();
/// let (by, limit) = (10u32, 50u32);
/// engine.submit(kernel!(|by: u32| |x: u32| (x + by).min(limit)), (7,));
/// ```
///
/// A variable is passed for the type that the list says:
///
/// ```compile_fail,E0277
/// use arenite::kernel;
///
/// let engine = arenite::Engine::inline();
/// let by = 10u32;
/// engine.submit(kernel!(|by: u64| |x: u64| x + by), (7,));
/// ```
///
/// What a job changes is not captured by a map, which would lend it to several jobs at once:
///
/// ```compile_fail,E0277
/// use arenite::kernel;
///
/// let engine = arenite::Engine::inline();
/// let mut out = engine.zeros::<u32>(10).unwrap();
/// let lent = &mut out;
/// let filled = engine.map(kernel!(|lent: &mut [u32]| |x: u32| lent.fill(x)), 0..3);
/// ```
///
/// The parameters have types; the type of the result is inferred. The input is an expression of Rust, a closure that
/// returns a closure, so `rustfmt` formats it and editors complete in it.
#[macro_export]
macro_rules! kernel {
    (|| $($body:tt)+) => {
        const { || $($body)+ }
    };
    ($bar:tt $($rest:tt)+) => {
        $crate::__kernel!(@begin $bar $bar $($rest)+)
    };
    () => {
        $crate::__kernel!(@begin)
    };
}

/// Takes a [`kernel!`](crate::kernel!) apart. `$bar` is the program's own `|`, so that the closure, and the errors in
/// it, have a place in the program.
#[doc(hidden)]
#[macro_export]
macro_rules! __kernel {
    (@begin $bar:tt | $($rest:tt)+) => {
        $crate::__kernel!(@list first $bar [] $($rest)+)
    };
    (@begin $($other:tt)*) => {
        ::core::compile_error!("a kernel is written as `kernel!(|captured: Type, ...| |parameter: Type, ...| body)`, or without captured variables as `kernel!(|parameter: Type, ...| body)`")
    };

    // The end of the first list: of the captured variables, if another list follows.
    (@list first $bar:tt [$($list:tt)*] $(,)? | | $($rest:tt)+) => {
        $crate::__kernel!(@list { $($list)* } $bar [] $($rest)+)
    };
    (@list first $bar:tt [$($list:tt)*] $(,)? || $($rest:tt)+) => {
        $crate::__kernel!(@list { $($list)* } $bar [] $($rest)+)
    };
    (@list first $bar:tt [$($list:tt)*] $(,)? | || $($body:tt)+) => {
        $crate::__kernel!(@capture { $($list)* } [] $bar [] $($body)+)
    };
    // rustfmt puts a second closure that takes several lines into a block.
    (@list first $bar:tt [$($list:tt)*] $(,)? | { | $($rest:tt)+ }) => {
        $crate::__kernel!(@list { $($list)* } $bar [] $($rest)+)
    };
    (@list first $bar:tt [$($list:tt)*] $(,)? | { || $($body:tt)+ }) => {
        $crate::__kernel!(@capture { $($list)* } [] $bar [] $($body)+)
    };
    (@list first $bar:tt [$($list:tt)*] $(,)? | $($body:tt)+) => {
        const { $bar $($list)* $bar $($body)+ }
    };
    // The end of the second list.
    (@list $captured:tt $bar:tt [$($list:tt)*] $(,)? | $($body:tt)+) => {
        $crate::__kernel!(@capture $captured [] $bar [$($list)* ,] $($body)+)
    };
    // Several tokens of a list at once, for the limit on recursion; then any token.
    (@list $end:tt $bar:tt [$($list:tt)*] $name:ident : $type:ident $($rest:tt)+) => {
        $crate::__kernel!(@list $end $bar [$($list)* $name : $type] $($rest)+)
    };
    (@list $end:tt $bar:tt [$($list:tt)*] $name:ident : & $type:ident $($rest:tt)+) => {
        $crate::__kernel!(@list $end $bar [$($list)* $name : & $type] $($rest)+)
    };
    (@list $end:tt $bar:tt [$($list:tt)*] < $type:ident > $($rest:tt)+) => {
        $crate::__kernel!(@list $end $bar [$($list)* < $type >] $($rest)+)
    };
    (@list $end:tt $bar:tt [$($list:tt)*] $token:tt $($rest:tt)+) => {
        $crate::__kernel!(@list $end $bar [$($list)* $token] $($rest)+)
    };
    (@list $($other:tt)*) => {
        $crate::__kernel!(@begin)
    };

    // Each captured variable: its name, its type as a parameter, its value.
    (@capture { $name:ident : &mut $type:ty $(, $($rest:tt)*)? } [$($done:tt)*] $($kernel:tt)+) => {
        $crate::__kernel!(
            @capture { $($($rest)*)? } [$($done)* ($name, &mut $type, $name)] $($kernel)+
        )
    };
    (@capture { $name:ident : & $type:ty $(, $($rest:tt)*)? } [$($done:tt)*] $($kernel:tt)+) => {
        $crate::__kernel!(
            @capture { $($($rest)*)? }
            [$($done)* ($name, & $type, $name.captured_by_reference())] $($kernel)+
        )
    };
    (@capture { $name:ident : $type:ty $(, $($rest:tt)*)? } [$($done:tt)*] $($kernel:tt)+) => {
        $crate::__kernel!(
            @capture { $($($rest)*)? } [$($done)* ($name, $type, $name)] $($kernel)+
        )
    };
    (@capture {} [($name:ident, $type:ty, $value:expr)] $bar:tt [$($list:tt)*] $($body:tt)+) => {{
        #[allow(unused_imports, reason = "for references only")]
        use $crate::kernel::__private::ByReference as _;
        let $name = $value;
        $crate::kernel::__private::Bound::new(
            const { $bar $($list)* $name: $type $bar $($body)+ },
            $name,
        )
    }};
    (@capture {} [$(($name:ident, $type:ty, $value:expr))+] $bar:tt [$($list:tt)*] $($body:tt)+) => {{
        #[allow(unused_imports, reason = "for references only")]
        use $crate::kernel::__private::ByReference as _;
        $(let $name = $value;)+
        $crate::kernel::__private::Bound::new(
            const { $bar $($list)* ($($name,)+): ($($type,)+) $bar $($body)+ },
            ($($name,)+),
        )
    }};
    (@capture $other:tt $($kernel:tt)+) => {
        ::core::compile_error!("a captured variable is written as `name: Type`")
    };
}
