//! The header of a `.npy` file: a magic string, a version, a length, and a Python dictionary as text, such as
//! `{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }`.

use std::io::{self, Read};

use super::{Dtype, MAX_TEXT, NpyError, Shape};
use crate::array::MAX_DIMS;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The header of a `.npy` file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    descr: String,
    shape: Shape,
    data_offset: u64,
}

impl Header {
    /// Reads the header. Afterwards `reader` is at the first element.
    ///
    /// Reads at most 64 KiB, and allocates no more memory than it has read bytes.
    ///
    /// # Errors
    ///
    /// [`NpyError`] if `reader` fails, if the header is damaged or does not begin a `.npy` file, or if the array is
    /// column-major or has more than 6 dimensions.
    pub fn read(mut reader: impl Read) -> Result<Header, NpyError> {
        let mut start = [0; 8];
        // A file that is too short is damaged if it starts like a `.npy` file; otherwise it is not a `.npy` file.
        let found = read_up_to(&mut reader, &mut start)?;
        let (magic, version) = start.split_at(MAGIC.len());
        if found == 0 || magic[..found.min(MAGIC.len())] != MAGIC[..found.min(MAGIC.len())] {
            return Err(NpyError::NotNpy);
        }
        if found < start.len() {
            return Err(damaged("the file ends here", found));
        }
        let (major, minor) = (version[0], version[1]);
        let width = match (major, minor) {
            (1, 0) => 2,
            (2 | 3, 0) => 4,
            _ => return Err(NpyError::Version { major, minor }),
        };
        let mut length = [0; 4];
        let found = read_up_to(&mut reader, &mut length[..width])?;
        let text_at = start.len() + width;
        if found < width {
            return Err(damaged("the file ends here", start.len() + found));
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_TEXT {
            return Err(damaged("the header is longer than 64 KiB", start.len()));
        }
        let mut text = Vec::new();
        reader.take(length as u64).read_to_end(&mut text)?;
        if text.len() < length {
            return Err(damaged("the file ends here", text_at + text.len()));
        }
        let (descr, shape) = parse(&text).map_err(|problem| problem.into_error(text_at))?;
        Ok(Header {
            descr,
            shape,
            data_offset: (text_at + length) as u64,
        })
    }

    /// The shape of the array. An array without dimensions has the shape 1.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Describes an array of this number of rows instead.
    pub(super) fn keep_rows(&mut self, rows: usize) {
        self.shape = self.shape.with_rows(rows);
    }

    /// NumPy's name of the element type, such as `<f8`.
    pub fn descr(&self) -> &str {
        &self.descr
    }

    /// Offset of the first element from the start of the header, in bytes.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Checks that the array has elements of type `T`, and returns its size in bytes.
    ///
    /// # Errors
    ///
    /// [`NpyError::Dtype`], [`NpyError::BigEndian`], or [`NpyError::TooLarge`] if the array does not fit the address
    /// space.
    pub fn check<T: Dtype>(&self) -> Result<u64, NpyError> {
        let (order, name) = match self.descr.split_at_checked(1) {
            Some((order @ ("<" | ">" | "|"), name)) => (order, name),
            _ => ("", self.descr.as_str()),
        };
        let one_byte = size_of::<T>() == 1;
        if !is_read_as::<T>(name) || order.is_empty() {
            return Err(self.other_dtype::<T>());
        }
        match order {
            ">" if !one_byte => Err(NpyError::BigEndian {
                descr: self.descr.clone(),
            }),
            "|" if !one_byte => Err(self.other_dtype::<T>()),
            _ => match self.shape.bytes::<T>() {
                Some(bytes) => Ok(bytes as u64),
                None => Err(NpyError::TooLarge { shape: self.shape }),
            },
        }
    }

    fn other_dtype<T: Dtype>(&self) -> NpyError {
        NpyError::Dtype {
            found: self.descr.clone(),
            expected: T::NAME,
        }
    }
}

/// The header of an array of `T`.
pub(super) fn encode<T: Dtype>(shape: &Shape) -> Vec<u8> {
    encode_header(&descr::<T>(), &extents(shape))
}

/// The header of an array of `T` whose rows are not counted yet: with any number of rows it has the same length.
pub(super) fn encode_any_rows<T: Dtype>(shape: &Shape) -> Vec<u8> {
    let longest = encode::<T>(&shape.with_rows(usize::MAX)).len();
    encode_padded(&descr::<T>(), &extents(shape), longest)
}

/// NumPy's name of `T` with its byte order, such as `<f8`.
fn descr<T: Dtype>() -> String {
    let order = if size_of::<T>() == 1 { '|' } else { '<' };
    format!("{order}{}", T::NAME)
}

/// Whether elements that NumPy calls `name`, without a byte order, are read as `T`. Booleans are read as `u8`.
fn is_read_as<T: Dtype>(name: &str) -> bool {
    name == T::NAME || (name, T::NAME) == ("b1", "u1")
}

/// The extents of a shape as they are written to files.
fn extents(shape: &Shape) -> Vec<u64> {
    shape.dims().iter().map(|&extent| extent as u64).collect()
}

/// Returns the header of an array of any element type and number of dimensions, padded so that the elements, which
/// follow it in row-major order, start at a multiple of 64 bytes. [`write_to`](super::write_to) writes it for arrays of
/// this crate.
///
/// `descr` is NumPy's name of the element type with its byte order, such as `<f8`, and is written as it is. `shape`
/// lists the extents, the outermost first; it is empty for a single number.
///
/// ```
/// use arenite::array::npy;
///
/// let header = npy::encode_header("<c16", &[4, 1000]);
/// assert_eq!(header.len() % 64, 0);
/// let read = npy::Header::read(&header[..])?;
/// assert_eq!((read.descr(), read.shape().dims()), ("<c16", &[4, 1000][..]));
/// # Ok::<(), npy::NpyError>(())
/// ```
///
/// # Panics
///
/// If `shape` has more than 2,000 extents, because their text would not fit.
pub fn encode_header(descr: &str, shape: &[u64]) -> Vec<u8> {
    encode_padded(descr, shape, 0)
}

/// Returns the header, padded to at least `least` bytes.
fn encode_padded(descr: &str, shape: &[u64], least: usize) -> Vec<u8> {
    let extents: Vec<String> = shape.iter().map(u64::to_string).collect();
    // Python writes a tuple of one element with a comma.
    let comma = if extents.len() == 1 { "," } else { "" };
    let mut text = format!(
        "{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}",
        extents.join(", ")
    );
    let before = MAGIC.len() + 2 + 2;
    let end = (before + text.len() + 1).max(least).next_multiple_of(64);
    text.extend(std::iter::repeat_n(' ', end - before - text.len() - 1));
    text.push('\n');
    let length = u16::try_from(text.len())
        .expect("numbers of 20 digits, 2,000 of them at most, are below 64 KiB");
    let mut header = Vec::with_capacity(end);
    header.extend_from_slice(MAGIC);
    header.extend_from_slice(&[1, 0]);
    header.extend_from_slice(&length.to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    header
}

/// Reads until `to` is full or `reader` ends. Returns the number of bytes read.
fn read_up_to(reader: &mut impl Read, to: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < to.len() {
        match reader.read(&mut to[done..]) {
            Ok(0) => break,
            Ok(some) => done += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn damaged(problem: &'static str, at: usize) -> NpyError {
    NpyError::Header {
        problem,
        at: at as u64,
    }
}

enum Problem {
    Damaged { problem: &'static str, at: usize },
    Other(NpyError),
}

impl Problem {
    fn into_error(self, text_at: usize) -> NpyError {
        match self {
            Problem::Damaged { problem, at } => damaged(problem, text_at + at),
            Problem::Other(error) => error,
        }
    }
}

/// Parses the three entries of the dictionary, in any order.
fn parse(text: &[u8]) -> Result<(String, Shape), Problem> {
    let mut text = Text { text, at: 0 };
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    text.expect(b'{', "a dictionary is expected")?;
    while !text.accept(b'}') {
        let key_at = text.at;
        let again = match text.string()? {
            b"descr" => {
                text.expect(b':', "a colon is expected")?;
                descr.replace(text.descr()?).is_some()
            }
            b"fortran_order" => {
                text.expect(b':', "a colon is expected")?;
                fortran.replace(text.boolean()?).is_some()
            }
            b"shape" => {
                text.expect(b':', "a colon is expected")?;
                shape.replace(text.shape()?).is_some()
            }
            _ => {
                return Err(Problem::Damaged {
                    problem: "an entry other than descr, fortran_order and shape",
                    at: key_at,
                });
            }
        };
        if again {
            return Err(Problem::Damaged {
                problem: "an entry occurs twice",
                at: key_at,
            });
        }
        if !text.accept(b',') {
            text.expect(b'}', "a comma or the end of the dictionary is expected")?;
            break;
        }
    }
    if !text.at_end() {
        return Err(text.damaged("something follows the dictionary"));
    }
    match (descr, fortran, shape) {
        (Some(descr), Some(false), Some(shape)) => Ok((descr, shape)),
        (Some(descr), Some(true), Some(shape)) if is_in_both_orders(&shape) => Ok((descr, shape)),
        (Some(_), Some(true), Some(_)) => Err(Problem::Other(NpyError::FortranOrder)),
        (None, ..) => Err(text.damaged("the entry descr is missing")),
        (_, None, _) => Err(text.damaged("the entry fortran_order is missing")),
        (.., None) => Err(text.damaged("the entry shape is missing")),
    }
}

/// Whether the array is stored alike in row-major and column-major order. Then NumPy may write either value of
/// `fortran_order`.
fn is_in_both_orders(shape: &Shape) -> bool {
    let dims = shape.dims();
    dims.contains(&0) || dims.iter().filter(|&&extent| extent > 1).count() < 2
}

/// A parser for the Python literals in a header.
struct Text<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Text<'t> {
    fn damaged(&self, problem: &'static str) -> Problem {
        Problem::Damaged {
            problem,
            at: self.at,
        }
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), Problem> {
        if self.accept(byte) {
            Ok(())
        } else {
            Err(self.damaged(problem))
        }
    }

    /// A string in single or double quotes, without escapes.
    fn string(&mut self) -> Result<&'t [u8], Problem> {
        let Some(quote @ (b'\'' | b'"')) = self.peek() else {
            return Err(self.damaged("a string is expected"));
        };
        let rest = &self.text[self.at + 1..];
        let Some(len) = rest.iter().position(|&byte| byte == quote) else {
            return Err(self.damaged("a string does not end"));
        };
        if rest[..len].contains(&b'\\') {
            return Err(self.damaged("a string with an escape"));
        }
        self.at += len + 2;
        Ok(&rest[..len])
    }

    fn descr(&mut self) -> Result<String, Problem> {
        match self.peek() {
            // A list of fields, or a tuple of a type and a sub-array.
            Some(b'[' | b'(') => Err(Problem::Other(NpyError::Records)),
            _ => Ok(String::from_utf8_lossy(self.string()?).into_owned()),
        }
    }

    fn boolean(&mut self) -> Result<bool, Problem> {
        self.peek();
        for (word, value) in [("False", false), ("True", true)] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.damaged("True or False is expected"))
    }

    fn shape(&mut self) -> Result<Shape, Problem> {
        self.expect(b'(', "a tuple of numbers is expected")?;
        let mut dims = [0; MAX_DIMS];
        let mut rank = 0_usize;
        while !self.accept(b')') {
            let extent = self.number()?;
            if let Some(dim) = dims.get_mut(rank) {
                *dim = extent;
            }
            rank += 1;
            if !self.accept(b',') {
                // `(3)` is a number in Python, not a tuple.
                if rank == 1 {
                    return Err(self.damaged("a comma is expected"));
                }
                self.expect(b')', "a comma or the end of the tuple is expected")?;
                break;
            }
        }
        match dims.get(..rank) {
            Some([]) => Ok(Shape::from(1)),
            Some(dims) => Ok(Shape::try_from(dims).expect("1 to 6 dimensions")),
            None => Err(Problem::Other(NpyError::Rank { rank })),
        }
    }

    fn number(&mut self) -> Result<usize, Problem> {
        let mut value = None;
        self.peek();
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at) {
            let next = value
                .unwrap_or(0_usize)
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(usize::from(digit - b'0')));
            if next.is_none() {
                return Err(self.damaged("a number beyond 64 bits"));
            }
            value = next;
            self.at += 1;
        }
        let Some(value) = value else {
            return Err(self.damaged("a number is expected"));
        };
        // Python 2 wrote long integers with this suffix.
        if self.text.get(self.at) == Some(&b'L') {
            self.at += 1;
        }
        Ok(value)
    }
}
