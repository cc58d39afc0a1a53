//! The opcodes of pickles, named as in `pickle`.

pub const MARK: u8 = b'(';
pub const POP: u8 = b'0';
pub const POP_MARK: u8 = b'1';
pub const STOP: u8 = b'.';
pub const NONE: u8 = b'N';
pub const NEWTRUE: u8 = 0x88;
pub const NEWFALSE: u8 = 0x89;
pub const EMPTY_TUPLE: u8 = b')';
pub const TUPLE1: u8 = 0x85;
pub const TUPLE2: u8 = 0x86;
pub const TUPLE3: u8 = 0x87;
pub const TUPLE: u8 = b't';
pub const EMPTY_LIST: u8 = b']';
pub const APPEND: u8 = b'a';
pub const APPENDS: u8 = b'e';
pub const EMPTY_DICT: u8 = b'}';
pub const SETITEM: u8 = b's';
pub const SETITEMS: u8 = b'u';
pub const EMPTY_SET: u8 = 0x8f;
pub const ADDITEMS: u8 = 0x90;
pub const FROZENSET: u8 = 0x91;
pub const MEMOIZE: u8 = 0x94;
pub const STACK_GLOBAL: u8 = 0x93;
pub const REDUCE: u8 = b'R';
pub const NEXT_BUFFER: u8 = 0x97;
pub const READONLY_BUFFER: u8 = 0x98;
pub const PROTO: u8 = 0x80;
pub const BININT1: u8 = b'K';
pub const BININT2: u8 = b'M';
pub const BININT: u8 = b'J';
pub const LONG1: u8 = 0x8a;
pub const LONG4: u8 = 0x8b;
pub const BINFLOAT: u8 = b'G';
pub const BINGET: u8 = b'h';
pub const LONG_BINGET: u8 = b'j';
pub const FRAME: u8 = 0x95;
pub const SHORT_BINUNICODE: u8 = 0x8c;
pub const BINUNICODE: u8 = b'X';
pub const BINUNICODE8: u8 = 0x8d;
pub const SHORT_BINBYTES: u8 = b'C';
pub const BINBYTES: u8 = b'B';
pub const BINBYTES8: u8 = 0x8e;
pub const BYTEARRAY8: u8 = 0x96;

/// The data that follows an opcode.
pub enum Follows {
    /// This number of bytes.
    Fixed(usize),
    /// A length of this number of bytes, little endian, and content of that length.
    Counted(usize),
}

/// Returns the data that follows an opcode; `None` if the opcode is not allowed. The allowed opcodes are those that
/// `pickle` writes with protocol 5 for numbers, text, bytes, containers and calls of functions. Not allowed are opcodes
/// that change an arbitrary object (`BUILD`), create an object without a call (`NEWOBJ`, `OBJ`, `INST`), allocate
/// memory by a number (`PUT`), or serve values that contain themselves (`POP`).
pub fn follows(opcode: u8) -> Option<Follows> {
    use Follows::{Counted, Fixed};
    Some(match opcode {
        MARK | NONE | NEWTRUE | NEWFALSE | STOP => Fixed(0),
        EMPTY_TUPLE | TUPLE1 | TUPLE2 | TUPLE3 | TUPLE => Fixed(0),
        EMPTY_LIST | APPEND | APPENDS => Fixed(0),
        EMPTY_DICT | SETITEM | SETITEMS => Fixed(0),
        EMPTY_SET | ADDITEMS | FROZENSET => Fixed(0),
        MEMOIZE | STACK_GLOBAL | REDUCE => Fixed(0),
        NEXT_BUFFER | READONLY_BUFFER => Fixed(0),
        PROTO | BININT1 | BINGET => Fixed(1),
        BININT2 => Fixed(2),
        BININT | LONG_BINGET => Fixed(4),
        BINFLOAT | FRAME => Fixed(8),
        LONG1 | SHORT_BINUNICODE | SHORT_BINBYTES => Counted(1),
        LONG4 | BINUNICODE | BINBYTES => Counted(4),
        BINUNICODE8 | BINBYTES8 | BYTEARRAY8 => Counted(8),
        _ => return None,
    })
}
