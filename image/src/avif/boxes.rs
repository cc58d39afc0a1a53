//! Numbers, texts and boxes of the container (ISO/IEC 14496-12). All numbers are big-endian.

use super::super::error::ImageError;
use super::super::format::Format;

/// The four letters that identify a box, an item or a reference.
pub(in super::super) type Kind = [u8; 4];

/// Reads from the start of a box or a file.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Reader<'a> {
    rest: &'a [u8],
}

/// A box at the top level of a file.
pub(in super::super) struct TopBox<'a> {
    pub(in super::super) kind: Kind,
    pub(in super::super) content: Reader<'a>,
    /// Whether the file ends before the box does.
    pub(in super::super) is_truncated: bool,
}

pub(super) fn corrupt(reason: &str) -> ImageError {
    ImageError::corrupt(Format::Avif, reason)
}

/// Returns whether these bytes may begin a box of less than 64 MiB, or one with a length of eight bytes.
/// Zeros and text are not.
fn begins_box(bytes: &[u8]) -> bool {
    let (len, kind) = bytes.split_at(bytes.len().min(4));
    let is_letter = |byte: &u8| matches!(byte, b' '..=b'~');
    len.first().is_some_and(|&first| first < 4)
        && len.iter().any(|&byte| byte > 0)
        && kind.iter().take(4).all(is_letter)
}

fn too_short() -> ImageError {
    corrupt("a box ends before its content does")
}

impl<'a> Reader<'a> {
    pub(in super::super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns all bytes that are left.
    pub(in super::super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], ImageError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(too_short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ImageError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or_else(too_short)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ImageError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ImageError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ImageError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ImageError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn kind(&mut self) -> Result<Kind, ImageError> {
        self.array()
    }

    /// Reads a number of two or four bytes.
    pub(super) fn u16_or_u32(&mut self, is_long: bool) -> Result<u32, ImageError> {
        match is_long {
            true => self.u32(),
            false => self.u16().map(u32::from),
        }
    }

    /// Reads a number of 0, 4 or 8 bytes. A number of 0 bytes is 0.
    pub(super) fn number(&mut self, bytes: u8) -> Result<u64, ImageError> {
        match bytes {
            0 => Ok(0),
            4 => self.u32().map(u64::from),
            8 => self.u64(),
            _ => Err(corrupt("a number has neither 0, 4 nor 8 bytes")),
        }
    }

    /// Reads the text up to the next zero byte.
    pub(super) fn text(&mut self) -> Result<&'a [u8], ImageError> {
        let zero = self.rest.iter().position(|&byte| byte == 0);
        let text = self.take(zero.ok_or_else(too_short)?)?;
        self.u8()?;
        Ok(text)
    }

    /// Reads the version and the flags of a full box.
    pub(super) fn version(&mut self) -> Result<(u8, u32), ImageError> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00ff_ffff))
    }

    /// Reads the next box inside a box; `None` at the end.
    pub(super) fn inner_box(&mut self) -> Result<Option<(Kind, Reader<'a>)>, ImageError> {
        match self.top_box()? {
            Some(found) if found.is_truncated => Err(too_short()),
            Some(found) => Ok(Some((found.kind, found.content))),
            None => Ok(None),
        }
    }

    /// Returns whether the rest of a file ends before its last box does, or within the header of a box. Ignores bytes
    /// after the last box that begin no box, as other decoders do.
    pub(in super::super) fn ends_early(mut self) -> bool {
        loop {
            let rest = self.rest;
            match self.top_box() {
                Ok(Some(found)) if !found.is_truncated => {}
                Ok(_) => return begins_box(rest),
                Err(_) => return false,
            }
        }
    }

    /// Reads the next box of a file; `None` at the end, or if less than a header is left.
    pub(in super::super) fn top_box(&mut self) -> Result<Option<TopBox<'a>>, ImageError> {
        if self.rest.len() < 8 {
            return Ok(None);
        }
        let short = self.u32()?;
        let kind = self.kind()?;
        let (len, header) = match short {
            0 => (None, 8),
            1 if self.rest.len() < 8 => (None, 8),
            1 => (Some(self.u64()?), 16),
            len => (Some(u64::from(len)), 8),
        };
        let available = self.rest.len();
        let len = match len {
            None => available,
            Some(len) => {
                let content = len.checked_sub(header);
                let content = content.ok_or_else(|| corrupt("a box is shorter than its header"))?;
                usize::try_from(content).unwrap_or(usize::MAX)
            }
        };
        let is_truncated = len > available || (short == 1 && header == 8);
        let content = Reader::new(self.take(len.min(available))?);
        Ok(Some(TopBox {
            kind,
            content,
            is_truncated,
        }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn boxes_end_where_their_header_says() {
        let file = b"\0\0\0\x0bfirsabc\0\0\0\x01long\0\0\0\0\0\0\0\x12de\0\0\0\0restfgh";
        let mut reader = Reader::new(file);
        let mut found = Vec::new();
        while let Some(next) = reader.top_box().unwrap() {
            assert!(!next.is_truncated);
            found.push((next.kind, next.content.rest()));
        }
        let expected = [
            (*b"firs", &b"abc"[..]),
            (*b"long", b"de"),
            (*b"rest", b"fgh"),
        ];
        assert_eq!(found, expected);
        let torn = Reader::new(&file[..10]).top_box().unwrap().unwrap();
        assert!(torn.is_truncated);
        assert!(Reader::new(&file[..10]).inner_box().is_err());
        for len in [b"\0\0\0\x07".as_slice(), b"\0\0\0\x02"] {
            let file = [len, b"kindcontent"].concat();
            assert!(Reader::new(&file).top_box().is_err());
        }
        let huge = b"\0\0\0\x01long\xff\xff\xff\xff\xff\xff\xff\xffde";
        assert!(Reader::new(huge).top_box().unwrap().unwrap().is_truncated);
    }
}
