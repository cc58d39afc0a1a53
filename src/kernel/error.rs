//! Errors that a kernel returns: [`Returned`], and [`Typed`] for errors that keep their type.

use std::any::TypeId;
use std::fmt::{self, Display};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use super::scalar::Scalar;
use crate::arena::ArenaFull;

/// Maximum size of an encoded error, in bytes.
pub(crate) const MAX_ERROR_BYTES: usize = 8 << 20;

/// An error that travels from a kernel to its caller as a value, in a [`Typed`].
///
/// Every [`Scalar`] that implements `Display` is a `KernelError`, so a plain `enum` or a `struct` of numbers needs
/// nothing else. Any other type defines its encoding. With `serde`, that is one line for each direction:
///
/// ```
/// use std::fmt;
///
/// use arenite::{Array, Engine, KernelError, Typed};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// enum ParseError {
///     Empty,
///     BadNumber { line: usize, text: String },
/// }
///
/// impl fmt::Display for ParseError {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         match self {
///             Self::Empty => f.write_str("the file is empty"),
///             Self::BadNumber { line, text } => write!(f, "line {line}: {text:?} is not a number"),
///         }
///     }
/// }
///
/// impl KernelError for ParseError {
///     fn to_bytes(&self) -> Vec<u8> {
///         serde_json::to_vec(self).expect("strings and numbers can be encoded")
///     }
///     fn from_bytes(bytes: &[u8]) -> Option<Self> {
///         serde_json::from_slice(bytes).ok()
///     }
/// }
///
/// fn parse(text: &str) -> Result<Array<f64>, Typed<ParseError>> {
///     let number = |(line, text): (usize, &str)| {
///         let bad = |_| ParseError::BadNumber { line: line + 1, text: text.into() };
///         text.parse().map_err(bad)
///     };
///     let numbers: Vec<f64> = text.lines().enumerate().map(number).collect::<Result<_, _>>()?;
///     if numbers.is_empty() {
///         return Err(ParseError::Empty.into());
///     }
///     Ok(Array::from_slice(&numbers))
/// }
///
/// let engine = Engine::inline();
/// let error = engine.submit(parse, ("1.5\ntwo",)).wait().unwrap_err();
/// match error.returned() {
///     Some(ParseError::BadNumber { line, text }) => assert_eq!((line, &*text), (2, "two")),
///     Some(ParseError::Empty) => unreachable!("there are two lines"),
///     None => panic!("{error}"),
/// }
/// assert!(error.to_string().ends_with(r#"line 2: "two" is not a number"#));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an error that can travel as a value",
    label = "has no encoding",
    note = "implement `arenite::KernelError` for it, or `arenite::Scalar` and `Display` if it is plain data",
    note = "without `Typed`, any error that can be displayed may be returned; it arrives as its text"
)]
pub trait KernelError: Display + Sized + 'static {
    /// Encodes this error in at most 8 MiB.
    fn to_bytes(&self) -> Vec<u8>;

    /// Decodes an error that [`to_bytes`](Self::to_bytes) encoded. Returns `None` if the bytes do not encode an error
    /// of this type.
    ///
    /// The bytes come from a worker process, which may be broken or hostile: return `None` instead of panicking, and
    /// bound the recursion. This may run while the engine is locked: decode the bytes and do nothing else.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl<S: Scalar + Display> KernelError for S {
    fn to_bytes(&self) -> Vec<u8> {
        bytemuck::bytes_of(self).to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytemuck::checked::try_pod_read_unaligned(bytes).ok()
    }
}

/// A kernel's error that reaches the caller as a value: the kernel returns `Result<T, Typed<E>>`, and the caller reads
/// the error with [`JobError::returned`](crate::JobError::returned).
///
/// `?` and `.into()` wrap an `E`. An error that is returned without this wrapper reaches the caller as its text.
///
/// ```
/// use std::fmt;
///
/// use arenite::{Engine, Scalar, Typed};
/// use bytemuck::{CheckedBitPattern, NoUninit};
///
/// #[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
/// #[repr(u8)]
/// enum Unusable {
///     Zero,
///     Negative,
/// }
///
/// impl fmt::Display for Unusable {
///     fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
///         f.write_str(match self {
///             Self::Zero => "zero has no logarithm",
///             Self::Negative => "the logarithm is not a real number",
///         })
///     }
/// }
///
/// // An error of plain data needs nothing else.
/// impl Scalar for Unusable {}
///
/// fn log(x: f64) -> Result<f64, Typed<Unusable>> {
///     match x {
///         0.0 => Err(Unusable::Zero.into()),
///         x if x < 0.0 => Err(Typed(Unusable::Negative)),
///         x => Ok(x.ln()),
///     }
/// }
///
/// let engine = Engine::inline();
/// let error = engine.submit(log, (-1.0,)).wait().unwrap_err();
/// assert_eq!(error.returned(), Some(Unusable::Negative));
/// ```
///
/// `Typed` implements neither `Display` nor `Error`, so that it is not mistaken for an error that is sent as text. The
/// error inside implements `Display`: where the kernel is called as a plain function, unwrap it with
/// `kernel(x).map_err(|Typed(error)| error)?`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Typed<E>(pub E);

impl<E> Deref for Typed<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.0
    }
}

impl<E: KernelError> From<E> for Typed<E> {
    fn from(error: E) -> Self {
        Self(error)
    }
}

/// `?` after a call that allocates in a kernel, such as [`Array::try_from_slice`](crate::Array::try_from_slice).
impl<E: KernelError + From<ArenaFull>> From<ArenaFull> for Typed<E> {
    fn from(full: ArenaFull) -> Self {
        Self(full.into())
    }
}

/// The error that a kernel returned: its text, and its value if it was [`Typed`].
///
/// Two `Returned` are equal if their texts and their values are equal.
#[derive(Clone, PartialEq, Eq)]
pub struct Returned {
    text: String,
    value: Option<Encoded>,
}

/// The value of an error.
#[derive(Clone, PartialEq, Eq)]
struct Encoded {
    /// Identifies the type of the error: see [`tag_of`].
    tag: u64,
    bytes: Arc<[u8]>,
}

/// Returns a number that identifies a type of this executable.
fn tag_of<E: 'static>() -> u64 {
    // `DefaultHasher` has no random keys, so the tag is the same in each process.
    let mut hasher = DefaultHasher::new();
    TypeId::of::<E>().hash(&mut hasher);
    hasher.finish()
}

impl Returned {
    /// Returns the text that the error displays. Workers send the first 16 KiB.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the value of the error, or `None` if the error has another type or was returned without [`Typed`].
    pub fn value<E: KernelError>(&self) -> Option<E> {
        let value = self.value.as_ref()?;
        (value.tag == tag_of::<E>()).then(|| E::from_bytes(&value.bytes))?
    }

    /// Encodes an error. If the encoding is too long, or cannot be decoded, the result has only a text that says so.
    pub(crate) fn encode<E: KernelError>(error: &E) -> Self {
        let bytes = error.to_bytes();
        if bytes.len() > MAX_ERROR_BYTES {
            return Self::from(format!(
                "its error takes {} bytes, and {MAX_ERROR_BYTES} is the most: {error}",
                bytes.len()
            ));
        }
        let returned = Self {
            text: error.to_string(),
            value: Some(Encoded {
                tag: tag_of::<E>(),
                bytes: bytes.into(),
            }),
        };
        match returned.value::<E>() {
            Some(_) => returned,
            None => Self::from(format!(
                "`from_bytes` of {} rejects what `to_bytes` returned for this error: {error}",
                std::any::type_name::<E>()
            )),
        }
    }

    /// Returns an error made of parts that a worker has sent. Does not check that the bytes encode a value.
    pub(crate) fn from_parts(text: String, tag: u64, bytes: &[u8]) -> Self {
        let bytes = bytes.into();
        Self {
            text,
            value: Some(Encoded { tag, bytes }),
        }
    }

    /// Returns the type's tag and the encoding, if the error has a value.
    pub(crate) fn encoded(&self) -> Option<(u64, &[u8])> {
        let value = self.value.as_ref()?;
        Some((value.tag, &value.bytes))
    }
}

impl From<String> for Returned {
    /// Returns an error that has only a text.
    fn from(text: String) -> Self {
        Self { text, value: None }
    }
}

impl From<&str> for Returned {
    /// Returns an error that has only a text.
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error whose `from_bytes` rejects its own encoding.
    #[derive(Debug)]
    struct OneWay;

    impl Display for OneWay {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one way")
        }
    }

    impl KernelError for OneWay {
        fn to_bytes(&self) -> Vec<u8> {
            vec![1]
        }
        fn from_bytes(_: &[u8]) -> Option<Self> {
            None
        }
    }

    #[test]
    fn a_value_is_read_as_its_own_type_only() {
        let returned = Returned::encode(&7u32);
        assert_eq!(returned.value::<u32>(), Some(7));
        assert_eq!(returned.value::<i32>(), None);
        assert_eq!(returned.value::<u64>(), None);
        assert_eq!(returned.text(), "7");
        assert_eq!(Returned::from("7").value::<u32>(), None);
    }

    #[test]
    fn bytes_that_encode_no_value_are_none() {
        let (tag, _) = (tag_of::<bool>(), ());
        for bytes in [&[][..], &[2], &[1, 1]] {
            let returned = Returned::from_parts("yes".into(), tag, bytes);
            assert_eq!(returned.value::<bool>(), None, "{bytes:?}");
        }
        let returned = Returned::from_parts("yes".into(), tag, &[1]);
        assert_eq!(returned.value::<bool>(), Some(true));
    }

    #[test]
    fn an_error_that_cannot_be_encoded_says_why() {
        let returned = Returned::encode(&OneWay);
        assert!(returned.encoded().is_none());
        assert!(returned.text().contains("OneWay"), "{returned}");
        assert!(returned.text().ends_with("one way"), "{returned}");
    }
}
