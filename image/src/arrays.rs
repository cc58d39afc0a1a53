//! Conversion between pictures and arrays.

use arenite::{ArenaFull, Array, ArrayMut};

use crate::error::ImageError;
use crate::pixels::{Color, Pixels, Samples, buffer, narrow};

impl Pixels {
    /// Copies the samples to an array of height × width × channels, 8 bits each. 16 bits are rounded to 8. Inside a
    /// kernel the array is in the arena, so that returning it copies nothing.
    ///
    /// ```
    /// use arenite_image::{ResizeSpec, resize_to_pixels};
    /// use arenite::{Array, Engine};
    ///
    /// /// The middle of a photo as input of a neural network: 224 × 224 × 3.
    /// fn load(file: &[u8]) -> Result<Array<u8>, Box<dyn std::error::Error>> {
    ///     let spec = ResizeSpec { fit: "cover".parse()?, ..ResizeSpec::new("224x224".parse()?) };
    ///     Ok(resize_to_pixels(file, &spec)?.to_array()?)
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::inline();
    /// let file = engine.read_file("../samples/chelsea.jpg")?;
    /// let tensor = engine.submit(load, (&file,)).wait()?;
    /// assert_eq!(tensor.shape().dims(), [224, 224, 3]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ArenaFull`], only inside a kernel.
    ///
    /// # Panics
    /// If the number of samples does not match the sides, which is impossible for decoded pixels.
    pub fn to_array(&self) -> Result<Array<u8>, ArenaFull> {
        let array = match &self.samples {
            Samples::Eight(samples) => Array::try_from_slice(samples)?,
            Samples::Sixteen(samples) => {
                ArrayMut::try_from_fn(samples.len(), |i| narrow(samples[i]))?.seal()
            }
        };
        let shape = [
            self.height as usize,
            self.width as usize,
            self.color.channels(),
        ];
        Ok(array
            .reshape(shape)
            .expect("the number of samples matches the sides"))
    }

    /// Copies an array to a picture. The shape is height × width (grey), or height × width × channels: 1 for grey, 2
    /// for grey and alpha, 3 for RGB, 4 for RGBA.
    ///
    /// ```
    /// use arenite::Array;
    /// use arenite_image::{Color, Pixels};
    ///
    /// let ramp = Array::from_fn([16, 256], |i| (i % 256) as u8);
    /// let picture = Pixels::from_array(&ramp)?;
    /// assert_eq!((picture.width, picture.height, picture.color), (256, 16, Color::Gray));
    /// # Ok::<(), arenite_image::ImageError>(())
    /// ```
    ///
    /// # Errors
    /// `BadRequest` for another shape; `OutOfMemory`.
    pub fn from_array(array: &Array<u8>) -> Result<Self, ImageError> {
        let shape = array.shape();
        let refused = || ImageError::BadRequest {
            reason: format!(
                "an array of shape {shape} is not a picture; expected height × width, or \
                 height × width × 1 to 4 channels"
            ),
        };
        let (height, width, channels) = match *shape.dims() {
            [height, width] => (height, width, 1),
            [height, width, channels] => (height, width, channels),
            _ => return Err(refused()),
        };
        let color = match channels {
            1 => Color::Gray,
            2 => Color::GrayAlpha,
            3 => Color::Rgb,
            4 => Color::Rgba,
            _ => return Err(refused()),
        };
        let mut samples = buffer(array.len())?;
        samples.copy_from_slice(array);
        let side = |side: usize| u32::try_from(side).map_err(|_| refused());
        Ok(Self {
            width: side(width)?,
            height: side(height)?,
            color,
            samples: Samples::Eight(samples),
        })
    }
}
