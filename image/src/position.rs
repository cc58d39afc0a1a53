//! The position of a picture in its box.

use std::str::FromStr;

use bytemuck::{CheckedBitPattern, NoUninit};

/// The part of the upright picture that [`Fit::Cover`](super::Fit::Cover) shows: the side or corner at which nothing is
/// cut off, or the most interesting part. For [`Fit::Pad`](super::Fit::Pad), it is the side or corner without a margin,
/// where the picture is put.
///
/// ```
/// use arenite_image::Position;
/// assert_eq!("top-left".parse(), Ok(Position::TopLeft));
/// assert_eq!(Position::default().name(), "center");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, NoUninit, CheckedBitPattern)]
#[repr(u8)]
pub enum Position {
    /// The middle.
    #[default]
    Center = 0,
    /// The middle of the upper edge.
    Top = 1,
    /// The upper right corner.
    TopRight = 2,
    /// The middle of the right edge.
    Right = 3,
    /// The lower right corner.
    BottomRight = 4,
    /// The middle of the lower edge.
    Bottom = 5,
    /// The lower left corner.
    BottomLeft = 6,
    /// The middle of the left edge.
    Left = 7,
    /// The upper left corner.
    TopLeft = 8,
    /// The most interesting part, judged by edges, saturation and the colour of skin. For `Fit::Pad` the middle.
    Attention = 9,
}

impl Position {
    /// All positions: the default first, then clockwise from the top, then the position that depends on the picture.
    pub const ALL: [Self; 10] = [
        Self::Center,
        Self::Top,
        Self::TopRight,
        Self::Right,
        Self::BottomRight,
        Self::Bottom,
        Self::BottomLeft,
        Self::Left,
        Self::TopLeft,
        Self::Attention,
    ];

    /// Returns the name that [`FromStr`] reads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Center => "center",
            Self::Top => "top",
            Self::TopRight => "top-right",
            Self::Right => "right",
            Self::BottomRight => "bottom-right",
            Self::Bottom => "bottom",
            Self::BottomLeft => "bottom-left",
            Self::Left => "left",
            Self::TopLeft => "top-left",
            Self::Attention => "attention",
        }
    }

    /// Returns how much of the free space is to the left and how much is above, in halves: 0, 1 or 2.
    pub(super) const fn halves(self) -> (u8, u8) {
        let left = match self {
            Self::TopLeft | Self::Left | Self::BottomLeft => 0,
            Self::Top | Self::Center | Self::Bottom | Self::Attention => 1,
            Self::TopRight | Self::Right | Self::BottomRight => 2,
        };
        let above = match self {
            Self::TopLeft | Self::Top | Self::TopRight => 0,
            Self::Left | Self::Center | Self::Right | Self::Attention => 1,
            Self::BottomLeft | Self::Bottom | Self::BottomRight => 2,
        };
        (left, above)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL
            .into_iter()
            .find(|position| position.name() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("unknown position {text:?}; choose one of {names}")
        })
    }
}
