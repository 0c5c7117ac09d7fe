//! Test collections for retrieval: documents, queries, and relevance judgements.
//!
//! Two layouts are supported. The first line of the corpus determines the layout:
//!
//! | layout | corpus and queries | judgements (qrels) |
//! | --- | --- | --- |
//! | BEIR (Thakur et al. 2021) | JSON lines: `_id`, `text`, of documents also `title` | `query-id`, `corpus-id`, `score`: tab-separated with a header; or JSON lines |
//! | SMART, as Cranfield, CISI, MED | `.I` number, then fields `.T` title, `.A`, `.B`, `.W` words | query, document, code |
//!
//! In both layouts, judgements with four cells are TREC's: query, an unused cell, document, grade. CISI's and CACM's
//! judgements are query, document and two zeros: the listed documents are relevant. A grade may be written with
//! decimals (1.0), but must be an integer.
//!
//! ***The text of a document** is its title, a space and its text, as in BEIR's encoder. In SMART files it is only the field `.W` if this starts with the title, as in most documents of Cranfield.
//!
//! ***SMART queries are numbered** from 1 in the order of their file, and judgements refer to these numbers: Cranfield's `.I` numbers (001, 002, 004, 008 …) are not those of its qrels.
//!
//! **Cranfield's codes** run from 1, a complete answer, to 4, of minimum interest, and 5, of no interest (Cleverdon's scale, in the
//! collection's readme). A grade increases with relevance, so the codes 1, 2, 3, 4 become the grades 4, 3, 2, 1, and 5
//! becomes 0. The code −1, which the readme does not explain, also becomes 0. It occurs once for each of the 225
//! queries, with a document whose words are closer to the query's than those of any other code (probably the paper
//! whose author asked the question, which Cleverdon did not count as an answer). trec_eval also treats negative grades
//! as not relevant.
//!
//! As in BEIR, a document with the same id as the query is excluded from its ranking (in Quora and ArguAna, queries are
//! also documents). It is not excluded if any such document is judged relevant to its query: then the ids are
//! independent numbers. SMART's ids are independent numbers, so no documents are excluded.
//!
//! Documents of equal similarity are ranked as in trec_eval: the greater id first.

mod beir;
mod entries;
mod judgements;
mod smart;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use cloze_engine::Device;

use crate::TaskError;
use crate::datasets::rankings::RunLine;
use crate::embed::search::{Hit, Index};
use crate::embed::vectors::Vectors;
use crate::lines::Lines;
use crate::metrics::retrieval::{RetrievalScores, evaluate};
pub use entries::Entry;
use judgements::{Judgement, Scale};

/// The layout of a collection's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// JSON lines and a table.
    Beir,
    /// Fields `.I`, `.T`, `.W`, ….
    Smart,
}

/// A test collection with its judged queries.
#[derive(Debug)]
pub struct Collection {
    /// The layout of its files.
    pub layout: Layout,
    /// All documents.
    pub documents: Vec<Entry>,
    /// The queries that have judgements.
    pub queries: Vec<Entry>,
    /// The number of queries without judgements, which are ignored.
    pub unjudged: usize,
    /// The number of judged documents that are not in the corpus, and therefore cannot be found.
    pub missing: usize,
    /// The number of judged queries that are not in the file of queries, which are ignored.
    pub unknown: usize,
    /// The number of queries that have a document with the same id.
    pub same_id: usize,
    /// The number of these queries for which this document is relevant.
    pub same_id_relevant: usize,
    /// How the numbers of the judgements are interpreted.
    pub grading: &'static str,
    /// For each query, the grades of documents by row. Documents that are not in the corpus have rows after the last.
    grades: Vec<HashMap<usize, u32>>,
    /// For each query, the document with the same id.
    own: Vec<Option<usize>>,
}

impl Collection {
    /// Reads a collection.
    ///
    /// # Errors
    /// [`TaskError::Io`]. [`TaskError::Line`] for a line that does not follow the layout, a duplicate id, or two
    /// different judgements of a document for a query. [`TaskError::File`] for an empty file, and for judgements whose
    /// queries or documents are all unknown.
    pub fn open(corpus: &Path, queries: &Path, qrels: &Path) -> Result<Collection, TaskError> {
        let (mut corpus, mut queries) = (Lines::open(corpus)?, Lines::open(queries)?);
        let layout = layout_of(&mut corpus)?;
        if layout_of(&mut queries)? != layout {
            let corpus = corpus.path().display();
            let problem =
                format!("expected the layout of {corpus}, found a different one; pass files of one collection");
            return Err(TaskError::file(queries.path(), problem));
        }
        let (documents, all_queries, scale) = match layout {
            Layout::Beir => (beir::documents(corpus)?, beir::queries(queries)?, Scale::Grades),
            Layout::Smart => (smart::documents(corpus)?, smart::queries(queries)?, Scale::Codes),
        };
        let (judged, grading) = judgements::read(qrels, scale)?;
        Collection::assemble(layout, documents, all_queries, judged, grading, qrels)
    }

    fn assemble(
        layout: Layout,
        documents: Vec<Entry>,
        all_queries: Vec<Entry>,
        judged: Vec<Judgement>,
        grading: &'static str,
        qrels: &Path,
    ) -> Result<Collection, TaskError> {
        let rows_of = |entries: &[Entry]| -> HashMap<String, usize> {
            entries.iter().enumerate().map(|(row, entry)| (entry.id.clone(), row)).collect()
        };
        let (mut document_rows, query_rows) = (rows_of(&documents), rows_of(&all_queries));
        let same_id = |query: &Entry| if layout == Layout::Beir { document_rows.get(&query.id).copied() } else { None };
        let own: Vec<Option<usize>> = all_queries.iter().map(same_id).collect();
        let mut grades = vec![HashMap::new(); all_queries.len()];
        let mut unknown = BTreeSet::new();
        // CACM's judgements have numbers with leading zeros such as 01.
        let id = |cell: String| match layout {
            Layout::Beir => cell,
            Layout::Smart => smart::number(&cell).to_owned(),
        };
        for Judgement { line, query, document, grade } in judged {
            let (query, document) = (id(query), id(document));
            let Some(&query_row) = query_rows.get(&query) else {
                unknown.insert(query);
                continue;
            };
            let behind = document_rows.len();
            let row = *document_rows.entry(document).or_insert(behind);
            if let Some(before) = grades[query_row].insert(row, grade)
                && before != grade
            {
                let problem =
                    format!("expected one grade for each document of query {query:?}, found {before} and {grade}");
                return Err(TaskError::line(qrels, line, problem));
            }
        }
        if let Some(first) = unknown.first().filter(|_| grades.iter().all(HashMap::is_empty)) {
            let known = match layout {
                Layout::Beir => String::new(),
                Layout::Smart => format!("; the queries are numbered from 1 to {}", query_rows.len()),
            };
            let problem = format!("unknown query {first:?}{known}; pass the qrels of these queries");
            return Err(TaskError::file(qrels, problem));
        }
        let missing = document_rows.len() - documents.len();
        let found = |of: &HashMap<usize, u32>| of.keys().any(|&row| row < documents.len());
        if !grades.iter().any(found) {
            return Err(TaskError::file(qrels, "no judged document is in the corpus; pass the qrels of this corpus"));
        }
        let unjudged = grades.iter().filter(|grades| grades.is_empty()).count();
        let judged = all_queries.into_iter().zip(own).zip(grades).filter(|(_, grades)| !grades.is_empty());
        let (mut queries, mut own, mut grades) = (Vec::new(), Vec::new(), Vec::new());
        for ((query, same), judged) in judged {
            queries.push(query);
            own.push(same);
            grades.push(judged);
        }
        let same_id = own.iter().flatten().count();
        let is_relevant = |(row, grades): (&Option<usize>, &HashMap<usize, u32>)| {
            grades.get(&(*row)?).filter(|grade| **grade > 0).copied()
        };
        let same_id_relevant = own.iter().zip(&grades).filter_map(is_relevant).count();
        let unknown = unknown.len();
        Ok(Collection {
            layout,
            documents,
            queries,
            unjudged,
            missing,
            unknown,
            same_id,
            same_id_relevant,
            grading,
            grades,
            own,
        })
    }

    /// Whether the document with the same id as a query is excluded from its ranking by default. This is BEIR's rule,
    /// except that such documents are not excluded if any of them is relevant.
    pub fn leaves_out_same_id(&self) -> bool {
        self.same_id > 0 && self.same_id_relevant == 0
    }

    /// The number of judgements of all queries.
    pub fn judgements(&self) -> usize {
        self.grades.iter().map(HashMap::len).sum()
    }

    /// The documents most similar to each query, best first, up to `depth` documents. With `leave_out`, the document
    /// with the same id as the query is excluded. Panics unless there is one vector for each document and each query.
    pub fn nearest(
        &self,
        documents: &Index,
        queries: Vectors,
        leave_out: bool,
        depth: usize,
        device: &Device,
    ) -> Vec<Vec<Hit>> {
        let counts = (documents.len(), queries.len());
        assert_eq!(
            counts,
            (self.documents.len(), self.queries.len()),
            "expected one vector for each document and each query"
        );
        let keep = |query: usize, row: usize| !leave_out || self.own[query] != Some(row);
        let mut hits = documents.nearest(device, queries, depth, keep);
        self.sort(&mut hits);
        hits
    }

    /// The documents that a run ranks for each query, best first, up to `depth` documents, and the numbers of lines with
    /// an unknown document and with a query that is unknown or not judged; these lines are ignored. With `leave_out`,
    /// the document with the same id as the query is excluded. The first line of a document that is listed twice counts.
    pub fn hits_of_run(&self, run: &[RunLine], leave_out: bool, depth: usize) -> (Vec<Vec<Hit>>, [usize; 2]) {
        let rows = |entries: &[Entry]| -> HashMap<String, usize> {
            entries.iter().enumerate().map(|(row, entry)| (entry.id.clone(), row)).collect()
        };
        let (query_rows, document_rows) = (rows(&self.queries), rows(&self.documents));
        let mut found: Vec<Vec<(f64, usize)>> = vec![Vec::new(); self.queries.len()];
        let mut seen = HashSet::new();
        let mut ignored = [0; 2];
        let id = |cell: &str| match self.layout {
            Layout::Beir => cell.to_owned(),
            Layout::Smart => smart::number(cell).to_owned(),
        };
        for RunLine { query, document, score, .. } in run {
            match (query_rows.get(&id(query)), document_rows.get(&id(document))) {
                (None, _) => ignored[1] += 1,
                (_, None) => ignored[0] += 1,
                (Some(&query), Some(&row)) if leave_out && self.own[query] == Some(row) => {}
                (Some(&query), Some(&row)) if seen.insert((query, row)) => found[query].push((*score, row)),
                _ => {}
            }
        }
        let hits = |mut found: Vec<(f64, usize)>| {
            let id = |row: usize| &self.documents[row].id;
            found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| id(b.1).cmp(id(a.1))));
            found.truncate(depth);
            found.into_iter().map(|(score, row)| Hit { row, score: score as f32 }).collect()
        };
        (found.into_iter().map(hits).collect(), ignored)
    }

    /// Sorts the documents found for each query by their scores, best first.
    pub fn sort(&self, hits: &mut [Vec<Hit>]) {
        let id = |hit: &Hit| &self.documents[hit.row].id;
        for hits in hits {
            hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| id(b).cmp(id(a))));
        }
    }

    /// Scores the documents found for each query, best first. None if no query has a relevant document. Panics unless
    /// there is one list for each query.
    pub fn score_hits(&self, hits: &[Vec<Hit>], cutoffs: &[usize]) -> Option<RetrievalScores> {
        assert_eq!(hits.len(), self.queries.len(), "expected one list for each query");
        let ranked: Vec<Vec<usize>> = hits.iter().map(|hits| hits.iter().map(|hit| hit.row).collect()).collect();
        evaluate(ranked.iter().map(Vec::as_slice).zip(&self.grades), cutoffs)
    }

    /// Ranks the documents for each query by similarity, up to `depth` documents, and scores the rankings. With
    /// `leave_out`, the document with the same id as the query is excluded. None if no query has a relevant document.
    /// Panics unless there is one vector for each document and each query.
    pub fn score(
        &self,
        documents: &Index,
        queries: Vectors,
        leave_out: bool,
        depth: usize,
        cutoffs: &[usize],
        device: &Device,
    ) -> Option<RetrievalScores> {
        self.score_hits(&self.nearest(documents, queries, leave_out, depth, device), cutoffs)
    }
}

/// Detects the layout of a file from its first line that is not blank; the line is put back.
fn layout_of(lines: &mut Lines) -> Result<Layout, TaskError> {
    while lines.advance()? {
        let layout = match lines.text().trim_start() {
            "" => continue,
            line if line.starts_with('{') => Layout::Beir,
            line if line.starts_with(".I ") => Layout::Smart,
            line => {
                let start: String = line.chars().take(20).collect();
                let problem = format!("expected JSON ({{\"_id\": …}}, as BEIR's) or .I (SMART), found {start:?}");
                return Err(lines.problem(problem));
            }
        };
        lines.put_back();
        return Ok(layout);
    }
    Err(TaskError::file(lines.path(), "expected documents or queries, found an empty file"))
}

#[cfg(test)]
mod tests;
