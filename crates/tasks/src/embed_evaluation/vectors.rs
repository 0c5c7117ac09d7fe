//! The vectors of columns of texts.

use std::collections::HashMap;

use crate::TaskError;
use crate::embed::prompts::Purpose;
use crate::embed::vectors::Vectors;
use crate::embed::{Embedder, Summary};

/// The vectors of each column of texts, in order. A text that occurs several times is embedded once. `progress` receives
/// the completed fraction. The summary counts distinct texts.
///
/// # Errors
/// Those of [`Embedder::embed`].
pub fn embed_columns(
    embedder: &Embedder,
    columns: &[&[String]],
    purpose: Purpose,
    progress: &mut dyn FnMut(f64),
) -> Result<(Vec<Vectors>, Summary), TaskError> {
    let mut distinct: Vec<&str> = Vec::new();
    let mut row_of: HashMap<&str, usize> = HashMap::new();
    let mut rows: Vec<Vec<usize>> = Vec::new();
    for column in columns {
        let row = |text| {
            *row_of.entry(text).or_insert_with(|| {
                distinct.push(text);
                distinct.len() - 1
            })
        };
        rows.push(column.iter().map(String::as_str).map(row).collect());
    }
    let total = distinct.len().max(1) as f64;
    let mut vectors = Vectors::new(embedder.width(), Vec::new());
    let mut progress = |done: usize| progress(done as f64 / total);
    let summary = embedder.embed_stream(distinct.iter().map(Ok), purpose, &mut progress, |_, more| {
        vectors.append(more);
        Ok(())
    })?;
    Ok((rows.iter().map(|rows| vectors.select(rows)).collect(), summary))
}
