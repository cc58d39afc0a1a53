//! Names the result of each input before any work begins, by the template of `--name`.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use arenite_image::Format;

use super::inputs::{Input, Kind};
use super::outcome::{Encoded, Fault, Outcome, Written};
use super::shard::Shard;
use crate::folder::{Stamp, identity, is_same};
use crate::text::show_path;

/// An input with its task, in the order of the inputs.
#[derive(Debug)]
pub(crate) struct Item {
    pub input: PathBuf,
    /// Whether the item belongs to the share of this run: see `--shard`.
    pub is_in_shard: bool,
    pub task: Result<Task, Fault>,
}

impl Item {
    /// Returns the task, if it needs work.
    pub(crate) fn ready(&self) -> Option<&Task> {
        self.task.as_ref().ok().filter(|task| task.fresh.is_none())
    }

    /// Returns the outcome of an item that this run does not process: `ready` if the item needs work.
    pub(crate) fn unworked(&self, ready: Outcome) -> Outcome {
        match &self.task {
            Err(fault) => Outcome::Failed(fault.clone()),
            Ok(task) if task.fresh.is_some() => Outcome::Fresh,
            Ok(_) => ready,
        }
    }
}

/// A result to make, or several results from one picture.
#[derive(Debug)]
pub(crate) struct Task {
    /// The path of the result below the output folder, with the extension of the output format. If the name depends on
    /// the sides of the result, it still contains `{width}` and `{height}`.
    pub relative: PathBuf,
    /// The path including the output folder, as shown to the user. Empty if nothing is written.
    pub output: PathBuf,
    /// The name of the results, if it depends on their sides.
    pub several: Option<Name>,
    /// The format of the input at the time when it was found.
    pub source: Format,
    /// The format to write; the format of the input if nothing is written.
    pub format: Format,
    /// The stamp of the input at the time when it was found.
    pub stamp: Stamp,
    /// The existing results, if `--resume` has found them up to date.
    pub fresh: Option<Vec<Written>>,
}

impl Task {
    /// Returns the names of results, as paths below the output folder.
    ///
    /// # Errors
    ///
    /// If two results have the same name.
    pub(crate) fn named<B>(
        &self,
        results: Vec<Encoded<B>>,
    ) -> Result<Vec<(PathBuf, Encoded<B>)>, Fault> {
        let Some(name) = &self.several else {
            let one = results.into_iter().map(|one| (self.relative.clone(), one));
            return Ok(one.collect());
        };
        let mut named: Vec<(PathBuf, Encoded<B>)> = Vec::with_capacity(results.len());
        for result in results {
            let path = name.path(Some(result.sides));
            if let Some((_, other)) = named.iter().find(|(other, _)| *other == path) {
                let [width, height] = other.sides;
                let text = format!(
                    "not written: its results of {width}x{height} and {}x{} pixels would both be {}",
                    result.sides[0],
                    result.sides[1],
                    show_path(&path)
                );
                return Err(Fault::new("name-conflict", text));
            }
            named.push((path, result));
        }
        Ok(named)
    }
}

/// The error for results that would overwrite inputs, which prevents the run.
#[derive(Debug)]
pub(crate) struct Clash {
    /// All such results.
    pub conflicts: Vec<OverInput>,
    /// All items. The items in a conflict have failed.
    pub items: Vec<Item>,
}

/// A result that would overwrite an input, possibly through another path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OverInput {
    input: PathBuf,
    output: PathBuf,
    victim: PathBuf,
}

impl fmt::Display for OverInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (input, output) = (show_path(&self.input), show_path(&self.output));
        match self.input == self.victim {
            true => write!(f, "{input} would be overwritten by its own result {output}"),
            false => {
                let victim = show_path(&self.victim);
                write!(
                    f,
                    "{output}, the result of {input}, would overwrite the input {victim}"
                )
            }
        }
    }
}

/// How results are named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming<'a> {
    /// The output folder.
    pub out: &'a Path,
    /// The format to write; `None` for that of the input.
    pub format: Option<Format>,
    pub template: &'a Template,
}

impl Naming<'_> {
    /// Returns advice that names a template with which the results of two inputs have different names.
    fn advice(&self, one: &Item, other: &Item) -> String {
        let template = self.template.with_whole_names(self.format);
        let name = |item: &Item| {
            let name = Path::new(item.input.file_name().unwrap_or_default());
            let task = item.task.as_ref().ok()?;
            Some(template.fill(name, task.format))
        };
        if name(one) != name(other) {
            return format!("--name '{template}' tells them apart");
        }
        let folders = [&one.input, &other.input].map(|path| path.parent().unwrap_or(Path::new("")));
        let mut shared = folders[0].ancestors();
        match shared.find(|folder| folders[1].starts_with(folder)) {
            Some(folder) if folders[0] != folders[1] => {
                let folder = match folder.as_os_str().is_empty() {
                    true => Path::new("."),
                    false => folder,
                };
                format!("--base {} keeps their folders", show_path(folder))
            }
            _ => "rename one of them, or use a separate command and --out for each".to_owned(),
        }
    }
}

/// Names all results, including those of other shards. If the results of two inputs have the same name, both fail.
///
/// # Errors
///
/// If a result has the path of an input.
pub(crate) fn plan(
    inputs: Vec<Input>,
    naming: Naming<'_>,
    shard: Option<&Shard>,
) -> Result<Vec<Item>, Clash> {
    let mut items: Vec<Item> = Vec::with_capacity(inputs.len());
    let mut by_output: HashMap<PathBuf, usize> = HashMap::new();
    // Pairs of indices of items whose results have the same path. `repeated` has the paths of result and input.
    let mut collisions: Vec<(usize, usize)> = Vec::new();
    let mut repeated: HashSet<(PathBuf, PathBuf)> = HashSet::new();
    let mut unreadable: HashSet<PathBuf> = HashSet::new();
    let holds = |relative: &Path| shard.is_none_or(|shard| shard.holds(relative));
    for input in inputs {
        let mut is_in_shard = holds(&input.relative);
        let task = match input.content {
            // An input that was found twice is reported once.
            Err(_) if !unreadable.insert(input.path.clone()) => continue,
            Err(fault) => Err(fault),
            Ok((found, stamp)) => {
                let format = naming.format.unwrap_or(found.default_output());
                let name = naming.template.fill(&input.relative, format);
                let relative = name.path(None);
                is_in_shard = holds(&relative);
                if let Some(&first) = by_output.get(&relative) {
                    let other = &items[first].input;
                    let key = || (relative.clone(), input.path.clone());
                    let is_first = other == &input.path || is_same(other, &input.path);
                    if is_first || !repeated.insert(key()) {
                        // An input that was found twice is processed once.
                        continue;
                    }
                    collisions.push((first, items.len()));
                } else {
                    by_output.insert(relative.clone(), items.len());
                }
                Ok(Task {
                    output: naming.out.join(&relative),
                    relative,
                    several: name.has_sides().then_some(name),
                    source: found,
                    format,
                    stamp,
                    fresh: None,
                })
            }
        };
        items.push(Item {
            input: input.path,
            is_in_shard,
            task,
        });
    }
    let mut faults = taken(naming, &items, &collisions);
    faults.extend(needed_as_folders(naming, &items, &by_output));
    let conflicts = overwritten(&items, naming.out);
    for (index, fault) in faults {
        items[index].task = Err(fault);
    }
    if conflicts.is_empty() {
        return Ok(items);
    }
    let blamed: HashMap<&Path, &OverInput> = conflicts
        .iter()
        .map(|conflict| (conflict.input.as_path(), conflict))
        .collect();
    for item in items.iter_mut().filter(|item| item.task.is_ok()) {
        if let Some(conflict) = blamed.get(item.input.as_path()) {
            item.task = Err(Fault::new("name-conflict", conflict.to_string()));
        }
    }
    Err(Clash { conflicts, items })
}

/// Returns a failure for both items of each pair: their results have the same name.
fn taken(naming: Naming<'_>, items: &[Item], pairs: &[(usize, usize)]) -> Vec<(usize, Fault)> {
    let fault = |this: usize, other: usize| {
        let (this, other) = (&items[this], &items[other]);
        let output = this.task.as_ref().map(|task| show_path(&task.output));
        let text = format!(
            "not written: {} would be written to {} too; {}",
            show_path(&other.input),
            output.unwrap_or_default(),
            naming.advice(other, this)
        );
        Fault::new("name-conflict", text)
    };
    let both =
        |&(one, other): &(usize, usize)| [(one, fault(one, other)), (other, fault(other, one))];
    pairs.iter().flat_map(both).collect()
}

/// Finds results with the name of a folder that another result needs. Returns a failure for both items.
fn needed_as_folders(
    naming: Naming<'_>,
    items: &[Item],
    by_output: &HashMap<PathBuf, usize>,
) -> Vec<(usize, Fault)> {
    let mut faults = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let Ok(task) = &item.task else { continue };
        for folder in task.relative.ancestors().skip(1) {
            let Some(&file) = by_output.get(folder) else {
                continue;
            };
            let text = format!(
                "not written: {}, the result of {}, is needed as a folder for the result of {}; {}",
                show_path(&naming.out.join(folder)),
                show_path(&items[file].input),
                show_path(&item.input),
                naming.advice(&items[file], item),
            );
            let fault = Fault::new("name-conflict", text);
            faults.extend([(file, fault.clone()), (index, fault)]);
        }
    }
    faults
}

/// Returns the inputs as tasks that write nothing. An input that was found twice becomes one task.
pub(crate) fn without_results(inputs: Vec<Input>, shard: Option<&Shard>) -> Vec<Item> {
    let mut found = HashSet::new();
    let new = inputs
        .into_iter()
        .filter(|input| found.insert(input.path.clone()));
    let item = |input: Input| Item {
        is_in_shard: shard.is_none_or(|shard| shard.holds(&input.relative)),
        input: input.path,
        task: input.content.map(|(format, stamp)| Task {
            relative: PathBuf::new(),
            output: PathBuf::new(),
            several: None,
            source: format,
            format,
            stamp,
            fresh: None,
        }),
    };
    new.map(item).collect()
}

/// Returns the results that would overwrite inputs. Compares files by device and inode, so that links are found too.
fn overwritten(items: &[Item], out: &Path) -> Vec<OverInput> {
    if !out.exists() {
        return Vec::new();
    }
    let tasks = || {
        items
            .iter()
            .filter_map(|item| Some((item, item.task.as_ref().ok()?)))
    };
    // Inputs that cannot be read must not be overwritten either.
    let inputs: HashMap<(u64, u64), &Path> = items
        .iter()
        .filter_map(|item| {
            let identity = match &item.task {
                Ok(task) => task.stamp.identity(),
                Err(_) => identity(&item.input)?,
            };
            Some((identity, item.input.as_path()))
        })
        .collect();
    tasks()
        .filter_map(|(item, task)| {
            let existing = Stamp::of(&fs::metadata(&task.output).ok()?);
            // Read the identity again: some file systems change a file's inode number after dropping it from their
            // cache.
            let own = || identity(&item.input) == Some(existing.identity());
            let victim = if existing.identity() == task.stamp.identity() || own() {
                item.input.as_path()
            } else {
                inputs.get(&existing.identity())?
            };
            Some(OverInput {
                input: item.input.clone(),
                output: task.output.clone(),
                victim: victim.to_owned(),
            })
        })
        .collect()
}

// ---- Templates of names -------------------------------------------------------------------------

/// A template for names, such as `{stem}-{width}.{ext}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(OsString),
    /// The name of the input, without its extension if that is an extension of a picture.
    Stem,
    /// The name of the input.
    Name,
    /// The extension of the input, if it is an extension of a picture.
    From,
    /// The usual extension of the format.
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

/// The path of a picture's results, in which their sides are still placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// The folder of the results.
    folder: PathBuf,
    /// The parts of the name: only texts and sides.
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
    /// Returns `{stem}.{ext}`.
    fn default() -> Template {
        Template(vec![Part::Stem, Part::Text(".".into()), Part::Ext])
    }
}

impl Template {
    /// Parses a template for names below the output folder.
    ///
    /// # Errors
    ///
    /// A sentence that says what is wrong with the template.
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

    /// Returns the format that the extension of the template stands for, if it has one.
    pub(crate) fn format(&self) -> Option<Format> {
        let Some(Part::Text(end)) = self.0.last() else {
            return None;
        };
        let (_, extension) = end.to_str()?.rsplit_once('.')?;
        extension.parse().ok()
    }

    /// Returns whether results of different sides may have different names.
    pub(crate) fn has_sides(&self) -> bool {
        has_sides(&self.0)
    }

    /// Returns whether results of different heights may have different names.
    pub(crate) fn has_height(&self) -> bool {
        self.0.contains(&Part::Height)
    }

    /// Returns this template with the whole name of the input in place of the stem (added if the template has neither),
    /// and with the extension of `format`, if given. So the results of all inputs in a folder have different names.
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

    /// Returns the name of the results of `input`, in the folder of `input`.
    pub(crate) fn fill(&self, input: &Path, format: Format) -> Name {
        // Only the extension of a picture is separated: in IMG.0001, `.0001` is a part of the name.
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
    /// Returns whether the name depends on the sides of a result.
    pub(crate) fn has_sides(&self) -> bool {
        has_sides(&self.parts)
    }

    /// Returns the path of a result with these sides in pixels. Without sides, `{width}` and `{height}` stay in the
    /// path.
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

    fn input(path: &str, relative: &str, format: Format, inode: u64) -> Input {
        let stamp = Stamp {
            inode,
            ..Stamp::default()
        };
        Input {
            path: path.into(),
            relative: relative.into(),
            content: Ok((format, stamp)),
        }
    }

    fn outputs(items: &[Item]) -> Vec<String> {
        items
            .iter()
            .map(|item| item.task.as_ref().unwrap().output.display().to_string())
            .collect()
    }

    const OUT: &str = "/nonexistent/out";

    fn plan_all(inputs: Vec<Input>) -> Result<Vec<Item>, Clash> {
        let naming = Naming {
            out: Path::new(OUT),
            format: None,
            template: &Template::default(),
        };
        plan(inputs, naming, None)
    }

    #[test]
    fn the_extension_follows_the_output_format() {
        let inputs = vec![
            input("p/a.png", "a.png", Format::Jpeg, 1),
            input("p/b", "b", Format::WebP, 2),
            input("p/c.gif", "x/c.gif", Format::Gif, 3),
            input("p/d.TIFF", "d.TIFF", Format::Tiff, 4),
            // A name may contain dots.
            input("p/IMG.0001", "IMG.0001", Format::Jpeg, 5),
            input("p/IMG.0002", "IMG.0002", Format::Jpeg, 6),
            input("p/v1.2/e.", "v1.2/e.", Format::Jpeg, 7),
            input("p/f.jpg.bak", "f.jpg.bak", Format::Jpeg, 8),
        ];
        let items = plan_all(inputs).unwrap();
        let names = [
            "a.jpg",
            "b.webp",
            "x/c.gif",
            "d.png",
            "IMG.0001.jpg",
            "IMG.0002.jpg",
            "v1.2/e..jpg",
            "f.jpg.bak.jpg",
        ]
        .map(|name| format!("{OUT}/{name}"));
        assert_eq!(outputs(&items), names);
    }

    #[test]
    fn inputs_with_one_output_fail_and_the_rest_is_planned() {
        let faults = |inputs: Vec<Input>, template: &str, format| -> Vec<Option<String>> {
            let naming = Naming {
                out: Path::new(OUT),
                format,
                template: &template.parse().unwrap(),
            };
            let items = plan(inputs, naming, None).unwrap();
            let fault = |item: Item| item.task.err().map(|fault| fault.text);
            items.into_iter().map(fault).collect()
        };
        let three = || {
            vec![
                input("p/a.png", "a.png", Format::Png, 1),
                input("p/b.png", "b.png", Format::Png, 2),
                input("p/a.bmp", "a.bmp", Format::Bmp, 3),
            ]
        };
        let found = faults(three(), "{stem}.{ext}", None);
        let first = found[0].as_deref().unwrap();
        assert!(
            first.contains("p/a.bmp") && first.contains("out/a.png too"),
            "{first}"
        );
        assert!(first.ends_with("--name '{name}.{ext}' tells them apart"));
        assert!(found[2].as_deref().unwrap().contains("p/a.png would"));
        assert_eq!(found[1], None);
        let asked = faults(three(), "{stem}-{width}.{ext}", Some(Format::WebP));
        assert!(
            asked[0]
                .as_deref()
                .unwrap()
                .contains("'{name}-{width}.webp'")
        );
        assert_eq!(
            faults(three(), "{name}.webp", Some(Format::WebP)),
            [const { None }; 3]
        );
        let folders = vec![
            input("p/x/a.png", "a.png", Format::Png, 1),
            input("p/y/a.png", "a.png", Format::Png, 2),
        ];
        let found = faults(folders, "{stem}.{ext}", None);
        assert!(
            found[1]
                .as_deref()
                .unwrap()
                .ends_with("--base p keeps their folders")
        );
    }

    #[test]
    fn a_file_found_twice_is_processed_once() {
        let inputs = vec![
            input("p/a.png", "a.png", Format::Png, 1),
            input("p/a.png", "a.png", Format::Png, 1),
        ];
        assert_eq!(plan_all(inputs).unwrap().len(), 1);
    }

    #[test]
    fn an_unreadable_file_found_twice_is_reported_once() {
        let broken = || Input {
            content: Err(Fault::missing()),
            ..input("p/a.heic", "a.heic", Format::Png, 1)
        };
        assert_eq!(plan_all(vec![broken(), broken()]).unwrap().len(), 1);
    }

    #[test]
    fn an_output_in_the_place_of_a_folder_is_refused() {
        let inputs = vec![
            input("x/a.jpg", "a.jpg", Format::Jpeg, 1),
            input("y/a.jpg/b.jpg", "a.jpg/b.jpg", Format::Jpeg, 2),
        ];
        for item in plan_all(inputs).unwrap() {
            let text = item.task.unwrap_err().text;
            assert!(
                text.contains("out/a.jpg") && text.contains("as a folder"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_failed_input_reserves_no_name() {
        let mut broken = input("p/a.heic", "a.heic", Format::Png, 1);
        broken.content = Err(Fault::missing());
        let items = plan_all(vec![broken, input("p/a.png", "a.png", Format::Png, 2)]).unwrap();
        assert!(items[0].task.is_err() && items[1].task.is_ok());
    }

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
