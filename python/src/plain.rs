//! Pickles of plain values: [`check_plain`].

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// The opcodes of a pickle that a sandboxed worker may send, and what follows each of them.
enum Follows {
    /// A number of bytes.
    Fixed(usize),
    /// A length of this number of bytes, little endian, then as many bytes.
    Counted(usize),
}

/// What follows an opcode; `None` if it is not allowed. The list is what pickle writes with protocol 5 for numbers, text,
/// bytes, containers and calls of what `find_class` returns. Left out is what changes any object (`BUILD`), makes one
/// without a call (`NEWOBJ`, `OBJ`, `INST`), passes by `find_class` (`EXT1`), or asks for memory by a number (`PUT`).
fn follows(opcode: u8) -> Option<Follows> {
    use Follows::{Counted, Fixed};
    Some(match opcode {
        // MARK, POP, POP_MARK, NONE, NEWTRUE, NEWFALSE.
        b'(' | b'0' | b'1' | b'N' | 0x88 | 0x89 => Fixed(0),
        // EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, TUPLE, EMPTY_LIST, APPEND, APPENDS.
        b')' | 0x85 | 0x86 | 0x87 | b't' | b']' | b'a' | b'e' => Fixed(0),
        // EMPTY_DICT, SETITEM, SETITEMS, EMPTY_SET, ADDITEMS, FROZENSET.
        b'}' | b's' | b'u' | 0x8f | 0x90 | 0x91 => Fixed(0),
        // MEMOIZE, STACK_GLOBAL, REDUCE, NEXT_BUFFER, READONLY_BUFFER.
        0x94 | 0x93 | b'R' | 0x97 | 0x98 => Fixed(0),
        // PROTO, BININT1, BINGET.
        0x80 | b'K' | b'h' => Fixed(1),
        // BININT2.
        b'M' => Fixed(2),
        // BININT, LONG_BINGET.
        b'J' | b'j' => Fixed(4),
        // BINFLOAT, FRAME.
        b'G' | 0x95 => Fixed(8),
        // LONG1, SHORT_BINUNICODE, SHORT_BINBYTES.
        0x8a | 0x8c | b'C' => Counted(1),
        // LONG4, BINUNICODE, BINBYTES.
        0x8b | b'X' | b'B' => Counted(4),
        // BINUNICODE8, BINBYTES8, BYTEARRAY8.
        0x8d | 0x8e | 0x96 => Counted(8),
        _ => return None,
    })
}

const STOP: u8 = b'.';
const FRAME: u8 = 0x95;

/// What is wrong with a pickle: an opcode that is not allowed, or a length.
///
/// No opcode may cross the end of a frame: the unpickler would go on elsewhere, with opcodes that are not seen here.
fn first_wrong(pickle: &[u8]) -> Option<String> {
    let (mut at, mut frame_end) = (0, 0);
    loop {
        let Some((&opcode, after)) = pickle.get(at..).and_then(<[u8]>::split_first) else {
            return Some("has no end".into());
        };
        let number = |width: usize| {
            let mut bytes = [0; 8];
            bytes[..width].copy_from_slice(after.get(..width)?);
            usize::try_from(u64::from_le_bytes(bytes)).ok()
        };
        let len = match (opcode, follows(opcode)) {
            (STOP, _) => Some(0),
            (_, None) => return Some(format!("contains the opcode {opcode:#04x}")),
            (_, Some(Follows::Fixed(len))) => Some(len),
            (_, Some(Follows::Counted(width))) => {
                number(width).and_then(|len| len.checked_add(width))
            }
        };
        let end = len.and_then(|len| len.checked_add(at + 1));
        let end = end.filter(|&end| end <= pickle.len());
        let Some(end) = end.filter(|&end| at >= frame_end || end <= frame_end) else {
            return Some("ends too early".into());
        };
        if opcode == STOP {
            return None;
        }
        if opcode == FRAME {
            let frame = number(8).and_then(|len| len.checked_add(end));
            match frame.filter(|&frame| at >= frame_end && frame <= pickle.len()) {
                Some(frame) => frame_end = frame,
                None => return Some("has a wrong frame".into()),
            }
        }
        at = end;
    }
}

/// Checks that unpickling these bytes does no more than to make numbers, text and containers, and to call what
/// `find_class` of the unpickler returns. Raises ValueError otherwise.
#[pyfunction]
pub fn check_plain(pickle: &[u8]) -> PyResult<()> {
    match first_wrong(pickle) {
        None => Ok(()),
        Some(why) => Err(PyValueError::new_err(format!(
            "the pickle of a sandboxed worker {why}"
        ))),
    }
}
