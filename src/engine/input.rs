//! Reads files into arrays of the arena, and copies data into them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::RangeBounds;
use std::path::{Path, PathBuf};

use super::Engine;
use crate::arena::{ArenaFull, BlockPlacement, default_capacity};
#[cfg(feature = "ndarray")]
use crate::array::nd;
use crate::array::npy::{self, NpyError};
use crate::array::{AllocError, Array, ArrayMut, Element, Shape, ShapeError, check_count};
use crate::sys::debug_as_text;

/// How many bytes of a file without a length are read at a time.
const PART: u64 = 16 << 20;

/// Why a file or an array could not be read into the arena.
#[non_exhaustive]
pub enum InputError {
    /// Reading failed.
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The arena has no room for the content.
    ArenaFull(ArenaFull),
    /// The file is not an array of this type.
    Npy {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: NpyError,
    },
    /// The array has more dimensions than a [`Shape`] can have.
    Shape(ShapeError),
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            Self::ArenaFull(full) => full.fmt(f),
            Self::Npy { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            Self::Shape(error) => error.fmt(f),
        }
    }
}

debug_as_text!(InputError);

impl std::error::Error for InputError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => error.source(),
            Self::ArenaFull(_) | Self::Shape(_) => None,
            Self::Npy { error, .. } => error.source(),
        }
    }
}

impl From<ArenaFull> for InputError {
    fn from(full: ArenaFull) -> Self {
        Self::ArenaFull(full)
    }
}

impl Engine {
    /// Allocates an exclusive array of zeros in the arena.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let mut table = engine.zeros::<f32>([2, 3])?;
    /// table[4] = 1.5;
    /// assert_eq!(table.seal()[..], [0.0, 0.0, 0.0, 0.0, 1.5, 0.0]);
    /// # Ok::<(), arenite::ArenaFull>(())
    /// ```
    ///
    /// # Errors
    /// [`ArenaFull`] if there is no room for the array.
    ///
    /// # Panics
    /// If the size does not fit the address space.
    pub fn zeros<T: Element>(&self, shape: impl Into<Shape>) -> Result<ArrayMut<T>, ArenaFull> {
        let shape = shape.into();
        let Some(shared) = self.supervisor() else {
            return ArrayMut::try_zeros(shape);
        };
        let bytes = bytes_of::<T>(&shape);
        let block =
            shared.with_room(|arena| arena.alloc_zeroed(0, bytes, BlockPlacement::Pages))?;
        Ok(ArrayMut::from_block(block, 0, shape))
    }

    /// Allocates an exclusive array in the arena with *unspecified* elements, for workers to fill tile by tile.
    /// [`zeros`](Engine::zeros) would first clear the array on this thread.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::TileMut;
    ///
    /// fn number(mut tile: TileMut<'_, u32>) {
    ///     let rows = tile.rows();
    ///     tile.iter_mut().zip(rows).for_each(|(x, row)| *x = row as u32);
    /// }
    ///
    /// let mut out = engine.uninit(6)?;
    /// engine.scope(|s| out.tiles_mut(2).for_each(|tile| drop(s.submit(number, (tile,)))))?;
    /// assert_eq!(out[..], [0, 1, 2, 3, 4, 5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ArenaFull`] if there is no room for the array.
    ///
    /// # Panics
    /// If the size does not fit the address space.
    #[doc(alias = "empty")]
    pub fn uninit<T: Element>(&self, shape: impl Into<Shape>) -> Result<ArrayMut<T>, ArenaFull> {
        self.exclusive(shape.into(), BlockPlacement::Pages)
    }

    /// Copies `elements` into a sealed array with one axis in the arena.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let primes = engine.from_slice(&[2u32, 3, 5, 7])?;
    /// let sum = engine.submit(|x: &[u32]| x.iter().sum::<u32>(), (&primes,)).wait()?;
    /// assert_eq!(sum, 17);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ArenaFull`] if there is no room for the array.
    // Named like `Array::from_slice`, although it takes `self`: the name says where the array is created.
    #[allow(
        clippy::wrong_self_convention,
        reason = "`engine.from_slice` reads as `Array::from_slice` does"
    )]
    pub fn from_slice<T: Element>(&self, elements: &[T]) -> Result<Array<T>, ArenaFull> {
        self.fill(elements.len().into(), |to| to.copy_from_slice(elements))
    }

    /// Copies `elements`, in row-major order, into a sealed array of this shape in the arena.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let table = engine.from_vec(vec![1, 2, 3, 4, 5, 6], [2, 3])?;
    /// assert_eq!(table[[1, 0]], 4);
    /// # Ok::<(), arenite::ArenaFull>(())
    /// ```
    ///
    /// # Errors
    /// [`ArenaFull`] if there is no room for the array.
    ///
    /// # Panics
    /// If the number of elements does not match the shape.
    #[allow(
        clippy::wrong_self_convention,
        reason = "`engine.from_vec` reads as `Array::from_vec` does"
    )]
    #[track_caller]
    pub fn from_vec<T: Element>(
        &self,
        elements: impl AsRef<[T]>,
        shape: impl Into<Shape>,
    ) -> Result<Array<T>, ArenaFull> {
        let (elements, shape) = (elements.as_ref(), shape.into());
        check_count(elements.len(), shape);
        self.fill(shape, |to| to.copy_from_slice(elements))
    }

    /// Collects elements into a sealed array with one axis in the arena.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let squares = engine.from_iter((1..4).map(|x: u64| x * x))?;
    /// assert_eq!(squares[..], [1, 4, 9]);
    /// # Ok::<(), arenite::ArenaFull>(())
    /// ```
    ///
    /// # Errors
    /// [`ArenaFull`] if there is no room for the array.
    #[allow(
        clippy::wrong_self_convention,
        reason = "`engine.from_iter` reads as `Array::from_iter` does"
    )]
    pub fn from_iter<T: Element>(
        &self,
        elements: impl IntoIterator<Item = T>,
    ) -> Result<Array<T>, ArenaFull> {
        self.from_slice(&elements.into_iter().collect::<Vec<T>>())
    }

    /// Creates a sealed array in the arena. Calls `f` with the flat, row-major index of each element to get its value.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let ramp = engine.from_fn([2, 2], |i| i as f64 / 2.0)?;
    /// assert_eq!(ramp[..], [0.0, 0.5, 1.0, 1.5]);
    /// # Ok::<(), arenite::ArenaFull>(())
    /// ```
    ///
    /// # Errors
    /// [`ArenaFull`] if there is no room for the array.
    ///
    /// # Panics
    /// If an array of this shape does not fit the address space.
    #[allow(
        clippy::wrong_self_convention,
        reason = "`engine.from_fn` reads as `Array::from_fn` does"
    )]
    pub fn from_fn<T: Element>(
        &self,
        shape: impl Into<Shape>,
        mut f: impl FnMut(usize) -> T,
    ) -> Result<Array<T>, ArenaFull> {
        self.fill(shape.into(), |to| {
            for (index, element) in to.iter_mut().enumerate() {
                *element = f(index);
            }
        })
    }

    /// Copies an array into this engine's arena: from private memory, from a mapped file, or from another engine. Jobs
    /// reject arrays that are not in their engine's arena instead of copying them. Arrays of a
    /// [store](crate::raw::map_sealed) are accepted without this call; if workers are sandboxed, this call saves a copy
    /// for each job.
    ///
    /// ```standalone_crate
    /// use arenite::{Array, Engine, JobErrorKind, Rejection};
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).build()?;
    /// let len = |values: &[u8]| values.len();
    /// let private = Array::from_slice(b"three words here");
    /// let refused = engine.submit(len, (&private,)).wait().unwrap_err();
    /// assert_eq!(*refused.kind(), JobErrorKind::Rejected(Rejection::ForeignArray));
    /// assert_eq!(engine.submit(len, (engine.import(&private)?,)).wait()?, 16);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ArenaFull`] if there is no room for the array.
    pub fn import<T: Element>(&self, array: &Array<T>) -> Result<Array<T>, ArenaFull> {
        self.fill(array.shape(), |to| to.copy_from_slice(array))
    }

    /// Copies an `ndarray` array or view into the arena in row-major order. An array without dimensions gets the shape
    /// `[1]`. [`Array::view`] is the opposite direction, without a copy.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let table = ndarray::arr2(&[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    /// let columns = engine.from_ndarray(&table.t())?;
    /// assert_eq!(columns.shape().dims(), [2, 3]);
    /// assert_eq!(columns[..], [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    /// assert_eq!(columns.view(), table.t().into_dyn());
    /// # Ok::<(), arenite::InputError>(())
    /// ```
    ///
    /// # Errors
    /// [`InputError`] if there is no room for the array, or it has more than 6 dimensions.
    #[cfg(feature = "ndarray")]
    #[allow(
        clippy::wrong_self_convention,
        reason = "`engine.from_slice` reads as `Array::from_slice` does"
    )]
    pub fn from_ndarray<T, S, D>(
        &self,
        from: &ndarray::ArrayBase<S, D>,
    ) -> Result<Array<T>, InputError>
    where
        T: Element,
        S: ndarray::Data<Elem = T>,
        D: ndarray::Dimension,
    {
        let shape = nd::shape_of(from.shape()).map_err(InputError::Shape)?;
        Ok(self.fill(shape, |to| match self.supervisor() {
            // The calling thread may be in a sandboxed worker, which must not start threads.
            None => nd::write(from, to),
            Some(_) => nd::write_by_threads(from, to),
        })?)
    }

    /// Reads the bytes of a file directly into an array with one axis in the arena.
    ///
    /// A file without a length, such as a pipe, is first read to its end, up to the capacity of the arena (in an inline
    /// engine, up to half of the available memory).
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("words.txt");
    /// std::fs::write(&path, "three words here")?;
    /// let text = engine.read_file(&path)?;
    /// let spaces = |text: &[u8]| text.iter().filter(|&&byte| byte == b' ').count();
    /// assert_eq!(engine.submit(spaces, (&text,)).wait()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InputError`] if the file cannot be read, or there is no room for it.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Array<u8>, InputError> {
        let path = path.as_ref();
        let failed = |error| InputError::Io {
            path: path.to_owned(),
            error,
        };
        let mut file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        // Pipes and files that Linux generates have no length and may be endless: this reads at most as many bytes as
        // could fit.
        if !meta.is_file() || meta.len() == 0 {
            let arena = self.supervisor().map(|shared| &shared.arena);
            let most = arena.map_or_else(default_capacity, |arena| arena.capacity());
            let mut bytes = Vec::new();
            let mut read = 0;
            // The bytes are in private memory first, so look again and again how much there is room for.
            while read <= most {
                let part = PART.min(most.saturating_add(1) - read);
                let count = Read::by_ref(&mut file).take(part).read_to_end(&mut bytes);
                let count = count.map_err(failed)? as u64;
                read += count;
                if count < part {
                    return Ok(self.from_slice(&bytes)?);
                }
                if arena.is_some_and(|arena| arena.full_in_region_0(read).largest_free < read) {
                    break;
                }
            }
            return Err(match arena {
                None => {
                    let why =
                        format!("it has more than {most} bytes, half of the available memory");
                    failed(io::Error::new(io::ErrorKind::OutOfMemory, why))
                }
                Some(arena) => arena.full_in_region_0(read.saturating_add(1)).into(),
            });
        }
        let len = usize::try_from(meta.len())
            .map_err(|_| failed(io::Error::from(io::ErrorKind::FileTooLarge)))?;
        let mut array = self.to_read::<u8>(len.into()).map_err(|why| match why {
            AllocError::Arena(full) => InputError::ArenaFull(full),
            AllocError::System { .. } => failed(io::ErrorKind::OutOfMemory.into()),
        })?;
        let mut read = 0;
        while read < len {
            match file.read(&mut array[read..]) {
                Ok(0) => break,
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        // The file may have shrunk in the meantime.
        array.truncate(read);
        Ok(array.seal())
    }

    /// Reads a `.npy` file directly into an array of the file's shape in the arena.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::array::{Array, npy};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("table.npy");
    /// npy::write(&path, &Array::from_fn([2, 3], |i| i as f32))?;
    /// let table = engine.read_npy::<f32>(&path)?;
    /// assert_eq!((table.shape().dims(), table[5]), (&[2, 3][..], 5.0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InputError`] if the file cannot be read, is not an array of `T`, or there is no room for it.
    pub fn read_npy<T: npy::Dtype>(&self, path: impl AsRef<Path>) -> Result<Array<T>, InputError> {
        self.read_npy_rows(path, ..)
    }

    /// Reads the rows `rows`, along the leading axis, of the array in a `.npy` file directly into an array in the
    /// arena. Only these rows are read and take memory. [`npy::Writer`] writes a file by rows.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::array::{Array, npy};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("table.npy");
    /// npy::write(&path, &Array::from_fn([100, 3], |i| i as f32))?;
    /// let part = engine.read_npy_rows::<f32>(&path, 10..12)?;
    /// assert_eq!(part[..], [30.0, 31.0, 32.0, 33.0, 34.0, 35.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`read_npy`](Engine::read_npy); also if the array has fewer rows.
    pub fn read_npy_rows<T: npy::Dtype>(
        &self,
        path: impl AsRef<Path>,
        rows: impl RangeBounds<usize>,
    ) -> Result<Array<T>, InputError> {
        let path = path.as_ref();
        let wrong = |error| InputError::Npy {
            path: path.to_owned(),
            error,
        };
        let (header, file) = npy::open_rows::<T>(path, rows).map_err(wrong)?;
        let mut array = self.to_read::<T>(header.shape()).map_err(|why| match why {
            AllocError::Arena(full) => InputError::ArenaFull(full),
            why => wrong(why.into()),
        })?;
        npy::read_into(&header, file, &mut array).map_err(wrong)?;
        Ok(array.seal())
    }

    fn fill<T: Element>(
        &self,
        shape: Shape,
        fill: impl FnOnce(&mut [T]),
    ) -> Result<Array<T>, ArenaFull> {
        let mut array = self.exclusive(shape, BlockPlacement::Packed)?;
        fill(&mut array);
        Ok(array.seal())
    }

    /// Allocates an array for the content of a file. Returns an error if the length that the file claims exceeds the
    /// memory.
    fn to_read<T: Element>(&self, shape: Shape) -> Result<ArrayMut<T>, AllocError> {
        if self.supervisor().is_none() {
            return ArrayMut::to_read(shape);
        }
        let array = self.exclusive(shape, BlockPlacement::Packed);
        array.map_err(AllocError::Arena)
    }

    /// Allocates an array that the caller overwrites completely. The memory's old content is initialised, and therefore
    /// valid for plain old data.
    fn exclusive<T: Element>(
        &self,
        shape: Shape,
        placement: BlockPlacement,
    ) -> Result<ArrayMut<T>, ArenaFull> {
        let Some(shared) = self.supervisor() else {
            return ArrayMut::try_uninit(shape);
        };
        let bytes = bytes_of::<T>(&shape);
        let block = shared.with_room(|arena| arena.alloc(0, bytes, placement))?;
        Ok(ArrayMut::from_block(block, 0, shape))
    }
}

fn bytes_of<T>(shape: &Shape) -> u64 {
    match shape.bytes::<T>() {
        Some(bytes) => bytes as u64,
        None => panic!("an array of shape {shape} does not fit the address space"),
    }
}
