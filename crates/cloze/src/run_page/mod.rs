//! The page of one or several runs: one HTML file with curves drawn as inline SVG, scores, settings, data.
//!
//! [`read`] takes folders of all kinds of runs into the [`model`]; [`pages`] writes that down with the help of [`chart`] (curves),
//! [`facts`] (labels and values), [`measure`] (names and units) and [`html`]. A page loads nothing from anywhere, follows the
//! reader's light or dark preference, prints, and is readable with scripts off; with them on, pointing at a curve shows its values.

mod chart;
mod facts;
mod html;
mod measure;
mod model;
mod pages;
mod read;

pub use measure::{Measure, Unit};
pub use model::{Kind, Record, Run, Subject};
pub use pages::{differences, html};
pub use read::{open_all, run};
