//! The unique texts of pairs and a corpus, and which documents are positives of which anchors.

use std::collections::HashMap;

use crate::TaskError;

/// A pair of texts that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The text that is searched with: a query, a question.
    pub anchor: String,
    /// A text that is to be found with it.
    pub positive: String,
}

/// The unique texts of pairs and a corpus.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PairTexts {
    /// The unique anchors, in the order of the pairs.
    pub anchors: Vec<String>,
    /// The unique documents: the corpus, then the positives that are not in it.
    pub documents: Vec<String>,
    /// Which documents are positives of which anchors.
    pub relations: Relations,
    /// The number of pairs.
    pub pairs: usize,
    /// Pairs that repeat an earlier one.
    pub repeated_pairs: usize,
    /// Texts of the corpus that repeat an earlier one.
    pub repeated_documents: usize,
    /// Texts of the corpus with only white space, which are left out.
    pub blank_documents: usize,
}

/// Which documents are positives of which anchors, by their rows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Relations {
    /// For each anchor, the rows of its positives, in the order of the pairs.
    pub positives: Vec<Vec<usize>>,
    /// For each anchor, the document with the same text.
    pub same_text: Vec<Option<usize>>,
    /// The largest number of pairs with the same anchor; repeated pairs count.
    pub most_pairs: usize,
    /// The number of documents.
    pub documents: usize,
}

impl Relations {
    /// The relations of pairs of the rows of an anchor and its positive, and the number of pairs that repeat an earlier one.
    /// `same_text` is that of each anchor.
    pub(crate) fn new(pairs: &[(usize, usize)], same_text: Vec<Option<usize>>, documents: usize) -> (Relations, usize) {
        let mut positives: Vec<Vec<usize>> = vec![Vec::new(); same_text.len()];
        let (mut pairs_of, mut repeated) = (vec![0; same_text.len()], 0);
        for &(anchor, document) in pairs {
            pairs_of[anchor] += 1;
            if positives[anchor].contains(&document) {
                repeated += 1;
            } else {
                positives[anchor].push(document);
            }
        }
        let most_pairs = pairs_of.into_iter().max().unwrap_or_default();
        (Relations { positives, same_text, most_pairs, documents }, repeated)
    }
}

impl PairTexts {
    /// Finds the unique texts. Without a `corpus` the documents are the positives.
    ///
    /// # Errors
    /// [`TaskError::NoRows`] without pairs; [`TaskError::Input`] for a pair with a text of only white space.
    pub fn new(
        pairs: impl IntoIterator<Item = Pair>,
        corpus: impl IntoIterator<Item = String>,
    ) -> Result<PairTexts, TaskError> {
        let (mut documents, mut anchors) = (Unique::default(), Unique::default());
        let (mut blank_documents, mut repeated_documents) = (0, 0);
        for text in corpus {
            if text.trim().is_empty() {
                blank_documents += 1;
            } else {
                repeated_documents += usize::from(!documents.add(text).1);
            }
        }
        let mut rows: Vec<(usize, usize)> = Vec::new();
        for Pair { anchor, positive } in pairs {
            let count = rows.len() + 1;
            for (name, text) in [("anchor", &anchor), ("positive", &positive)] {
                if text.trim().is_empty() {
                    let problem = format!("expected a text as {name}, found only white space; remove the pair");
                    return Err(TaskError::input(format!("pair {count}"), problem));
                }
            }
            rows.push((anchors.add(anchor).0, documents.add(positive).0));
        }
        if rows.is_empty() {
            return Err(TaskError::NoRows("(anchor, positive)"));
        }
        let mut same_text = vec![None; anchors.rows.len()];
        anchors.rows.iter().for_each(|(anchor, row)| same_text[*row] = documents.rows.get(anchor).copied());
        let (anchors, documents) = (anchors.into_texts(), documents.into_texts());
        let (relations, repeated_pairs) = Relations::new(&rows, same_text, documents.len());
        Ok(PairTexts {
            anchors,
            documents,
            relations,
            pairs: rows.len(),
            repeated_pairs,
            repeated_documents,
            blank_documents,
        })
    }
}

/// Unique texts with their numbers.
#[derive(Default)]
struct Unique {
    rows: HashMap<String, usize>,
}

impl Unique {
    /// The number of a text, and whether it is new.
    fn add(&mut self, text: String) -> (usize, bool) {
        let next = self.rows.len();
        let row = *self.rows.entry(text).or_insert(next);
        (row, row == next)
    }

    /// The texts in order.
    fn into_texts(self) -> Vec<String> {
        let mut texts: Vec<(String, usize)> = self.rows.into_iter().collect();
        texts.sort_unstable_by_key(|(_, row)| *row);
        texts.into_iter().map(|(text, _)| text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &[(&str, &str)]) -> Vec<Pair> {
        of.iter().map(|(anchor, positive)| Pair { anchor: (*anchor).into(), positive: (*positive).into() }).collect()
    }

    #[test]
    fn texts_are_unique_and_positives_are_rows() {
        let given = pairs(&[("q", "a"), ("r", "b"), ("q", "c"), ("q", "a"), ("b", "a")]);
        let corpus = ["b", "x", " ", "b", "a"].map(str::to_owned);
        let texts = PairTexts::new(given.clone(), corpus).unwrap();
        assert_eq!(texts.anchors, ["q", "r", "b"]);
        assert_eq!(texts.documents, ["b", "x", "a", "c"]);
        let Relations { positives, same_text, most_pairs, documents } = &texts.relations;
        assert_eq!(positives, &[vec![2, 3], vec![0], vec![2]]);
        assert_eq!((same_text, most_pairs, documents), (&vec![None, None, Some(0)], &3, &4));
        assert_eq!((texts.pairs, texts.repeated_pairs, texts.repeated_documents, texts.blank_documents), (5, 1, 1, 1));
        assert_eq!(PairTexts::new(given, []).unwrap().documents, ["a", "b", "c"]);
    }

    #[test]
    fn pairs_without_texts_are_errors() {
        let line = PairTexts::new(pairs(&[("q", "a"), ("q", "\t")]), []).unwrap_err().to_string();
        assert_eq!(line, "pair 2: expected a text as positive, found only white space; remove the pair");
        assert!(PairTexts::new([], ["a".to_owned()]).unwrap_err().to_string().contains("no (anchor, positive) rows"));
    }
}
