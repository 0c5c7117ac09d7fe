//! `cloze evaluate retrieval`: retrieval scores of a model's vectors.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed::search::Index;
use cloze_tasks::embed::vectors::Vectors;
use cloze_tasks::metrics::retrieval::RetrievalScores;
use cloze_tasks::retrieval::{Collection, Entry};
use serde_json::json;

use crate::commands::embed::{SearchArguments, VectorArguments, Vectorizer, warn_about_texts};
use crate::commands::tokenizer::note_special_names;
use crate::terminal::Terminal;
use crate::{format, help};

/// nDCG@10 and recall@100.
const CUTOFFS: [usize; 2] = [10, 100];

/// `cloze evaluate retrieval --model DIR --corpus FILE --queries FILE --qrels FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..1]),
    after_long_help = help::details(
        "Documents are ranked by the similarity of their vectors to the query's, as in sentence-transformers: with the model's \
         similarity (default: cosine) and its prompts for queries and documents. nDCG has linear gain, as in trec_eval. Scores are \
         means over the queries with a relevant document. Two layouts are supported:\n\n\
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
enum SameId {
    /// Not ranked: the queries are also documents
    LeaveOut,
    /// Ranked like any other: the ids of queries and documents are unrelated
    Keep,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 2] = [
    "cloze evaluate retrieval --model all-MiniLM-L6-v2 --corpus scifact/corpus.jsonl --queries scifact/queries.jsonl \
     --qrels scifact/qrels/test.tsv",
    "cloze evaluate retrieval --model runs/mini --pool mean --corpus cran.all.1400 --queries cran.qry --qrels cranqrel --json",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let collection = Collection::open(&arguments.corpus, &arguments.queries, &arguments.qrels)?;
    if collection.missing > 0 {
        let missing = format::count(collection.missing as u64);
        terminal.warn(&format!("{missing} judged documents are not in the corpus and cannot be found"));
    }
    if collection.unknown > 0 {
        let unknown = format::count(collection.unknown as u64);
        terminal.warn(&format!("judged queries that are not in {}, skipped: {unknown}", arguments.queries.display()));
    }
    let leave_out = arguments.same_id.map_or(collection.leaves_out_same_id(), |rule| rule == SameId::LeaveOut);
    if collection.same_id > 0 && arguments.same_id.is_none() {
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
    let embedder = arguments.vectors.open_to_search(&arguments.search, terminal)?;
    let bar = terminal.progress_fraction("embedding");
    let total = (collection.documents.len() + collection.queries.len()) as f64;
    let embed = |entries: &[Entry], purpose: Purpose, before: usize| -> Result<Vectors> {
        let mut vectors = Vectors::new(embedder.width(), Vec::new());
        let mut progress = |done: usize| bar.set_fraction((before + done) as f64 / total, "documents and queries");
        let summary = embedder.embed_stream(entries.iter().map(Ok), purpose, &mut progress, |_, more| {
            vectors.append(more);
            Ok(())
        })?;
        warn_about_texts(&summary, &embedder, purpose, terminal);
        Ok(vectors)
    };
    let documents = embed(&collection.documents, Purpose::Document, 0)?;
    let queries = embed(&collection.queries, Purpose::Query, collection.documents.len())?;
    let documents = Index::new(documents, embedder.similarity);
    let scores = collection.score(&documents, queries, leave_out, arguments.depth, &CUTOFFS, &embedder.model.device);
    let Some(scores) = scores else {
        bail!("{}: no query has a relevant document, so there are no scores", arguments.qrels.display());
    };
    let seconds = bar.seconds();
    bar.finish();
    if scores.without_relevant > 0 {
        let without = format::count(scores.without_relevant as u64);
        terminal.warn(&format!(
            "judged queries without a relevant document, excluded from the means (pytrec_eval counts them as 0): {without}"
        ));
    }
    note_special_names(&embedder.model.tokenizer, terminal);
    write(arguments, &collection, leave_out, &embedder, &scores, seconds)
}

fn write(
    arguments: &Arguments,
    collection: &Collection,
    leave_out: bool,
    embedder: &Vectorizer,
    scores: &RetrievalScores,
    seconds: f64,
) -> Result<()> {
    let mut out = crate::output::stdout();
    let [at_10, at_100] = &scores.at[..] else { bail!("expected scores at two cutoffs") };
    if arguments.json {
        let mut line = arguments.vectors.describe_search(embedder);
        for (key, value) in [
            ("ndcg_at_10", json!(at_10.ndcg)),
            ("map", json!(scores.map)),
            ("mrr", json!(scores.mrr)),
            ("recall_at_100", json!(at_100.recall)),
            ("queries", json!(scores.queries)),
            ("queries_without_relevant", json!(scores.without_relevant)),
            ("queries_unjudged", json!(collection.unjudged)),
            ("documents", json!(collection.documents.len())),
            ("judgements", json!(collection.judgements())),
            ("queries_unknown", json!(collection.unknown)),
            ("queries_with_document_of_same_id", json!(collection.same_id)),
            ("same_id_left_out", json!(leave_out)),
            ("judged_documents_missing", json!(collection.missing)),
            ("depth", json!(arguments.depth)),
            ("layout", json!(collection.layout)),
            ("grading", json!(collection.grading)),
            ("corpus", json!(format::path(&arguments.corpus))),
            ("seconds", json!(seconds)),
            ("peak_rss_bytes", json!(format::peak_memory())),
        ] {
            line[key] = value;
        }
        writeln!(out, "{line}")?;
        return Ok(());
    }
    writeln!(
        out,
        "nDCG@10 {:.4}, MAP {:.4}, MRR {:.4}, recall@100 {:.4} ({} queries, {} documents, the first {} ranked)",
        at_10.ndcg,
        scores.map,
        scores.mrr,
        at_100.recall,
        format::count(scores.queries as u64),
        format::count(collection.documents.len() as u64),
        format::count(arguments.depth.min(collection.documents.len()) as u64),
    )?;
    writeln!(out, "judgements: {}", collection.grading)?;
    Ok(())
}
