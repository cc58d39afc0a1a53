//! What is left out of the inputs: `--exclude`, and folders that other programs fill.

use std::path::Path;

use glob::{MatchOptions, Pattern};

use super::pattern::with_exclamation_marks;

/// A value of `--exclude`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exclusion {
    pattern: Pattern,
    /// Whether it is compared with the path below an input, not with a name.
    is_path: bool,
    /// Whether it ends with a slash.
    folders_only: bool,
}

/// Folders of thumbnails, waste and the like, which are left out of other folders. Hidden ones are anyway.
const FOREIGN: [&str; 7] = [
    "@eaDir",
    "@Recycle",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "__MACOSX",
];

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

impl Exclusion {
    /// # Errors
    ///
    /// A sentence.
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

    /// Whether it leaves out the file or folder at this path below an input.
    pub(crate) fn matches(&self, relative: &Path, is_folder: bool) -> bool {
        let compared = match self.is_path {
            true => relative.as_os_str(),
            false => relative.file_name().unwrap_or_default(),
        };
        (is_folder || !self.folders_only)
            && self
                .pattern
                .matches_with(&compared.to_string_lossy(), OPTIONS)
    }

    /// Whether it leaves out this path, or a folder that the path leads through.
    pub(crate) fn matches_within(&self, path: &Path, is_folder: bool) -> bool {
        let plain = path.strip_prefix(".").unwrap_or(path);
        let mut ways = plain.ancestors().enumerate();
        ways.any(|(depth, way)| self.matches(way, is_folder || depth > 0))
    }
}

/// Whether a folder of this name is left out of other folders.
pub(crate) fn is_foreign_folder(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    FOREIGN.iter().any(|foreign| name == *foreign)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

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
