//! Work on arrays that are already in shared memory: shrinking pictures and squaring numbers.

use rayon::prelude::*;

use super::noop::timed;
use super::{BenchError, Case, Goal, Running, Setup, Shared, Unit, ours, rayon_pool};
use crate::stream::StreamKind;
use crate::{pool, work};

/// Pictures in one operation.
pub(super) const PICTURES: usize = 64;
/// Numbers in one operation.
pub(super) const NUMBERS: usize = 1_000_000;

/// The pictures of `images-64`.
pub(super) type Pictures = Shared<Vec<Vec<u8>>>;

/// Describes the pictures. The first system that needs them creates them.
pub(super) fn pictures() -> Pictures {
    Shared::new(make_pictures)
}

pub(super) fn cases(setup: &Setup, pictures: &Pictures) -> Vec<Case> {
    let with = |start: fn(&Setup, &Pictures) -> Result<Running, BenchError>| {
        let pictures = pictures.clone();
        move |setup: &Setup| start(setup, &pictures)
    };
    let mut images = Case::new(
        "images-64",
        "Shrink 64 pictures of 10 MB to 224×224, 2 workers",
        Unit::Milliseconds,
    )
    .plan(1, if setup.quick { 3 } else { 9 }, 1)
    .restarting()
    .goals(&[
        Goal::AtLeast(0.97, "rayon"),
        Goal::AtLeast(3.0, "pipe"),
        Goal::AtLeast(2.0, "unix-socket"),
    ])
    .system(
        "arenite",
        with(|setup, pictures| ours::images(setup, &pictures.get())),
    )
    .system("rayon", with(rayon_images))
    .system("one-thread", with(one_thread_images))
    .system(
        "pipe",
        with(|setup, pictures| stream_images(setup, StreamKind::Pipe, pictures)),
    )
    .system(
        "unix-socket",
        with(|setup, pictures| stream_images(setup, StreamKind::UnixSocket, pictures)),
    );
    images.memory = 3 << 30;

    let squares = Case::new(
        "squares-1m",
        "Square 1,000,000 whole numbers by one call, 2 workers",
        Unit::Microseconds,
    )
    .plan(if setup.quick { 20 } else { 100 }, 9, 20)
    .goals(&[Goal::AtLeast(0.85, "rayon")])
    .system("arenite", |setup| ours::squares(setup, &numbers()))
    .system("rayon", rayon_squares)
    .system("one-thread", |_| one_thread_squares());
    vec![images, squares]
}

fn make_pictures() -> Vec<Vec<u8>> {
    (0..PICTURES as u64)
        .map(|seed| work::Random::new(seed).bytes(work::IMAGE_BYTES))
        .collect()
}

/// Returns a number that changes if any of the small pictures changes.
pub(super) fn checksum<'a>(small: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    small
        .into_iter()
        .map(work::sum)
        .fold(0, |all, one| all.rotate_left(1) ^ one)
}

/// Shrinks one picture.
pub(super) fn small(pixels: &[u8]) -> Vec<u8> {
    let mut out = vec![0; work::THUMB_BYTES];
    work::shrink(pixels, &mut out);
    out
}

/// Returns the checksum of the right result.
pub(super) fn expected_checksum(pictures: &[Vec<u8>]) -> u64 {
    let small: Vec<Vec<u8>> = pictures.par_iter().map(|p| small(p)).collect();
    checksum(small.iter().map(Vec::as_slice))
}

pub(super) fn rayon_images(setup: &Setup, pictures: &Pictures) -> Result<Running, BenchError> {
    let pool = rayon_pool(setup)?;
    let pictures = pictures.get();
    let expected = expected_checksum(&pictures);
    Ok(Box::new(move |times| {
        let pictures: &[Vec<u8>] = &pictures;
        let mut got = Vec::new();
        let reading = timed(times, |_| {
            got.clear();
            got = pool.install(|| pictures.par_iter().map(|p| small(p)).collect());
            Ok(())
        })?;
        BenchError::expect(checksum(got.iter().map(Vec::as_slice)), expected)?;
        Ok(reading)
    }))
}

fn one_thread_images(_: &Setup, pictures: &Pictures) -> Result<Running, BenchError> {
    let pictures = pictures.get();
    let expected = expected_checksum(&pictures);
    Ok(Box::new(move |times| {
        let mut got = Vec::new();
        let reading = timed(times, |_| {
            got.clear();
            got = pictures.iter().map(|p| small(p)).collect();
            Ok(())
        })?;
        BenchError::expect(checksum(got.iter().map(Vec::as_slice)), expected)?;
        Ok(reading)
    }))
}

pub(super) fn stream_images(
    setup: &Setup,
    kind: StreamKind,
    pictures: &Pictures,
) -> Result<Running, BenchError> {
    let mut peers = pool::streams(kind, setup.workers)?;
    let pictures = pictures.get();
    let expected = expected_checksum(&pictures);
    Ok(Box::new(move |times| {
        let mut got = vec![Vec::new(); pictures.len()];
        let reading = timed(times, |_| pool::shrink_all(&mut peers, &pictures, &mut got))?;
        BenchError::expect(checksum(got.iter().map(Vec::as_slice)), expected)?;
        Ok(reading)
    }))
}

fn numbers() -> Vec<i64> {
    (0..NUMBERS as i64).map(|x| x - 500_000).collect()
}

/// Fails unless `out` contains the squares of `x`.
pub(super) fn check_squares(x: &[i64], out: &[i64]) -> Result<(), BenchError> {
    let right = x
        .iter()
        .zip(out)
        .filter(|(x, out)| x.wrapping_mul(**x) == **out)
        .count();
    BenchError::expect(right as u64, x.len() as u64)
}

/// Writes into memory that is allocated already, the fastest way to do this with rayon.
fn rayon_squares(setup: &Setup) -> Result<Running, BenchError> {
    let pool = rayon_pool(setup)?;
    let x = numbers();
    let mut out = vec![0; x.len()];
    Ok(Box::new(move |times| {
        let reading = timed(times, |_| {
            pool.install(|| {
                x.par_iter()
                    .map(|x| x.wrapping_mul(*x))
                    .collect_into_vec(&mut out);
            });
            Ok(())
        })?;
        check_squares(&x, &out)?;
        Ok(reading)
    }))
}

fn one_thread_squares() -> Result<Running, BenchError> {
    let x = numbers();
    let mut out = vec![0; x.len()];
    Ok(Box::new(move |times| {
        let reading = timed(times, |_| {
            work::square(std::hint::black_box(&x), &mut out);
            std::hint::black_box(&mut out);
            Ok(())
        })?;
        check_squares(&x, &out)?;
        Ok(reading)
    }))
}
