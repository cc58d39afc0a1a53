//! Many processes draw one picture: `cargo run --release --example tiles [FILE.pgm]`.
//!
//! Each job writes its own rows of the picture. Overlapping tiles do not compile, and the picture cannot be used before
//! the scope has ended.

use std::io::Write;

use arenite::{Engine, TileMut};

const WIDTH: usize = 600;
const HEIGHT: usize = 400;
const STEPS: u8 = 255;

/// The part of the complex plane to draw.
#[derive(Clone, Copy, bytemuck::NoUninit, bytemuck::CheckedBitPattern)]
#[repr(C)]
struct Window {
    left: f64,
    top: f64,
    /// Width and height of one pixel.
    size: f64,
}

// Plain data is passed as an argument.
impl arenite::Scalar for Window {}

/// Counts the steps each point takes to leave a circle, for the rows of one tile.
fn mandelbrot(mut tile: TileMut<'_, u8>, window: Window) {
    let rows = tile.rows();
    for (row, pixels) in rows.zip(tile.chunks_mut(WIDTH)) {
        let y = window.top + row as f64 * window.size;
        for (column, pixel) in pixels.iter_mut().enumerate() {
            *pixel = steps(window.left + column as f64 * window.size, y);
        }
    }
}

fn steps(x: f64, y: f64) -> u8 {
    let (mut a, mut b) = (0.0, 0.0);
    (0..STEPS)
        .find(|_| {
            (a, b) = (a * a - b * b + x, 2.0 * a * b + y);
            a * a + b * b > 4.0
        })
        .unwrap_or(STEPS)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    arenite::init();
    let engine = Engine::builder().capacity(64 << 20).build()?;
    let window = Window {
        left: -2.0,
        top: -1.0,
        size: 3.0 / WIDTH as f64,
    };

    let mut picture = engine.uninit::<u8>([HEIGHT, WIDTH])?;
    engine.scope(|scope| {
        // Rows near the middle take far longer than those at the edge, so small tiles balance the load.
        for tile in picture.tiles_mut(16) {
            scope.submit(mandelbrot, (tile, window));
        }
    })?;

    // The scope has ended: the picture is complete and usable again.
    for (row, pixels) in picture.chunks(WIDTH).enumerate() {
        let y = window.top + row as f64 * window.size;
        assert_eq!(pixels[0], steps(window.left, y));
    }
    let inside = picture.iter().filter(|&&pixel| pixel == STEPS).count();
    println!("{inside} of {} points never leave", WIDTH * HEIGHT);
    if let Some(path) = std::env::args_os()
        .nth(1)
        .filter(|path| path.as_encoded_bytes().ends_with(b".pgm"))
    {
        let mut file = std::fs::File::create(path)?;
        writeln!(file, "P5 {WIDTH} {HEIGHT} 255")?;
        file.write_all(&picture)?;
    }
    Ok(())
}
