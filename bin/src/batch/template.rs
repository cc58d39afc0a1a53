//! Names of results: `--name`.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use arenite_image::Format;

use super::kind::Kind;

/// A template for names, such as `{stem}-{width}.{ext}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(OsString),
    /// The name of the input without the extension of a picture.
    Stem,
    /// The name of the input.
    Name,
    /// The extension of the input, if it is that of a picture.
    From,
    /// The extension of the format.
    Ext,
    /// The width of the result in pixels.
    Width,
    /// The height of the result in pixels.
    Height,
}

impl Part {
    const NAMED: [(&'static str, Part); 6] = [
        ("{stem}", Part::Stem),
        ("{name}", Part::Name),
        ("{from}", Part::From),
        ("{ext}", Part::Ext),
        ("{width}", Part::Width),
        ("{height}", Part::Height),
    ];
}

/// The path of a picture's results, up to their sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The folder of the results.
    folder: PathBuf,
    /// Texts and sides only.
    parts: Vec<Part>,
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, named) = rest.split_at(at);
            let found = Part::NAMED
                .into_iter()
                .find(|(name, _)| named.starts_with(name));
            let Some((name, part)) = found else {
                let end = named.find('}').map_or(named.len(), |end| end + 1);
                return Err(format!(
                    "unknown {:?}; choose {{stem}}, {{name}}, {{from}}, {{ext}}, {{width}} or {{height}}",
                    &named[..end]
                ));
            };
            parts.extend((!before.is_empty()).then(|| Part::Text(before.into())));
            parts.push(part);
            rest = &named[name.len()..];
        }
        parts.extend((!rest.is_empty()).then(|| Part::Text(rest.into())));
        Ok(Template(parts))
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            let named = Part::NAMED.iter().find(|(_, named)| named == part);
            match (part, named) {
                (Part::Text(text), _) => write!(f, "{}", text.display())?,
                (_, named) => f.write_str(named.map_or("", |(name, _)| name))?,
            }
        }
        Ok(())
    }
}

impl Default for Template {
    /// `{stem}.{ext}`.
    fn default() -> Template {
        Template(vec![Part::Stem, Part::Text(".".into()), Part::Ext])
    }
}

impl Template {
    /// Parses a template for names below the output folder.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub(crate) fn below(text: &str) -> Result<Template, String> {
        let template: Template = text.parse()?;
        let is_name = |part: &str| !matches!(part, "" | "." | "..");
        if text.contains('\0') || !text.split('/').all(is_name) {
            return Err("a name below the output folder is needed".to_owned());
        }
        if !text.ends_with(".{ext}") && template.format().is_none() {
            let why = "it must end with .{ext}, or with the extension of the format to write";
            return Err(why.to_owned());
        }
        Ok(template)
    }

    /// The format that the template's own extension stands for, if it has one.
    pub(crate) fn format(&self) -> Option<Format> {
        let Some(Part::Text(end)) = self.0.last() else {
            return None;
        };
        let (_, extension) = end.to_str()?.rsplit_once('.')?;
        extension.parse().ok()
    }

    /// Whether results of different sides may have different names.
    pub(crate) fn has_sides(&self) -> bool {
        has_sides(&self.0)
    }

    /// Whether results of different heights may have different names.
    pub(crate) fn has_height(&self) -> bool {
        self.0.contains(&Part::Height)
    }

    /// This template with the whole name of the input, in the place of its stem if it has that, and with the extension
    /// of `format`, if there is one: it tells the inputs of a folder apart.
    pub(crate) fn with_whole_names(&self, format: Option<Format>) -> Template {
        let named = [Part::Stem, Part::Name];
        let missing = match self.0.iter().any(|part| named.contains(part)) {
            true => vec![],
            false => vec![Part::Name, Part::Text("-".into())],
        };
        let whole = |part: &Part| match (part, format) {
            (Part::Stem, _) => Part::Name,
            (Part::Ext, Some(format)) => Part::Text(format.extension().into()),
            _ => part.clone(),
        };
        Template(missing.iter().chain(&self.0).map(whole).collect())
    }

    /// The name of the results of `input`, in its folder.
    pub(crate) fn fill(&self, input: &Path, format: Format) -> Name {
        // The extension of a picture only: that of IMG.0001 is a part of its name.
        let (stem, from) = match Kind::expected(input) {
            true => (input.file_stem(), input.extension()),
            false => (input.file_name(), None),
        };
        let text = |text: Option<&OsStr>| Part::Text(text.unwrap_or_default().to_owned());
        let filled = |part: &Part| match part {
            Part::Stem => text(stem),
            Part::Name => text(input.file_name()),
            Part::From => text(from),
            Part::Ext => Part::Text(format.extension().into()),
            part => part.clone(),
        };
        Name {
            folder: input.parent().unwrap_or(Path::new("")).to_owned(),
            parts: self.0.iter().map(filled).collect(),
        }
    }
}

impl Name {
    /// Whether it depends on the sides of a result.
    pub(crate) fn has_sides(&self) -> bool {
        has_sides(&self.parts)
    }

    /// The path of a result with these sides in pixels. Without sides, `{width}` and `{height}` stay in it.
    pub(crate) fn path(&self, sides: Option<[u32; 2]>) -> PathBuf {
        let mut name = OsString::new();
        for part in &self.parts {
            match (part, sides) {
                (Part::Text(text), _) => name.push(text),
                (Part::Width, Some([width, _])) => name.push(width.to_string()),
                (Part::Height, Some([_, height])) => name.push(height.to_string()),
                (Part::Width, None) => name.push("{width}"),
                (Part::Height, None) => name.push("{height}"),
                (Part::Stem | Part::Name | Part::From | Part::Ext, _) => {}
            }
        }
        self.folder.join(name)
    }
}

fn has_sides(parts: &[Part]) -> bool {
    parts.contains(&Part::Width) || parts.contains(&Part::Height)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn parts_are_filled_in() {
        let path = |template: &str, input: &str| {
            let name = Template::below(template)
                .unwrap()
                .fill(Path::new(input), Format::Jpeg);
            name.path(Some([320, 200])).display().to_string()
        };
        for (template, input, expected) in [
            ("{stem}-{width}.{ext}", "x/a.png", "x/a-320.jpg"),
            (
                "{width}x{height}/{stem}.{ext}",
                "x/a.png",
                "x/320x200/a.jpg",
            ),
            ("{stem}{stem}.{ext}", "IMG.0001", "IMG.0001IMG.0001.jpg"),
            ("t_{stem}.jpeg", "a{width}.jpg", "t_a{width}.jpeg"),
            ("{name}.webp", "x/a.PNG", "x/a.PNG.webp"),
            ("{stem}_{from}.{ext}", "x/a.PNG", "x/a_PNG.jpg"),
            ("{name}{from}.{ext}", "IMG.0001", "IMG.0001.jpg"),
        ] {
            assert_eq!(path(template, input), expected);
        }
        let name = "{height}-{width}".parse::<Template>().unwrap();
        let name = name.fill(Path::new("a"), Format::Png);
        assert!(name.has_sides());
        assert_eq!(name.path(None), Path::new("{height}-{width}"));
    }

    #[test]
    fn the_default_replaces_the_extension_of_pictures_only() {
        for (input, expected) in [
            ("x/a.png", "x/a.jpg"),
            ("b", "b.jpg"),
            ("IMG.0001", "IMG.0001.jpg"),
            ("v1.2/e.", "v1.2/e..jpg"),
            ("f.jpg.bak", "f.jpg.bak.jpg"),
            (".jpg", ".jpg.jpg"),
        ] {
            let name = Template::default().fill(Path::new(input), Format::Jpeg);
            assert_eq!(name.path(None), Path::new(expected));
        }
    }

    #[test]
    fn what_names_no_file_below_the_folder_is_refused() {
        for wrong in [
            "",
            "{stem}",
            "{stem}-{width}",
            "{stem}.tif",
            "/{stem}.{ext}",
            "../{stem}.{ext}",
            "a//{stem}.{ext}",
            "{stem}/.{ext}/",
            "{name}",
            "{stem}.{from}",
            "{nam}.{ext}",
            "{stem.{ext}",
            "stem}.{ext}",
            "{stem}.{ext}\0",
        ] {
            assert!(Template::below(wrong).is_err(), "{wrong:?}");
        }
        let why = Template::below("{nam}.{ext}").unwrap_err();
        assert!(why.contains("{nam}") && why.contains("{width}"), "{why}");
    }

    #[test]
    fn an_extension_of_the_template_is_a_format() {
        let format = |text: &str| text.parse::<Template>().unwrap().format();
        assert_eq!(format("{stem}.webp"), Some(Format::WebP));
        assert_eq!(format("{stem}.JPEG"), Some(Format::Jpeg));
        assert_eq!(format("{stem}.{ext}"), None);
        assert_eq!(format("jpg"), None);
    }
}
