//! The types that a kernel may take, [`Param`], and the types that its caller may pass for them, [`Arg`].

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use super::failure::BadArgument;
use super::host::Host;
use super::reply::AnyValue;
use super::scalar::Scalar;
use super::wire::{ArgWriter, FILE_REGION, INLINE_REGION, Lease, Malformed, WordReader};
use crate::arena::{Block, Extent, Offset, PAGE};
use crate::array::{
    Array, ArrayLocation, ArrayMut, ArrayMutLocation, Element, LaneCount, Shape, TileMut,
};

#[doc(hidden)]
pub mod sealed {
    /// Prevents programs from implementing [`Param`](super::Param).
    #[allow(unnameable_types, reason = "sealed on purpose")]
    pub trait Sealed {}
}

/// A type that a kernel may take: `&Array<T>`, `&[T]`, `&[Array<T>]`, `ArrayMut<T>`, `TileMut<'_, T>`, `&mut [T]`,
/// `&str`, [`&Bytes`](super::Bytes), every [`Scalar`], `Vec`s of scalars, tuples of two to eight of these, and
/// references to types of the program that wrap one array ([`newtype!`](crate::newtype)). This trait is sealed, so that
/// only the kernel of a job can reach memory that is lent to the job.
///
/// ```compile_fail,E0061
/// use arenite::array::ArrayMut;
/// use arenite::kernel::{Arg, Param};
///
/// let mut array = ArrayMut::<u32>::zeros(1000);
/// let mut held = Arg::<&mut [u32]>::hold(&mut array);
/// drop(array);
/// let dangling = <&mut [u32] as Param>::at(&mut held);
/// ```
#[diagnostic::on_unimplemented(
    message = "a kernel cannot take a parameter of type `{Self}`",
    label = "not a kernel parameter",
    note = "parameters: `&Array<T>`, `&[T]`, `&[Array<T>]`, `ArrayMut<T>`, `TileMut<'_, T>`, `&mut [T]`, `&str`, `&Bytes`, numbers, `bool`, `char`, `[S; N]`, `Vec` of these, tuples of up to 8 of these, and your own `impl arenite::Scalar`",
    note = "instead of other types: `&str` for a `String` or a `Path`; `&[T]` for a `Vec<T>` (pass the `Vec`, or an array, which is not copied); a number (`as_secs_f64()`) for a `Duration`; a number that stands for none, or an empty array, for an `Option`; `&Bytes` with their encoded form for maps and types of serde; elements `u8` for `bool`"
)]
pub trait Param: sealed::Sealed {
    /// The parameter as the kernel sees it while one job runs.
    type At<'j>;
    #[doc(hidden)]
    type Held: 'static;
    #[doc(hidden)]
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument>;
    /// Makes the parameter from the received argument. Requires a [`Key`], so that only this crate can call it: the
    /// memory must belong to the running job, which the types do not express.
    #[doc(hidden)]
    fn at<'j>(held: &'j mut Self::Held, key: Key) -> Self::At<'j>;
}

/// Proves that the caller is this crate: programs can neither name nor create a `Key`.
#[derive(Clone, Copy, Debug)]
pub struct Key(());

impl Key {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self(())
    }
}

/// Reads the words of a call, in a worker.
#[derive(Debug)]
pub struct Words<'a>(pub(crate) WordReader<'a>);

/// The lane on which a kernel runs.
#[allow(missing_debug_implementations, reason = "hidden")]
pub struct HostRef<'a>(pub(crate) &'a dyn Host);

/// A type that the caller may pass for a kernel's parameter `P`, valid for `'env`. This trait is sealed, because a type
/// of the program could lend memory to a job that outlives that memory.
///
/// ```compile_fail,E0603
/// use arenite::array::ArrayMut;
/// use arenite::kernel::{Arg, CallWriter};
///
/// struct Mine(ArrayMut<u32>);
///
/// impl Arg<'static, &mut [u32]> for Mine {
///     fn send(mut self, call: &mut CallWriter) {
///         Arg::<&mut [u32]>::send(&mut self.0, call);
///     }
/// }
/// ```
///
/// | parameter | arguments |
/// |---|---|
/// | `&Array<T>`, `&[T]` | `&Array<T>`, `Array<T>` |
/// | `&[T]` | also `Vec<T>`, `&[T]`, `[T; N]` and references to these, which are copied with the call, as text is |
/// | `&[Array<T>]` | `Vec<Array<T>>`, `&Vec<Array<T>>`, `&[Array<T>]` |
/// | `ArrayMut<T>` | `ArrayMut<T>` |
/// | `TileMut<'_, T>`, `&mut [T]` | `&mut ArrayMut<T>`, `TileMut<'_, T>`, in a scope |
/// | `&str` | `&str`, `String`, `&String` |
/// | [`raw::Buffers<'_>`](super::raw::Buffers) | `Vec<raw::Buffer>`, for bindings of other languages |
/// | `&Bytes` | `Bytes`, `Vec<u8>`, references to these, `&[u8]`, `&[u8; N]` |
/// | a [`Scalar`] | the same |
/// | `Vec<S>` of a [`Scalar`] `S` | `Vec<S>`, `&Vec<S>`, `&[S]`, which are copied with the call |
/// | a tuple of two to eight of these | a tuple of their arguments |
///
/// A [`Job`](crate::Job) or `&Job` may take the place of an `Array<T>`, an `ArrayMut<T>` (only `Job`), a `String`,
/// `Bytes`, a scalar or a `Vec` of scalars that is its value, and a `Vec` or slice of jobs that of a list of arrays.
///
/// An `Array<T>` is in the arena of the job's engine, or in a sealed memory file ([`Array::map_sealed`]), as arrays
/// from a store are (the crate `arenite-store`).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be passed for the kernel's parameter `{P}`",
    label = "not an argument for `{P}`",
    note = "pass `&Array<T>` or `Array<T>` for `&Array<T>` and `&[T]`; for `&[T]` also a `Vec<T>` or a slice, which is copied; `ArrayMut<T>` for `ArrayMut<T>`; a tile or `&mut ArrayMut<T>`, in a scope, for `TileMut<'_, T>` and `&mut [T]`; the same type for numbers; a `Vec` or a slice of numbers for a `Vec`"
)]
pub trait Arg<'env, P: Param> {
    #[doc(hidden)]
    fn send(self, call: &mut CallWriter);
    #[doc(hidden)]
    fn hold(self) -> P::Held;
    /// Returns the number of bytes that are freed when this argument is dropped.
    #[doc(hidden)]
    fn bytes_held(&self) -> u64 {
        0
    }
    /// Returns why the argument has no value, for a call that runs inline: a job that it is has failed.
    #[doc(hidden)]
    fn failed(&self) -> Option<AnyValue> {
        None
    }
}

/// Writes the arguments of a call.
#[derive(Debug)]
pub struct CallWriter(pub(crate) ArgWriter);

/// Arguments that a job does not change in place, so that the job can run again with them. Implementing this trait for
/// other types has no effect, because those types cannot be arguments.
#[diagnostic::on_unimplemented(
    message = "a job with `{Self}` cannot be run again",
    label = "may have been changed in place when the job fails",
    note = "`retries`, and an actor, which may start again, need arguments that a job only reads: return a fresh array instead of changing one",
    note = "jobs of a scope run once, since they may change what is lent to them: submit jobs that only read, and need retries, with `Engine::job`"
)]
pub trait RetrySafe {}

/// Reads the array whose location is in the next words.
pub(super) fn receive_array<T: Element>(
    words: &mut Words<'_>,
    host: &HostRef<'_>,
) -> Result<Array<T>, BadArgument> {
    let at = words.0.offset()?;
    match at.region() {
        FILE_REGION => return receive_file(at.offset(), words, host),
        INLINE_REGION => return receive_inline(words),
        _ => {}
    }
    let (extent, shape) = read_shape::<T>(at, words)?;
    array_at(extent, shape, host)
}

/// Reads an array whose bytes are in the call.
#[cold]
fn receive_inline<T: Element>(words: &mut Words<'_>) -> Result<Array<T>, BadArgument> {
    let len = usize::try_from(words.0.word()?).map_err(|_| Malformed)?;
    let bytes = len.checked_mul(size_of::<T>()).ok_or(Malformed)?;
    let array = ArrayMut::from_bytes(len, words.0.bytes(bytes)?).ok_or(Malformed)?;
    Ok(array.seal())
}

/// Reads an array at offset `skip` of a sealed file, or its copy in the arena.
#[cold]
fn receive_file<T: Element>(
    skip: u64,
    words: &mut Words<'_>,
    host: &HostRef<'_>,
) -> Result<Array<T>, BadArgument> {
    match words.0.file()? {
        Ok(name) => {
            let shape = words.0.shape()?;
            let bytes = shape.bytes::<T>().ok_or(Malformed)? as u64;
            let file = host.0.open_file(name, (skip, bytes))?;
            Ok(Array::in_file(file, skip, shape).ok_or(Malformed)?)
        }
        Err(copy) => {
            let (extent, shape) = read_shape::<T>(copy, words)?;
            array_at(extent, shape, host)
        }
    }
}

/// Returns the array of this shape at `extent`, whose length is known to match the shape.
pub(super) fn array_at<T: Element>(
    extent: Extent,
    shape: Shape,
    host: &HostRef<'_>,
) -> Result<Array<T>, BadArgument> {
    let ptr = host.0.read(extent)?;
    check_alignment::<T>(ptr, extent)?;
    // SAFETY: the supervisor has a shared lease for this job and for handles that outlive it, during which no process
    // writes the bytes. `read` guarantees that they stay mapped for that time.
    Ok(unsafe { Array::from_lane(ptr, extent.at, shape, host.0.count_of(extent)) })
}

pub(super) fn read_array<T: Element>(
    words: &mut Words<'_>,
) -> Result<(Extent, Shape), BadArgument> {
    let at = words.0.offset()?;
    read_shape::<T>(at, words)
}

fn read_shape<T: Element>(
    at: Offset,
    words: &mut Words<'_>,
) -> Result<(Extent, Shape), BadArgument> {
    let shape = words.0.shape()?;
    let len = shape.bytes::<T>().ok_or(Malformed)? as u64;
    Ok((Extent { at, len }, shape))
}

fn check_alignment<T>(ptr: NonNull<u8>, extent: Extent) -> Result<(), Malformed> {
    if extent.len == 0 || ptr.cast::<T>().is_aligned() {
        Ok(())
    } else {
        Err(Malformed)
    }
}

pub(super) fn send_array<T: Element>(array: &Array<T>, call: &mut CallWriter) {
    match array.location() {
        ArrayLocation::Block(block, extent) if block.arena_id() == call.0.arena() => {
            call.0.array(extent, &array.shape());
            call.0.leases.push(Lease::Shared(Arc::clone(block)));
        }
        ArrayLocation::File(file, skip) => {
            // The length is computed without a slice, because that would be a reference, and this may be the array of a
            // raw buffer.
            let bytes = array.len() * size_of::<T>();
            call.0.file(file, (skip, bytes as u64), &array.shape());
        }
        _ => call.0.foreign = true,
    }
}

impl<T: Element> sealed::Sealed for &Array<T> {}
impl<T: Element> Param for &Array<T> {
    type At<'j> = &'j Array<T>;
    type Held = Array<T>;
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Array<T>, BadArgument> {
        receive_array(words, host)
    }
    fn at(held: &mut Array<T>, _: Key) -> &Array<T> {
        held
    }
}

impl<T: Element> sealed::Sealed for &[T] {}
impl<T: Element> Param for &[T] {
    type At<'j> = &'j [T];
    type Held = Array<T>;
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Array<T>, BadArgument> {
        receive_array(words, host)
    }
    fn at(held: &mut Array<T>, _: Key) -> &[T] {
        held
    }
}

macro_rules! read_only_arguments {
    ($($param:ty)*) => { $(
        impl<'env, T: Element> Arg<'env, $param> for &Array<T> {
            fn send(self, call: &mut CallWriter) {
                send_array(self, call);
            }
            fn hold(self) -> Array<T> {
                self.clone()
            }
        }
        impl<'env, T: Element> Arg<'env, $param> for Array<T> {
            fn send(self, call: &mut CallWriter) {
                send_array(&self, call);
            }
            fn hold(self) -> Array<T> {
                self
            }
            fn bytes_held(&self) -> u64 {
                match self.location() {
                    ArrayLocation::Block(block, _) if Arc::strong_count(block) == 1 => block.extent().len,
                    _ => 0,
                }
            }
        }
    )* };
}
read_only_arguments!(&Array<T> &[T]);
impl<T: Element> RetrySafe for &Array<T> {}
impl<T: Element> RetrySafe for Array<T> {}

macro_rules! list_arguments {
    ($($(const $n:ident)? $arg:ty)*) => { $(
        impl<'env, T: Element $(, const $n: usize)?> Arg<'env, &[T]> for $arg {
            fn send(self, call: &mut CallWriter) {
                call.0.array_inline(self.len(), bytemuck::cast_slice(&self[..]));
            }
            fn hold(self) -> Array<T> {
                Array::from_slice(&self[..])
            }
            fn bytes_held(&self) -> u64 {
                size_of_val(&self[..]) as u64
            }
        }
    )* };
}
list_arguments!(Vec<T> &Vec<T> &[T] const N [T; N] const N &[T; N]);
impl<T: bytemuck::NoUninit> RetrySafe for Vec<T> {}
impl<T: bytemuck::NoUninit> RetrySafe for &Vec<T> {}
impl<T: bytemuck::NoUninit> RetrySafe for &[T] {}
impl<T: Element, const N: usize> RetrySafe for &[T; N] {}

/// Returns the array of this shape at `extent`, which has moved into the job. Its length is known to match the shape.
pub(super) fn array_mut_at<T: Element>(
    extent: Extent,
    shape: Shape,
    host: &HostRef<'_>,
) -> Result<ArrayMut<T>, BadArgument> {
    window_at(extent, shape, host, (host.0.count_of_moved(extent), false))
}

/// Returns the array of this shape at `extent`, which is lent to the job. `count` counts its handles; `has_gaps` as for
/// [`Host::lend`](super::Host::lend).
pub(super) fn window_at<T: Element>(
    extent: Extent,
    shape: Shape,
    host: &HostRef<'_>,
    (count, has_gaps): (&'static LaneCount, bool),
) -> Result<ArrayMut<T>, BadArgument> {
    let ptr = host.0.lend(extent, 0, has_gaps)?;
    check_alignment::<T>(ptr, extent)?;
    // SAFETY: `lend` guarantees that the bytes stay mapped while there are handles, and writable until the job ends, or
    // longer if they moved. If the array moved into this job, the supervisor has the only other handle, and gives the
    // bytes to no other process while there are handles here. If the bytes are lent, the caller of `raw::Buffer::write`
    // guarantees that nothing else refers to them until the job is answered, and that no reference is formed later.
    Ok(unsafe { ArrayMut::from_lane_window(ptr, extent.at, shape, count) })
}

impl<T: Element> sealed::Sealed for ArrayMut<T> {}
impl<T: Element> Param for ArrayMut<T> {
    type At<'j> = ArrayMut<T>;
    type Held = Option<ArrayMut<T>>;
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument> {
        let (extent, shape) = read_array::<T>(words)?;
        array_mut_at(extent, shape, host).map(Some)
    }
    fn at(held: &mut Self::Held, _: Key) -> ArrayMut<T> {
        held.take().expect("each argument is passed once")
    }
}

impl<'env, T: Element> Arg<'env, ArrayMut<T>> for ArrayMut<T> {
    fn send(mut self, call: &mut CallWriter) {
        let shape = self.shape();
        match self.location() {
            ArrayMutLocation::Block(block, _) if block.arena_id() == call.0.arena() => {}
            _ => {
                call.0.foreign = true;
                return;
            }
        }
        if let Err(full) = self.own_block() {
            call.0.full = Some(full);
            return;
        }
        match self.into_block() {
            Ok((block, _)) => {
                let extent = Extent {
                    at: block.extent().at,
                    len: shape.bytes::<T>().unwrap_or(0) as u64,
                };
                call.0.array(extent, &shape);
                call.0.leases.push(Lease::Owned(Arc::new(block)));
                call.0.exclusive = true;
            }
            Err(_) => call.0.foreign = true,
        }
    }
    fn hold(self) -> Option<ArrayMut<T>> {
        Some(self)
    }
    fn bytes_held(&self) -> u64 {
        size_of_val::<[T]>(self) as u64
    }
}

/// Rows of an array that are lent to a job.
#[derive(Debug)]
pub struct LentRange<T> {
    first: NonNull<u8>,
    at: Option<Extent>,
    shape: Shape,
    rows: Range<usize>,
    element: PhantomData<T>,
}

impl<T: Element> LentRange<T> {
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self, BadArgument> {
        let (extent, shape) = read_array::<T>(words)?;
        let (start, behind) = unpack(words.0.word()?, extent);
        let start = usize::try_from(start).map_err(|_| Malformed)?;
        let end = start.checked_add(shape.rows()).ok_or(Malformed)?;
        let first = host.0.lend(extent, behind, false)?;
        check_alignment::<T>(first, extent)?;
        Ok(Self {
            first,
            at: Some(extent),
            shape,
            rows: start..end,
            element: PhantomData,
        })
    }

    fn of_tile(mut tile: TileMut<'_, T>) -> Self {
        let (shape, rows) = (tile.shape(), tile.rows());
        let first = NonNull::from(&mut tile[..]).cast();
        Self {
            first,
            at: None,
            shape,
            rows,
            element: PhantomData,
        }
    }

    fn tile(&mut self) -> TileMut<'_, T> {
        let storage = self
            .at
            .map_or(ArrayMutLocation::Private, ArrayMutLocation::Lane);
        // SAFETY: in a worker, `lend` opened the pages for this job, and the scope that lent the rows gives them to no
        // other job until this one is answered, and does not access them itself. In an inline engine, the scope borrows
        // the tile that `of_tile` consumed for the whole call.
        unsafe { TileMut::from_parts(self.first, self.shape, self.rows.clone(), storage) }
    }
}

impl<T: Element> sealed::Sealed for TileMut<'_, T> {}
impl<'x, T: Element> Param for TileMut<'x, T> {
    type At<'j> = TileMut<'j, T>;
    type Held = LentRange<T>;
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument> {
        LentRange::receive(words, host)
    }
    fn at(held: &mut Self::Held, _: Key) -> TileMut<'_, T> {
        held.tile()
    }
}

impl<T: Element> sealed::Sealed for &mut [T] {}
impl<T: Element> Param for &mut [T] {
    type At<'j> = &'j mut [T];
    type Held = LentRange<T>;
    fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument> {
        LentRange::receive(words, host)
    }
    fn at(held: &mut Self::Held, _: Key) -> &mut [T] {
        let len = held.shape.len().unwrap_or(0);
        if len == 0 {
            return &mut [];
        }
        // SAFETY: as in `LentRange::tile`; `held` is borrowed for the whole job.
        unsafe { std::slice::from_raw_parts_mut(held.first.cast().as_ptr(), len) }
    }
}

/// The number of low bits of a packed word that hold the index of the row. 48 bits suffice, since a row has at least
/// one byte and no array has 2⁴⁸ bytes. In an empty array, rows have no bytes; there the whole word is the row.
const ROW_BITS: u32 = 48;

/// Packs the number of the first lent row, and the number of pages after the extent that become writable with it.
fn pack(row: u64, extent: Extent, block: &Block) -> u64 {
    row | (block.spare_bytes_after(extent) / PAGE) << ROW_BITS
}

/// Unpacks a word of [`pack`] into the row and the number of bytes after the extent.
fn unpack(word: u64, extent: Extent) -> (u64, u64) {
    if extent.len == 0 {
        return (word, 0);
    }
    (word & ((1 << ROW_BITS) - 1), (word >> ROW_BITS) * PAGE)
}

fn send_lent<T: Element>(tile: &TileMut<'_, T>, call: &mut CallWriter) {
    match tile.location() {
        ArrayMutLocation::Block(block, extent) if block.arena_id() == call.0.arena() => {
            if !tile.location().owns_pages() && extent.len > 0 {
                call.0.full = Some(block.arena().full_in_region_0(extent.len));
            }
            call.0.array(extent, &tile.shape());
            call.0.word(pack(tile.rows().start as u64, extent, block));
            call.0.leases.push(Lease::Lent(tile.rows()));
            call.0.exclusive = true;
        }
        _ => call.0.foreign = true,
    }
}

macro_rules! lent_arguments {
    ($($param:ty)*) => { $(
        impl<'env, 'x, T: Element> Arg<'env, $param> for TileMut<'env, T> {
            fn send(self, call: &mut CallWriter) {
                send_lent(&self, call);
            }
            fn hold(self) -> LentRange<T> {
                LentRange::of_tile(self)
            }
        }
        impl<'env, 'x, T: Element> Arg<'env, $param> for &'env mut ArrayMut<T> {
            fn send(self, call: &mut CallWriter) {
                send_lent(&self.as_tile_mut(), call);
            }
            fn hold(self) -> LentRange<T> {
                LentRange::of_tile(self.as_tile_mut())
            }
        }
    )* };
}
lent_arguments!(TileMut<'x, T> &'x mut [T]);

impl sealed::Sealed for &str {}
impl Param for &str {
    type At<'j> = &'j str;
    type Held = String;
    fn receive(words: &mut Words<'_>, _: &HostRef<'_>) -> Result<String, BadArgument> {
        let len = usize::try_from(words.0.word()?).map_err(|_| Malformed)?;
        let text = std::str::from_utf8(words.0.bytes(len)?).map_err(|_| Malformed)?;
        Ok(text.to_owned())
    }
    fn at(held: &mut String, _: Key) -> &str {
        held
    }
}

macro_rules! text_arguments {
    ($($arg:ty)*) => { $(
        impl<'env> Arg<'env, &str> for $arg {
            fn send(self, call: &mut CallWriter) {
                call.0.word(self.len() as u64);
                call.0.bytes(self.as_bytes());
            }
            fn hold(self) -> String {
                self.into()
            }
            fn bytes_held(&self) -> u64 {
                self.len() as u64
            }
        }
        impl RetrySafe for $arg {}
    )* };
}
text_arguments!(&str String &String);

impl<S: Scalar> sealed::Sealed for S {}
impl<S: Scalar> Param for S {
    type At<'j> = S;
    type Held = S;
    #[inline]
    fn receive(words: &mut Words<'_>, _: &HostRef<'_>) -> Result<S, BadArgument> {
        Ok(read_scalar(&mut words.0)?)
    }
    #[inline]
    fn at(held: &mut S, _: Key) -> S {
        *held
    }
}

impl<'env, S: Scalar> Arg<'env, S> for S {
    #[inline]
    fn send(self, call: &mut CallWriter) {
        call.0.bytes(bytemuck::bytes_of(&self));
    }
    #[inline]
    fn hold(self) -> S {
        self
    }
}
impl<S: Scalar> RetrySafe for S {}

impl<S: Scalar> sealed::Sealed for Vec<S> {}
impl<S: Scalar> Param for Vec<S> {
    type At<'j> = Vec<S>;
    type Held = Vec<S>;
    fn receive(words: &mut Words<'_>, _: &HostRef<'_>) -> Result<Vec<S>, BadArgument> {
        Ok(read_scalars(&mut words.0, usize::MAX)?)
    }
    fn at(held: &mut Vec<S>, _: Key) -> Vec<S> {
        std::mem::take(held)
    }
}

macro_rules! scalar_list_arguments {
    ($($arg:ty)*) => { $(
        impl<'env, S: Scalar> Arg<'env, Vec<S>> for $arg {
            fn send(self, call: &mut CallWriter) {
                call.0.word(self.len() as u64);
                call.0.bytes(bytemuck::cast_slice(&self[..]));
            }
            fn hold(self) -> Vec<S> {
                self.to_vec()
            }
            fn bytes_held(&self) -> u64 {
                size_of_val(&self[..]) as u64
            }
        }
    )* };
}
scalar_list_arguments!(Vec<S> &Vec<S> &[S]);

macro_rules! tuples {
    ($(($($p:ident $a:ident $x:ident),+))+) => {$(
        impl<$($p: Param),+> sealed::Sealed for ($($p,)+) {}
        impl<$($p: Param),+> Param for ($($p,)+) {
            type At<'j> = ($($p::At<'j>,)+);
            type Held = ($($p::Held,)+);
            #[inline]
            fn receive(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, BadArgument> {
                Ok(($($p::receive(words, host)?,)+))
            }
            #[inline]
            fn at<'j>(($($x,)+): &'j mut Self::Held, key: Key) -> Self::At<'j> {
                ($($p::at($x, key),)+)
            }
        }

        impl<'env, $($p: Param, $a: Arg<'env, $p>),+> Arg<'env, ($($p,)+)> for ($($a,)+) {
            #[inline]
            fn send(self, call: &mut CallWriter) {
                let ($($x,)+) = self;
                $($x.send(call);)+
            }
            #[inline]
            fn hold(self) -> ($($p::Held,)+) {
                let ($($x,)+) = self;
                ($($x.hold(),)+)
            }
            fn bytes_held(&self) -> u64 {
                let ($($x,)+) = self;
                [$($x.bytes_held()),+].into_iter().fold(0, u64::saturating_add)
            }
            fn failed(&self) -> Option<AnyValue> {
                let ($($x,)+) = self;
                None$(.or_else(|| $x.failed()))+
            }
        }
    )+};
}
tuples! {
    (P A p, Q B q)
    (P A p, Q B q, R C r)
    (P A p, Q B q, R C r, S D s)
    (P A p, Q B q, R C r, S D s, T E t)
    (P A p, Q B q, R C r, S D s, T E t, U F u)
    (P A p, Q B q, R C r, S D s, T E t, U F u, V G v)
    (P A p, Q B q, R C r, S D s, T E t, U F u, V G v, W H w)
}

/// Reads a scalar and checks that its bytes are a valid value.
#[inline]
pub(crate) fn read_scalar<S: Scalar>(words: &mut WordReader<'_>) -> Result<S, Malformed> {
    let bytes = words.bytes(size_of::<S>())?;
    bytemuck::checked::try_pod_read_unaligned(bytes).map_err(|_| Malformed)
}

/// Reads a list of scalars of at most `max` bytes, and checks that these are valid values. Scalars without bytes count
/// as one byte each, since nothing else bounds their number.
pub(super) fn read_scalars<S: Scalar>(
    words: &mut WordReader<'_>,
    max: usize,
) -> Result<Vec<S>, Malformed> {
    let count = usize::try_from(words.word()?).map_err(|_| Malformed)?;
    let size = size_of::<S>();
    let len = count.checked_mul(size.max(1));
    len.filter(|&len| len <= max).ok_or(Malformed)?;
    let bytes = words.bytes(count * size)?;
    let values = (0..count).map(|at| &bytes[at * size..][..size]);
    values
        .map(|value| bytemuck::checked::try_pod_read_unaligned(value).map_err(|_| Malformed))
        .collect()
}
