//! Programs that make thumbnails of a whole folder of photos: the command `arenite resize` and others.
//!
//! Every system is a process, timed from its start to its end. All write JPEG with a longer side of 224 pixels, quality
//! 80, resized with Lanczos3, without metadata. The photos are in the page cache.

use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

use arenite_image::Format;

use super::{BenchError, Case, Goal, Reading, Running, Setup, Shared, Unit};
use crate::child::Role;
use crate::photos::{self, Folder};
use crate::program::{self, CommandLine};

/// Width and height of photos of 2 megapixels.
const MIDDLE: (u32, u32) = (1632, 1224);
/// The target of every system.
const SIZE: &str = "224x224";

/// A folder of photos, or the error if it could not be created.
type Photos = Shared<Result<Folder, BenchError>>;

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let large: Photos = Shared::new(|| photos::make("12mp", 100, photos::LARGE, Format::Jpeg));
    let small: Photos = Shared::new(|| photos::make("0.3mp", 200, (640, 480), Format::Jpeg));
    let png: Photos = Shared::new(|| photos::make("2mp-png", 50, MIDDLE, Format::Png));
    let webp: Photos = Shared::new(|| photos::make("2mp-webp", 50, MIDDLE, Format::WebP));
    let mut cases = vec![
        programs(
            Case::new(
                "resize-12mp",
                "100 photos of 12 megapixels to thumbnails, 2 workers",
                Unit::ImagesPerSecond(100),
            )
            .plan(1, 5, 0)
            .goals(&[
                Goal::AtLeast(2.0, "vipsthumbnail"),
                Goal::AtLeast(1.2, "vipsthumbnail-p2"),
                Goal::AtLeast(0.97, "rayon"),
            ]),
            &large,
        ),
        programs(
            Case::new(
                "resize-0.3mp",
                "200 photos of 0.3 megapixels to thumbnails, 2 workers",
                Unit::ImagesPerSecond(200),
            )
            .plan(1, if setup.quick { 3 } else { 7 }, 0)
            .goals(&[
                Goal::AtLeast(2.5, "vipsthumbnail-p2"),
                Goal::AtLeast(0.95, "rayon"),
            ]),
            &small,
        ),
        programs(
            Case::new(
                "resize-2mp-png",
                "50 PNGs of 2 megapixels to thumbnails in JPEG, 2 workers",
                Unit::ImagesPerSecond(50),
            )
            .plan(1, 5, 0)
            .goals(&[Goal::AtLeast(2.5, "vipsthumbnail-p2")]),
            &png,
        ),
        programs(
            Case::new(
                "resize-2mp-webp",
                "50 WebPs of 2 megapixels to thumbnails in JPEG, 2 workers",
                Unit::ImagesPerSecond(50),
            )
            .plan(1, 5, 0)
            .goals(&[Goal::AtLeast(1.8, "vipsthumbnail-p2")]),
            &webp,
        ),
    ];
    for case in &mut cases {
        case.quick = case.id == "resize-0.3mp";
    }
    // The number of photos to which both folders link. With different photos, a larger one would look like growing
    // memory.
    const DIFFERENT: usize = 20;
    for count in [DIFFERENT, 200] {
        let goals: &[Goal] = match count {
            200 => &[Goal::AtMostCase(1.1, "peak-resize-20")],
            _ => &[],
        };
        let photos = large.clone();
        let mut case = Case::new(
            format!("peak-resize-{count}"),
            format!("The peak memory while {count} photos of 12 megapixels are resized"),
            Unit::Megabytes,
        )
        .plan(1, 3, 0)
        .goals(goals)
        .system("arenite", move |setup| {
            let folder = photos::link(&format!("{count}"), count, DIFFERENT, made(&photos.get())?)?;
            arenite(setup, Rc::new(Ok(folder)), Watch::All)
        });
        case.quick = false;
        cases.push(case);
    }
    cases
}

fn made(photos: &Result<Folder, BenchError>) -> Result<&Folder, BenchError> {
    photos
        .as_ref()
        .map_err(|error| BenchError::Missing(format!("no photos: {error}")))
}

fn programs(case: Case, photos: &Photos) -> Case {
    let with = |start: fn(&Setup, &Photos) -> Result<Running, BenchError>| {
        let photos = photos.clone();
        move |setup: &Setup| start(setup, &photos)
    };
    case.system(
        "arenite",
        with(|setup, photos| arenite(setup, photos.get(), Watch::First)),
    )
    .system("rayon", with(rayon))
    .system(
        "vipsthumbnail",
        with(|_, photos| vips("vipsthumbnail", photos, 1)),
    )
    .system(
        "vipsthumbnail-p2",
        with(|_, photos| vips("vipsthumbnail-p2", photos, 2)),
    )
}

/// The runs in which memory is sampled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// Each run.
    All,
    /// One run before the runs that are timed.
    First,
}

/// Makes a system that runs a program over a folder, once per operation. `lines` returns the command lines for the
/// folders of the photos and of the output.
fn running(
    system: &'static str,
    role: Role,
    photos: Rc<Result<Folder, BenchError>>,
    watch: Watch,
    lines: impl Fn(&Folder, &Folder) -> Result<Vec<CommandLine>, BenchError> + 'static,
) -> Result<Running, BenchError> {
    made(&photos)?;
    // Output folders are removed only at the end: for five seconds after a removal, ext4 examines each freed inode
    // before it takes another inode, which slows down the next writer.
    let mut outputs = Vec::new();
    let mut first_peak = None;
    Ok(Box::new(move |times| {
        let photos = made(&photos)?;
        let count = photos.files()?.len() as u64;
        let mut run = |watched| {
            let out = Folder::create(&format!("out-{system}"))?;
            let lines = lines(photos, &out)?;
            let reading = program::run(system, &role, &lines, &out, count, watched);
            outputs.push(out);
            reading
        };
        if watch == Watch::First
            && first_peak.is_none()
            && let Reading::Files { peak, .. } = run(true)?
        {
            first_peak = Some(peak);
        }
        let mut last = None;
        for _ in 0..times {
            last = Some(run(watch == Watch::All)?);
        }
        if let (Some(Reading::Files { peak, .. }), Some(first_peak)) = (&mut last, first_peak) {
            *peak = first_peak;
        }
        last.ok_or_else(|| BenchError::Missing("no operation was requested".to_owned()))
    }))
}

fn arenite(
    setup: &Setup,
    photos: Rc<Result<Folder, BenchError>>,
    watch: Watch,
) -> Result<Running, BenchError> {
    made(&photos)?;
    let command: PathBuf = setup.command.clone().ok_or_else(|| {
        BenchError::Missing(
            "the arenite command is not beside this program; run cargo build --release".to_owned(),
        )
    })?;
    let workers = setup.workers.to_string();
    running(
        "arenite",
        Role::Program,
        photos,
        watch,
        move |photos, out| {
            let words = [
                command.as_os_str(),
                "resize".as_ref(),
                photos.path().as_os_str(),
                "--size".as_ref(),
                SIZE.as_ref(),
                "--out".as_ref(),
                out.path().as_os_str(),
                "--workers".as_ref(),
                workers.as_ref(),
                "--format".as_ref(),
                "jpeg".as_ref(),
                "--quiet".as_ref(),
            ];
            Ok(vec![words.iter().map(OsString::from).collect()])
        },
    )
}

fn rayon(setup: &Setup, photos: &Photos) -> Result<Running, BenchError> {
    let threads = setup.workers.to_string();
    running(
        "rayon",
        Role::Photos,
        photos.get(),
        Watch::First,
        move |photos, out| {
            Ok(vec![vec![
                threads.clone().into(),
                SIZE.into(),
                photos.path().into(),
                out.path().into(),
            ]])
        },
    )
}

/// Runs libvips in one process for all photos, or in two processes with half of the photos each, like `xargs -P2`.
fn vips(system: &'static str, photos: &Photos, batches: usize) -> Result<Running, BenchError> {
    const PROGRAM: &str = "vipsthumbnail";
    if !program::is_installed(PROGRAM) {
        return Err(BenchError::Missing(format!(
            "{PROGRAM} is not installed (Debian: libvips-tools)"
        )));
    }
    running(
        system,
        Role::Program,
        photos.get(),
        Watch::First,
        move |photos, out| {
            let files = photos.files()?;
            let mut target = out.path().as_os_str().to_owned();
            target.push("/%s.jpg[Q=80,strip]");
            let size = files.len().div_ceil(batches).max(1);
            let line = |batch: &[PathBuf]| -> CommandLine {
                let mut line: CommandLine =
                    [PROGRAM, "--size", SIZE, "-o"].map(OsString::from).into();
                line.push(target.clone());
                line.extend(batch.iter().map(OsString::from));
                line
            };
            Ok(files.chunks(size).map(line).collect())
        },
    )
}
