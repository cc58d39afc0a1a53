//! Samples the systems of a case ([`sample`]), computes figures ([`figures`]), checks the goals ([`goals`]), and shows
//! the result as a table, JSON or a picture.

pub mod figures;
pub mod goals;
pub mod json;
pub mod names;
pub mod sample;
pub mod svg;
pub mod table;
