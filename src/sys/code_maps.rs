//! Finds the file that contains the code at an address, by the lines of `/proc/self/maps`.
//!
//! A crashing process copies the lines that matter, without allocating; its supervisor reads them. A sandboxed process
//! sends all lines before it receives any input, since it cannot map other code later.

use std::path::PathBuf;

/// Max length of a line that is copied: enough for a path of 4096 bytes.
const LONGEST: usize = 4096 + 128;
/// The working memory of [`for_each_line`].
pub(super) type Buffer = [u8; LONGEST + 1024];

/// Max total length of the lines of one process, which are sent in one message: enough for about 500 libraries.
#[cfg(feature = "sandbox")]
const ALL: usize = 64 << 10;

/// A range of addresses at which a process maps code of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeMap {
    /// The first address of the code.
    pub start: u64,
    /// The address after the last byte of the code.
    pub end: u64,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// The file.
    pub path: PathBuf,
}

impl CodeMap {
    /// Returns whether the return address `at` may belong to this code. The first address after the code counts too: a
    /// call at the end of the code returns there.
    pub(super) fn may_return_to(&self, at: u64) -> bool {
        (self.start..=self.end).contains(&at)
    }
}

/// Returns the lines of this process that map code of files. Once they reach [`ALL`] bytes, further lines are left out.
#[cfg(feature = "sandbox")]
pub fn of_this_process() -> Vec<u8> {
    let maps = std::fs::read("/proc/self/maps").unwrap_or_default();
    let mut lines = Vec::new();
    for line in maps.split_inclusive(|&byte| byte == b'\n') {
        let is_code = line.windows(6).any(|part| part == b" r-xp ");
        if is_code && line.contains(&b'/') && lines.len() + line.len() <= ALL {
            lines.extend_from_slice(line);
        }
    }
    lines
}

/// Passes each line of the maps of this process to `on_line`, without allocating. Lines that are too long are left out.
pub(super) fn for_each_line(buffer: &mut Buffer, mut on_line: impl FnMut(&[u8])) {
    let (line, read_into) = buffer.split_at_mut(LONGEST);
    // SAFETY: the path is a C string, and `open` is async-signal-safe.
    let file = unsafe {
        libc::open(
            c"/proc/self/maps".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        )
    };
    if file < 0 {
        return;
    }
    let mut len = 0;
    loop {
        // SAFETY: writes at most as many bytes as the buffer has; the descriptor was opened here.
        let read = unsafe { libc::read(file, read_into.as_mut_ptr().cast(), read_into.len()) };
        let Some(read) = usize::try_from(read).ok().filter(|&read| read > 0) else {
            break;
        };
        for &byte in &read_into[..read] {
            if byte != b'\n' {
                if let Some(cell) = line.get_mut(len) {
                    *cell = byte;
                }
                len += 1;
                continue;
            }
            if let Some(line) = line.get(..len) {
                on_line(line);
            }
            len = 0;
        }
    }
    // SAFETY: closes the descriptor that was opened here.
    unsafe { libc::close(file) };
}

/// Reads the two addresses at the beginning of a line.
pub(super) fn addresses(line: &[u8]) -> Option<(u64, u64)> {
    let (start, rest) = hexadecimal(line)?;
    let (end, _) = hexadecimal(rest.strip_prefix(b"-")?)?;
    Some((start, end))
}

fn hexadecimal(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let digits = digits.count();
    if !(1..=16).contains(&digits) {
        return None;
    }
    let value = text[..digits].iter().fold(0, |sum, &digit| {
        sum << 4 | u64::from((digit as char).to_digit(16).unwrap_or(0))
    });
    Some((value, &text[digits..]))
}

/// Parses the lines that name a file. Accepts any text.
pub fn parse(text: &[u8]) -> Vec<CodeMap> {
    let text = String::from_utf8_lossy(text);
    let map = |line: &str| {
        let (start, end) = addresses(line.as_bytes())?;
        // Addresses, rights, offset, device, inode, and the path, which may contain spaces. A map without a file may
        // have a name in brackets.
        let mut fields = line.splitn(6, ' ');
        let offset = fields.nth(2)?;
        let path = fields.nth(2)?.trim_ascii_start();
        if !path.starts_with('/') {
            return None;
        }
        Some(CodeMap {
            start,
            end,
            offset: u64::from_str_radix(offset, 16).ok()?,
            path: path.into(),
        })
    };
    text.lines().filter_map(map).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_this_code_is_found_and_parsed() {
        let here = (parse as fn(&[u8]) -> Vec<CodeMap>) as usize as u64;
        let mut found = Vec::new();
        for_each_line(&mut [0; _], |line| {
            if addresses(line).is_some_and(|(start, end)| (start..end).contains(&here)) {
                found.extend_from_slice(line);
                found.push(b'\n');
            }
        });
        let [map] = &parse(&found)[..] else {
            panic!("{}", String::from_utf8_lossy(&found))
        };
        assert!((map.start..map.end).contains(&here));
        assert_eq!(map.path, std::env::current_exe().unwrap());
    }

    #[test]
    fn any_text_is_parsed() {
        assert_eq!(parse(b""), []);
        for line in [
            "-",
            "0-",
            "12345678901234567-1 r-xp 0 0:0 0 /a",
            "1-2 r-xp",
            "1-2 /",
            "1-2 r-xp 0 0:0 0  [anon:/a/b]",
            "1-2 r-xp 00000400 08:01 17",
        ] {
            assert_eq!(parse(line.as_bytes()), [], "{line}");
        }
        let [map] = &parse(b"10-20 r-xp 00000400 08:01 17      /with a space\n\xff\n")[..] else {
            panic!()
        };
        assert_eq!((map.start, map.end, map.offset), (0x10, 0x20, 0x400));
        assert_eq!(map.path.to_str(), Some("/with a space"));
    }
}
