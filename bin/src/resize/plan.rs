//! Names the result of each input, before any work.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use arenite_image::Format;

use super::fault::Fault;
use super::files::{Stamp, identity, is_same};
use super::inputs::Input;
use super::made::Encoded;
use super::shard::Shard;
use super::template::{Name, Template};
use crate::text::show_path;

/// An input with its task, in the order of the inputs.
#[derive(Debug)]
pub(crate) struct Item {
    pub input: PathBuf,
    /// Whether it is in the share of this run: see `--shard`.
    pub is_in_shard: bool,
    pub task: Result<Task, Fault>,
}

/// A result to make, or several from one picture.
#[derive(Debug)]
pub(crate) struct Task {
    /// Its path below the output folder, with the extension of the output format. Where a name depends on the sides of
    /// the result, `{width}` and `{height}` are still in it.
    pub relative: PathBuf,
    /// Its path with the output folder, as shown to the user; empty if nothing is written.
    pub output: PathBuf,
    /// The name that depends on the sides of a result, if it does.
    pub several: Option<Name>,
    /// The format to write, or that of the input if nothing is written.
    pub format: Format,
    /// The input when it was found.
    pub stamp: Stamp,
    /// The existing results, if `--resume` found them up to date.
    pub fresh: Option<Vec<Written>>,
}

/// A result that exists: this run has written it, or an earlier one.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// Its path below the output folder.
    pub relative: PathBuf,
    /// Its path with the output folder.
    pub output: PathBuf,
    pub stamp: Stamp,
    /// Width and height in pixels, if they are known.
    pub sides: Option<[u32; 2]>,
}

impl Task {
    /// Names results, by their paths below the output folder.
    ///
    /// # Errors
    ///
    /// Two of them have one name.
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

/// Conflicts that prevent the run.
#[derive(Debug)]
pub(crate) struct Clash {
    /// All conflicts.
    pub conflicts: Vec<Conflict>,
    /// All items; those in a conflict have failed.
    pub items: Vec<Item>,
}

impl Clash {
    /// Advice about the conflicts; `asked` is the value of `--format`.
    pub(crate) fn advice(&self, asked: Option<Format>) -> &'static str {
        let over_input = |conflict: &Conflict| matches!(conflict, Conflict::OverInput { .. });
        match (self.conflicts.iter().all(over_input), asked) {
            (true, _) => "use another --out",
            (false, None) => "rename one of each, or use a separate command and --out for each",
            (false, Some(_)) => {
                "rename one of each, use a separate command and --out for each, or omit --format if their names then \
                 differ"
            }
        }
    }
}

/// Results that would overwrite each other or an input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    /// Two inputs, one output.
    Same {
        first: PathBuf,
        second: PathBuf,
        output: PathBuf,
    },
    /// An output that is an input, possibly by another path.
    OverInput {
        input: PathBuf,
        output: PathBuf,
        victim: PathBuf,
    },
    /// An output whose path another output needs as a folder.
    FileAndFolder {
        file: PathBuf,
        output: PathBuf,
        other: PathBuf,
    },
}

impl Conflict {
    /// The inputs in conflict.
    fn parties(&self) -> [&Path; 2] {
        match self {
            Conflict::Same { first, second, .. } => [first, second],
            Conflict::OverInput { input, .. } => [input, input],
            Conflict::FileAndFolder { file, other, .. } => [file, other],
        }
    }

    fn fault(&self) -> Fault {
        Fault::new("name-conflict", self.to_string())
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conflict::Same {
                first,
                second,
                output,
            } => {
                write!(
                    f,
                    "{} and {} would both be written to {}",
                    show_path(first),
                    show_path(second),
                    show_path(output)
                )
            }
            Conflict::OverInput {
                input,
                output,
                victim,
            } if input == victim => {
                write!(
                    f,
                    "{} would be overwritten by its own result {}",
                    show_path(input),
                    show_path(output)
                )
            }
            Conflict::OverInput {
                input,
                output,
                victim,
            } => write!(
                f,
                "{}, the result of {}, would overwrite the input {}",
                show_path(output),
                show_path(input),
                show_path(victim)
            ),
            Conflict::FileAndFolder {
                file,
                output,
                other,
            } => write!(
                f,
                "{}, the result of {}, is needed as a folder for the result of {}",
                show_path(output),
                show_path(file),
                show_path(other)
            ),
        }
    }
}

/// Names all outputs, those of other shards too.
///
/// # Errors
///
/// Two results with one path, or a result with the path of an input.
pub(crate) fn plan(
    inputs: Vec<Input>,
    out: &Path,
    asked: Option<Format>,
    template: &Template,
    shard: Option<&Shard>,
) -> Result<Vec<Item>, Clash> {
    let mut conflicts = Vec::new();
    let mut items: Vec<Item> = Vec::with_capacity(inputs.len());
    let mut by_output: HashMap<PathBuf, usize> = HashMap::new();
    let mut unreadable: HashSet<PathBuf> = HashSet::new();
    let holds = |relative: &Path| shard.is_none_or(|shard| shard.holds(relative));
    for input in inputs {
        let mut is_in_shard = holds(&input.relative);
        let task = match input.content {
            // Found twice, reported once.
            Err(_) if !unreadable.insert(input.path.clone()) => continue,
            Err(fault) => Err(fault),
            Ok((found, stamp)) => {
                let format = asked.unwrap_or(found.default_output());
                let name = template.fill(&input.relative, format);
                let relative = name.path(None);
                let output = out.join(&relative);
                is_in_shard = holds(&relative);
                if let Some(&first) = by_output.get(&relative) {
                    let first = &items[first].input;
                    if first == &input.path || is_same(first, &input.path) {
                        // Found twice, processed once.
                        continue;
                    }
                    let conflict = Conflict::Same {
                        first: first.clone(),
                        second: input.path.clone(),
                        output,
                    };
                    let fault = conflict.fault();
                    conflicts.push(conflict);
                    Err(fault)
                } else {
                    by_output.insert(relative.clone(), items.len());
                    Ok(Task {
                        output,
                        relative,
                        several: name.has_sides().then_some(name),
                        format,
                        stamp,
                        fresh: None,
                    })
                }
            }
        };
        items.push(Item {
            input: input.path,
            is_in_shard,
            task,
        });
    }
    conflicts.extend(needed_as_folders(&items, &by_output));
    conflicts.extend(overwritten(&items, out));
    if conflicts.is_empty() {
        return Ok(items);
    }
    fail_parties(&mut items, &conflicts);
    Err(Clash { conflicts, items })
}

/// The inputs as tasks without a result; those found twice once.
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
            format,
            stamp,
            fresh: None,
        }),
    };
    new.map(item).collect()
}

/// Makes the items in a conflict fail by it.
fn fail_parties(items: &mut [Item], conflicts: &[Conflict]) {
    let mut blamed: HashMap<&Path, &Conflict> = HashMap::new();
    for conflict in conflicts {
        for party in conflict.parties() {
            blamed.entry(party).or_insert(conflict);
        }
    }
    for item in items.iter_mut().filter(|item| item.task.is_ok()) {
        if let Some(conflict) = blamed.get(item.input.as_path()) {
            item.task = Err(conflict.fault());
        }
    }
}

fn needed_as_folders(items: &[Item], by_output: &HashMap<PathBuf, usize>) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    for item in items {
        let Ok(task) = &item.task else { continue };
        for folder in task.relative.ancestors().skip(1) {
            let Some(&index) = by_output.get(folder) else {
                continue;
            };
            let Ok(file) = &items[index].task else {
                continue;
            };
            conflicts.push(Conflict::FileAndFolder {
                file: items[index].input.clone(),
                output: file.output.clone(),
                other: item.input.clone(),
            });
        }
    }
    conflicts
}

/// Outputs that are inputs, compared by device and inode, so that links are found too.
fn overwritten(items: &[Item], out: &Path) -> Vec<Conflict> {
    if !out.exists() {
        return Vec::new();
    }
    let tasks = || {
        items
            .iter()
            .filter_map(|item| Some((item, item.task.as_ref().ok()?)))
    };
    // Unreadable inputs must not be overwritten either.
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
            // Read again: some file systems change a file's inode number after dropping it from their cache.
            let own = || identity(&item.input) == Some(existing.identity());
            let victim = if existing.identity() == task.stamp.identity() || own() {
                item.input.as_path()
            } else {
                inputs.get(&existing.identity())?
            };
            Some(Conflict::OverInput {
                input: item.input.clone(),
                output: task.output.clone(),
                victim: victim.to_owned(),
            })
        })
        .collect()
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

    #[test]
    fn the_extension_follows_the_output_format() {
        let inputs = vec![
            input("p/a.png", "a.png", Format::Jpeg, 1),
            input("p/b", "b", Format::WebP, 2),
            input("p/c.gif", "x/c.gif", Format::Gif, 3),
            input("p/d.TIFF", "d.TIFF", Format::Tiff, 4),
            // A name may contain points.
            input("p/IMG.0001", "IMG.0001", Format::Jpeg, 5),
            input("p/IMG.0002", "IMG.0002", Format::Jpeg, 6),
            input("p/v1.2/e.", "v1.2/e.", Format::Jpeg, 7),
            input("p/f.jpg.bak", "f.jpg.bak", Format::Jpeg, 8),
        ];
        let items = plan(inputs, Path::new(OUT), None, &Template::default(), None).unwrap();
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
    fn two_inputs_with_one_output_are_both_named() {
        let inputs = || {
            vec![
                input("p/a.png", "a.png", Format::Png, 1),
                input("p/a.bmp", "a.bmp", Format::Bmp, 2),
            ]
        };
        let Clash { conflicts, items } =
            plan(inputs(), Path::new(OUT), None, &Template::default(), None).unwrap_err();
        assert_eq!(conflicts.len(), 1);
        let text = conflicts[0].to_string();
        assert!(
            text.contains("p/a.png") && text.contains("p/a.bmp") && text.contains("out/a.png"),
            "{text}"
        );
        let faults: Vec<&Fault> = items
            .iter()
            .map(|item| item.task.as_ref().unwrap_err())
            .collect();
        assert_eq!(faults, [&Fault::new("name-conflict", text); 2]);
    }

    #[test]
    fn a_file_found_twice_is_processed_once() {
        let inputs = vec![
            input("p/a.png", "a.png", Format::Png, 1),
            input("p/a.png", "a.png", Format::Png, 1),
        ];
        assert_eq!(
            plan(inputs, Path::new(OUT), None, &Template::default(), None)
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn an_unreadable_file_found_twice_is_reported_once() {
        let broken = || Input {
            content: Err(Fault::missing()),
            ..input("p/a.heic", "a.heic", Format::Png, 1)
        };
        assert_eq!(
            plan(
                vec![broken(), broken()],
                Path::new(OUT),
                None,
                &Template::default(),
                None
            )
            .unwrap()
            .len(),
            1
        );
    }

    #[test]
    fn an_output_in_the_place_of_a_folder_is_refused() {
        let inputs = vec![
            input("x/a.jpg", "a.jpg", Format::Jpeg, 1),
            input("y/a.jpg/b.jpg", "a.jpg/b.jpg", Format::Jpeg, 2),
        ];
        let Clash { conflicts, .. } =
            plan(inputs, Path::new(OUT), None, &Template::default(), None).unwrap_err();
        assert!(
            matches!(conflicts[..], [Conflict::FileAndFolder { .. }]),
            "{conflicts:?}"
        );
    }

    #[test]
    fn a_failed_input_reserves_no_name() {
        let mut broken = input("p/a.heic", "a.heic", Format::Png, 1);
        broken.content = Err(Fault::missing());
        let items = plan(
            vec![broken, input("p/a.png", "a.png", Format::Png, 2)],
            Path::new(OUT),
            None,
            &Template::default(),
            None,
        )
        .unwrap();
        assert!(items[0].task.is_err() && items[1].task.is_ok());
    }
}
