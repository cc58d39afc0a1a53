//! Kernels that other programs call: [`ServiceParam`], and the conversion of values into arguments and of results into
//! values.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use arenite::array::npy::Dtype;
use arenite::engine::Killer;
use arenite::kernel::{Arg, Args, Kernel, Param, Params, Reply};
use arenite::{ArenaFull, Array, ArrayMut, Bytes, Engine, Job, Scalar};

use super::convert::{FromValue, IntoValue, ValueType};
use super::error::ServiceError;
use super::message::{ErrorCode, Failure};
use super::value::Value;

/// A parameter of a kernel that a call from another program can fill: `bool`, numbers of up to 64 bits, `&str`,
/// [`&Bytes`](Bytes), `&Array<T>`, `&[T]`, `&[Array<T>]` and `ArrayMut<T>` of numbers, `[S; N]`.
#[diagnostic::on_unimplemented(
    message = "a service cannot offer a kernel with a parameter of type `{Self}`",
    label = "does not travel between programs",
    note = "parameters of a service's kernel: `bool`, numbers of up to 64 bits, `&str`, `&Bytes`, `&Array<T>`, `&[T]`, `&[Array<T>]` and `ArrayMut<T>` of numbers, `[S; N]`"
)]
pub trait ServiceParam: Param + Sized {
    #[doc(hidden)]
    type Received: FromValue;
    #[doc(hidden)]
    type Owned: Arg<'static, Self>;
    /// Makes a received value accessible to the workers.
    #[doc(hidden)]
    fn bring(received: Self::Received, engine: &Engine) -> Result<Self::Owned, ArenaFull>;
}

macro_rules! as_they_are {
    ($($t:ty)*) => { $(
        impl ServiceParam for $t {
            type Received = $t;
            type Owned = $t;
            fn bring(received: $t, _: &Engine) -> Result<$t, ArenaFull> {
                Ok(received)
            }
        }
    )* };
}
as_they_are!(bool u8 u16 u32 u64 usize i8 i16 i32 i64 isize f32 f64);

impl<S, const N: usize> ServiceParam for [S; N]
where
    S: FromValue,
    [S; N]: Param + Scalar + Arg<'static, [S; N]>,
{
    type Received = [S; N];
    type Owned = [S; N];
    fn bring(received: [S; N], _: &Engine) -> Result<[S; N], ArenaFull> {
        Ok(received)
    }
}

impl ServiceParam for &str {
    type Received = String;
    type Owned = String;
    fn bring(received: String, _: &Engine) -> Result<String, ArenaFull> {
        Ok(received)
    }
}

impl ServiceParam for &Bytes {
    type Received = Bytes;
    type Owned = Bytes;
    fn bring(received: Bytes, _: &Engine) -> Result<Bytes, ArenaFull> {
        Ok(received)
    }
}

impl<T: Dtype> ServiceParam for &Array<T> {
    type Received = Array<T>;
    type Owned = Array<T>;
    // Not copied: workers map the file as well.
    fn bring(received: Array<T>, _: &Engine) -> Result<Array<T>, ArenaFull> {
        Ok(received)
    }
}

/// Implements the traits for each type separately. With a generic `T: Dtype`, slices of numbers and slices of arrays
/// could be the same type to the compiler.
macro_rules! slices {
    ($($t:ty)*) => { $(
        impl ServiceParam for &[$t] {
            type Received = Array<$t>;
            type Owned = Array<$t>;
            // Not copied: workers map the file as well.
            fn bring(received: Array<$t>, _: &Engine) -> Result<Array<$t>, ArenaFull> {
                Ok(received)
            }
        }
    )* };
}
slices!(u8 u16 u32 u64 i8 i16 i32 i64 f32 f64);

impl<T: Dtype> ServiceParam for &[Array<T>] {
    type Received = Vec<Array<T>>;
    type Owned = Vec<Array<T>>;
    fn bring(received: Vec<Array<T>>, _: &Engine) -> Result<Vec<Array<T>>, ArenaFull> {
        Ok(received)
    }
}

impl<T: Dtype> ServiceParam for ArrayMut<T> {
    type Received = Array<T>;
    type Owned = ArrayMut<T>;
    fn bring(received: Array<T>, engine: &Engine) -> Result<ArrayMut<T>, ArenaFull> {
        let mut copy = engine.uninit(received.shape())?;
        copy.copy_from_slice(&received);
        Ok(copy)
    }
}

/// The parameters of a kernel that a service offers: a tuple of [`ServiceParam`]s.
pub trait ServiceParams: Params + Sized {
    #[doc(hidden)]
    type Owned: Args<'static, Self>;
    #[doc(hidden)]
    fn type_names() -> Vec<String>;
    #[doc(hidden)]
    fn receive(values: Vec<Value>, engine: &Engine) -> Result<Self::Owned, Refused>;
}

/// Why the arguments of a call cannot become arguments of a job.
#[derive(Debug)]
pub enum Refused {
    /// The number of arguments is wrong.
    Count,
    /// The argument at this position, from 0 on, has another type.
    Argument(usize, ServiceError),
    /// The arena has no room for an argument.
    Full(ArenaFull),
}

impl From<ArenaFull> for Refused {
    fn from(full: ArenaFull) -> Refused {
        Refused::Full(full)
    }
}

macro_rules! impl_params {
    ($($p:ident $x:ident $i:tt),*) => {
        impl<$($p: ServiceParam),*> ServiceParams for ($($p,)*) {
            type Owned = ($($p::Owned,)*);
            fn type_names() -> Vec<String> {
                vec![$(<$p::Received as ValueType>::type_name()),*]
            }
            #[allow(unused_variables, unused_mut, clippy::unused_unit, reason = "for a kernel without parameters")]
            fn receive(values: Vec<Value>, engine: &Engine) -> Result<Self::Owned, Refused> {
                if values.len() != Self::type_names().len() {
                    return Err(Refused::Count);
                }
                let mut values = values.into_iter();
                $(
                    let value = values.next().unwrap_or(Value::Nothing);
                    let $x = <$p::Received>::from_value(value).map_err(|error| Refused::Argument($i, error))?;
                )*
                Ok(($($p::bring($x, engine)?,)*))
            }
        }
    };
}
// For every number of parameters that a kernel may have.
impl_params! {}
impl_params! { P0 x0 0 }
impl_params! { P0 x0 0, P1 x1 1 }
impl_params! { P0 x0 0, P1 x1 1, P2 x2 2 }
impl_params! { P0 x0 0, P1 x1 1, P2 x2 2, P3 x3 3 }
impl_params! { P0 x0 0, P1 x1 1, P2 x2 2, P3 x3 3, P4 x4 4 }
impl_params! { P0 x0 0, P1 x1 1, P2 x2 2, P3 x3 3, P4 x4 4, P5 x5 5 }
impl_params! { P0 x0 0, P1 x1 1, P2 x2 2, P3 x3 3, P4 x4 4, P5 x5 5, P6 x6 6 }
impl_params! { P0 x0 0, P1 x1 1, P2 x2 2, P3 x3 3, P4 x4 4, P5 x5 5, P6 x6 6, P7 x7 7 }

/// The options with which a call becomes a job.
pub(super) struct Submission<'a> {
    /// The kernel's name.
    pub(super) name: &'a str,
    /// The longest time that the job may run.
    pub(super) deadline: Option<Duration>,
    pub(super) engine: &'a Engine,
    /// Called before waiting, if the job cannot be submitted at once.
    pub(super) before_waiting: &'a dyn Fn(),
}

/// A kernel of a service, with its types erased.
pub(super) trait Handler: Send + Sync {
    fn signature(&self) -> String;
    /// Returns the number of parameters.
    fn arity(&self) -> usize;
    /// Submits a job with these arguments.
    fn start(&self, args: Vec<Value>, how: &Submission<'_>) -> Result<Box<dyn Running>, Failure>;
}

/// The job of a call that has begun.
pub(super) trait Running {
    fn killer(&self) -> Option<Killer>;
    /// Waits for the value, for at most `limit`. Returns `None` if the job has not ended by then.
    fn wait(&mut self, limit: Option<Duration>) -> Option<Result<Value, Failure>>;
}

/// A kernel `F` with parameters `P` and result `R`.
pub(super) struct Typed<F, P, R> {
    kernel: F,
    types: PhantomData<fn(P) -> R>,
}

impl<F, P, R> Typed<F, P, R> {
    pub(super) fn new(kernel: F) -> Self {
        Typed {
            kernel,
            types: PhantomData,
        }
    }
}

impl<F, P, R> Handler for Typed<F, P, R>
where
    F: Kernel<P, R> + Sync,
    P: ServiceParams + 'static,
    R: Reply + 'static,
    R::Out: IntoValue,
{
    fn signature(&self) -> String {
        format!(
            "({}) -> {}",
            P::type_names().join(", "),
            R::Out::type_name()
        )
    }

    fn arity(&self) -> usize {
        P::type_names().len()
    }

    fn start(&self, args: Vec<Value>, how: &Submission<'_>) -> Result<Box<dyn Running>, Failure> {
        let count = args.len();
        let args = <P as ServiceParams>::receive(args, how.engine).map_err(|refused| {
            let why = match refused {
                Refused::Full(full) => return Failure::new(ErrorCode::ArenaFull, full.to_string()),
                Refused::Count => format!("{count} arguments"),
                Refused::Argument(at, error) => format!("argument {}: {error}", at + 1),
            };
            Failure::new(
                ErrorCode::BadArgument,
                format!("{why}; the kernel is {}{}", how.name, self.signature()),
            )
        })?;
        let job = |args| {
            let job = how.engine.job(self.kernel, args).name(how.name);
            match how.deadline {
                Some(limit) => job.deadline(limit),
                None => job,
            }
        };
        let submitted = job(args).try_submit().unwrap_or_else(|refused| {
            (how.before_waiting)();
            job(*refused.args).submit()
        });
        Ok(Box::new(Some(submitted)))
    }
}

impl<T: IntoValue + Send + 'static> Running for Option<Job<T>> {
    fn killer(&self) -> Option<Killer> {
        self.as_ref()?.killer()
    }

    fn wait(&mut self, limit: Option<Duration>) -> Option<Result<Value, Failure>> {
        let result = match limit {
            Some(limit) => self.as_mut()?.wait_timeout(limit)?,
            None => self.take()?.wait(),
        };
        Some(match result {
            Ok(value) => value.into_value().map_err(|error| {
                Failure::new(ErrorCode::Limit, format!("in the service: {error}"))
            }),
            Err(error) => Err(Failure::from(&error)),
        })
    }
}

impl fmt::Debug for dyn Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.signature())
    }
}
