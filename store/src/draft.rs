//! [`Draft`]: an object before it is published.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;

use arenite::array::{Element, MemoryFile};

use super::client::Store;
use super::error::StoreError;
use super::kind::Kind;
use super::message::Object;

/// The bytes of an object that is not published yet: zeros at first, and accessible to no other process. Dereferences
/// to the bytes, which begin at a page boundary.
///
/// Publishing copies nothing. If a draft is dropped, or its process ends, its memory is freed.
///
/// ```
/// use arenite_store::{Kind, connect};
///
/// # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/doctests/own_sockets.rs"))(false);
/// let store = connect("main")?;
/// let mut draft = store.draft(Kind::array::<f32>([1000, 3]), 1000 * 3 * 4)?;
/// for (i, value) in draft.elements_mut::<f32>().iter_mut().enumerate() {
///     *value = i as f32;
/// }
/// draft.publish("points")?;
/// # Ok::<(), arenite_store::StoreError>(())
/// ```
pub struct Draft {
    store: Store,
    kind: Kind,
    file: MemoryFile,
}

impl Draft {
    pub(super) fn new(store: Store, kind: Kind, len: usize) -> Result<Draft, StoreError> {
        let file = MemoryFile::new("arenite-object", len)?;
        Ok(Draft { store, kind, file })
    }

    /// Returns the bytes as elements of type `T`.
    ///
    /// # Panics
    ///
    /// If the number of bytes is no multiple of the size of `T`.
    pub fn elements_mut<T: Element>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.file)
    }

    /// Publishes the bytes as the object `name`. From then on no process can change them.
    ///
    /// # Errors
    ///
    /// [`StoreErrorKind::Exists`](super::StoreErrorKind::Exists),
    /// [`StoreErrorKind::Full`](super::StoreErrorKind::Full), and
    /// [`StoreErrorKind::BadObject`](super::StoreErrorKind::BadObject) if the kind does not fit the number of bytes.
    pub fn publish(self, name: &str) -> Result<Object, StoreError> {
        self.finish(name, false)
    }

    /// Publishes the bytes as the object `name`, and replaces the object that has this name, if there is one. Programs
    /// that have mapped the replaced object can still use it.
    ///
    /// # Errors
    ///
    /// As [`Draft::publish`].
    pub fn replace(self, name: &str) -> Result<Object, StoreError> {
        self.finish(name, true)
    }

    fn finish(self, name: &str, replace: bool) -> Result<Object, StoreError> {
        let file = self.file.seal()?;
        self.store.publish(name, self.kind, replace, file.as_fd())
    }
}

impl Deref for Draft {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.file
    }
}

impl DerefMut for Draft {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.file
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("store", &self.store)
            .field("kind", &self.kind)
            .field("bytes", &self.file.len())
            .finish()
    }
}
