//! The command line of `arenite check`.

use std::ffi::OsString;

use clap::{Args, ValueHint};

use crate::batch::run_args::RunArgs;

const EXAMPLES: &str = "\
Examples:
  Name the damaged pictures of a folder:
    arenite check photos
  Move them away:
    arenite check photos --print0 | xargs -r0 mv -t broken
  Untrusted files, with a time limit for each:
    arenite check uploads --sandbox require --timeout 30s
  A list of names, and an answer for a program:
    find photos -name '*.jpg' -print0 | arenite check -0 --json";

const DETAILS: &str = "\
Inputs:
  Files, folders, globs and lists as for resize, with the same formats. All
  pixels of a picture are decoded: of a TIFF with several pages those of the
  first, of an animation in GIF, WebP or PNG those of all frames (in AVIF and
  JPEG XL of the first). Nothing is written. A file that ends before another
  of its pictures does is damaged: a page of a TIFF, a size of an ICO, a
  picture in the index of a JPEG (MPO).

Damaged:
  A damaged file is a line on stdout, also with --quiet: its path, a tab, and
  what is wrong; with --print0 its path alone. It ends early, its content is
  not what its format prescribes, a checksum is wrong, or it has the extension
  of a picture and is empty or begins like none. --fail-on moves the limit; at
  the default, damage around the pixels is a warning on stderr: no end marker,
  no restart markers, bytes between segments.

Failed:
  What could not be judged is an error on stderr: a file that cannot be read,
  a format that is not supported, a picture beyond the limits, one that takes
  too long or too much memory, or that crashes its decoder. Raise the limit
  that is named, or look at the file with another program.

--timeout:
  Without it, a picture has one minute, and 10 s more for each megapixel of
  all its frames, from its start in a worker. If the header does not say the
  pixels in a simple way (AVIF, HEIC, JPEG XL, PNM, QOI, TGA, ICO),
  --max-pixels count.

--json:
  One object per line and input, in the order of the inputs. Fields: type
  (\"file\"), input, status (whole, damaged, failed or pending), error, cause,
  attempts and crash (in a worker), ms, format, and of a whole picture width
  and height in pixels, warning, and missing, the share of its pixels that are
  missing.
  Other fields of resize --json are null. The last object has type \"summary\",
  shard, a status (done, interrupted or refused) and counts. Causes are those
  of resize; truncated, corrupt and not-an-image can be damage.

Exit codes: 0 all pictures are whole, 1 some are damaged or failed, or the
list on stdout, the trace or the report could not be written, 2 wrong usage or
set-up, or no input found; and as a shell shows the end by a signal: 130
interrupted, 143 terminated, 129 hung up.";

/// Find damaged pictures: decode all of them, and write nothing
///
/// Each picture is decoded in a worker process, so that no file can crash the program. Damaged files are listed on
/// stdout with what is wrong.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{DETAILS}")
)]
pub(crate) struct CheckArgs {
    /// Files, folders or globs; - reads a list of names from stdin, one per line
    #[arg(
        value_name = "INPUT",
        value_hint = ValueHint::AnyPath,
        required_unless_present = "null"
    )]
    pub inputs: Vec<OsString>,

    /// Read a NUL-separated list from stdin, as written by find -print0 (implies -)
    #[arg(short = '0', long = "null")]
    pub null: bool,

    #[command(flatten)]
    pub run: RunArgs,
}
