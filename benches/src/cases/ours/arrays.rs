//! Shrinks pictures and squares numbers in the arena.

use super::super::arrays::{check_squares, checksum, expected_checksum};
use super::super::noop::timed;
use super::super::{BenchError, Running, Setup};
use super::{engine, engine_with, refused};
use crate::work;
use arenite::Builder;
use arenite::{Array, ArrayMut};

fn shrink(pixels: &[u8]) -> Array<u8> {
    let mut small = ArrayMut::zeros(work::THUMB_BYTES);
    work::shrink(pixels, &mut small);
    small.seal()
}

pub(in super::super) fn images(setup: &Setup, pictures: &[Vec<u8>]) -> Result<Running, BenchError> {
    images_with(setup, pictures, |builder| builder)
}

pub(in super::super) fn images_with(
    setup: &Setup,
    pictures: &[Vec<u8>],
    change: fn(Builder) -> Builder,
) -> Result<Running, BenchError> {
    let engine = engine_with(setup.workers, change)?;
    let expected = expected_checksum(pictures);
    let pictures = pictures
        .iter()
        .map(|picture| engine.from_slice(picture))
        .collect::<Result<Vec<_>, _>>()
        .map_err(refused)?;
    Ok(Box::new(move |times| {
        let mut got: Vec<Array<u8>> = Vec::new();
        let reading = timed(times, |_| {
            // Drop the results of the last round, as the other systems do. Otherwise twice as much memory would be
            // written.
            got.clear();
            got = engine
                .map(shrink, pictures.iter().map(|picture| (picture,)))
                .collect::<Result<_, _>>()
                .map_err(refused)?;
            Ok(())
        })?;
        BenchError::expect(checksum(got.iter().map(|small| &small[..])), expected)?;
        Ok(reading)
    }))
}

pub(in super::super) fn squares(setup: &Setup, numbers: &[i64]) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let array = engine.from_slice(numbers).map_err(refused)?;
    let numbers = numbers.to_vec();
    Ok(Box::new(move |times| {
        let mut got = None;
        let reading = timed(times, |_| {
            // The other systems overwrite their last result. Two live results would use more memory.
            drop(got.take());
            let squares = engine
                .par(&array)
                .apply(|x: &[i64], out: &mut [i64]| work::square(x, out));
            got = Some(squares.map_err(refused)?);
            Ok(())
        })?;
        if let Some(squares) = got {
            check_squares(&numbers, &squares)?;
        }
        Ok(reading)
    }))
}
