//! Conversions between Rust types and [`Value`]s: [`IntoValue`] and [`FromValue`].

use arenite::array::npy::Dtype;
use arenite::{Array, ArrayMut, Bytes};

use super::error::{ServiceError, ServiceErrorKind};
use super::value::{MAX_FILES, Payload, Value};
use crate::Kind;

/// A type whose values travel between programs. Signatures of kernels contain its name.
pub trait ValueType {
    /// Returns the name in signatures: `array f4`, `u32`, `text`.
    fn type_name() -> String;
}

/// A type that converts into a [`Value`]: an argument of a [call](super::Client::call), or a kernel's result.
/// Implemented for `()`, `bool`, numbers of up to 64 bits, texts, [`Bytes`], arrays of numbers, and for `Option`s,
/// `Vec`s, `[T; N]` and tuples of these.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not travel between programs",
    note = "arguments and results of a service: `()`, `bool`, numbers of up to 64 bits, `&str`, `String`, `Bytes`, `Array<T>` of numbers, and `Option`, `Vec`, `[T; N]` and tuples of these"
)]
pub trait IntoValue: ValueType {
    /// Converts into a value. The bytes of an array are copied into a file.
    ///
    /// # Errors
    ///
    /// [`ServiceErrorKind::System`] if there is no memory or no descriptor for a file.
    fn into_value(self) -> Result<Value, ServiceError>;
}

/// A type that a [`Value`] converts into: the result of a [call](super::Client::call), or a kernel's argument.
/// Implemented for the types of [`IntoValue`] that own their data.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not travel between programs",
    note = "arguments and results of a service: `()`, `bool`, numbers of up to 64 bits, `String`, `Bytes`, `Array<T>` of numbers, `Value`, and `Option`, `Vec`, `[T; N]` and tuples of these"
)]
pub trait FromValue: ValueType + Sized {
    /// Converts the value. Arrays are mapped, not copied.
    ///
    /// # Errors
    ///
    /// [`ServiceErrorKind::WrongType`] if the value has another type.
    fn from_value(value: Value) -> Result<Self, ServiceError>;
}

fn wrong<T: ValueType>(value: &Value) -> ServiceError {
    ServiceError::new(
        ServiceErrorKind::WrongType,
        format!("{} is not {}", value.describe(), T::type_name()),
    )
}

fn unreadable(why: String) -> ServiceError {
    ServiceError::new(ServiceErrorKind::WrongType, why)
}

impl ValueType for Value {
    fn type_name() -> String {
        "anything".to_owned()
    }
}

impl IntoValue for Value {
    fn into_value(self) -> Result<Value, ServiceError> {
        Ok(self)
    }
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Value, ServiceError> {
        value.with_texts().map_err(unreadable)
    }
}

impl ValueType for () {
    fn type_name() -> String {
        "nothing".to_owned()
    }
}

impl IntoValue for () {
    fn into_value(self) -> Result<Value, ServiceError> {
        Ok(Value::Nothing)
    }
}

impl FromValue for () {
    fn from_value(value: Value) -> Result<(), ServiceError> {
        match value {
            Value::Nothing => Ok(()),
            other => Err(wrong::<()>(&other)),
        }
    }
}

/// Implements the conversions for types that correspond to one variant of [`Value`].
macro_rules! variants {
    ($($t:ty = $variant:ident $name:literal)*) => { $(
        impl ValueType for $t {
            fn type_name() -> String {
                $name.to_owned()
            }
        }
        impl IntoValue for $t {
            fn into_value(self) -> Result<Value, ServiceError> {
                Ok(Value::$variant(self))
            }
        }
        impl FromValue for $t {
            fn from_value(value: Value) -> Result<$t, ServiceError> {
                match value {
                    Value::$variant(value) => Ok(value),
                    other => Err(wrong::<$t>(&other)),
                }
            }
        }
    )* };
}
variants! {
    bool = Bool "boolean"
    Payload = Payload "array, table or bytes"
}

macro_rules! integers {
    ($($t:ty)*) => { $(
        impl ValueType for $t {
            fn type_name() -> String {
                stringify!($t).to_owned()
            }
        }
        impl IntoValue for $t {
            fn into_value(self) -> Result<Value, ServiceError> {
                Ok(Value::Int(self as i128))
            }
        }
        impl FromValue for $t {
            fn from_value(value: Value) -> Result<$t, ServiceError> {
                match value {
                    Value::Int(number) => {
                        <$t>::try_from(number).map_err(|_| wrong::<$t>(&value))
                    }
                    other => Err(wrong::<$t>(&other)),
                }
            }
        }
    )* };
}
integers!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize);

macro_rules! floats {
    ($($t:ty)*) => { $(
        impl ValueType for $t {
            fn type_name() -> String {
                stringify!($t).to_owned()
            }
        }
        impl IntoValue for $t {
            fn into_value(self) -> Result<Value, ServiceError> {
                Ok(Value::Float(self.into()))
            }
        }
        impl FromValue for $t {
            fn from_value(value: Value) -> Result<$t, ServiceError> {
                match value {
                    Value::Float(number) => Ok(number as $t),
                    // JSON writes 2.0 as 2, which is read as an integer.
                    Value::Int(number) if (number as $t) as i128 == number => Ok(number as $t),
                    other => Err(wrong::<$t>(&other)),
                }
            }
        }
    )* };
}
floats!(f32 f64);

impl ValueType for &str {
    fn type_name() -> String {
        "text".to_owned()
    }
}

impl IntoValue for &str {
    fn into_value(self) -> Result<Value, ServiceError> {
        Ok(Value::Text(self.to_owned()))
    }
}

impl ValueType for String {
    fn type_name() -> String {
        "text".to_owned()
    }
}

impl IntoValue for String {
    fn into_value(self) -> Result<Value, ServiceError> {
        Ok(Value::Text(self))
    }
}

impl FromValue for String {
    fn from_value(value: Value) -> Result<String, ServiceError> {
        match value {
            Value::Text(text) => Ok(text),
            Value::Payload(payload) => match payload.text() {
                Some(text) => text.map_err(unreadable),
                None => Err(wrong::<String>(&Value::Payload(payload))),
            },
            other => Err(wrong::<String>(&other)),
        }
    }
}

impl ValueType for Bytes {
    fn type_name() -> String {
        "bytes".to_owned()
    }
}

impl IntoValue for Bytes {
    fn into_value(self) -> Result<Value, ServiceError> {
        (&self).into_value()
    }
}

impl ValueType for &Bytes {
    fn type_name() -> String {
        "bytes".to_owned()
    }
}

impl IntoValue for &Bytes {
    fn into_value(self) -> Result<Value, ServiceError> {
        Ok(Value::Payload(Payload::copy(Kind::Bytes, self)?))
    }
}

impl FromValue for Bytes {
    fn from_value(value: Value) -> Result<Bytes, ServiceError> {
        match value {
            Value::Text(text) => Ok(text.into_bytes().into()),
            Value::Payload(payload) => Ok(payload.bytes().map_err(unreadable)?.to_vec().into()),
            other => Err(wrong::<Bytes>(&other)),
        }
    }
}

impl<T: Dtype> ValueType for Array<T> {
    fn type_name() -> String {
        format!("array {}", T::NAME)
    }
}

impl<T: Dtype> IntoValue for Array<T> {
    fn into_value(self) -> Result<Value, ServiceError> {
        (&self).into_value()
    }
}

impl<T: Dtype> ValueType for &Array<T> {
    fn type_name() -> String {
        Array::<T>::type_name()
    }
}

impl<T: Dtype> IntoValue for &Array<T> {
    fn into_value(self) -> Result<Value, ServiceError> {
        Ok(Value::Payload(Payload::of_array(self)?))
    }
}

impl<T: Dtype> FromValue for Array<T> {
    fn from_value(value: Value) -> Result<Array<T>, ServiceError> {
        match value {
            Value::Payload(payload) => payload.array().map_err(unreadable),
            other => Err(wrong::<Array<T>>(&other)),
        }
    }
}

impl<T: Dtype> ValueType for ArrayMut<T> {
    fn type_name() -> String {
        Array::<T>::type_name()
    }
}

impl<T: Dtype> IntoValue for ArrayMut<T> {
    fn into_value(self) -> Result<Value, ServiceError> {
        self.seal().into_value()
    }
}

impl<T: ValueType> ValueType for Option<T> {
    fn type_name() -> String {
        format!("{} or nothing", T::type_name())
    }
}

impl<T: IntoValue> IntoValue for Option<T> {
    fn into_value(self) -> Result<Value, ServiceError> {
        self.map_or(Ok(Value::Nothing), IntoValue::into_value)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Result<Option<T>, ServiceError> {
        match value {
            Value::Nothing => Ok(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// Converts values into a list. Fails at the first array for which a packet has no room, so that no further arrays are
/// copied.
fn list(values: impl Iterator<Item = Result<Value, ServiceError>>) -> Result<Value, ServiceError> {
    let mut arrays = 0;
    let counted = values.map(|value| {
        let value = value?;
        arrays += usize::from(matches!(value, Value::Payload(_)));
        if arrays > MAX_FILES {
            let text = format!("a list has more than {MAX_FILES} arrays");
            return Err(ServiceError::new(ServiceErrorKind::BadArgument, text));
        }
        Ok(value)
    });
    counted.collect::<Result<_, _>>().map(Value::List)
}

impl<T: ValueType> ValueType for Vec<T> {
    fn type_name() -> String {
        format!("list of {}", T::type_name())
    }
}

impl<T: IntoValue> IntoValue for Vec<T> {
    fn into_value(self) -> Result<Value, ServiceError> {
        list(self.into_iter().map(IntoValue::into_value))
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: Value) -> Result<Vec<T>, ServiceError> {
        match value {
            Value::List(values) => values.into_iter().map(T::from_value).collect(),
            other => Err(wrong::<Vec<T>>(&other)),
        }
    }
}

impl<T: ValueType, const N: usize> ValueType for [T; N] {
    fn type_name() -> String {
        format!("list of {N} {}", T::type_name())
    }
}

impl<T: IntoValue, const N: usize> IntoValue for [T; N] {
    fn into_value(self) -> Result<Value, ServiceError> {
        list(self.into_iter().map(IntoValue::into_value))
    }
}

impl<T: FromValue, const N: usize> FromValue for [T; N] {
    fn from_value(value: Value) -> Result<[T; N], ServiceError> {
        let described = wrong::<[T; N]>(&value);
        let values = Vec::<T>::from_value(value)?;
        values.try_into().map_err(|_| described)
    }
}

macro_rules! tuples {
    ($(($($name:ident $index:tt),+))+) => { $(
        impl<$($name: ValueType),+> ValueType for ($($name,)+) {
            fn type_name() -> String {
                format!("({})", [$($name::type_name()),+].join(", "))
            }
        }
        impl<$($name: IntoValue),+> IntoValue for ($($name,)+) {
            fn into_value(self) -> Result<Value, ServiceError> {
                Ok(Value::List(vec![$(self.$index.into_value()?),+]))
            }
        }
        impl<$($name: FromValue),+> FromValue for ($($name,)+) {
            fn from_value(value: Value) -> Result<Self, ServiceError> {
                const LEN: usize = [$($index),+].len();
                let values = match value {
                    Value::List(values) if values.len() == LEN => values,
                    other => return Err(wrong::<Self>(&other)),
                };
                let mut values = values.into_iter();
                Ok(($($name::from_value(values.next().unwrap_or(Value::Nothing))?,)+))
            }
        }
    )+ };
}
tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_as_many_arrays_as_a_packet() {
        let array = Array::from_slice(&[1_u8; 100]);
        let parts = |count| vec![array.rows(..1); count].into_value();
        assert!(matches!(parts(MAX_FILES), Ok(Value::List(list)) if list.len() == MAX_FILES));
        let error = parts(4096).unwrap_err().to_string();
        assert!(error.contains("more than 200 arrays"), "{error}");
        // A list of numbers needs no files.
        assert!(vec![1_u8; 4096].into_value().is_ok());
    }
}
