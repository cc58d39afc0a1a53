//! The target size: its grammar, and the sides and source region that follow from it.

use std::fmt;
use std::str::FromStr;

use bytemuck::{CheckedBitPattern, NoUninit};

use super::pad::Padding;
use super::pixels::{Orientation, swaps_sides};
use super::position::Position;

/// When a picture is resized at all: the suffix of a [`Size`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, NoUninit, CheckedBitPattern)]
#[repr(u8)]
pub enum When {
    /// Shrink larger pictures, enlarge smaller ones.
    #[default]
    Always = 0,
    /// `>`: only shrink; a smaller picture keeps its size.
    Shrink = 1,
    /// `<`: only enlarge; a larger picture keeps its size.
    Enlarge = 2,
    /// `!`: exactly this size; proportions may change.
    Force = 3,
}

/// How a picture fits the target box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, NoUninit, CheckedBitPattern)]
#[repr(u8)]
pub enum Fit {
    /// The whole picture inside the box; one side may be shorter than the box.
    #[default]
    Contain = 0,
    /// Fill the box; the picture is cropped on two sides, evenly unless a [`Position`] says otherwise.
    Cover = 1,
    /// Stretch the picture to the box; proportions change.
    Fill = 2,
    /// The whole picture inside the box, with margins up to the box.
    Pad = 3,
}

impl FromStr for Fit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "contain" => Ok(Self::Contain),
            "cover" => Ok(Self::Cover),
            "fill" => Ok(Self::Fill),
            "pad" => Ok(Self::Pad),
            _ => Err(format!(
                "unknown fit {text:?}; choose contain, cover, fill or pad"
            )),
        }
    }
}

/// A target size in the grammar of `vipsthumbnail`: `N` (a box of N×N pixels), `WxH`, `Wx` (the height follows), `xH`
/// (the width follows), each with an optional `>` (only shrink), `<` (only enlarge) or `!` (exactly this size;
/// proportions change, and a missing side is as long as the other). Or a percentage of the picture's own sides: `N%`,
/// with an optional `>` or `<`.
///
/// ```
/// use arenite_image::{Size, When};
/// let size: Size = "640x480>".parse()?;
/// assert_eq!((size.width, size.height, size.when), (640, 480, When::Shrink));
/// assert_eq!("x200".parse::<Size>()?.width, 0); // 0: follows from the picture
/// assert_eq!("224".parse::<Size>()?.to_string(), "224x224");
/// assert_eq!("12.5%".parse(), Ok(Size::percent(125, When::Always)));
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern)]
#[repr(C)]
pub struct Size {
    /// Width of the box in pixels; 0 if it follows from the height.
    pub width: u32,
    /// Height of the box in pixels; 0 if it follows from the width.
    pub height: u32,
    /// When to resize at all.
    pub when: When,
    zero: u8,
    /// Tenths of a percent of the picture's own sides, used instead of the box and the fit; 0 for a box.
    pub per_mille: u16,
}

impl arenite::Scalar for Size {}

/// The maximum side of a target: the limit of JPEG.
const LONGEST: u32 = 65_535;
/// The maximum percentage, in tenths.
const MAX_PER_MILLE: u16 = 10_000;

impl Size {
    /// Creates a box with these sides in pixels; 0 for a side that follows from the other.
    pub const fn new(width: u32, height: u32, when: When) -> Self {
        Self {
            width,
            height,
            when,
            zero: 0,
            per_mille: 0,
        }
    }

    /// Creates a percentage of the picture's own sides, in tenths of a percent. `When::Force` is the same as
    /// `When::Always` here.
    pub const fn percent(tenths: u16, when: When) -> Self {
        Self {
            per_mille: tenths,
            ..Self::new(0, 0, when)
        }
    }

    /// Makes a missing side as long as the other.
    const fn square_if_half(self) -> Self {
        match (self.width, self.height) {
            (0, side) | (side, 0) => Self::new(side, side, self.when),
            _ => self,
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = || {
            format!(
                "{text:?} is not a size; write N, WxH, Wx or xH (sides from 1 to {LONGEST}) or N% (up to {}), \
                 optionally followed by > (only shrink), < (only enlarge) or, after sides, ! (exactly)",
                MAX_PER_MILLE / 10
            )
        };
        let (sides, when) = match text.as_bytes().last() {
            Some(b'>') => (&text[..text.len() - 1], When::Shrink),
            Some(b'<') => (&text[..text.len() - 1], When::Enlarge),
            Some(b'!') => (&text[..text.len() - 1], When::Force),
            _ => (text, When::Always),
        };
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if let Some(percent) = sides.strip_suffix('%') {
            let (whole, tenth) = percent.split_once('.').unwrap_or((percent, "0"));
            let is_number = is_digits(whole) && is_digits(tenth) && tenth.len() == 1;
            return match format!("{whole}{tenth}").parse() {
                Ok(tenths @ 1..=MAX_PER_MILLE) if is_number && when != When::Force => {
                    Ok(Self::percent(tenths, when))
                }
                _ => Err(help()),
            };
        }
        let side = |digits: &str| -> Result<u32, String> {
            match digits.parse() {
                Ok(side @ 1..=LONGEST) if is_digits(digits) => Ok(side),
                _ => Err(help()),
            }
        };
        let (width, height) = match sides.split_once(['x', 'X']) {
            None => {
                let both = side(sides)?;
                (both, both)
            }
            Some(("", "")) => return Err(help()),
            Some((width, "")) => (side(width)?, 0),
            Some(("", height)) => (0, side(height)?),
            Some((width, height)) => (side(width)?, side(height)?),
        };
        Ok(Self::new(width, height, when))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: u32| match side {
            0 => String::new(),
            side => side.to_string(),
        };
        match (self.per_mille / 10, self.per_mille % 10) {
            (0, 0) => write!(f, "{}x{}", side(self.width), side(self.height))?,
            (whole, 0) => write!(f, "{whole}%")?,
            (whole, tenth) => write!(f, "{whole}.{tenth}%")?,
        }
        f.write_str(match self.when {
            When::Always => "",
            When::Shrink => ">",
            When::Enlarge => "<",
            When::Force => "!",
        })
    }
}

/// How one picture is resized: the visible part of the source, its sides after scaling, and margins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// Width of the scaled picture in pixels, at least 1.
    pub width: u32,
    /// Height of the scaled picture in pixels, at least 1.
    pub height: u32,
    /// The part of the source that is scaled, in source pixels; always inside the source.
    pub region: Region,
    /// Margins of the output around the scaled picture.
    pub padding: Padding,
}

/// A rectangle, in pixels and fractions of pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Region {
    /// Distance from the left edge, in pixels.
    pub left: f64,
    /// Distance from the top edge, in pixels.
    pub top: f64,
    /// Width in pixels.
    pub width: f64,
    /// Height in pixels.
    pub height: f64,
}

impl Region {
    /// Returns the part of the stored picture, whose sides are `width` and `height`, that a viewer sees as this region
    /// after turning the picture by `orientation`.
    pub(super) fn stored(self, (width, height): (u32, u32), orientation: Orientation) -> Self {
        use Orientation::*;
        let (width, height) = (f64::from(width), f64::from(height));
        let mut stored = match swaps_sides(orientation) {
            true => Self {
                left: self.top,
                top: self.left,
                width: self.height,
                height: self.width,
            },
            false => self,
        };
        // Because of rounding, the far edge may be slightly outside.
        if matches!(
            orientation,
            FlipHorizontal | Rotate180 | Rotate270 | Rotate270FlipH
        ) {
            stored.left = (width - stored.left - stored.width).max(0.0);
        }
        if matches!(
            orientation,
            FlipVertical | Rotate180 | Rotate90 | Rotate270FlipH
        ) {
            stored.top = (height - stored.top - stored.height).max(0.0);
        }
        stored.width = stored.width.min(width - stored.left);
        stored.height = stored.height.min(height - stored.top);
        stored
    }

    /// Returns the same part of the picture after the picture was scaled by `scale` (across, down) to these sides.
    pub(super) fn scaled(self, scale: (f64, f64), (width, height): (u32, u32)) -> Self {
        let (left, top) = (self.left * scale.0, self.top * scale.1);
        Self {
            left,
            top,
            width: (self.width * scale.0).min(f64::from(width) - left),
            height: (self.height * scale.1).min(f64::from(height) - top),
        }
    }
}

impl Plan {
    /// Plans the resizing of a picture whose sides are `source` (width, height, with its orientation applied). The
    /// position is used for `Fit::Cover` and `Fit::Pad`. With `enlarge: false` no side is stretched, whatever
    /// `size.when` says.
    ///
    /// ```
    /// use arenite_image::{Fit, Plan, Position, Size, When};
    /// let size = Size::new(224, 224, When::Always);
    /// let plan = Plan::new((4000, 3000), size, (Fit::Contain, Position::Center), true);
    /// assert_eq!((plan.width, plan.height), (224, 168));
    /// ```
    ///
    /// # Panics
    /// If a side of the source is 0.
    pub fn new(
        source: (u32, u32),
        size: Size,
        (fit, position): (Fit, Position),
        enlarge: bool,
    ) -> Self {
        let (width, height) = source;
        assert!(width > 0 && height > 0, "a picture has at least one pixel");
        let untouched = Self {
            width,
            height,
            region: Region {
                left: 0.0,
                top: 0.0,
                width: f64::from(width),
                height: f64::from(height),
            },
            padding: Padding::default(),
        };
        let allowed = Directions {
            shrink: size.when != When::Enlarge,
            enlarge: enlarge && size.when != When::Shrink,
        };
        if size.per_mille != 0 {
            return untouched.scaled(size.per_mille, allowed);
        }
        let (size, fit) = match size.when {
            When::Force => (size.square_if_half(), Fit::Fill),
            _ => (size, fit),
        };
        match fit {
            Fit::Fill => untouched.filling(size, allowed),
            // With one side given, nothing is cropped or padded.
            Fit::Cover if size.width != 0 && size.height != 0 => {
                untouched.covering(size, position, allowed)
            }
            Fit::Pad if size.width != 0 && size.height != 0 => {
                let plan = untouched.contained(size, allowed);
                let inner = (plan.width, plan.height);
                let padding = Padding::new(inner, (size.width, size.height), position);
                Self { padding, ..plan }
            }
            Fit::Contain | Fit::Cover | Fit::Pad => untouched.contained(size, allowed),
        }
    }

    /// Returns width and height of the output in pixels: the scaled picture with its margins.
    pub fn output(&self) -> (u32, u32) {
        let Padding {
            left,
            top,
            right,
            bottom,
        } = self.padding;
        (left + self.width + right, top + self.height + bottom)
    }

    /// Plans to show the whole picture, with both sides scaled by the same factor.
    fn scaled(self, per_mille: u16, allowed: Directions) -> Self {
        if !allowed.permit(f64::from(per_mille) / 1000.0) {
            return self;
        }
        let side = |own: u32| {
            let side = (u64::from(own) * u64::from(per_mille) + 500) / 1000;
            u32::try_from(side).unwrap_or(u32::MAX).max(1)
        };
        Self {
            width: side(self.width),
            height: side(self.height),
            ..self
        }
    }

    /// Plans to show the whole picture, each side scaled independently.
    fn filling(self, size: Size, allowed: Directions) -> Self {
        // A missing side does not change, and each side is limited separately.
        let side = |own: u32, wanted: u32| match wanted {
            0 => own,
            _ if allowed.permit(f64::from(wanted) / f64::from(own)) => wanted,
            _ => own,
        };
        Self {
            width: side(self.width, size.width),
            height: side(self.height, size.height),
            ..self
        }
    }

    /// Plans to show the whole picture within the given sides.
    fn contained(self, size: Size, allowed: Directions) -> Self {
        let scale =
            |own: u32, wanted: u32| (wanted != 0).then(|| f64::from(wanted) / f64::from(own));
        let x = scale(self.width, size.width);
        let y = scale(self.height, size.height);
        let scale = match (x, y) {
            (None, None) => return self,
            (Some(scale), None) | (None, Some(scale)) => scale,
            (Some(x), Some(y)) => x.min(y),
        };
        if !allowed.permit(scale) {
            return self;
        }
        // The deciding side is exact; only the other side is rounded.
        let side = |own: u32, wanted: u32, own_scale: Option<f64>| {
            if own_scale == Some(scale) {
                wanted
            } else {
                let side = (f64::from(own) * scale).round();
                side.clamp(1.0, f64::from(u32::MAX)) as u32
            }
        };
        Self {
            width: side(self.width, size.width, x),
            height: side(self.height, size.height, y),
            ..self
        }
    }

    /// Plans to show a part of the picture, which fills the box if the picture is large enough.
    fn covering(self, size: Size, position: Position, allowed: Directions) -> Self {
        let (width, height) = (f64::from(self.width), f64::from(self.height));
        let x = f64::from(size.width) / width;
        let scale = x.max(f64::from(size.height) / height);
        // The picture is larger than the box and must not shrink: it is neither scaled nor cropped.
        if scale < 1.0 && !allowed.shrink {
            return self;
        }
        // The picture is too small to cover the box and must not be enlarged: it is cropped to the box, not scaled. The
        // scale is a fraction, so that the deciding side is exact.
        let (to, from) = match (allowed.permit(scale), x == scale) {
            (false, _) => (1.0, 1.0),
            (true, true) => (f64::from(size.width), width),
            (true, false) => (f64::from(size.height), height),
        };
        let out = |own: f64, wanted: u32| wanted.min((own * to / from).round().max(1.0) as u32);
        let out_width = out(width, size.width);
        let out_height = out(height, size.height);
        let region_width = (f64::from(out_width) * from / to).min(width);
        let region_height = (f64::from(out_height) * from / to).min(height);
        let (before, above) = position.halves();
        let mut left = (width - region_width) * f64::from(before) / 2.0;
        let mut top = (height - region_height) * f64::from(above) / 2.0;
        if to == from {
            // Not scaled: cropped at whole pixels, which are copied without change.
            (left, top) = (left.floor(), top.floor());
        }
        Self {
            width: out_width,
            height: out_height,
            region: Region {
                left,
                top,
                width: region_width,
                height: region_height,
            },
            ..self
        }
    }
}

/// The directions in which a picture may be scaled.
#[derive(Clone, Copy)]
struct Directions {
    shrink: bool,
    enlarge: bool,
}

impl Directions {
    fn permit(self, scale: f64) -> bool {
        (scale < 1.0 && self.shrink) || (scale > 1.0 && self.enlarge) || scale == 1.0
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn size(text: &str) -> Size {
        text.parse().unwrap()
    }

    fn centred(source: (u32, u32), text: &str, fit: Fit, enlarge: bool) -> Plan {
        Plan::new(source, size(text), (fit, Position::Center), enlarge)
    }

    fn sides(source: (u32, u32), text: &str, fit: Fit, enlarge: bool) -> (u32, u32) {
        let plan = centred(source, text, fit, enlarge);
        (plan.width, plan.height)
    }

    #[test]
    fn sizes_parse_and_display() {
        assert_eq!(size("224"), Size::new(224, 224, When::Always));
        assert_eq!(size("640x480"), Size::new(640, 480, When::Always));
        assert_eq!(size("640x"), Size::new(640, 0, When::Always));
        assert_eq!(size("x480"), Size::new(0, 480, When::Always));
        assert_eq!(size("224>"), Size::new(224, 224, When::Shrink));
        assert_eq!(size("640x<"), Size::new(640, 0, When::Enlarge));
        assert_eq!(size("50%"), Size::percent(500, When::Always));
        assert_eq!(size("10X20!"), Size::new(10, 20, When::Force));
        for text in [
            "224x224", "640x", "x480", "1x2>", "1x<", "x9!", "50%", "0.1%", "12.5%>", "1000%<",
        ] {
            assert_eq!(size(text).to_string(), text);
        }
        for wrong in [
            "",
            "x",
            ">",
            "0",
            "0x5",
            "5x0",
            "-3",
            "+3",
            "3.5",
            "axb",
            "1x2x3",
            "65536",
            "1 x2",
            "%",
            "0%",
            "0.0%",
            "5.%",
            ".5%",
            "0.05%",
            "-5%",
            "5%!",
            "5%x",
            "5x5%",
            "1000.1%",
            "1x2>>",
            "99999999999",
            "１",
        ] {
            let error = wrong.parse::<Size>().unwrap_err();
            assert!(error.contains("WxH"), "{wrong}: {error}");
        }
    }

    #[test]
    fn contain_keeps_proportions() {
        let fit = Fit::Contain;
        assert_eq!(sides((4000, 3000), "224", fit, true), (224, 168));
        assert_eq!(sides((3000, 4000), "224", fit, true), (168, 224));
        assert_eq!(sides((100, 50), "224", fit, true), (224, 112));
        assert_eq!(sides((4000, 3000), "200x", fit, true), (200, 150));
        assert_eq!(sides((4000, 3000), "x200", fit, true), (267, 200));
        assert_eq!(sides((100_000, 1), "224", fit, true), (224, 1));
        assert_eq!(sides((1, 1), "7x9", fit, true), (7, 7));
        // 1/3 is not a binary fraction; the deciding side must still be exact.
        assert_eq!(sides((333, 999), "x333", fit, true), (111, 333));
    }

    #[test]
    fn percentages_scale_each_side() {
        for fit in [Fit::Contain, Fit::Cover, Fit::Fill, Fit::Pad] {
            assert_eq!(sides((101, 1001), "50%", fit, true), (51, 501));
            assert_eq!(sides((40, 30), "12.5%", fit, true), (5, 4));
            assert_eq!(sides((40, 3), "10%", fit, true), (4, 1));
            assert_eq!(sides((40, 30), "150%", fit, true), (60, 45));
            assert_eq!(sides((40, 30), "150%>", fit, true), (40, 30));
            assert_eq!(sides((40, 30), "150%", fit, false), (40, 30));
            assert_eq!(sides((40, 30), "50%>", fit, true), (20, 15));
            assert_eq!(sides((40, 30), "50%<", fit, true), (40, 30));
        }
    }

    #[test]
    fn suffixes_and_no_enlarge_limit_scaling() {
        let fit = Fit::Contain;
        assert_eq!(sides((100, 50), "224>", fit, true), (100, 50));
        assert_eq!(sides((1000, 500), "224>", fit, true), (224, 112));
        assert_eq!(sides((1000, 500), "224<", fit, true), (1000, 500));
        assert_eq!(sides((100, 50), "224<", fit, true), (224, 112));
        assert_eq!(sides((100, 50), "224", fit, false), (100, 50));
        assert_eq!(sides((1000, 500), "224", fit, false), (224, 112));
        assert_eq!(sides((100, 50), "224<", fit, false), (100, 50));
        assert_eq!(sides((100, 500), "200x200!", fit, true), (200, 200));
        assert_eq!(sides((100, 500), "200x200!", fit, false), (100, 200));
        assert_eq!(sides((100, 500), "200x!", fit, true), (200, 200));
        assert_eq!(sides((640, 427), "x100!", fit, true), (100, 100));
        assert_eq!(sides((100, 500), "200x", Fit::Fill, true), (200, 500));
        assert_eq!(sides((100, 500), "200>", Fit::Fill, true), (100, 200));
        assert_eq!(sides((100, 500), "200<", Fit::Fill, true), (200, 500));
    }

    #[test]
    fn cover_fills_the_box_from_the_middle() {
        let plan = centred((4000, 3000), "224", Fit::Cover, true);
        assert_eq!((plan.width, plan.height), (224, 224));
        let region = plan.region;
        assert_eq!((region.left, region.top), (500.0, 0.0));
        assert_eq!((region.width, region.height), (3000.0, 3000.0));

        // Too small for the box: enlarged, or with `>` cropped to it at whole pixels.
        assert_eq!(sides((100, 50), "80x80", Fit::Cover, true), (80, 80));
        let plan = centred((101, 50), "80x80>", Fit::Cover, true);
        assert_eq!((plan.width, plan.height), (80, 50));
        assert_eq!(plan.region.left, 10.0);
        assert_eq!(sides((1000, 500), "80x80<", Fit::Cover, true), (1000, 500));
        assert_eq!(sides((1000, 500), "80x", Fit::Cover, true), (80, 40));
    }

    #[test]
    fn cover_cuts_off_nothing_at_its_position() {
        let at = |source, text: &str, position| {
            let plan = Plan::new(source, size(text), (Fit::Cover, position), true);
            assert_eq!((plan.width, plan.height), (10, 10));
            (plan.region.left, plan.region.top)
        };
        for (position, wide, high) in [
            (Position::Center, 50.0, 50.0),
            (Position::Top, 50.0, 0.0),
            (Position::TopRight, 100.0, 0.0),
            (Position::Right, 100.0, 50.0),
            (Position::BottomRight, 100.0, 100.0),
            (Position::Bottom, 50.0, 100.0),
            (Position::BottomLeft, 0.0, 100.0),
            (Position::Left, 0.0, 50.0),
            (Position::TopLeft, 0.0, 0.0),
        ] {
            assert_eq!(at((200, 100), "10x10", position), (wide, 0.0));
            assert_eq!(at((100, 200), "10x10", position), (0.0, high));
            assert_eq!(position.name().parse(), Ok(position));
        }
    }

    #[test]
    fn pad_fills_the_box_with_margins() {
        let at = |source, text: &str, position| {
            let plan = Plan::new(source, size(text), (Fit::Pad, position), true);
            let padding = plan.padding;
            let margins = [padding.left, padding.top, padding.right, padding.bottom];
            ((plan.width, plan.height), margins)
        };
        let center = Position::Center;
        assert_eq!(at((200, 100), "21x20", center), ((21, 11), [0, 4, 0, 5]));
        assert_eq!(at((100, 200), "20x20", center), ((10, 20), [5, 0, 5, 0]));
        assert_eq!(
            at((200, 100), "20x20", Position::Top),
            ((20, 10), [0, 0, 0, 10])
        );
        assert_eq!(
            at((200, 100), "20x20", Position::BottomRight),
            ((20, 10), [0, 10, 0, 0])
        );
        // Not scaled, only padded; and larger than the box.
        assert_eq!(at((10, 4), "20x20>", center), ((10, 4), [5, 8, 5, 8]));
        assert_eq!(at((50, 10), "20x20<", center), ((50, 10), [0; 4]));
        // No box.
        assert_eq!(at((10, 4), "20x", center), ((20, 8), [0; 4]));
    }

    #[test]
    fn every_plan_stays_inside_its_source() {
        let lengths = [1, 2, 3, 7, 100, 333, 4001, 65_535];
        for (w, h) in lengths.iter().flat_map(|&w| lengths.map(|h| (w, h))) {
            for text in [
                "1", "3x7", "224", "1000x1", "x5", "5x", "224>", "224<", "9x8!", "0.1%", "33.3%",
                "150%",
            ] {
                let fits = [Fit::Contain, Fit::Cover, Fit::Fill, Fit::Pad];
                let fits = fits.map(|fit| Position::ALL.map(|position| (fit, position)));
                for fit in fits.into_iter().flatten() {
                    for enlarge in [true, false] {
                        let plan = Plan::new((w, h), size(text), fit, enlarge);
                        let Region {
                            left,
                            top,
                            width,
                            height,
                        } = plan.region;
                        let what = format!("{w}x{h} {text} {fit:?} {enlarge}: {plan:?}");
                        assert!(plan.width > 0 && plan.height > 0, "{what}");
                        assert!(left >= 0.0 && left + width <= f64::from(w) + 1e-9, "{what}");
                        assert!(top >= 0.0 && top + height <= f64::from(h) + 1e-9, "{what}");
                        assert!(width > 0.0 && height > 0.0, "{what}");
                        let (across, down) = plan.output();
                        assert!(across >= plan.width && down >= plan.height, "{what}");
                        if !enlarge {
                            assert!(plan.width <= w && plan.height <= h, "{what}");
                        }
                    }
                }
            }
        }
    }
}
