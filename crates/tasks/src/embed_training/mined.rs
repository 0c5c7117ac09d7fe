//! Negatives that a run mines with its current model (Xiong et al. 2021, "ANCE").

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use cloze_engine::Device;
use cloze_train::TrainError;

use super::encoded::EncodedTexts;
use crate::TaskError;
use crate::embed::search::Similarity;
use crate::embed::vectors::Vectors;
use crate::mining::{Options, Relations, index, mine};

/// The file of a checkpoint.
const FILE: &str = "negatives.json";

/// For the number of each anchor's text, the numbers of the texts that were mined for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MinedNegatives(BTreeMap<usize, Vec<usize>>);

impl MinedNegatives {
    /// Those of an anchor.
    pub(super) fn of(&self, anchor: usize) -> &[usize] {
        self.0.get(&anchor).map_or(&[], Vec::as_slice)
    }

    /// Writes them to a checkpoint, if there are any.
    pub(super) fn write(&self, dir: &Path) -> Result<(), TrainError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let path = dir.join(FILE);
        let damaged = |e: serde_json::Error| TrainError::Damaged { path: path.clone(), reason: e.to_string() };
        Ok(cloze_files::write(&path, &serde_json::to_vec(&self.0).map_err(damaged)?)?)
    }

    /// Reads those of a checkpoint.
    pub(super) fn read(dir: &Path) -> Result<MinedNegatives, TrainError> {
        let path = dir.join(FILE);
        if !path.exists() {
            return Ok(MinedNegatives::default());
        }
        let text = fs::read(&path).map_err(|e| TrainError::io("read", &path, e))?;
        let damaged = |e: serde_json::Error| TrainError::Damaged { path: path.clone(), reason: e.to_string() };
        Ok(MinedNegatives(serde_json::from_slice(&text).map_err(damaged)?))
    }
}

/// Mines the negatives of the training rows, among all positives and negatives of these rows.
pub(super) struct Miner {
    /// The number of steps from one mining to the next.
    pub(super) every: u64,
    options: Options,
    similarity: Similarity,
    /// The numbers of the anchors' texts, each once, and those of all documents.
    anchors: Vec<usize>,
    documents: Vec<usize>,
    relations: Relations,
}

/// Different numbers of texts, in the order in which they were added.
#[derive(Default)]
struct Numbers {
    all: Vec<usize>,
    places: HashMap<usize, usize>,
}

impl Numbers {
    /// The place of a number.
    fn add(&mut self, number: usize) -> usize {
        *self.places.entry(number).or_insert_with(|| {
            self.all.push(number);
            self.all.len() - 1
        })
    }
}

impl Miner {
    /// The miner of these rows.
    pub(super) fn new(rows: &EncodedTexts, every: u64, options: Options, similarity: Similarity) -> Miner {
        let (mut anchors, mut documents, mut pairs) = (Numbers::default(), Numbers::default(), Vec::new());
        for (anchor, positives, negatives) in rows.relations() {
            let anchor = anchors.add(anchor);
            pairs.extend(positives.iter().map(|&positive| (anchor, documents.add(positive))));
            negatives.iter().for_each(|&negative| _ = documents.add(negative));
        }
        let (anchors, documents) = (anchors.all, documents.all);
        let by_text: HashMap<u128, usize> =
            documents.iter().enumerate().map(|(row, &number)| (rows.hash(number), row)).collect();
        let same_text = anchors.iter().map(|&number| by_text.get(&rows.hash(number)).copied()).collect();
        let (relations, _) = Relations::new(&pairs, same_text, documents.len());
        Miner { every, options, similarity, anchors, documents, relations }
    }

    /// The negatives by these vectors of all texts, in the order of their numbers.
    ///
    /// # Errors
    /// Those of [`mine`].
    pub(super) fn mine(&self, device: &Device, vectors: &Vectors) -> Result<MinedNegatives, TaskError> {
        let documents = index(vectors.select(&self.documents), self.similarity);
        let anchors = vectors.select(&self.anchors);
        let mined = mine(device, anchors, &documents, &self.relations, &self.options, &mut |_| ())?;
        let numbers = mined.negatives.iter().map(|hits| hits.iter().map(|hit| self.documents[hit.row]).collect());
        Ok(MinedNegatives(self.anchors.iter().copied().zip(numbers).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negatives_survive_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let mined = MinedNegatives(BTreeMap::from([(7, vec![3, 1]), (2, vec![])]));
        mined.write(dir.path()).unwrap();
        assert_eq!(MinedNegatives::read(dir.path()).unwrap(), mined);
        assert_eq!((mined.of(7), mined.of(2), mined.of(9)), (&[3, 1][..], &[][..], &[][..]));
        fs::write(dir.path().join(FILE), "[").unwrap();
        let problem = MinedNegatives::read(dir.path()).unwrap_err().to_string();
        assert!(problem.contains("negatives.json"), "{problem}");
    }
}
