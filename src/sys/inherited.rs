//! What new processes of a program get from this process.

use std::os::fd::AsFd;
use std::path::Path;

use super::process::Program;

impl Program {
    /// Returns all that a new process of this program gets from the calling thread, except for memory and descriptors:
    /// program, arguments, environment, users, limits, namespaces, the working directory.
    pub fn inheritance(&self) -> std::io::Result<Vec<u8>> {
        const FIELDS: [&str; 16] = [
            "Umask",
            "Uid",
            "Gid",
            "Groups",
            "CapInh",
            "CapPrm",
            "CapEff",
            "CapBnd",
            "CapAmb",
            "NoNewPrivs",
            "Seccomp",
            "Seccomp_filters",
            "Cpus_allowed",
            "Mems_allowed",
            "SigBlk",
            "SigIgn",
        ];
        let own = Path::new("/proc/thread-self");
        let status = std::fs::read_to_string(own.join("status"))?;
        let is_kept = |line: &&str| {
            line.split_once(':')
                .is_some_and(|(name, _)| FIELDS.contains(&name))
        };
        let mut text: String = status.lines().filter(is_kept).collect();
        for file in ["limits", "cgroup", "oom_score_adj"] {
            text += &std::fs::read_to_string(own.join(file))?;
        }
        // The priority, the nice value and the policy.
        let stat = std::fs::read_to_string(own.join("stat"))?;
        let fields = stat
            .rsplit_once(')')
            .map_or("", |(_, rest)| rest)
            .split_whitespace();
        for (_, field) in fields
            .enumerate()
            .filter(|(at, _)| [15, 16, 38].contains(at))
        {
            text += field;
            text.push(' ');
        }
        let namespaces = std::fs::read_dir(own.join("ns"))?
            .flatten()
            .map(|entry| entry.path());
        for link in namespaces.chain([own.join("root")]) {
            text += &std::fs::read_link(link)?.to_string_lossy();
        }
        if let Some(folder) = &self.folder {
            let found = nix::sys::stat::fstat(folder.as_fd())?;
            text += &format!(" {} {}", found.st_dev, found.st_ino);
        }
        let given = self.arguments.iter().chain(&self.environment);
        let given = std::iter::once(&self.file).chain(given);
        let mut all = text.into_bytes();
        given.for_each(|one| all.extend(one.as_bytes_with_nul()));
        Ok(all)
    }
}
