//! The executable that this process runs: the addresses of its code, and its build id.

use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

/// Identity of an executable: processes with equal ids run the same code.
///
/// The linker's build id; for executables without one, a mix of the file's device, inode, size and modification time.
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

    /// The significant bytes.
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

/// The main program of this process.
#[derive(Debug, Clone)]
pub struct Image {
    /// The address that code offsets are relative to; differs between processes.
    pub base: usize,
    /// Address ranges of the main program's executable code, without libraries.
    pub text: Vec<Range<usize>>,
    /// The build id.
    pub build_id: BuildId,
}

impl Image {
    /// Whether `address` is in the main program's code.
    pub fn is_code(&self, address: usize) -> bool {
        self.text.iter().any(|range| range.contains(&address))
    }
}

/// The main program of this process; determined once.
pub fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(read)
}

#[derive(Default)]
struct Found {
    base: usize,
    text: Vec<Range<usize>>,
    id: Option<Vec<u8>>,
}

fn read() -> Image {
    let mut found = Found::default();
    // SAFETY: dl_iterate_phdr calls `look` only before it returns, with the address of `found`, which outlives the call
    // and is not accessed otherwise meanwhile.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    let build_id = match &found.id {
        Some(id) => BuildId::new(id),
        None => file_id(),
    };
    Image {
        base: found.base,
        text: found.text,
        build_id,
    }
}

/// Reads the first object, which is the main program, and stops the iteration.
unsafe extern "C" fn look(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: dl_iterate_phdr passes a description that is valid during this call.
    let info = unsafe { &*info };
    // SAFETY: `data` is the address of the `Found` that `read` passed; only this call accesses it.
    let found = unsafe { &mut *data.cast::<Found>() };
    let base = info.dlpi_addr as usize;
    found.base = base;
    if info.dlpi_phdr.is_null() {
        return 1;
    }
    // SAFETY: the loader's table of `dlpi_phnum` program headers is mapped and constant while the program runs.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
    for header in headers {
        let start = base.wrapping_add(header.p_vaddr as usize);
        let len = header.p_memsz as usize;
        if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_X != 0 {
            found.text.push(start..start.wrapping_add(len));
        } else if header.p_type == libc::PT_NOTE && found.id.is_none() {
            // SAFETY: a PT_NOTE segment of the main program is mapped read-only and constant while the program runs.
            let notes = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
            found.id = build_id_note(notes, header.p_align as usize);
        }
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

/// Stands in for the build id where the linker wrote none.
fn file_id() -> BuildId {
    let Ok(meta) = std::fs::metadata("/proc/self/exe") else {
        return BuildId::new(&[]);
    };
    let mut id = [0; 32];
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
    fn this_program_is_found() {
        let image = image();
        let inside: fn() -> Image = read;
        assert!(image.is_code(inside as usize));
        assert!(!image.is_code(libc::getpid as *const () as usize) || cfg!(target_env = "musl"));
        assert!(!image.is_code(&raw const *image as usize));
        assert!(!image.build_id.as_bytes().is_empty());
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
