//! Types of a program that wrap an array and travel as the array does: [`newtype!`](crate::newtype).

/// Lets a type of yours that wraps one array travel as the array does: `&Photo` is a parameter of kernels, `Photo` and
/// `&Photo` are arguments for it, and kernels may return `Photo`. Nothing is copied or checked on the way.
///
/// The type must be `Clone` and implement conversions from the array, into the array, and into a reference to it. The
/// conversion from the array may run while the engine is locked: make the value and do nothing else.
///
/// ```
/// use arenite::{Array, Engine};
///
/// /// Grey levels.
/// #[derive(Clone)]
/// struct Photo(Array<u8>);
///
/// impl From<Array<u8>> for Photo {
///     fn from(levels: Array<u8>) -> Self {
///         Self(levels)
///     }
/// }
/// impl From<Photo> for Array<u8> {
///     fn from(photo: Photo) -> Self {
///         photo.0
///     }
/// }
/// impl AsRef<Array<u8>> for Photo {
///     fn as_ref(&self) -> &Array<u8> {
///         &self.0
///     }
/// }
/// arenite::newtype!(Photo, Array<u8>);
///
/// fn invert(photo: &Photo) -> Photo {
///     Photo(photo.0.iter().map(|level| 255 - level).collect())
/// }
///
/// # fn main() -> Result<(), arenite::Error> {
/// arenite::init();
/// let engine = Engine::builder().workers(1).build()?;
/// let photo = Photo(engine.from_slice(&[0, 200])?);
/// let inverted: Photo = engine.submit(invert, (&photo,)).wait()?;
/// assert_eq!(inverted.0[..], [255, 55]);
/// # Ok(())
/// # }
/// ```
#[macro_export]
macro_rules! newtype {
    ($newtype:ty, $array:ty) => {
        const _: () = {
            use $crate::kernel::__private as hidden;

            impl hidden::sealed::Sealed for &$newtype {}
            impl $crate::kernel::Param for &$newtype {
                type At<'j> = &'j $newtype;
                type Held = $newtype;
                fn receive(
                    words: &mut hidden::Words<'_>,
                    host: &hidden::HostRef<'_>,
                ) -> ::std::result::Result<$newtype, hidden::BadArgument> {
                    <&$array as $crate::kernel::Param>::receive(words, host)
                        .map(::std::convert::Into::into)
                }
                fn at(held: &mut $newtype, _: hidden::Key) -> &$newtype {
                    held
                }
            }
            impl<'env> $crate::kernel::Arg<'env, &$newtype> for $newtype {
                fn send(self, call: &mut hidden::CallWriter) {
                    $crate::kernel::Arg::<&$array>::send(<$array>::from(self), call);
                }
                fn hold(self) -> $newtype {
                    self
                }
                fn bytes_held(&self) -> u64 {
                    let array: &$array = ::std::convert::AsRef::as_ref(self);
                    $crate::kernel::Arg::<&$array>::bytes_held(array)
                }
            }
            impl<'env> $crate::kernel::Arg<'env, &$newtype> for &$newtype {
                fn send(self, call: &mut hidden::CallWriter) {
                    let array: &$array = ::std::convert::AsRef::as_ref(self);
                    $crate::kernel::Arg::<&$array>::send(array, call);
                }
                fn hold(self) -> $newtype {
                    ::std::clone::Clone::clone(self)
                }
            }
            impl $crate::kernel::RetrySafe for $newtype {}
            impl $crate::kernel::RetrySafe for &$newtype {}
            impl hidden::Value for $newtype {
                type Out = $newtype;
                fn send(
                    self,
                    reply: &mut hidden::Sending<'_>,
                ) -> ::std::result::Result<(), $crate::ArenaFull> {
                    hidden::Value::send(<$array>::from(self), reply)
                }
                fn receive(
                    reply: &mut hidden::Receiving<'_>,
                ) -> ::std::result::Result<$newtype, hidden::BadReply> {
                    <$array as hidden::Value>::receive(reply).map(::std::convert::Into::into)
                }
                fn into_value(self) -> $newtype {
                    self
                }
                fn arrays(&self) -> usize {
                    1
                }
            }
        };
    };
}

/// The items to which [`newtype!`](crate::newtype) and [`kernel!`](crate::kernel!) expand. Programs must not use them:
/// an implementation of their own could lend memory to a job that outlives that memory.
#[doc(hidden)]
pub mod __private {
    pub use crate::kernel::bind::expanded::{Bound, ByReference};
    pub use crate::kernel::failure::BadArgument;
    pub use crate::kernel::param::{CallWriter, HostRef, Key, Words, sealed};
    pub use crate::kernel::reply::{BadReply, Receiving, Sending, Value};
}
