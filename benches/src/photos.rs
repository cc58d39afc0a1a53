//! Folders of photos to measure with: made from the samples, removed again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use arenite_resample::{
    FilterType, Image, ImageRef, PixelType, ResizeAlg, ResizeOptions, Resizer, resize,
};
use rayon::prelude::*;

use super::BenchError;
use super::work::Random;

/// What the photos are cut from.
const SAMPLES: [&[u8]; 5] = [
    include_bytes!("../../samples/astronaut.jpg"),
    include_bytes!("../../samples/chelsea.jpg"),
    include_bytes!("../../samples/hubble-deep-field.jpg"),
    include_bytes!("../../samples/rocket.jpg"),
    include_bytes!("../../samples/seeding.jpg"),
];
/// How a folder's name begins; the process id of its owner follows, for people. Numbers are used again, and another
/// container counts from 1 as well, so programs go by the lock.
const PREFIX: &str = "arenite-bench-";

/// A folder that is removed with everything in it.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked as long as somebody works in the folder; the kernel lets go of it, however that ends.
    _held: File,
}

impl Folder {
    /// A new empty folder below the system's folder for temporary files. Folders of benchmarks that were killed are
    /// removed on the way.
    pub(super) fn create(name: &str) -> Result<Self, BenchError> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let first = parent.join(format!("{PREFIX}{}-{name}", std::process::id()));
        Self::create_near(&first)
            .map_err(|error| BenchError::io(format!("make the folder {}", first.display()), error))
    }

    /// At this path, or where somebody else has it, at one that begins like it.
    fn create_near(first: &Path) -> io::Result<Self> {
        let mut path = first.to_owned();
        for number in 2_u32.. {
            match fs::create_dir(&path) {
                // Until it is held anybody may sweep it.
                Ok(()) => {
                    if let Some(held) = hold(&path) {
                        return Ok(Self { path, _held: held });
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

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its files, sorted by name.
    pub(super) fn files(&self) -> Result<Vec<PathBuf>, BenchError> {
        files(&self.path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed now is swept by a later run.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The files of a folder that are not hidden, sorted by name.
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

/// Removes the folders that nobody holds.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(is_name);
        // Held while it is removed, so that nobody else takes it for a new one.
        if is_ours && let Some(_held) = hold(&entry.path()) {
            // Somebody else's folder stays.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a folder of ours may have this name: the number of a process, and what for.
fn is_name(name: &str) -> bool {
    let rest = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'));
    rest.is_some_and(|(process, _)| {
        !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Locks a folder, unless it is locked, or another one or none has its place by then.
fn hold(path: &Path) -> Option<File> {
    let held = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
        .ok()?;
    held.try_lock().ok()?;
    let (locked, there) = (held.metadata().ok()?, fs::symlink_metadata(path).ok()?);
    let is_same = (locked.dev(), locked.ino()) == (there.dev(), there.ino());
    is_same.then_some(held)
}

/// Width and height of the photos of `resize-12mp`.
pub const LARGE: (u32, u32) = (4000, 3000);
/// Photos with so many numbers in a row come from samples that are all different.
pub const KINDS: u64 = SAMPLES.len() as u64;

/// The photo of this number in every folder of photos of this size: a JPEG.
///
/// # Errors
/// Only where a sample in this program is no picture any more.
pub fn nth(number: u64, size: (u32, u32)) -> Result<Vec<u8>, BenchError> {
    let sample = decode(SAMPLES[(number % KINDS) as usize])?;
    photo(&sample, number, size)
}

/// A folder with `count` different photos of this size.
pub(super) fn make(name: &str, count: u64, size: (u32, u32)) -> Result<Folder, BenchError> {
    let folder = Folder::create(name)?;
    let samples = SAMPLES
        .par_iter()
        .map(|bytes| decode(bytes))
        .collect::<Result<Vec<_>, _>>()?;
    (0..count).into_par_iter().try_for_each(|number| {
        let sample = &samples[(number % KINDS) as usize];
        let jpeg = photo(sample, number, size)?;
        let path = folder.path().join(format!("photo-{number:03}.jpg"));
        fs::write(&path, jpeg)
            .map_err(|error| BenchError::io(format!("write {}", path.display()), error))
    })?;
    Ok(folder)
}

/// A folder with `count` photos that are links to the first `different` ones of another folder, which are used again and again.
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

struct Sample {
    width: u32,
    height: u32,
    rgb: Vec<u8>,
}

fn decode(bytes: &[u8]) -> Result<Sample, BenchError> {
    let picture = image::load_from_memory_with_format(bytes, image::ImageFormat::Jpeg)
        .map_err(|error| BenchError::io("decode a sample", io::Error::other(error)))?
        .into_rgb8();
    Ok(Sample {
        width: picture.width(),
        height: picture.height(),
        rgb: picture.into_raw(),
    })
}

/// A part of the sample, brought to `size`, with a camera's noise, as JPEG of quality 90.
fn photo(sample: &Sample, seed: u64, size: (u32, u32)) -> Result<Vec<u8>, BenchError> {
    let failed = |error: &dyn std::fmt::Display| {
        BenchError::io("make a photo", io::Error::other(error.to_string()))
    };
    let mut random = Random::new(seed);
    let (width, height) = size;
    let mut rgb = vec![0; width as usize * height as usize * 3];

    // The largest part with the right proportions, made smaller by up to 40 %, placed anywhere.
    let whole = f64::min(
        f64::from(sample.width) / f64::from(width),
        f64::from(sample.height) / f64::from(height),
    );
    let mut unit = || random.next_u64() as f64 / u64::MAX as f64;
    let scale = whole * (0.6 + 0.4 * unit());
    let (part_width, part_height) = (f64::from(width) * scale, f64::from(height) * scale);
    let left = (f64::from(sample.width) - part_width) * unit();
    let top = (f64::from(sample.height) - part_height) * unit();
    let source = ImageRef::new(sample.width, sample.height, &sample.rgb, PixelType::U8x3)
        .map_err(|error| failed(&error))?;
    let mut target = Image::from_slice_u8(width, height, &mut rgb, PixelType::U8x3)
        .map_err(|error| failed(&error))?;
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom))
        .crop(left, top, part_width, part_height);
    resize(&mut Resizer::new(), &source, &mut target, &options).map_err(|error| failed(&error))?;

    // Brightness goes up or down by up to 6, small steps more often than large ones.
    for pixels in rgb.chunks_mut(3 * 8) {
        let noise = random.next_u64().to_le_bytes();
        for (pixel, noise) in pixels.chunks_mut(3).zip(noise) {
            let step = i16::from(noise & 7) - i16::from(noise >> 4 & 7);
            for channel in pixel {
                *channel = (i16::from(*channel) + step).clamp(0, 255) as u8;
            }
        }
    }

    let mut jpeg = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    jpeg.set_size(width as usize, height as usize);
    jpeg.set_fastest_defaults();
    jpeg.set_quality(90.0);
    let mut jpeg = jpeg
        .start_compress(Vec::new())
        .map_err(|error| failed(&error))?;
    jpeg.write_scanlines(&rgb).map_err(|error| failed(&error))?;
    jpeg.finish().map_err(|error| failed(&error))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn photos_are_the_same_on_every_run_and_differ_from_each_other() {
        let sample = decode(SAMPLES[3]).unwrap();
        let first = photo(&sample, 1, (160, 120)).unwrap();
        assert_eq!(first, photo(&sample, 1, (160, 120)).unwrap());
        assert_ne!(first, photo(&sample, 2, (160, 120)).unwrap());
        let shown = image::load_from_memory(&first).unwrap();
        assert_eq!((shown.width(), shown.height()), (160, 120));
    }

    #[test]
    fn a_folder_goes_with_its_files() {
        let path = {
            let folder = make("test", 3, (64, 48)).unwrap();
            let linked = link("test-linked", 5, 2, &folder).unwrap();
            let files = folder.files().unwrap();
            assert_eq!(files.len(), 3);
            assert_eq!(fs::read(&files[2]).unwrap(), nth(2, (64, 48)).unwrap());
            let linked = linked.files().unwrap().into_iter();
            let linked: Vec<_> = linked.map(|file| fs::read(file).unwrap()).collect();
            assert_eq!(linked.len(), 5);
            assert_ne!(linked[0], linked[1]);
            assert_eq!(linked[0], linked[2], "of the first two alone");
            folder.path().to_owned()
        };
        assert!(!path.exists());
    }

    #[test]
    fn folders_that_nobody_holds_are_swept_whatever_their_number() {
        let parent = std::env::temp_dir();
        // What an interrupted program with this very number left: each container has its own 7.
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
        assert!(folder.path().exists(), "it is held");
        drop((folder, other));
        assert!(!stale.exists());
        // Nobody knows what these are.
        foreign
            .iter()
            .for_each(|path| fs::remove_dir(path).unwrap());
    }

    #[test]
    fn a_name_that_is_taken_is_no_obstacle() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("taken");
        let [first, second] = [(), ()].map(|()| Folder::create_near(&path).unwrap());
        assert_eq!(first.path(), path);
        assert_eq!(second.path(), parent.path().join("taken-2"));
    }

    #[test]
    fn nobody_sweeps_a_folder_that_another_has_just_made() {
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
    fn what_lies_at_the_place_of_a_folder_is_not_held_for_it() {
        let parent = tempfile::tempdir().unwrap();
        let [folder, link] = ["folder", "link"].map(|name| parent.path().join(name));
        assert!(hold(&folder).is_none(), "nothing is there");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(hold(&link).is_none(), "a link");
        let held = hold(&folder);
        assert!(held.is_some() && hold(&folder).is_none(), "held once");
    }
}
