//! The type of an object's content: [`Kind`].

use std::fmt;

use arenite::array::Shape;
use arenite::array::npy::{self, Dtype, Header};
use serde::{Deserialize, Serialize};

/// The maximum number of dimensions of an array in a store; that of NumPy.
const MAX_DIMS: usize = 64;

/// The type of an object's content. The store records it with the bytes, and checks that the number of bytes fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// An array of numbers: row-major, little-endian, without a header.
    Array {
        /// NumPy's name of the element type, such as `<f4`, `|u1`, `<c16`.
        dtype: String,
        /// Extents, the outermost first. Empty for a single number.
        shape: Vec<u64>,
    },
    /// A table: a stream in Arrow's IPC format.
    Arrow,
    /// Anything else.
    Bytes,
}

impl Kind {
    /// Returns the kind of an array of `T`.
    ///
    /// ```
    /// use arenite_store::Kind;
    ///
    /// let kind = Kind::array::<f32>([1080, 1920]);
    /// assert_eq!(kind.to_string(), "array <f4 1080×1920");
    /// assert_eq!(kind.bytes(), Some(1080 * 1920 * 4));
    /// ```
    pub fn array<T: Dtype>(shape: impl Into<Shape>) -> Kind {
        Kind::Array {
            dtype: descr::<T>(),
            shape: extents(&shape.into()),
        }
    }

    /// Returns the kind of the array in a `.npy` file.
    pub fn of_npy(header: &Header) -> Kind {
        Kind::Array {
            dtype: header.descr().to_owned(),
            shape: extents(&header.shape()),
        }
    }

    /// Returns the size in bytes of an array. `None` for other kinds, for element types that the store does not know,
    /// and for sizes that do not fit 64 bits.
    pub fn bytes(&self) -> Option<u64> {
        let Kind::Array { dtype, shape } = self else {
            return None;
        };
        let item = item_size(dtype)?;
        shape
            .iter()
            .try_fold(item, |bytes, &extent| bytes.checked_mul(extent))
    }

    /// Returns the extents, if this is the kind of an array of `T`.
    pub(crate) fn extents_of<T: Dtype>(&self) -> Option<&[u64]> {
        match self {
            Kind::Array { dtype, shape } => {
                let name = dtype.trim_start_matches(['<', '|']);
                // Booleans are read as `u8`, as from `.npy` files.
                (name == T::NAME || (name, T::NAME) == ("b1", "u1")).then_some(shape)
            }
            Kind::Arrow | Kind::Bytes => None,
        }
    }

    /// Returns the shape with these extents. The error says why there is none.
    pub(crate) fn shape_of(extents: &[u64]) -> Result<Shape, String> {
        let extents: Vec<usize> = extents
            .iter()
            .filter_map(|&extent| usize::try_from(extent).ok())
            .collect();
        Shape::try_from(&extents[..]).map_err(|error| error.to_string())
    }

    /// Says what is wrong with an object of this kind and of `len` bytes. `None` if nothing is.
    pub(crate) fn problem(&self, len: u64) -> Option<String> {
        let Kind::Array { dtype, shape } = self else {
            return None;
        };
        if shape.len() > MAX_DIMS {
            return Some(format!(
                "{} dimensions; an array has at most {MAX_DIMS}",
                shape.len()
            ));
        }
        if item_size(dtype).is_none() {
            return Some(format!(
                "the element type {:?}; known are b1, i1 to i8, u1 to u8, f2, f4, f8, c8 and c16, little-endian (<f4)",
                short(dtype)
            ));
        }
        match self.bytes() {
            Some(bytes) if bytes == len => None,
            Some(bytes) => Some(format!("{len} bytes for {self}, which takes {bytes}")),
            None => Some(format!("{self}, whose size does not fit 64 bits")),
        }
    }

    /// Returns the header of a `.npy` file that holds this array. `None` for other kinds.
    pub fn npy_header(&self) -> Option<Vec<u8>> {
        match self {
            Kind::Array { dtype, shape } => Some(npy::encode_header(dtype, shape)),
            Kind::Arrow | Kind::Bytes => None,
        }
    }
}

/// The form in tables of objects: `array <f4 1080×1920`, `arrow`, `bytes`.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Array { dtype, shape } => {
                write!(f, "array {} ", short(dtype))?;
                if shape.is_empty() {
                    return f.write_str("()");
                }
                for (at, extent) in shape.iter().enumerate() {
                    let times = if at > 0 { "×" } else { "" };
                    write!(f, "{times}{extent}")?;
                }
                Ok(())
            }
            Kind::Arrow => f.write_str("arrow"),
            Kind::Bytes => f.write_str("bytes"),
        }
    }
}

/// Returns NumPy's name of `T` with its byte order, such as `<f8`.
pub(crate) fn descr<T: Dtype>() -> String {
    let order = if size_of::<T>() == 1 { '|' } else { '<' };
    format!("{order}{}", T::NAME)
}

/// Returns the extents of a shape, in the type of messages.
fn extents(shape: &Shape) -> Vec<u64> {
    shape.dims().iter().map(|&extent| extent as u64).collect()
}

/// Returns the part of a client's text that an error repeats.
fn short(text: &str) -> String {
    text.chars().take(16).filter(|c| !c.is_control()).collect()
}

/// Returns the size in bytes of an element, if the type is known.
fn item_size(dtype: &str) -> Option<u64> {
    let (order, name) = dtype.split_at_checked(1)?;
    let size = match name {
        "b1" | "i1" | "u1" => 1,
        "i2" | "u2" | "f2" => 2,
        "i4" | "u4" | "f4" => 4,
        "i8" | "u8" | "f8" | "c8" => 8,
        "c16" => 16,
        _ => return None,
    };
    matches!((order, size), ("<", _) | ("|", 1)).then_some(size)
}
