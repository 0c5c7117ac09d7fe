//! `cloze evaluate retrieval`: retrieval scores of a model's vectors.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed::search::Index;
use cloze_tasks::embed::vectors::Vectors;
use cloze_tasks::embed::{Embedder, Summary};
use cloze_tasks::metrics::retrieval::RetrievalScores;
use cloze_tasks::retrieval::{Collection, Entry};
use serde_json::json;

use super::comparison::dimensions;
use crate::commands::embed::{SearchArguments, ShorteningArguments, VectorArguments, warn_about_texts};
use crate::commands::tokenizer::note_special_names;
use crate::terminal::{Progress, Terminal};
use crate::{format, help};

/// nDCG@10 and recall@100.
pub const CUTOFFS: [usize; 2] = [10, 100];

/// `cloze evaluate retrieval --model DIR --corpus FILE --queries FILE --qrels FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "Documents are ranked by the similarity of their vectors to the query's, as in sentence-transformers: with the model's \
         similarity (default: cosine) and its prompts for queries and documents. nDCG has linear gain, as in trec_eval. Scores are \
         means over the queries with a relevant document. With --dimensions, the vectors are also truncated to their first \
         dimensions, as for models trained with a Matryoshka loss. Two layouts are supported:\n\n\
         BEIR   corpus.jsonl (_id, title, text), queries.jsonl (_id, text), qrels (query-id, corpus-id, score)\n\
         SMART  .I, .T, .W files like Cranfield's; queries are numbered from 1 in file order; codes 1 (best) to 4 become grades \
         4 to 1, codes 5 and -1 become grade 0\n\n\
         In both layouts the judgements can have TREC's four columns (query, 0, document, grade).",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    vectors: VectorArguments,

    #[command(flatten)]
    search: SearchArguments,

    /// File of documents
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,

    /// File of queries
    #[arg(long, value_name = "FILE")]
    queries: PathBuf,

    /// File of relevance judgements
    #[arg(long, value_name = "FILE")]
    qrels: PathBuf,

    /// Also evaluate the first N dimensions of the vectors
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = crate::values::positive)]
    dimensions: Vec<usize>,

    /// Number of documents ranked for each query, which limits MAP and MRR
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = crate::values::items)]
    depth: usize,

    /// Whether a document with the same id as the query is ranked for it [default: left out, as in BEIR, unless such
    /// documents are judged relevant; in SMART's layout ranked]
    #[arg(long, value_enum, value_name = "RULE", hide_short_help = true)]
    same_id: Option<SameId>,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// The values of `--same-id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SameId {
    /// Not ranked: the queries are also documents
    LeaveOut,
    /// Ranked like any other: the ids of queries and documents are unrelated
    Keep,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 3] = [
    "cloze evaluate retrieval --model all-MiniLM-L6-v2 --corpus scifact/corpus.jsonl --queries scifact/queries.jsonl \
     --qrels scifact/qrels/test.tsv",
    "cloze evaluate retrieval --model runs/mini --pool mean --corpus cran.all.1400 --queries cran.qry --qrels cranqrel --json",
    "cloze evaluate retrieval --model runs/matryoshka --corpus c.jsonl --queries q.jsonl --qrels q.tsv --dimensions 256,128,64",
];

/// The files of a test collection.
#[derive(Debug, Clone, Copy)]
pub struct CollectionFiles<'a> {
    pub corpus: &'a Path,
    pub queries: &'a Path,
    pub qrels: &'a Path,
    /// Whether a document with the same id as the query is ranked; `None`: the default of the layout.
    pub same_id: Option<SameId>,
}

impl CollectionFiles<'_> {
    /// Opens the collection. Also returns whether a document with the same id as the query is left out.
    pub fn open(&self, terminal: &Terminal) -> Result<(Collection, bool)> {
        let collection = Collection::open(self.corpus, self.queries, self.qrels)?;
        if collection.missing > 0 {
            let missing = format::count(collection.missing as u64);
            terminal.warn(&format!("{missing} judged documents are not in the corpus and cannot be found"));
        }
        if collection.unknown > 0 {
            let unknown = format::count(collection.unknown as u64);
            terminal.warn(&format!("judged queries that are not in {}, skipped: {unknown}", self.queries.display()));
        }
        let leave_out = self.same_id.map_or(collection.leaves_out_same_id(), |rule| rule == SameId::LeaveOut);
        if collection.same_id > 0 && self.same_id.is_none() {
            let (queries, relevant) = (format::count(collection.same_id as u64), collection.same_id_relevant);
            terminal.warn(&match leave_out {
                true => format!(
                    "queries whose document with the same id is not ranked, as in BEIR: {queries}; to rank it, use --same-id keep"
                ),
                false => format!(
                    "queries whose document with the same id is ranked: {queries}, because {relevant} of these documents are judged \
                     relevant; to leave them out as in BEIR, use --same-id leave-out"
                ),
            });
        }
        Ok((collection, leave_out))
    }
}

/// Warns about queries without scores.
pub fn warn_about_scores(scores: &RetrievalScores, terminal: &Terminal) {
    if scores.without_relevant > 0 {
        let without = format::count(scores.without_relevant as u64);
        terminal.warn(&format!(
            "judged queries without a relevant document, excluded from the means (pytrec_eval counts them as 0): {without}"
        ));
    }
}

/// The vectors of a collection's documents and queries, and the counts of both.
pub fn embed_collection(
    embedder: &Embedder,
    collection: &Collection,
    bar: &Progress,
    terminal: &Terminal,
) -> Result<(Vectors, Vectors, Summary)> {
    let mut all = Summary::default();
    let total = (collection.documents.len() + collection.queries.len()) as f64;
    let mut embed = |entries: &[Entry], purpose: Purpose, before: usize| -> Result<Vectors> {
        let mut vectors = Vectors::new(embedder.width(), Vec::new());
        let mut progress = |done: usize| bar.set_fraction((before + done) as f64 / total, "documents and queries");
        let summary = embedder.embed_stream(entries.iter().map(Ok), purpose, &mut progress, |_, more| {
            vectors.append(more);
            Ok(())
        })?;
        warn_about_texts(&summary, embedder, purpose, terminal);
        all += summary;
        Ok(vectors)
    };
    let documents = embed(&collection.documents, Purpose::Document, 0)?;
    let queries = embed(&collection.queries, Purpose::Query, collection.documents.len())?;
    Ok((documents, queries, all))
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let Arguments { corpus, queries, qrels, same_id, .. } = arguments;
    let (collection, leave_out) = CollectionFiles { corpus, queries, qrels, same_id: *same_id }.open(terminal)?;
    let embedder = arguments.vectors.open_to_search(&arguments.search, ShorteningArguments::default(), terminal)?;
    let dimensions = dimensions(&arguments.dimensions, &embedder)?;
    let bar = terminal.progress_fraction("embedding");
    let (documents, queries, read) = embed_collection(&embedder, &collection, &bar, terminal)?;
    let of = |number: usize| {
        let [documents, queries] = [&documents, &queries].map(|vectors| arguments.vectors.truncated(vectors, number));
        let documents = Index::new(documents, embedder.similarity);
        let scores =
            collection.score(&documents, queries, leave_out, arguments.depth, &CUTOFFS, &embedder.model.device);
        scores.map(|scores| (number, scores))
    };
    let Some(scores) = dimensions.into_iter().map(of).collect::<Option<Vec<_>>>() else {
        bail!("{}: no query has a relevant document, so there are no scores", arguments.qrels.display());
    };
    let seconds = bar.seconds();
    bar.finish();
    warn_about_scores(&scores[0].1, terminal);
    note_special_names(&embedder.model.tokenizer, terminal);
    write(arguments, &collection, leave_out, &embedder, &read, &scores, seconds)
}

/// The main scores, with their names in a JSON result.
fn named(scores: &RetrievalScores) -> Result<[(&'static str, f64); 4]> {
    let [at_10, at_100] = &scores.at[..] else { bail!("expected scores at two cutoffs") };
    Ok([("ndcg_at_10", at_10.ndcg), ("map", scores.map), ("mrr", scores.mrr), ("recall_at_100", at_100.recall)])
}

/// Writes the scores of each number of dimensions, the first of which is that of the model.
fn write(
    arguments: &Arguments,
    collection: &Collection,
    leave_out: bool,
    embedder: &Embedder,
    read: &Summary,
    all: &[(usize, RetrievalScores)],
    seconds: f64,
) -> Result<()> {
    let mut out = crate::output::stdout();
    let [(_, scores), truncated @ ..] = all else { bail!("expected scores") };
    if arguments.json {
        let mut line = arguments.vectors.describe_search(embedder);
        for (key, value) in named(scores)? {
            line[key] = json!(value);
        }
        for (key, value) in [
            ("queries", json!(scores.queries)),
            ("queries_without_relevant", json!(scores.without_relevant)),
            ("queries_unjudged", json!(collection.unjudged)),
            ("documents", json!(collection.documents.len())),
            ("judgements", json!(collection.judgements())),
            ("queries_unknown", json!(collection.unknown)),
            ("queries_with_document_of_same_id", json!(collection.same_id)),
            ("same_id_left_out", json!(leave_out)),
            ("judged_documents_missing", json!(collection.missing)),
            ("texts_read", json!(read)),
            ("depth", json!(arguments.depth)),
            ("layout", json!(collection.layout)),
            ("grading", json!(collection.grading)),
            ("corpus", json!(format::path(&arguments.corpus))),
            ("seconds", json!(seconds)),
            ("peak_rss_bytes", json!(cloze_files::machine::peak_memory())),
        ] {
            line[key] = value;
        }
        let mut of_dimensions = Vec::new();
        for (number, scores) in truncated {
            let mut object = json!({"dimensions": number});
            for (key, value) in named(scores)? {
                object[key] = json!(value);
            }
            of_dimensions.push(object);
        }
        if !of_dimensions.is_empty() {
            line["dimensions"] = of_dimensions.into();
        }
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let [(_, ndcg), (_, map), (_, mrr), (_, recall)] = named(scores)?;
    writeln!(
        out,
        "nDCG@10 {ndcg:.4}, MAP {map:.4}, MRR {mrr:.4}, recall@100 {recall:.4} ({} queries, {} documents, the first {} ranked)",
        format::count(scores.queries as u64),
        format::count(collection.documents.len() as u64),
        format::count(arguments.depth.min(collection.documents.len()) as u64),
    )?;
    writeln!(out, "judgements: {}", collection.grading)?;
    if !truncated.is_empty() {
        writeln!(out, "{:<10} {:>8} {:>8} {:>8} {:>10}", "dimensions", "nDCG@10", "MAP", "MRR", "recall@100")?;
        for (number, scores) in all {
            let [(_, ndcg), (_, map), (_, mrr), (_, recall)] = named(scores)?;
            writeln!(out, "{number:<10} {ndcg:>8.4} {map:>8.4} {mrr:>8.4} {recall:>10.4}")?;
        }
    }
    Ok(())
}
