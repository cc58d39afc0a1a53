//! A stack of microscope frames: subtract the dark image, even out the light, count bright pixels, project. Each loop
//! body is in its place, and names the variables that it captures.

use arenite::{Array, Engine, TileMut, kernel};

fn main() -> Result<(), arenite::Error> {
    arenite::init();
    let engine = Engine::builder().build()?;
    // In place of a camera.
    let stack = engine.from_fn([40, 512 * 512], |i| ((i * 2_654_435) >> 20) as u16 % 4096)?;
    let dark = engine.from_fn(512 * 512, |i| 90 + i as u16 % 7)?;
    let light = engine.from_fn(512 * 512, |i| 0.8 + (i % 512) as f32 / 512.0)?;

    let even = kernel!(|dark: &[u16], light: &[f32]| |frame: &[u16]| {
        let pixel = |i: usize| f32::from(frame[i].saturating_sub(dark[i])) / light[i];
        Array::from_fn(frame.len(), pixel)
    });
    let frames: Result<Vec<_>, _> = engine.map(even, stack.partitions(40)).collect();
    let (frames, limit) = (frames?, 3000.0);

    let count = kernel!(|limit: f32| |frame: &[f32]| frame.iter().filter(|&&x| x > limit).count());
    let bright: usize = engine.map(count, &frames).sum::<Result<_, _>>()?;

    let mut top = engine.uninit(512 * 512)?;
    engine.scope(|s| {
        for tile in top.tiles_mut(16 * 1024) {
            let project = kernel!(|frames: &[Array<f32>]| |mut tile: TileMut<'_, f32>| {
                for (at, top) in tile.rows().zip(tile.iter_mut()) {
                    *top = frames.iter().map(|frame| frame[at]).fold(0.0, f32::max);
                }
            });
            s.submit(project, (tile,));
        }
    })?;
    assert_eq!((bright, top[1000].round()), (1_099_505, 2263.0));
    Ok(())
}
