//! Collections for retrieval: documents, queries, and judgements of which documents answer which query.
//!
//! Two layouts are read, told apart by the corpus's first line:
//!
//! | layout | corpus and queries | judgements (qrels) |
//! | --- | --- | --- |
//! | BEIR (Thakur et al. 2021) | JSON lines: `_id`, `text`, of documents also `title` | `query-id`, `corpus-id`, `score`: cells between tabs, the first line a header; or JSON lines |
//! | SMART, as Cranfield, CISI, MED | `.I` number, then fields `.T` title, `.A`, `.B`, `.W` words | query, document, code |
//!
//! Judgements of four cells are TREC's, in either: query, a cell that means nothing, document, grade. CISI's and CACM's are query,
//! document and two zeros: the documents listed are the relevant ones. A grade may have decimals (1.0), but must be whole.
//!
//! **A document's text** is its title, a space and its text, as in BEIR's own encoder; in SMART files the words alone where they
//! begin with the title, as most of Cranfield's do.
//!
//! **SMART queries are counted** from 1 in the order of their file, and judgements go by that count: Cranfield's `.I` numbers
//! (001, 002, 004, 008 …) are not those of its qrels.
//!
//! **Cranfield's codes** run from 1, a complete answer, to 4, of minimum interest, and 5, of no interest (Cleverdon's scale, in the
//! collection's readme). A grade rises with relevance, so codes 1, 2, 3, 4 become grades 4, 3, 2, 1, and 5 becomes 0. So does −1,
//! which the readme does not explain: it stands once with each of the 225 queries, beside a document whose words are nearer to the
//! query's than those of any code (most likely the paper whose author asked the question, which Cleverdon did not count as an
//! answer), and trec_eval too takes negative grades as not relevant.
//!
//! As in BEIR, a document with the query's own id is not looked at (in Quora and ArguAna queries are documents too), unless such a
//! document is judged relevant to its query: then the two are only numbered alike. SMART's ids are numbers that agree by chance, so
//! there all are looked at.
//!
//! Documents of equal similarity are ranked as trec_eval ranks them: the greater id first.

mod beir;
mod entries;
mod judgements;
mod smart;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::TaskError;
use crate::embed::search::{Hit, Index};
use crate::embed::vectors::Vectors;
use crate::lines::Lines;
use crate::metrics::retrieval::{RetrievalScores, evaluate};
pub use entries::Entry;
use judgements::{Judgement, Scale};

/// How a collection's files are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// JSON lines and a table.
    Beir,
    /// `.I`, `.T`, `.W` …
    Smart,
}

/// A collection whose judged queries can be asked.
#[derive(Debug)]
pub struct Collection {
    /// How its files are written.
    pub layout: Layout,
    /// All documents.
    pub documents: Vec<Entry>,
    /// The queries that have judgements.
    pub queries: Vec<Entry>,
    /// Queries without any, left out.
    pub unjudged: usize,
    /// Judged documents that the corpus lacks: nobody can find them.
    pub missing: usize,
    /// Judged queries that the file of queries lacks, left out.
    pub unknown: usize,
    /// Queries that have a document of the same id.
    pub same_id: usize,
    /// Those of them whose document of the same id is relevant to them.
    pub same_id_relevant: usize,
    /// What the judgements' numbers were taken for.
    pub grading: &'static str,
    /// Of each query the grades of documents, by their rows; missing documents have rows behind the last.
    grades: Vec<HashMap<usize, u32>>,
    /// Of each query the document of the same id.
    own: Vec<Option<usize>>,
}

impl Collection {
    /// Reads a collection.
    ///
    /// # Errors
    /// [`TaskError::Io`]. [`TaskError::Line`] for what is not as the layout asks, an id that comes twice, two judgements of one
    /// document for one query that differ. [`TaskError::File`] for a file that holds nothing, or judgements of which no query or no
    /// document is known.
    pub fn open(corpus: &Path, queries: &Path, qrels: &Path) -> Result<Collection, TaskError> {
        let (mut corpus, mut queries) = (Lines::open(corpus)?, Lines::open(queries)?);
        let layout = layout_of(&mut corpus)?;
        if layout_of(&mut queries)? != layout {
            let corpus = corpus.path().display();
            let problem = format!("is written in another way than {corpus}; expected files of one collection");
            return Err(TaskError::file(queries.path(), problem));
        }
        let (documents, asked, scale) = match layout {
            Layout::Beir => (beir::documents(corpus)?, beir::queries(queries)?, Scale::Grades),
            Layout::Smart => (smart::documents(corpus)?, smart::queries(queries)?, Scale::Codes),
        };
        let (judged, grading) = judgements::read(qrels, scale)?;
        Collection::assemble(layout, documents, asked, judged, grading, qrels)
    }

    fn assemble(
        layout: Layout,
        documents: Vec<Entry>,
        asked: Vec<Entry>,
        judged: Vec<Judgement>,
        grading: &'static str,
        qrels: &Path,
    ) -> Result<Collection, TaskError> {
        let rows_of = |entries: &[Entry]| -> HashMap<String, usize> {
            entries.iter().enumerate().map(|(row, entry)| (entry.id.clone(), row)).collect()
        };
        let (mut document_rows, query_rows) = (rows_of(&documents), rows_of(&asked));
        let same_id = |query: &Entry| if layout == Layout::Beir { document_rows.get(&query.id).copied() } else { None };
        let own: Vec<Option<usize>> = asked.iter().map(same_id).collect();
        let mut grades = vec![HashMap::new(); asked.len()];
        let mut unknown = BTreeSet::new();
        // CACM's judgements have numbers such as 01.
        let id = |cell: String| match layout {
            Layout::Beir => cell,
            Layout::Smart => smart::number(&cell).to_owned(),
        };
        for Judgement { line, query, document, grade } in judged {
            let (query, document) = (id(query), id(document));
            let Some(&asked) = query_rows.get(&query) else {
                unknown.insert(query);
                continue;
            };
            let behind = document_rows.len();
            let row = *document_rows.entry(document).or_insert(behind);
            if let Some(before) = grades[asked].insert(row, grade)
                && before != grade
            {
                let problem = format!("query {query:?} has this document twice, with grades {before} and {grade}");
                return Err(TaskError::line(qrels, line, problem));
            }
        }
        if let Some(first) = unknown.first().filter(|_| grades.iter().all(HashMap::is_empty)) {
            let known = match layout {
                Layout::Beir => String::new(),
                Layout::Smart => format!(": there are {}, counted from 1", query_rows.len()),
            };
            let problem = format!("no query is called {first:?}{known}; give the qrels of these queries");
            return Err(TaskError::file(qrels, problem));
        }
        let missing = document_rows.len() - documents.len();
        let found = |of: &HashMap<usize, u32>| of.keys().any(|&row| row < documents.len());
        if !grades.iter().any(found) {
            return Err(TaskError::file(qrels, "names no document of the corpus; give the qrels of this corpus"));
        }
        let unjudged = grades.iter().filter(|grades| grades.is_empty()).count();
        let judged = asked.into_iter().zip(own).zip(grades).filter(|(_, grades)| !grades.is_empty());
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

    /// Whether the document with a query's own id is left out of its ranking unless somebody asks for another rule: BEIR's rule, but
    /// not where such documents are relevant.
    pub fn leaves_out_same_id(&self) -> bool {
        self.same_id > 0 && self.same_id_relevant == 0
    }

    /// Judgements of all queries.
    pub fn judgements(&self) -> usize {
        self.grades.iter().map(HashMap::len).sum()
    }

    /// Ranks the documents for each query by similarity, the first `depth` of them, and scores the rankings; with `leave_out` without the
    /// document of the query's own id. None if no query has a relevant document. Panics unless there is a vector a document and a vector a query.
    pub fn score(
        &self,
        documents: &Index,
        queries: Vectors,
        leave_out: bool,
        depth: usize,
        cutoffs: &[usize],
        threads: usize,
    ) -> Option<RetrievalScores> {
        let counts = (documents.len(), queries.len());
        assert_eq!(counts, (self.documents.len(), self.queries.len()), "a vector a document and a query");
        let keep = |query: usize, row: usize| !leave_out || self.own[query] != Some(row);
        let mut hits = documents.nearest(queries, depth, threads, keep);
        let id = |hit: &Hit| &self.documents[hit.row].id;
        for hits in &mut hits {
            hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| id(b).cmp(id(a))));
        }
        let ranked: Vec<Vec<usize>> = hits.iter().map(|hits| hits.iter().map(|hit| hit.row).collect()).collect();
        evaluate(ranked.iter().map(Vec::as_slice).zip(&self.grades), cutoffs)
    }
}

/// How a file is written, by its first line that is not blank; that line is put back.
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
    Err(TaskError::file(lines.path(), "holds nothing; expected documents or queries"))
}

#[cfg(test)]
mod tests;
