//! `--format`: how files of rows are written.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use cloze_tasks::datasets::format::{FORMATS, Format};

/// The parser of a format's name.
pub fn parser() -> impl TypedValueParser<Value = Format> {
    let names = FORMATS.iter().map(|(_, name, help)| PossibleValue::new(*name).help(*help));
    PossibleValuesParser::new(names).try_map(|name| Format::named(&name).ok_or("not a format"))
}
