//! The report page of one or several runs: one HTML file with curves as inline SVG, scores, settings and data.
//!
//! [`read`] reads run folders into the types of [`model`]. [`pages`] writes the page with [`chart`] (curves),
//! [`details`] (labels and values), [`measure`] (names and units) and [`html`]. The page is self-contained, supports
//! light and dark mode and printing, and is readable without scripts. With scripts, pointing at a curve shows its
//! values.
//!
//! [`live`] follows runs while they are trained, for `cloze serve --run`.

mod chart;
mod details;
mod html;
mod live;
mod measure;
mod model;
mod pages;
mod read;

pub use live::LiveRuns;
pub use measure::{Measure, Unit};
pub use model::{Kind, Record, Run, Subject};
pub use pages::{differences, html};
pub use read::{open_all, run};
