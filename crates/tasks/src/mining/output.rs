//! Writing mined negatives in the layouts of `mine_hard_negatives` of sentence-transformers, whose trainers read columns by their order.

use std::io::{self, Write};
use std::path::Path;

use cloze_files::AtomicFile;
use serde::ser::{SerializeMap, Serializer};

use super::{Mined, PairTexts};
use crate::TaskError;
use crate::embed::search::Hit;

/// The layout of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// A row for each pair and each of its negatives.
    #[default]
    Triplet,
    /// A row for each pair with all its negatives; pairs with too few are left out.
    NTuple,
    /// A row for each positive (label 1) and each negative (label 0) of an anchor.
    LabeledPair,
    /// A row for each pair with lists: the positive and its negatives, and their labels; pairs without negatives are left
    /// out.
    LabeledList,
}

impl Layout {
    /// All layouts, with names (those of sentence-transformers) and descriptions.
    pub const ALL: [(Layout, &'static str, &'static str); 4] = [
        (Layout::Triplet, "triplet", "anchor, positive, negative: a row for each negative"),
        (Layout::NTuple, "n-tuple", "anchor, positive, negative_1, …: a row for each pair that has all negatives"),
        (Layout::LabeledPair, "labeled-pair", "anchor, document, label: 1 for positives, 0 for negatives"),
        (Layout::LabeledList, "labeled-list", "anchor, documents, labels: lists, the positive first"),
    ];

    /// The name, as in sentence-transformers.
    pub fn name(self) -> &'static str {
        Layout::ALL.iter().find(|(layout, ..)| *layout == self).map_or("", |(_, name, _)| name)
    }
}

/// Checks that a layout can be written to a file of this name: `.jsonl`, or `.tsv` for triplets without scores.
///
/// # Errors
/// [`TaskError::Setting`].
pub fn check_name(path: &Path, layout: Layout, with_scores: bool) -> Result<(), TaskError> {
    let wrong = |problem: String| Err(TaskError::setting("out", problem));
    match extension(path).as_str() {
        "jsonl" => Ok(()),
        "tsv" if layout == Layout::Triplet && !with_scores => Ok(()),
        "tsv" => wrong("a .tsv file has only triplets without scores; choose a name that ends in .jsonl".to_owned()),
        _ => wrong(format!("expected a name with the extension .jsonl or .tsv, found {}", path.display())),
    }
}

fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// A row of the output.
#[derive(serde::Serialize)]
#[serde(untagged)]
enum Row<'a> {
    Triplet {
        anchor: &'a str,
        positive: &'a str,
        negative: &'a str,
        /// Of the positive and the negative.
        #[serde(skip_serializing_if = "Option::is_none")]
        scores: Option<[f32; 2]>,
    },
    NTuple(NTuple<'a>),
    LabeledPair {
        anchor: &'a str,
        document: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        label: Option<u8>,
        #[serde(skip_serializing_if = "Option::is_none")]
        score: Option<f32>,
    },
    LabeledList {
        anchor: &'a str,
        documents: Vec<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        labels: Option<Vec<u8>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        scores: Option<Vec<f32>>,
    },
}

struct NTuple<'a> {
    anchor: &'a str,
    positive: &'a str,
    negatives: Vec<&'a str>,
    scores: Option<Vec<f32>>,
}

impl serde::Serialize for NTuple<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("anchor", self.anchor)?;
        map.serialize_entry("positive", self.positive)?;
        for (number, negative) in (1..).zip(&self.negatives) {
            map.serialize_entry(&format!("negative_{number}"), negative)?;
        }
        if let Some(scores) = &self.scores {
            map.serialize_entry("scores", scores)?;
        }
        map.end()
    }
}

/// Writes negatives to a file, a JSON object in each line, or a table with a header if its name ends in `.tsv`. `num_negatives` is the
/// number of negatives that a tuple needs. With `with_scores` the rows contain similarities, instead of labels if they have
/// those. Returns the number of rows.
///
/// # Errors
/// Those of [`check_name`]; [`TaskError::Io`].
pub fn write(
    path: &Path,
    texts: &PairTexts,
    mined: &Mined,
    layout: Layout,
    num_negatives: usize,
    with_scores: bool,
) -> Result<usize, TaskError> {
    check_name(path, layout, with_scores)?;
    let is_table = extension(path) == "tsv";
    let mut file = AtomicFile::create(path)?;
    let mut count = 0;
    file.write_with(|file| {
        if is_table {
            let mut table = csv::WriterBuilder::new().delimiter(b'\t').from_writer(file);
            table.write_record(["anchor", "positive", "negative"])?;
            for_each_row(texts, mined, layout, num_negatives, false, &mut |row| {
                if let Row::Triplet { anchor, positive, negative, .. } = row {
                    table.write_record([anchor, positive, negative])?;
                    count += 1;
                }
                Ok(())
            })?;
            return table.flush();
        }
        for_each_row(texts, mined, layout, num_negatives, with_scores, &mut |row| {
            serde_json::to_writer(&mut *file, &row)?;
            count += 1;
            file.write_all(b"\n")
        })
    })?;
    file.commit()?;
    Ok(count)
}

/// Passes the rows of a layout to `write`, in the order of the anchors.
fn for_each_row(
    texts: &PairTexts,
    mined: &Mined,
    layout: Layout,
    num_negatives: usize,
    with_scores: bool,
    write: &mut dyn FnMut(Row<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let document = |row: usize| texts.documents[row].as_str();
    let negatives = |hits: &[Hit]| -> Vec<&str> { hits.iter().map(|hit| document(hit.row)).collect() };
    for (number, anchor) in texts.anchors.iter().enumerate() {
        let hits = &mined.negatives[number];
        let pairs = texts.relations.positives[number].iter().zip(&mined.positive_scores[number]);
        let scores = |own: f32| -> Vec<f32> { std::iter::once(own).chain(hits.iter().map(|hit| hit.score)).collect() };
        for (&positive, &own) in pairs {
            let positive = document(positive);
            match layout {
                Layout::Triplet => {
                    for hit in hits {
                        let (negative, scores) = (document(hit.row), with_scores.then_some([own, hit.score]));
                        write(Row::Triplet { anchor, positive, negative, scores })?;
                    }
                }
                Layout::NTuple if hits.len() < num_negatives => {}
                Layout::NTuple => {
                    let scores = with_scores.then(|| scores(own));
                    write(Row::NTuple(NTuple { anchor, positive, negatives: negatives(hits), scores }))?;
                }
                Layout::LabeledPair => write(labeled(anchor, positive, 1, own, with_scores))?,
                Layout::LabeledList if hits.is_empty() => {}
                Layout::LabeledList => {
                    let documents = std::iter::once(positive).chain(negatives(hits)).collect();
                    let labels = (!with_scores).then(|| {
                        let mut labels = vec![0; 1 + hits.len()];
                        labels[0] = 1;
                        labels
                    });
                    write(Row::LabeledList { anchor, documents, labels, scores: with_scores.then(|| scores(own)) })?;
                }
            }
        }
        if layout == Layout::LabeledPair {
            for hit in hits {
                write(labeled(anchor, document(hit.row), 0, hit.score, with_scores))?;
            }
        }
    }
    Ok(())
}

fn labeled<'a>(anchor: &'a str, document: &'a str, label: u8, score: f32, with_scores: bool) -> Row<'a> {
    Row::LabeledPair { anchor, document, label: (!with_scores).then_some(label), score: with_scores.then_some(score) }
}
