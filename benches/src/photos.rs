//! Folders of photos for the cases: created from the samples, and removed afterwards.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use arenite_image::{Color, Format, Pixels, Samples};
use arenite_resample::{
    FilterType, Image, ImageRef, PixelType, ResizeAlg, ResizeOptions, Resizer, resize,
};
use rayon::prelude::*;

use super::BenchError;
use super::work::Random;

/// The pictures from which the photos are cut.
const SAMPLES: [&[u8]; 5] = [
    include_bytes!("../../samples/astronaut.jpg"),
    include_bytes!("../../samples/chelsea.jpg"),
    include_bytes!("../../samples/hubble-deep-field.jpg"),
    include_bytes!("../../samples/rocket.jpg"),
    include_bytes!("../../samples/seeding.jpg"),
];
/// Prefix of a folder's name. The process id of the folder's owner follows, only as information: ids are reused, and
/// each container has its own ids. A lock says whether the folder is in use.
const PREFIX: &str = "arenite-bench-";

/// A temporary folder. Dropping this value removes the folder with its contents.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked while the folder is in use. Linux releases the lock, however the process ends.
    _lock: File,
}

impl Folder {
    /// Creates an empty folder below the system's temporary folder. Removes the folders of killed benchmarks first.
    pub(super) fn create(name: &str) -> Result<Self, BenchError> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let first = parent.join(format!("{PREFIX}{}-{name}", std::process::id()));
        Self::create_near(&first).map_err(|error| {
            BenchError::io(format!("create the folder {}", first.display()), error)
        })
    }

    /// Creates a folder at this path, or with a number appended if the path exists.
    fn create_near(first: &Path) -> io::Result<Self> {
        let mut path = first.to_owned();
        for number in 2_u32.. {
            match fs::create_dir(&path) {
                // Until the folder is locked, another process may remove it.
                Ok(()) => {
                    if let Some(lock) = lock(&path) {
                        return Ok(Self { path, _lock: lock });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            path = first.to_owned();
            path.as_mut_os_string().push(format!("-{number}"));
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Returns the path of the folder.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the files of the folder, sorted by name.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>, BenchError> {
        files(&self.path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // If this fails, a later run removes the folder.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Returns the files of a folder that are not hidden, sorted by name.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, BenchError> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut files = fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        let hidden = |file: &PathBuf| {
            let name = file.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(b".")
        };
        files.retain(|file| !hidden(file));
        files.sort();
        Ok(files)
    };
    list().map_err(|error| BenchError::io(format!("list {}", folder.display()), error))
}

/// Removes the folders that no process has locked.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(is_name);
        // The folder is locked during the removal, so that no other process uses it as a new folder.
        if is_ours && let Some(_lock) = lock(&entry.path()) {
            // Fails if another user owns the folder.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns whether this is the name of a folder made here: prefix, process id, purpose.
fn is_name(name: &str) -> bool {
    let rest = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'));
    rest.is_some_and(|(process, _)| {
        !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Locks a folder. Returns `None` if the folder is locked already, or if the path refers to no folder, or to another
/// folder once the lock is taken.
fn lock(path: &Path) -> Option<File> {
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
        .ok()?;
    folder.try_lock().ok()?;
    let (locked, there) = (folder.metadata().ok()?, fs::symlink_metadata(path).ok()?);
    let is_same = (locked.dev(), locked.ino()) == (there.dev(), there.ino());
    is_same.then_some(folder)
}

/// Width and height of the photos of `resize-12mp`.
pub const LARGE: (u32, u32) = (4000, 3000);
/// The number of samples. Photos with consecutive numbers come from the samples in turns.
pub const KINDS: u64 = SAMPLES.len() as u64;

/// Returns the photo with this number as a JPEG. Every folder with photos of this size has the same photo.
///
/// # Errors
/// If a sample in this program is not a valid picture.
pub fn nth(number: u64, size: (u32, u32)) -> Result<Vec<u8>, BenchError> {
    let sample = decode(SAMPLES[(number % KINDS) as usize])?;
    photo(&sample, number, size, Format::Jpeg)
}

/// Creates a folder with `count` different photos of this size.
pub(super) fn make(
    name: &str,
    count: u64,
    size: (u32, u32),
    format: Format,
) -> Result<Folder, BenchError> {
    let folder = Folder::create(name)?;
    let samples = SAMPLES
        .par_iter()
        .map(|bytes| decode(bytes))
        .collect::<Result<Vec<_>, _>>()?;
    (0..count).into_par_iter().try_for_each(|number| {
        let sample = &samples[(number % KINDS) as usize];
        let file = photo(sample, number, size, format)?;
        let name = format!("photo-{number:03}.{}", format.extension());
        let path = folder.path().join(name);
        fs::write(&path, file)
            .map_err(|error| BenchError::io(format!("write {}", path.display()), error))
    })?;
    Ok(folder)
}

/// Creates a folder with `count` links, which refer to the first `different` photos of another folder in turns.
pub(super) fn link(
    name: &str,
    count: usize,
    different: usize,
    photos: &Folder,
) -> Result<Folder, BenchError> {
    let folder = Folder::create(name)?;
    let files = photos.files()?;
    let used = files.iter().take(different).cycle().take(count);
    for (number, file) in used.enumerate() {
        let path = folder.path().join(format!("photo-{number:03}.jpg"));
        fs::hard_link(file, &path)
            .map_err(|error| BenchError::io(format!("link {}", path.display()), error))?;
    }
    Ok(folder)
}

fn decode(bytes: &[u8]) -> Result<Pixels, BenchError> {
    arenite_image::decode(bytes)
        .map_err(|error| BenchError::io("decode a sample", io::Error::other(error)))
}

/// Cuts a part out of a sample, resizes it to `size`, adds the noise of a camera, and encodes it with quality 90.
fn photo(
    sample: &Pixels,
    seed: u64,
    size: (u32, u32),
    format: Format,
) -> Result<Vec<u8>, BenchError> {
    let failed = |error: &dyn std::fmt::Display| {
        BenchError::io("create a photo", io::Error::other(error.to_string()))
    };
    let Samples::Eight(source) = &sample.samples else {
        return Err(failed(&"a sample has more than 8 bits"));
    };
    let mut random = Random::new(seed);
    let (width, height) = size;
    let mut rgb = vec![0; width as usize * height as usize * 3];

    // The part is the largest one with the right proportions, made smaller by up to 40 %, at a random position.
    let whole = f64::min(
        f64::from(sample.width) / f64::from(width),
        f64::from(sample.height) / f64::from(height),
    );
    let mut unit = || random.next_u64() as f64 / u64::MAX as f64;
    let scale = whole * (0.6 + 0.4 * unit());
    let (part_width, part_height) = (f64::from(width) * scale, f64::from(height) * scale);
    let left = (f64::from(sample.width) - part_width) * unit();
    let top = (f64::from(sample.height) - part_height) * unit();
    let source = ImageRef::new(sample.width, sample.height, source, PixelType::U8x3)
        .map_err(|error| failed(&error))?;
    let mut target = Image::from_slice_u8(width, height, &mut rgb, PixelType::U8x3)
        .map_err(|error| failed(&error))?;
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
        .crop(left, top, part_width, part_height);
    resize(&mut Resizer::new(), &source, &mut target, &options).map_err(|error| failed(&error))?;

    // Brightness changes by at most 7; small changes are more frequent than large ones.
    for pixels in rgb.chunks_mut(3 * 8) {
        let noise = random.next_u64().to_le_bytes();
        for (pixel, noise) in pixels.chunks_mut(3).zip(noise) {
            let step = i16::from(noise & 7) - i16::from(noise >> 4 & 7);
            for channel in pixel {
                *channel = (i16::from(*channel) + step).clamp(0, 255) as u8;
            }
        }
    }

    let pixels = Pixels {
        width,
        height,
        color: Color::Rgb,
        samples: Samples::Eight(rgb),
    };
    arenite_image::encode(pixels, format, 90).map_err(|error| failed(&error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn photos_are_reproducible_and_differ_from_each_other() {
        let sample = decode(SAMPLES[3]).unwrap();
        let first = photo(&sample, 1, (160, 120), Format::Jpeg).unwrap();
        assert_eq!(first, photo(&sample, 1, (160, 120), Format::Jpeg).unwrap());
        assert_ne!(first, photo(&sample, 2, (160, 120), Format::Jpeg).unwrap());
        let shown = decode(&first).unwrap();
        assert_eq!((shown.width, shown.height), (160, 120));
    }

    #[test]
    fn a_dropped_folder_is_removed_with_its_files() {
        let path = {
            let folder = make("test", 3, (64, 48), Format::Jpeg).unwrap();
            let linked = link("test-linked", 5, 2, &folder).unwrap();
            let files = folder.files().unwrap();
            assert_eq!(files.len(), 3);
            assert_eq!(fs::read(&files[2]).unwrap(), nth(2, (64, 48)).unwrap());
            let linked = linked.files().unwrap().into_iter();
            let linked: Vec<_> = linked.map(|file| fs::read(file).unwrap()).collect();
            assert_eq!(linked.len(), 5);
            assert_ne!(linked[0], linked[1]);
            assert_eq!(linked[0], linked[2], "of the first two only");
            folder.path().to_owned()
        };
        assert!(!path.exists());
    }

    #[test]
    fn unlocked_folders_are_swept_whatever_their_process_id() {
        let parent = std::env::temp_dir();
        // Left by a killed program with the same process id, as in another container.
        let pid = std::process::id();
        let stale = parent.join(format!("{PREFIX}{pid}-again"));
        let foreign = [
            "results".to_owned(),
            format!("{pid}"),
            format!("v{pid}-again"),
        ];
        let foreign = foreign.map(|name| parent.join(format!("{PREFIX}{name}")));
        foreign
            .iter()
            .for_each(|path| fs::create_dir_all(path).unwrap());
        fs::create_dir_all(stale.join("inner")).unwrap();
        let folder = Folder::create("again").unwrap();
        assert!(!folder.path().join("inner").exists());
        let other = Folder::create("sweeper").unwrap();
        assert!(folder.path().exists(), "it is locked");
        drop((folder, other));
        assert!(!stale.exists());
        // Names that are not those of such folders.
        foreign
            .iter()
            .for_each(|path| fs::remove_dir(path).unwrap());
    }

    #[test]
    fn an_existing_path_gets_a_number_appended() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("taken");
        let [first, second] = [(), ()].map(|()| Folder::create_near(&path).unwrap());
        assert_eq!(first.path(), path);
        assert_eq!(second.path(), parent.path().join("taken-2"));
    }

    #[test]
    fn a_folder_that_another_thread_has_just_created_is_not_swept() {
        let parent = tempfile::tempdir().unwrap();
        let first = parent.path().join(format!("{PREFIX}1-same"));
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    for _ in 0..1_000 {
                        sweep(parent.path());
                        let folder = Folder::create_near(&first).unwrap();
                        fs::write(folder.path().join("photo"), "p").unwrap();
                        sweep(parent.path());
                        assert_eq!(folder.files().unwrap().len(), 1);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_a_folder_itself_is_locked() {
        let parent = tempfile::tempdir().unwrap();
        let [folder, link] = ["folder", "link"].map(|name| parent.path().join(name));
        assert!(lock(&folder).is_none(), "nothing exists");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(lock(&link).is_none(), "a link");
        let locked = lock(&folder);
        assert!(locked.is_some() && lock(&folder).is_none(), "locked once");
    }
}
