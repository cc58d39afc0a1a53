//! `--shard`: several runs, usually on several machines, divide the results among them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The share of one of these runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    /// The number of the share, from 1.
    number: u32,
    count: u32,
    /// The environment variables that specify the share, with their values.
    pub origin: Option<String>,
}

/// The value of `--shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// `K/N`: these two numbers.
    Exactly(u32, u32),
    /// `auto` or `auto/N`: the environment specifies the numbers.
    Auto(Option<u32>),
}

/// Pairs of variables: an index from 0, and a count. The first complete pair is used.
const PAIRS: [[&str; 2]; 4] = [
    ["SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"],
    ["SLURM_PROCID", "SLURM_NTASKS"],
    ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
    ["PMI_RANK", "PMI_SIZE"],
];

/// The index, from 0, of a pod of a Kubernetes Indexed Job. No variable contains the number of pods.
const KUBERNETES: &str = "JOB_COMPLETION_INDEX";

const HELP: &str = "write K/N, such as 1/4, or auto, or auto/N";

impl Shard {
    /// Returns whether this run makes the result at this path below the output folder.
    pub(crate) fn holds(&self, relative: &Path) -> bool {
        arenite::shard(relative, self.number, self.count)
    }

    /// Returns the number of shards.
    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns the part of file names that identifies the shard; empty without a shard.
    pub(crate) fn suffix(shard: Option<&Shard>) -> String {
        shard.map_or_else(String::new, |Shard { number, count, .. }| {
            format!("-{number}-of-{count}")
        })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Asked, String> {
        let (number, count) = match text.split_once('/') {
            None if text == "auto" => return Ok(Asked::Auto(None)),
            Some((number, count)) => (number, digits(count).ok_or(HELP)?),
            None => return Err(HELP.to_owned()),
        };
        if count == 0 {
            return Err("at least one shard is needed, as in 1/1".to_owned());
        }
        if number == "auto" {
            return Ok(Asked::Auto(Some(count)));
        }
        match digits(number).ok_or(HELP)? {
            number if (1..=count).contains(&number) => Ok(Asked::Exactly(number, count)),
            _ => Err(format!(
                "shards are counted from 1: write 1/{count} to {count}/{count}"
            )),
        }
    }
}

impl Asked {
    /// Returns the shard. `variable` returns the values of environment variables.
    ///
    /// # Errors
    ///
    /// A sentence that names the flag or the variable, and says which value to write.
    pub(crate) fn resolve(
        self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Shard, String> {
        let wanted = match self {
            Asked::Exactly(number, count) => {
                return Ok(Shard {
                    number,
                    count,
                    origin: None,
                });
            }
            Asked::Auto(wanted) => wanted,
        };
        let environment = Environment { variable };
        let (index, count, origin) = match (environment.pair()?, wanted) {
            (Some((_, count, origin)), Some(wanted)) if wanted != count => {
                return Err(format!(
                    "--shard auto/{wanted}: {origin}, which are {count} shards; write auto, or K/{wanted}"
                ));
            }
            (Some(pair), _) => pair,
            (None, wanted) => environment.kubernetes(wanted)?,
        };
        if index >= count {
            return Err(format!(
                "--shard auto: {origin}: the index is counted from 0 and must be below the count; write K/N"
            ));
        }
        Ok(Shard {
            number: index + 1,
            count,
            origin: Some(origin),
        })
    }
}

/// The variables that schedulers set.
struct Environment<V> {
    variable: V,
}

/// An index from 0, a count, and the variables that they come from.
type Found = (u32, u32, String);

impl<V: Fn(&str) -> Option<String>> Environment<V> {
    /// Returns the number in a variable. An empty variable counts as unset.
    fn number(&self, name: &str) -> Result<Option<u32>, String> {
        match (self.variable)(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => match digits(&text) {
                None => Err(format!(
                    "--shard auto: {name} is {text:?}, which is no number; write K/N"
                )),
                number => Ok(number),
            },
        }
    }

    fn pair(&self) -> Result<Option<Found>, String> {
        for names @ [index, count] in PAIRS {
            let is_set = |name: &&str| (self.variable)(name).is_some_and(|text| !text.is_empty());
            if !names.iter().all(is_set) {
                continue;
            }
            let (Some(number), Some(total)) = (self.number(index)?, self.number(count)?) else {
                continue;
            };
            let origin = format!("{index} is {number}, {count} is {total}");
            return match index {
                "SLURM_ARRAY_TASK_ID" => self.slurm_array(number, total, origin).map(Some),
                _ => Ok(Some((number, total, origin))),
            };
        }
        Ok(None)
    }

    /// Returns the index and the count in a Slurm array. The numbers of an array may begin anywhere and have steps, as
    /// in `--array=10-30:10`.
    fn slurm_array(&self, id: u32, count: u32, mut origin: String) -> Result<Found, String> {
        let number = |name: &str| self.number(&format!("SLURM_ARRAY_TASK_{name}"));
        let least = number("MIN")?.unwrap_or(0);
        let step = number("STEP")?.unwrap_or(1).max(1);
        if least > 0 {
            origin.push_str(&format!(", SLURM_ARRAY_TASK_MIN is {least}"));
        }
        let offset = id.checked_sub(least).filter(|offset| offset % step == 0);
        let is_even =
            |most: u32| most.checked_sub(least).map(|range| range / step + 1) == Some(count);
        match offset {
            Some(offset) if number("MAX")?.is_none_or(is_even) => {
                Ok((offset / step, count, origin))
            }
            // With gaps, two tasks of the array could take the same share, and no task another share.
            _ => Err(format!(
                "--shard auto: {origin}: the array has gaps between its numbers; use one without, or write K/N"
            )),
        }
    }

    fn kubernetes(&self, wanted: Option<u32>) -> Result<Found, String> {
        match (self.number(KUBERNETES)?, wanted) {
            (Some(index), Some(count)) => {
                let origin = format!("{KUBERNETES} is {index}");
                Ok((index, count, origin))
            }
            (Some(_), None) => Err(format!(
                "--shard auto: {KUBERNETES} is set, but Kubernetes gives no count: write auto/N, where N is the number \
                 of completions"
            )),
            (None, _) => Err(
                "--shard auto: no index and count of Slurm, Open MPI or PMI in the environment, and no index of \
                 Kubernetes; write K/N"
                    .to_owned(),
            ),
        }
    }
}

/// Parses a number that consists of decimal digits only.
fn digits(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    /// The shard of `--shard` with this value, in an environment such as `A=1 B=2`.
    fn shard(value: &str, environment: &str) -> Result<String, String> {
        let asked: Asked = value.parse()?;
        let shard = asked.resolve(|name| {
            let mut words = environment.split(' ');
            words.find_map(|word| Some(word.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
        })?;
        Ok(shard.to_string())
    }

    const SLURM: &str = "SLURM_ARRAY_TASK_ID=12 SLURM_ARRAY_TASK_COUNT=3";

    #[test]
    fn the_first_complete_pair_is_taken() {
        for (value, environment, expected) in [
            ("2/3", SLURM, "2/3"),
            (
                "auto",
                "SLURM_ARRAY_TASK_ID=2 SLURM_ARRAY_TASK_COUNT=8",
                "3/8",
            ),
            ("auto", &format!("{SLURM} SLURM_ARRAY_TASK_MIN=10"), "3/3"),
            (
                "auto",
                &format!(
                    "{SLURM} SLURM_ARRAY_TASK_MIN=8 SLURM_ARRAY_TASK_STEP=2 SLURM_ARRAY_TASK_MAX=12"
                ),
                "3/3",
            ),
            ("auto", "SLURM_PROCID=0 SLURM_NTASKS=2", "1/2"),
            ("auto", "SLURM_PROCID=1 PMI_RANK=2 PMI_SIZE=4", "3/4"),
            (
                "auto",
                "SLURM_PROCID= SLURM_NTASKS=2 PMI_RANK=2 PMI_SIZE=4",
                "3/4",
            ),
            (
                "auto",
                "OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 PMI_RANK=2 PMI_SIZE=4",
                "2/2",
            ),
            ("auto/4", "PMI_RANK=2 PMI_SIZE=4", "3/4"),
            ("auto/8", "JOB_COMPLETION_INDEX=7", "8/8"),
        ] {
            assert_eq!(
                shard(value, environment).as_deref(),
                Ok(expected),
                "{value} {environment}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_right() {
        for (value, environment, words) in [
            ("", "", "write K/N"),
            ("3", "", "write K/N"),
            ("+1/3", "", "write K/N"),
            ("1/3/5", "", "write K/N"),
            ("auto/", "", "write K/N"),
            ("automatic", "", "write K/N"),
            ("1/0", "", "at least one shard"),
            ("auto/0", "", "at least one shard"),
            ("0/3", "", "write 1/3 to 3/3"),
            ("4/3", "", "write 1/3 to 3/3"),
            ("auto", "", "write K/N"),
            ("auto", "JOB_COMPLETION_INDEX=1", "write auto/N"),
            ("auto/8", "", "write K/N"),
            ("auto/8", "JOB_COMPLETION_INDEX=8", "below the count"),
            ("auto/8", "PMI_RANK=2 PMI_SIZE=4", "write auto, or K/8"),
            ("auto", "PMI_RANK=two PMI_SIZE=4", "PMI_RANK is \"two\""),
            (
                "auto",
                "PMI_RANK=4 PMI_SIZE=4",
                "PMI_RANK is 4, PMI_SIZE is 4",
            ),
            ("auto", "PMI_RANK=0 PMI_SIZE=0", "below the count"),
            (
                "auto",
                &format!("{SLURM} SLURM_ARRAY_TASK_MIN=11 SLURM_ARRAY_TASK_STEP=2"),
                "gaps",
            ),
            (
                "auto",
                &format!("{SLURM} SLURM_ARRAY_TASK_MIN=11 SLURM_ARRAY_TASK_MAX=19"),
                "gaps",
            ),
        ] {
            let why = shard(value, environment).unwrap_err();
            assert!(why.contains(words), "{value} {environment}: {why}");
        }
    }
}
