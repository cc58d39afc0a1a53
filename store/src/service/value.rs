//! [`Value`]: an argument or a result, and its form in packets.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use arenite::array::npy::Dtype;
use arenite::array::{Array, MapError, Shape};
use serde_json::{Number, json};

use super::error::{ServiceError, ServiceErrorKind};
use crate::Kind;
use crate::kind::descr;
use crate::sealed::{self, FileProblem};
use crate::sys::{self, file};

/// The maximum number of files in a packet. Linux allows 253.
pub(super) const MAX_FILES: usize = 200;
/// Texts of more bytes than this travel as files, so that the answers to all calls of a client fit its socket's buffer.
const MAX_TEXT: usize = 1 << 10;

/// An argument or a result of a call, in the form that travels between programs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Value {
    /// No value: `()`, or `None`.
    Nothing,
    /// A boolean.
    Bool(bool),
    /// An integer of up to 64 bits, with or without a sign.
    Int(i128),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    Text(String),
    /// An array, a table or bytes.
    Payload(Payload),
    /// Several values.
    List(Vec<Value>),
}

/// An array, a table or bytes in a sealed memory file: passed between programs without a copy. A clone is another
/// handle to the same file.
#[derive(Clone, Debug)]
pub struct Payload {
    kind: Kind,
    /// Whether the bytes are a long text.
    is_text: bool,
    len: u64,
    file: Arc<OwnedFd>,
}

/// The maximum size in bytes of a text that is read from a file: the limit for an argument of a kernel.
const MAX_LONG_TEXT: u64 = 64 << 20;

impl Payload {
    /// Copies the bytes of an object of this kind into a file.
    ///
    /// # Errors
    ///
    /// [`ServiceErrorKind::BadArgument`] if the kind does not fit the number of bytes, [`ServiceErrorKind::System`] if
    /// there is no memory or no descriptor.
    pub fn new(kind: Kind, bytes: &[u8]) -> Result<Payload, ServiceError> {
        match kind.problem(bytes.len() as u64) {
            Some(problem) => Err(ServiceError::new(ServiceErrorKind::BadArgument, problem)),
            None => Ok(Payload::copy(kind, bytes)?),
        }
    }

    pub(super) fn copy(kind: Kind, bytes: &[u8]) -> sys::Result<Payload> {
        Ok(Payload {
            kind,
            is_text: false,
            len: bytes.len() as u64,
            file: Arc::new(file::sealed_copy("arenite-value", bytes)?),
        })
    }

    /// Returns the text, if the bytes are a long text.
    pub(super) fn text(&self) -> Option<Result<String, String>> {
        if !self.is_text {
            return None;
        }
        if self.len > MAX_LONG_TEXT {
            return Some(Err(format!(
                "a text of {} bytes; {MAX_LONG_TEXT} are the most",
                self.len
            )));
        }
        let bytes = match self.bytes() {
            Ok(bytes) => bytes.to_vec(),
            Err(why) => return Some(Err(why)),
        };
        Some(String::from_utf8(bytes).map_err(|_| "a text that is not UTF-8".to_owned()))
    }

    /// Returns the array's own file, if the array has one, as arrays of a store or a service do. Otherwise returns a
    /// file with a copy.
    pub(super) fn of_array<T: Dtype>(array: &Array<T>) -> sys::Result<Payload> {
        let kind = Kind::array::<T>(array.shape());
        if let Some(file) = array.sealed_file() {
            return Ok(Payload {
                kind,
                is_text: false,
                len: size_of_val::<[T]>(array) as u64,
                file: Arc::new(file),
            });
        }
        Payload::copy(kind, bytemuck::must_cast_slice(array))
    }

    /// Returns a payload from a file that another process has sent. The error says why the file is unfit.
    fn received(kind: Kind, is_text: bool, file: OwnedFd) -> Result<Payload, String> {
        let len = sealed::length(&file, &kind).map_err(|problem| match problem {
            FileProblem::Bad(message) => message,
            FileProblem::Limit(error) => error.to_string(),
        })?;
        Ok(Payload {
            kind,
            is_text,
            len,
            file: Arc::new(file),
        })
    }

    /// Returns the type of the content.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Returns the size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns true if the size is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Maps the array. Bytes become an array of `u8` with one dimension, a single number an array of shape 1.
    ///
    /// # Errors
    ///
    /// A sentence if the content is no array of `T`, has more than six dimensions, or cannot be mapped.
    pub fn array<T: Dtype>(&self) -> Result<Array<T>, String> {
        let extents = match (self.kind.extents_of::<T>(), &self.kind) {
            (Some([]), _) => &[1],
            (Some(extents), _) => extents,
            (None, Kind::Bytes | Kind::Arrow) if T::NAME == "u1" => std::slice::from_ref(&self.len),
            _ => return Err(format!("array {} and not {}", descr::<T>(), self.kind)),
        };
        self.map(Kind::shape_of(extents)?)
    }

    /// Maps the bytes of any kind.
    ///
    /// # Errors
    ///
    /// A sentence if the bytes cannot be mapped.
    pub fn bytes(&self) -> Result<Array<u8>, String> {
        let len = usize::try_from(self.len).map_err(|error| error.to_string())?;
        self.map(Shape::from(len))
    }

    fn map<T: Dtype>(&self, shape: Shape) -> Result<Array<T>, String> {
        let file = file::reopen(&*self.file).map_err(|error| error.to_string())?;
        Array::map_sealed(file, shape, ()).map_err(unusable)
    }
}

fn unusable(error: MapError) -> String {
    match error {
        MapError::System(error) => error.to_string(),
        MapError::NotSealed => "the file can still be changed".to_owned(),
        MapError::Length { expected, found } => {
            format!("the file has {found} bytes, and the array takes {expected}")
        }
        error => error.to_string(),
    }
}

/// The parser makes floats of these integers, which would be rounded.
pub(super) const TOO_LONG: &str =
    "an integer has more than 64 bits: pass it as text, or as a float such as 1e20";

/// Returns whether JSON contains an integer that needs more than 64 bits.
pub(super) fn has_long_integer(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest
        .iter()
        .position(|byte| matches!(byte, b'"' | b'-' | b'0'..=b'9'))
    {
        rest = &rest[at..];
        let end = if rest[0] == b'"' {
            let mut is_escaped = false;
            let closes = |byte: &u8| {
                let closes = *byte == b'"' && !is_escaped;
                is_escaped = *byte == b'\\' && !is_escaped;
                closes
            };
            rest[1..].iter().position(closes).map(|at| at + 2)
        } else {
            let is_other =
                |byte: &u8| !matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
            rest.iter().position(is_other)
        };
        let (token, behind) = rest.split_at(end.unwrap_or(rest.len()));
        rest = behind;
        let digits = token.strip_prefix(b"-").unwrap_or(token);
        if digits.len() >= 19 && digits.iter().all(u8::is_ascii_digit) {
            let token = std::str::from_utf8(token).unwrap_or_default();
            if token.parse::<i64>().is_err() && token.parse::<u64>().is_err() {
                return true;
            }
        }
    }
    false
}

/// Converts JSON to a value. `None` for objects.
fn plain(json: serde_json::Value) -> Option<Value> {
    Some(match json {
        serde_json::Value::Null => Value::Nothing,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => number.into(),
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(values) => {
            Value::List(values.into_iter().map(plain).collect::<Option<_>>()?)
        }
        serde_json::Value::Object(_) => return None,
    })
}

/// An integer becomes `Int`, any other number `Float`.
impl From<Number> for Value {
    fn from(number: Number) -> Value {
        match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::Int(value.into()),
            (_, Some(value)) => Value::Int(value.into()),
            _ => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        }
    }
}

impl Value {
    /// Parses JSON. Returns `None` if the text is none, or an object, which has no meaning as a value.
    ///
    /// # Errors
    ///
    /// The reason, if an integer has more than 64 bits, or lists are nested too deeply.
    pub fn from_json(text: &str) -> Result<Option<Value>, String> {
        match serde_json::from_str(text).map(plain) {
            Ok(Some(_)) if has_long_integer(text.as_bytes()) => Err(TOO_LONG.to_owned()),
            Ok(value) => Ok(value),
            Err(error)
                if text.trim_start().starts_with('[')
                    && error.to_string().starts_with("recursion limit") =>
            {
                Err(format!("lists are nested too deeply: {error}"))
            }
            Err(_) => Ok(None),
        }
    }

    /// Returns the value, with long texts read from their files.
    pub(super) fn with_texts(self) -> Result<Value, String> {
        Ok(match self {
            Value::Payload(payload) => match payload.text() {
                Some(text) => Value::Text(text?),
                None => Value::Payload(payload),
            },
            Value::List(values) => {
                let values = values.into_iter().map(Value::with_texts);
                Value::List(values.collect::<Result<_, _>>()?)
            }
            plain => plain,
        })
    }

    /// Returns true if the value needs a file.
    pub(super) fn has_files(&self) -> bool {
        match self {
            Value::Payload(_) => true,
            Value::List(values) => values.iter().any(Value::has_files),
            _ => false,
        }
    }

    /// Returns a description for errors: `array <f4 2×3`, `a text`.
    pub(super) fn describe(&self) -> String {
        match self {
            Value::Nothing => "nothing".to_owned(),
            Value::Bool(_) => "a boolean".to_owned(),
            Value::Int(value) => format!("the integer {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(_) => "a text".to_owned(),
            Value::Payload(payload) if payload.is_text => "a text".to_owned(),
            Value::Payload(payload) => payload.kind.to_string(),
            Value::List(values) => format!("a list of {}", values.len()),
        }
    }
}

/// Returns the value in JSON. Appends its files to `files`, in the order in which they occur in the value.
pub(super) fn encode(
    value: Value,
    files: &mut Vec<Arc<OwnedFd>>,
) -> sys::Result<serde_json::Value> {
    Ok(match value {
        Value::Nothing => serde_json::Value::Null,
        Value::Bool(value) => value.into(),
        Value::Int(value) => match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => value.into(),
            (_, Ok(value)) => value.into(),
            // Larger integers have no type in packets.
            _ => (value as f64).into(),
        },
        Value::Float(value) => match Number::from_f64(value) {
            Some(number) => number.into(),
            None if value.is_nan() => json!({"float": "nan"}),
            None if value > 0.0 => json!({"float": "inf"}),
            None => json!({"float": "-inf"}),
        },
        Value::Text(text) if text.len() > MAX_TEXT => {
            files.push(Payload::copy(Kind::Bytes, text.as_bytes())?.file);
            json!({"kind": "bytes", "text": true})
        }
        Value::Text(text) => text.into(),
        Value::Payload(Payload {
            is_text: true,
            file,
            ..
        }) => {
            files.push(file);
            json!({"kind": "bytes", "text": true})
        }
        Value::Payload(Payload { kind, file, .. }) => {
            files.push(file);
            // A kind consists of texts and numbers, which JSON always has.
            serde_json::to_value(kind).unwrap_or_default()
        }
        Value::List(values) => {
            let mut list = Vec::with_capacity(values.len());
            for value in values {
                list.push(encode(value, files)?);
            }
            list.into()
        }
    })
}

/// Reads a value. Takes its files from `files`, in order.
pub(super) fn decode(
    json: serde_json::Value,
    files: &mut impl Iterator<Item = OwnedFd>,
) -> Result<Value, String> {
    Ok(match json {
        serde_json::Value::Null => Value::Nothing,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => number.into(),
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(values) => {
            let mut list = Vec::with_capacity(values.len());
            for value in values {
                list.push(decode(value, files)?);
            }
            Value::List(list)
        }
        serde_json::Value::Object(members) if members.contains_key("dict") => {
            return Err(
                "a dictionary, which only clients in Python take: return a list".to_owned(),
            );
        }
        serde_json::Value::Object(members) => match members.get("float") {
            Some(name) => match name.as_str() {
                Some("nan") => Value::Float(f64::NAN),
                Some("inf") => Value::Float(f64::INFINITY),
                Some("-inf") => Value::Float(f64::NEG_INFINITY),
                _ => return Err(format!("{name} is none of \"nan\", \"inf\" and \"-inf\"")),
            },
            None => {
                let is_text = members.get("text") == Some(&serde_json::Value::Bool(true));
                let kind = serde_json::from_value(members.into())
                    .map_err(|error| format!("no value: {error}"))?;
                let file = files
                    .next()
                    .ok_or("fewer descriptors than arrays and bytes")?;
                Value::Payload(Payload::received(kind, is_text, file)?)
            }
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn integers_beyond_64_bits_are_found() {
        for (json, expected) in [
            ("18446744073709551615", false),
            ("18446744073709551616", true),
            ("-9223372036854775808", false),
            ("-9223372036854775809", true),
            ("[1, [2, 100000000000000000000]]", true),
            ("100000000000000000000.0", false),
            ("1e40", false),
            ("1234567890123456789012e2", false),
            (
                r#"["100000000000000000000", "\\\"100000000000000000000"]"#,
                false,
            ),
            (r#"["\\", 100000000000000000000]"#, true),
            ("\"100000000000000000000", false),
            ("", false),
        ] {
            assert_eq!(has_long_integer(json.as_bytes()), expected, "{json}");
        }
    }

    #[test]
    fn what_json_cannot_say_exactly_is_refused() {
        let parse =
            |text: &str| Value::from_json(text).map(|value| value.map(|value| value.describe()));
        assert_eq!(parse("-3"), Ok(Some("the integer -3".to_owned())));
        assert_eq!(parse("[1e20]"), Ok(Some("a list of 1".to_owned())));
        for text in ["007", "x", "{\"a\": 18446744073709551616}", "1e400", "[1"] {
            assert_eq!(parse(text), Ok(None), "{text}");
        }
        assert!(
            parse("[18446744073709551616]")
                .unwrap_err()
                .contains("64 bits")
        );
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(parse(&deep).unwrap_err().contains("nested"));
        let dictionary = json!([{"dict": {"a": 1}}]);
        let error = decode(dictionary, &mut std::iter::empty()).unwrap_err();
        assert!(error.contains("dictionary"), "{error}");
    }
}
