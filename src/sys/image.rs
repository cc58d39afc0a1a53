//! The object that contains this crate, an executable or a shared object: the addresses of its code, and its build id.

use std::ffi::{CStr, OsStr};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Identity of an executable or shared object: processes with equal ids have the same code in it.
///
/// The linker's build id. For objects without one, a hash of the file's device, inode, size and modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildId {
    bytes: [u8; 32],
    len: u8,
}

impl BuildId {
    fn new(id: &[u8]) -> BuildId {
        let mut bytes = [0; 32];
        let len = id.len().min(bytes.len());
        bytes[..len].copy_from_slice(&id[..len]);
        BuildId {
            bytes,
            len: len as u8,
        }
    }

    /// Returns the bytes of the id, without the unused rest of the array.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl std::fmt::Display for BuildId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_bytes()
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The executable or shared object of this process that contains this crate, and so every kernel that the process may
/// run.
#[derive(Debug, Clone)]
pub struct Image {
    /// The address that code offsets are relative to. It differs between processes.
    pub base: usize,
    /// Address ranges of the object's code.
    pub text: Vec<Range<usize>>,
    /// The build id.
    pub build_id: BuildId,
    /// Whether the object is the main program of this process, not a shared object.
    pub is_program: bool,
}

impl Image {
    /// Returns whether `address` is in the object's code.
    pub fn is_code(&self, address: usize) -> bool {
        self.text.iter().any(|range| range.contains(&address))
    }
}

/// Returns the object of this process that contains this crate. It is searched only once.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| read((read as fn(usize) -> Image) as usize))
}

/// The state of the search for an object.
struct Search {
    /// An address in the object.
    contains: usize,
    /// The number of objects that the search has passed.
    passed: usize,
    base: usize,
    text: Vec<Range<usize>>,
    id: Option<Vec<u8>>,
    path: PathBuf,
}

/// Reads the object that contains the address `contains`.
fn read(contains: usize) -> Image {
    let mut search = Search {
        contains,
        passed: 0,
        base: 0,
        text: Vec::new(),
        id: None,
        path: PathBuf::new(),
    };
    // SAFETY: dl_iterate_phdr calls `look` only before it returns, with the address of `search`, which outlives the
    // call and which no other code accesses meanwhile.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut search).cast()) };
    // The main program comes first.
    let is_program = search.passed == 0;
    let build_id = match &search.id {
        Some(id) => BuildId::new(id),
        None if is_program => file_id(Path::new("/proc/self/exe")),
        None => file_id(&search.path),
    };
    Image {
        base: search.base,
        text: search.text,
        build_id,
        is_program,
    }
}

#[cfg(target_pointer_width = "64")]
type Header = libc::Elf64_Phdr;
#[cfg(target_pointer_width = "32")]
type Header = libc::Elf32_Phdr;

/// Called for each object. If the object contains the address of the search, reads it and stops the iteration.
unsafe extern "C" fn look(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr passes a description that is valid during this call.
    let info = unsafe { &*info };
    // SAFETY: `data` is the address of the `Search` that `read` passed; only this call accesses it.
    let search = unsafe { &mut *data.cast::<Search>() };
    let base = info.dlpi_addr as usize;
    let headers = match info.dlpi_phdr.is_null() {
        true => &[],
        // SAFETY: the loader's table of `dlpi_phnum` program headers is mapped and constant while the object is loaded.
        false => unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) },
    };
    let range = |header: &Header| {
        let start = base.wrapping_add(header.p_vaddr as usize);
        start..start.wrapping_add(header.p_memsz as usize)
    };
    let loaded = |header: &&Header| header.p_type == libc::PT_LOAD;
    if !headers
        .iter()
        .filter(loaded)
        .any(|header| range(header).contains(&search.contains))
    {
        search.passed += 1;
        return 0;
    }
    search.base = base;
    let code = |header: &&Header| header.p_flags & libc::PF_X != 0;
    search.text = headers
        .iter()
        .filter(loaded)
        .filter(code)
        .map(range)
        .collect();
    search.id = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_NOTE)
        .find_map(|header| {
            let at = range(header);
            // SAFETY: a PT_NOTE segment of an object is mapped read-only and constant while the object is loaded.
            let notes = unsafe { std::slice::from_raw_parts(at.start as *const u8, at.len()) };
            build_id_note(notes, header.p_align as usize)
        });
    if !info.dlpi_name.is_null() {
        // SAFETY: the loader's name of the object is a C string that is constant while the object is loaded.
        let name = unsafe { CStr::from_ptr(info.dlpi_name) };
        search.path = OsStr::from_bytes(name.to_bytes()).into();
    }
    1
}

/// Finds the GNU build id among ELF notes.
fn build_id_note(mut notes: &[u8], align: usize) -> Option<Vec<u8>> {
    const NT_GNU_BUILD_ID: u32 = 3;
    let align = if align == 8 { 8 } else { 4 };
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        let bytes = bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    loop {
        let (name_len, desc_len) = (word(notes, 0)? as usize, word(notes, 4)? as usize);
        let kind = word(notes, 8)?;
        let name_end = name_len.checked_add(12)?;
        let desc = name_end.checked_next_multiple_of(align)?;
        let desc_end = desc.checked_add(desc_len)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..name_end)? == b"GNU\0" {
            return Some(notes.get(desc..desc_end)?.to_vec());
        }
        notes = notes.get(desc_end.checked_next_multiple_of(align)?..)?;
    }
}

/// Computes the id of a file that has no build id. If the file cannot be examined, returns an id that no other process
/// computes.
fn file_id(path: &Path) -> BuildId {
    let mut id = [0; 32];
    let Ok(meta) = std::fs::metadata(path) else {
        id[..8].copy_from_slice(&super::random().to_le_bytes());
        return BuildId::new(&id);
    };
    let time = meta.mtime().wrapping_mul(1_000_000_000) as u64 ^ meta.mtime_nsec() as u64;
    for (part, value) in id
        .chunks_exact_mut(8)
        .zip([meta.dev(), meta.ino(), meta.size(), time])
    {
        part.copy_from_slice(&value.to_le_bytes());
    }
    BuildId::new(&id)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_object_with_this_crate_is_found() {
        let image = image();
        let inside: fn(usize) -> Image = read;
        assert!(image.is_program);
        assert!(image.is_code(inside as usize));
        assert!(!image.is_code(libc::getpid as *const () as usize) || cfg!(target_env = "musl"));
        assert!(!image.is_code(&raw const *image as usize));
        assert!(!image.build_id.as_bytes().is_empty());
    }

    #[test]
    #[cfg(not(target_env = "musl"))]
    fn a_shared_object_is_distinguished_from_the_program() {
        let function = libc::getpid as *const () as usize;
        let library = read(function);
        assert!(!library.is_program);
        assert!(library.is_code(function));
        let inside: fn(usize) -> Image = read;
        assert!(!library.is_code(inside as usize));
        assert_ne!(library.base, image().base);
        assert_ne!(library.build_id, image().build_id);
    }

    #[test]
    fn a_file_is_identified_by_its_place_and_a_missing_one_by_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        std::fs::write(&one, "same").unwrap();
        std::fs::write(&other, "same").unwrap();
        assert_eq!(file_id(&one), file_id(&one));
        assert_ne!(file_id(&one), file_id(&other));
        let missing = folder.path().join("missing");
        assert_ne!(file_id(&missing), file_id(&missing));
    }

    #[test]
    fn notes_are_parsed_and_damaged_ones_refused() {
        let mut notes = Vec::new();
        for word in [4_u32, 4, 1] {
            notes.extend(word.to_ne_bytes());
        }
        notes.extend(b"GNU\0abcd");
        assert_eq!(build_id_note(&notes, 4), None);
        for word in [4_u32, 3, 3] {
            notes.extend(word.to_ne_bytes());
        }
        notes.extend(b"GNU\0xyz\0");
        assert_eq!(build_id_note(&notes, 4), Some(b"xyz".to_vec()));
        for len in 0..notes.len() - 1 {
            assert_eq!(build_id_note(&notes[..len], 4), None, "{len} bytes");
        }
        let oversized = [
            u32::MAX.to_ne_bytes(),
            u32::MAX.to_ne_bytes(),
            3_u32.to_ne_bytes(),
        ];
        assert_eq!(build_id_note(&oversized.concat(), 4), None);
    }
}
