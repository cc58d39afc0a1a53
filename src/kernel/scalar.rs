//! Plain values that travel inside a job descriptor.

use bytemuck::{CheckedBitPattern, NoUninit};

/// A plain value that may be an argument or a reply: numbers, `bool`, `char`, arrays of them, and your own `#[repr(C)]`
/// types.
///
/// A scalar travels between processes as its bytes. Bytes from a worker are checked before they become a value, so an
/// invalid bit pattern is an error, not undefined behaviour.
///
/// ```
/// use arenite::bytemuck::{CheckedBitPattern, NoUninit, Pod, Zeroable};
///
/// #[derive(Clone, Copy, Pod, Zeroable)]
/// #[bytemuck(crate = "arenite::bytemuck")]
/// #[repr(C)]
/// struct Thresholds { low: f32, high: f32 }
///
/// #[derive(Clone, Copy, NoUninit, CheckedBitPattern)]
/// #[bytemuck(crate = "arenite::bytemuck")]
/// #[repr(u8)]
/// enum Edge { Soft, Hard }
///
/// impl arenite::Scalar for Thresholds {}
/// impl arenite::Scalar for Edge {}
/// ```
///
/// The attribute `crate` is left out by programs that depend on `bytemuck` (with the feature `derive`). A struct with
/// fields that not all bytes fill validly, such as `bool` and enums, needs that: it derives `NoUninit` and
/// `CheckedBitPattern`, and the second derive ignores the attribute for a struct.
///
/// A list of scalars is a parameter `Vec<S>`, whose argument is copied. Pass many numbers as an array.
///
/// ```
/// # fn main() -> Result<(), arenite::Error> {
/// arenite::init();
/// let engine = arenite::Engine::builder().workers(1).build()?;
/// let count = |flags: Vec<bool>| flags.into_iter().filter(|&flag| flag).count();
/// let flags: Vec<bool> = (0..1000).map(|number| number % 3 == 0).collect();
/// assert_eq!(engine.submit(count, (&flags,)).wait()?, 334);
/// assert_eq!(engine.submit(count, (Vec::new(),)).wait()?, 0);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument or a reply of a kernel",
    label = "not something that travels between processes",
    note = "parameters: `&Array<T>`, `&[T]`, `&[Array<T>]`, `ArrayMut<T>`, `TileMut<'_, T>`, `&mut [T]`, `&str`, `&Bytes`, numbers, `bool`, `char`, `[S; N]`, `Vec` of these",
    note = "replies: `()`, `Array<T>`, `Vec<Array<T>>`, `Vec` of numbers, `ArrayMut<T>`, `String`, `Bytes`, `Option`, tuples of up to 4, numbers, and `Result` of these, with an error that implements `Display`, or in `arenite::Typed`",
    note = "an `async` function returns a future, which cannot leave its process: let a plain function block on it, with an executor of its own, and `.await` the job in the program",
    note = "a closure that never returns says what it would return: `|| -> () {{ std::process::abort() }}`",
    note = "instead of other types: `&str` for a `String` or a `Path`; `&[T]` for a `Vec<T>` (pass the `Vec`, or an array, which is not copied); a number (`as_secs_f64()`) for a `Duration`; a number that stands for none, or an empty array, for an `Option`; `&Bytes` with their encoded form for maps and types of serde; elements `u8` for `bool`",
    note = "for a plain `#[repr(C)]` type of your own: derive `Pod` and `Zeroable`, or `NoUninit` and `CheckedBitPattern`, of `arenite::bytemuck`, then implement `arenite::Scalar`, which has no methods"
)]
pub trait Scalar: NoUninit + CheckedBitPattern + Send + Sync + 'static {}

macro_rules! scalars {
    ($($t:ty)*) => { $(impl Scalar for $t {})* };
}
scalars!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 bool char);

impl<S: Scalar + bytemuck::Pod, const N: usize> Scalar for [S; N] {}
