//! Globs, matched name by name during a walk, and the patterns of `--exclude`.
//!
//! `*`, `?` and `[…]` match parts of one name; `**` matches folders at any depth, including none. Only a dot matches
//! the leading dot of a name. The components before the first pattern are the [prefix](Glob::prefix), where the walk
//! starts.
//!
//! A path may match the first parts of a glob in several ways: for `**/a/*`, the second name of `a/a` may be the `a` or
//! the `*`. [`Reached`] is the set of all these ways, so a walk visits each path once, and turns back when none can
//! continue.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::text::show_path;

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

/// A glob, split at its slashes.
#[derive(Debug)]
pub(crate) struct Glob {
    prefix: PathBuf,
    parts: Vec<Part>,
    /// Whether the glob ends with a slash.
    folders_only: bool,
}

#[derive(Debug)]
enum Part {
    /// Exactly this name.
    Name(OsString),
    /// One name that matches this pattern.
    Pattern(Pattern),
    /// `**`: any number of folders.
    Folders,
}

/// For each way in which a path matches the first parts of a glob, the number of these parts.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reached(Vec<usize>);

impl Reached {
    /// Returns whether neither the path nor anything in it can match.
    pub(crate) fn is_dead_end(&self) -> bool {
        self.0.is_empty()
    }
}

impl Glob {
    /// # Errors
    ///
    /// A sentence about the part that is not a valid pattern.
    pub(crate) fn new(pattern: &Path) -> Result<Glob, String> {
        let components: Vec<Component<'_>> = pattern.components().collect();
        let first = components
            .iter()
            .position(|part| is_pattern(part.as_os_str()))
            .unwrap_or(components.len());
        let (prefix, rest) = components.split_at(first);
        let mut parts: Vec<Part> = rest.iter().map(part).collect::<Result<_, _>>()?;
        let folders_only = pattern.as_os_str().as_bytes().ends_with(b"/");
        if matches!(parts.last(), Some(Part::Folders)) && !folders_only {
            // A final `**` means everything in those folders.
            parts.push(part(&Component::Normal(OsStr::new("*")))?);
        }
        Ok(Glob {
            prefix: prefix.iter().collect(),
            parts,
            folders_only,
        })
    }

    /// Returns the components before the first one that is a pattern, an empty path if there are none.
    pub(crate) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Returns the state in the folder of the prefix.
    pub(crate) fn start(&self) -> Reached {
        self.with_empty_folders(vec![0])
    }

    /// Returns the state at the entry `name` of a folder, whose state is `folder`.
    pub(crate) fn enter(&self, folder: &Reached, name: &OsStr) -> Reached {
        let text = text(name);
        let mut reached = Vec::new();
        for &used in &folder.0 {
            match self.parts.get(used) {
                Some(Part::Name(wanted)) if wanted == name => reached.push(used + 1),
                Some(Part::Pattern(wanted)) if wanted.matches_with(&text, OPTIONS) => {
                    reached.push(used + 1);
                }
                Some(Part::Folders) if !is_hidden(name) => reached.push(used),
                _ => {}
            }
        }
        self.with_empty_folders(reached)
    }

    /// Returns whether the path in this state matches the whole glob.
    pub(crate) fn matches(&self, reached: &Reached, is_folder: bool) -> bool {
        reached.0.contains(&self.parts.len()) && (is_folder || !self.folders_only)
    }

    /// Adds the states in which a `**` matches no folder.
    fn with_empty_folders(&self, mut reached: Vec<usize>) -> Reached {
        let mut next = 0;
        while let Some(&used) = reached.get(next) {
            if matches!(self.parts.get(used), Some(Part::Folders)) {
                reached.push(used + 1);
            }
            next += 1;
        }
        reached.sort_unstable();
        reached.dedup();
        Reached(reached)
    }
}

fn part(component: &Component<'_>) -> Result<Part, String> {
    let name = component.as_os_str();
    if *component == Component::ParentDir {
        return Err("'..' is only allowed before the first pattern".to_owned());
    }
    if !is_pattern(name) {
        return Ok(Part::Name(name.to_owned()));
    }
    if name == "**" {
        return Ok(Part::Folders);
    }
    let pattern = Pattern::new(&with_exclamation_marks(&text(name)));
    let pattern =
        pattern.map_err(|error| format!("{}: {}", show_path(Path::new(name)), error.msg))?;
    Ok(Part::Pattern(pattern))
}

/// Turns `[^…]` into `[!…]`, which has the same meaning in shells.
pub(crate) fn with_exclamation_marks(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('[') {
        let (before, within) = rest.split_at(at + 1);
        out.push_str(before);
        let negated = within.strip_prefix(['^', '!']);
        if negated.is_some() {
            out.push('!');
        }
        let within = negated.unwrap_or(within);
        // A bracket as the first character does not end the set.
        let first = within.chars().next().map_or(0, char::len_utf8);
        let end = within[first..].find(']').map_or(0, |end| first + end + 1);
        out.push_str(&within[..end]);
        rest = &within[end..];
    }
    out.push_str(rest);
    out
}

/// Returns a hint if the text contains syntax that only shells support.
pub(crate) fn foreign(text: &OsStr) -> Option<&'static str> {
    let text = text.as_bytes();
    let has = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    (has(b"{") || has(b"[[:") || text.starts_with(b"~/"))
        .then_some("globs of arenite support *, ?, […] and **, but no {…}, [[:…:]] or ~")
}

/// Returns whether a name contains a pattern.
pub(crate) fn is_pattern(text: &OsStr) -> bool {
    text.as_bytes()
        .iter()
        .any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Returns a name as text. Each byte that is not UTF-8 becomes one character, so that `?` matches it.
fn text(name: &OsStr) -> Cow<'_, str> {
    if let Some(text) = name.to_str() {
        return Cow::Borrowed(text);
    }
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().copied().map(stand_in));
    }
    Cow::Owned(text)
}

/// Returns the character that replaces a byte that is not UTF-8. It is from the end of Unicode's private use area,
/// which names rarely contain.
fn stand_in(byte: u8) -> char {
    char::from_u32(0x0010_ff00 | u32::from(byte)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// A value of `--exclude`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exclusion {
    pattern: Pattern,
    /// Whether the pattern is compared with the path below an input, not with a name.
    is_path: bool,
    /// Whether the pattern ends with a slash.
    folders_only: bool,
}

/// With these options, patterns match hidden names too.
const EXCLUSION_OPTIONS: MatchOptions = MatchOptions {
    require_literal_leading_dot: false,
    ..OPTIONS
};

impl Exclusion {
    /// # Errors
    ///
    /// A sentence that says what is wrong with the pattern.
    pub(crate) fn parse(text: &str) -> Result<Exclusion, String> {
        let plain = text.trim_end_matches('/');
        let (folders_only, is_path) = (plain.len() < text.len(), plain.contains('/'));
        let plain = plain.trim_start_matches("./").trim_start_matches('/');
        if plain.is_empty() {
            return Err(
                "a name or a path below an input is needed, such as '*.tmp.jpg'".to_owned(),
            );
        }
        let pattern = Pattern::new(&with_exclamation_marks(plain));
        Ok(Exclusion {
            pattern: pattern.map_err(|error| error.msg.to_owned())?,
            is_path,
            folders_only,
        })
    }

    /// Returns whether the pattern matches the file or folder at this path below an input.
    pub(crate) fn matches(&self, relative: &Path, is_folder: bool) -> bool {
        let compared = match self.is_path {
            true => relative.as_os_str(),
            false => relative.file_name().unwrap_or_default(),
        };
        (is_folder || !self.folders_only)
            && self
                .pattern
                .matches_with(&compared.to_string_lossy(), EXCLUSION_OPTIONS)
    }

    /// Returns whether the pattern matches this path, or a folder that the path leads through.
    pub(crate) fn matches_within(&self, path: &Path, is_folder: bool) -> bool {
        let plain = path.strip_prefix(".").unwrap_or(path);
        let mut ways = plain.ancestors().enumerate();
        ways.any(|(depth, way)| self.matches(way, is_folder || depth > 0))
    }
}

/// Returns whether a name begins with a dot.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn glob(pattern: &[u8]) -> Glob {
        Glob::new(Path::new(OsStr::from_bytes(pattern))).unwrap()
    }

    /// The state of a glob without a prefix at this path.
    fn reach(glob: &Glob, path: &[u8]) -> Reached {
        let names = path.split(|byte| *byte == b'/');
        names.fold(glob.start(), |folder, name| {
            glob.enter(&folder, OsStr::from_bytes(name))
        })
    }

    fn matches(pattern: &str, path: &str) -> bool {
        let glob = glob(pattern.as_bytes());
        glob.matches(&reach(&glob, path.as_bytes()), false)
    }

    #[test]
    fn a_walk_starts_at_the_literal_prefix() {
        let cases = [
            ("*.jpg", ""),
            ("photos/2024*/x/*.jpg", "photos"),
            ("../photos/**/*.jpg", "../photos"),
            ("/data/[ab]/x.jpg", "/data"),
            ("/*", "/"),
        ];
        for (pattern, prefix) in cases {
            assert_eq!(
                glob(pattern.as_bytes()).prefix(),
                Path::new(prefix),
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_part_matches_one_name_and_two_stars_any_number() {
        for (pattern, path) in [
            ("*.jpg", "a.jpg"),
            ("?[0-9]*", "a1b"),
            ("*/b/*.jpg", "a/b/c.jpg"),
            ("**/*.jpg", "a.jpg"),
            ("**/*.jpg", "a/b/c.jpg"),
            ("**", "a/b/c.jpg"),
            ("**/a/*", "a/a/b"),
            ("**/a/*", "a/b/a/c"),
            ("**/**/c", "a/b/c"),
            ("**/b/**/c", "a/b/c"),
            ("*/**", "a/b"),
            (".*", ".a"),
            ("**/.a/*", "b/.a/c"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.jpg", "a/b.jpg"),
            ("*.jpg", "a.JPG"),
            ("*/*.jpg", "a.jpg"),
            ("**/a/*", "b/a"),
            ("**/b/**/c", "a/c"),
            ("*", ".a"),
            ("[.]a", ".a"),
            ("*/**", "a"),
            ("**/*", "b/.a/c"),
            ("**", ".a"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_caret_negates_a_set_like_an_exclamation_mark() {
        for (pattern, path, expected) in [
            ("[^a]", "b", true),
            ("[^a]", "a", false),
            ("[!a]", "b", true),
            ("x[^a-c][^d].jpg", "xde.jpg", true),
            ("x[^a-c][^d].jpg", "xdd.jpg", false),
            // A caret elsewhere is an ordinary character, and so is a bracket at the start.
            ("[a^]", "^", true),
            ("[a^]", "b", false),
            ("[][^]", "^", true),
            ("[][^]", "b", false),
            ("[^]]", "b", true),
            ("[^]]", "]", false),
            ("[]^]", "^", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_walk_turns_back_where_nothing_can_match() {
        let can_match = |pattern: &[u8], path: &[u8]| !reach(&glob(pattern), path).is_dead_end();
        assert!(can_match(b"*/b/*.jpg", b"a/b"));
        assert!(!can_match(b"*/b/*.jpg", b"a/c"));
        assert!(!can_match(b"2024-*/*.jpg", b"2023-01"));
        assert!(!can_match(b"*/*.jpg", b"a/b"), "too deep");
        assert!(can_match(b"**/*.jpg", b"a/b/c/d"));
        assert!(!can_match(b"**/*.jpg", b"a/.b"));
    }

    #[test]
    fn a_trailing_slash_matches_only_folders() {
        let glob = glob(b"*/");
        let reached = reach(&glob, b"a");
        assert!(glob.matches(&reached, true) && !glob.matches(&reached, false));
    }

    #[test]
    fn a_question_mark_matches_a_byte_that_is_not_utf8() {
        let matches = |pattern: &[u8], name: &[u8]| {
            let glob = glob(pattern);
            glob.matches(&reach(&glob, name), false)
        };
        assert!(matches(b"*.jpg", b"\xff\xfe.jpg"));
        assert!(matches(b"??.jpg", b"\xff\xfe.jpg"));
        assert!(!matches(b"?.jpg", b"\xff\xfe.jpg"));
        assert!(
            matches(b"??", b"\xe4\xbd"),
            "a truncated character counts as its bytes"
        );
        assert!(matches(b"?", "ä".as_bytes()));
        assert!(matches(b"\xff*", b"\xff\xfe"));
        assert!(!matches(b"\xfe*", b"\xff\xfe"));
        assert!(matches(b"*/\xff", b"a/\xff"));
    }

    #[test]
    fn an_invalid_part_is_named_in_the_error() {
        for (pattern, word) in [
            ("p/a**", "a**"),
            ("p/***/b", "***"),
            ("p/[ab", "[ab"),
            ("p/[^]", "[^]"),
            ("p/[^^", "[^^"),
            ("p/*/../a", "'..'"),
        ] {
            let error = Glob::new(Path::new(pattern)).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_name_matches_anywhere_and_a_path_from_the_input_on() {
        for (exclusion, path, is_excluded) in [
            ("*.bak.jpg", "x/a.bak.jpg", true),
            ("*.bak.jpg", "x/a.jpg", false),
            ("raw", "x/raw/a.jpg", true),
            ("raw/", "x/raw", false),
            ("raw/", "x/raw/a.jpg", true),
            ("x/*.jpg", "x/a.jpg", true),
            ("x/*.jpg", "y/x/a.jpg", false),
            ("x/*.jpg", "x/y/a.jpg", false),
            ("/a.jpg", "a.jpg", true),
            ("/a.jpg", "x/a.jpg", false),
            ("**/x/*.jpg", "y/x/a.jpg", true),
            ("[^a]*", "b.jpg", true),
            ("[^a]*", "a.jpg", false),
        ] {
            let parsed = Exclusion::parse(exclusion).unwrap();
            let found = parsed.matches_within(Path::new(path), false);
            assert_eq!(found, is_excluded, "{exclusion} {path}");
        }
        for wrong in ["", "/", "[a"] {
            assert!(Exclusion::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
