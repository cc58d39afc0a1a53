//! Divides files among several machines.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Returns true if `path` belongs to part `k` of `n`, counted from 1. Divides work among machines that do not
/// communicate.
///
/// Each path belongs to exactly one of the `n` parts, and the parts are of about equal size. The part depends only on
/// the bytes of the path, and is the same in each version of this crate: adding or removing a file moves no other file.
/// Pass a path relative to a directory that the machines share, such as a dataset, so that all machines see the same
/// bytes. `arenite resize --shard k/n` divides its results in this way.
///
/// ```
/// let files = ["2024/a.jpg", "2024/b.jpg", "2025/c.jpg", "2025/d.jpg"];
/// let parts = [1, 2].map(|k| files.iter().filter(move |file| arenite::shard(file, k, 2)).count());
/// assert_eq!(parts.iter().sum::<usize>(), files.len());
/// ```
///
/// # Panics
///
/// If `k` is 0 or larger than `n`.
pub fn shard(path: impl AsRef<Path>, k: u32, n: u32) -> bool {
    assert!(1 <= k && k <= n, "part {k} of {n} does not exist");
    hash(path.as_ref().as_os_str().as_bytes()) % u64::from(n) == u64::from(k - 1)
}

/// FNV-1a, and the finalizer of MurmurHash3: FNV alone leaves patterns in the low bits, which decide the part.
fn hash(bytes: &[u8]) -> u64 {
    let mut hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Machines with different versions share one folder.
    #[test]
    fn the_part_of_a_path_never_changes() {
        for (path, expected) in [
            ("", 0xefd0_1f60_ba99_2926),
            ("a.jpg", 0x57e4_5b66_c4c4_01a7),
            ("x/y/IMG_0001.jpg", 0x934a_8a73_514b_655b),
            ("grün/塔.webp", 0x5873_98d2_b0b1_356d),
        ] {
            assert_eq!(hash(path.as_bytes()), expected, "{path}");
        }
        assert!(shard("a.jpg", 1, 1));
    }

    #[test]
    fn each_path_belongs_to_one_part_and_parts_are_of_about_equal_size() {
        for n in [2, 3, 8, 100] {
            let mut sizes = vec![0_u32; n as usize];
            for file in 0..10_000 {
                let path = format!("photos/IMG_{file:04}.jpg");
                let parts: Vec<u32> = (1..=n).filter(|&k| shard(&path, k, n)).collect();
                let [part] = parts[..] else {
                    panic!("{path}: {parts:?}");
                };
                sizes[part as usize - 1] += 1;
            }
            // Five standard deviations.
            let mean = 10_000.0 / f64::from(n);
            let close = |&size: &u32| (f64::from(size) - mean).abs() < 5.0 * mean.sqrt();
            assert!(sizes.iter().all(close), "{sizes:?}");
        }
    }

    #[test]
    #[should_panic(expected = "part 0 of 4")]
    fn parts_are_counted_from_one() {
        shard("a.jpg", 0, 4);
    }
}
