//! `cloze evaluate rerank`: how well a cross-encoder orders the documents of queries.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, bail};
use cloze_hub::Contents;
use cloze_tasks::datasets::format::{DataFile, FORMATS, Format};
use cloze_tasks::datasets::rankings::{Ranking, read_run};
use cloze_tasks::embed::search::{Hit, Index};
use cloze_tasks::embed::{Embedder, Options};
use cloze_tasks::inference::Precision;
use cloze_tasks::metrics::reranking::RerankingScores;
use cloze_tasks::metrics::retrieval::RetrievalScores;
use cloze_tasks::rerank::evaluation::{Evaluation, EvaluationOptions, evaluate, rescore};
use cloze_tasks::retrieval::Collection;
use serde_json::json;

use super::retrieval::{CUTOFFS, CollectionFiles, SameId, embed_collection, warn_about_scores};
use crate::commands::model::HubArguments;
use crate::commands::rerank::{CrossEncoderArguments, warn_about_pairs};
use crate::commands::tokenizer::{note_special_names, show_notes};
use crate::failure::usage;
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze evaluate rerank --model DIR --data FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "--data has a query and its documents in each line. The scores are MAP, MRR@10 and nDCG@10, as sentence-transformers' \
         CrossEncoderRerankingEvaluator computes them:\n\n\
         {\"query\": \"…\", \"positive\": [\"…\"], \"negative\": [\"…\", \"…\"]}\n\n\
         With \"documents\" in place of \"negative\", these are the documents that a search found, best first; the scores of its order \
         are also given. Positives that it did not find are ranked too, unless --found-only is given.\n\n\
         --corpus, --queries and --qrels are a test collection, as for `cloze evaluate retrieval`. The first documents (--top) that \
         an embedding model (--retriever) or a run (--run) finds for each query are reranked. The scores before and after are \
         those of these documents.",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    encoder: CrossEncoderArguments,

    /// Queries with positive documents and negative or found ones: JSON lines, a JSON list or Parquet
    #[arg(long, value_name = "FILE", required_unless_present = "corpus", conflicts_with = "corpus")]
    data: Option<PathBuf>,

    /// Format of the file: jsonl, json, parquet [default: from the extension, else from the first lines]
    #[arg(long, hide_short_help = true, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS), requires = "data")]
    format: Option<Format>,

    /// Do not rank positives that are not among the documents found
    #[arg(long, requires = "data")]
    found_only: bool,

    /// Number of documents that MRR and nDCG consider
    #[arg(long, default_value_t = 10, value_name = "K", value_parser = crate::values::positive, requires = "data")]
    at: usize,

    /// File of documents of a test collection
    #[arg(long, value_name = "FILE", requires_all = ["queries", "qrels"])]
    corpus: Option<PathBuf>,

    /// File of queries
    #[arg(long, value_name = "FILE", requires = "corpus")]
    queries: Option<PathBuf>,

    /// File of relevance judgements
    #[arg(long, value_name = "FILE", requires = "corpus")]
    qrels: Option<PathBuf>,

    /// Whether a document with the same id as the query is ranked for it [default: left out, as in BEIR, unless such
    /// documents are judged relevant; in SMART's layout ranked]
    #[arg(long, value_enum, value_name = "RULE", hide_short_help = true, requires = "corpus")]
    same_id: Option<SameId>,

    /// Embedding model whose first documents are reranked
    #[arg(long, value_name = "DIR|NAME", requires = "corpus", conflicts_with = "run")]
    retriever: Option<PathBuf>,

    /// Run whose first documents are reranked: TREC's six columns, or query, document and score
    #[arg(long, value_name = "FILE", requires = "corpus")]
    run: Option<PathBuf>,

    /// Documents reranked for each query
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = crate::values::items, requires = "corpus")]
    top: usize,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 3] = [
    "cloze evaluate rerank --model cross-encoder/ms-marco-MiniLM-L6-v2 --data dev.jsonl",
    "cloze evaluate rerank --model runs/reranker --retriever all-MiniLM-L6-v2 --corpus scifact/corpus.jsonl \
     --queries scifact/queries.jsonl --qrels scifact/qrels/test.tsv --top 100",
    "cloze evaluate rerank --model runs/reranker --run bm25.run --corpus cran.all.1400 --queries cran.qry --qrels cranqrel --json",
];

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    let Arguments { data, corpus, queries, qrels, same_id, .. } = arguments;
    match (data, corpus, queries, qrels) {
        (Some(data), ..) => evaluate_file(arguments, data, terminal),
        (None, Some(corpus), Some(queries), Some(qrels)) => {
            let files = CollectionFiles { corpus, queries, qrels, same_id: *same_id };
            evaluate_collection(arguments, &files, terminal)
        }
        _ => Err(usage("give --data, or --corpus, --queries and --qrels")),
    }
}

/// Evaluates on queries with their documents.
fn evaluate_file(arguments: &Arguments, data: &PathBuf, terminal: &Terminal) -> Result<()> {
    let rankings = Ranking::read(DataFile { path: data, format: arguments.format })?;
    let encoder = arguments.encoder.open(terminal)?;
    let mut options = EvaluationOptions::default();
    options.k = arguments.at;
    options.adds_positives = !arguments.found_only;
    let bar = terminal.progress_fraction("reranking");
    let found = evaluate(&encoder, &rankings, &options, &mut |share| bar.set_fraction(share, "documents"));
    let seconds = bar.seconds();
    bar.finish();
    let found = found?;
    let Evaluation { reranked, base, queries, without_relevant, pairs, cut, .. } = found;
    warn_about_pairs(cut, pairs, &encoder, terminal);
    note_special_names(&encoder.model.tokenizer, terminal);
    if without_relevant > 0 {
        let without = format::count(without_relevant as u64);
        terminal.warn(&format!(
            "queries without a relevant document, which count as 0 as in sentence-transformers: {without}"
        ));
    }
    let k = arguments.at;
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut line = arguments.encoder.describe(&encoder);
        let mut add = |prefix: &str, scores: RerankingScores| {
            line[format!("{prefix}map")] = json!(scores.map);
            line[format!("{prefix}mrr_at_{k}")] = json!(scores.mrr);
            line[format!("{prefix}ndcg_at_{k}")] = json!(scores.ndcg);
        };
        add("", reranked);
        base.into_iter().for_each(|base| add("base_", base));
        for (key, value) in [
            ("queries", json!(queries)),
            ("queries_without_relevant", json!(without_relevant)),
            ("pairs", json!(pairs)),
            ("pairs_truncated", json!(cut)),
            ("data", json!(format::path(data))),
            ("seconds", json!(seconds)),
            ("pairs_per_s", json!(pairs as f64 / seconds.max(f64::MIN_POSITIVE))),
            ("peak_rss_bytes", json!(cloze_files::machine::peak_memory())),
        ] {
            line[key] = value;
        }
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let (queries, pairs) = (format::count(queries as u64), format::count(pairs as u64));
    let mut write = |what: &str, scores: RerankingScores| {
        let RerankingScores { map, mrr, ndcg } = scores;
        writeln!(out, "{what}MAP {map:.4}, MRR@{k} {mrr:.4}, nDCG@{k} {ndcg:.4}")
    };
    if let Some(base) = base {
        write("before: ", base)?;
        write("after:  ", reranked)?;
    } else {
        write("", reranked)?;
    }
    writeln!(out, "{queries} queries, {pairs} pairs")?;
    Ok(())
}

/// Reranks the first documents of a search in a collection.
fn evaluate_collection(arguments: &Arguments, given: &CollectionFiles<'_>, terminal: &Terminal) -> Result<()> {
    if arguments.retriever.is_none() && arguments.run.is_none() {
        return Err(usage("give --retriever or --run, which find the documents to rerank"));
    }
    let (collection, leave_out) = given.open(terminal)?;
    let mut hits = match &arguments.run {
        Some(path) => {
            let (hits, [documents, queries]) = collection.hits_of_run(&read_run(path)?, leave_out, arguments.top);
            for (count, what) in [(documents, "an unknown document"), (queries, "a query without judgements")] {
                if count > 0 {
                    let count = format::count(count as u64);
                    terminal.warn(&format!("{}: lines with {what}, ignored: {count}", path.display()));
                }
            }
            if hits.iter().all(Vec::is_empty) {
                bail!("{}: no line has a judged query and a document of the corpus", path.display());
            }
            hits
        }
        None => retrieve(arguments, &collection, leave_out, terminal)?,
    };
    let encoder = arguments.encoder.open(terminal)?;
    let Some(before) = collection.score_hits(&hits, &CUTOFFS) else {
        bail!("{}: no query has a relevant document, so there are no scores", given.qrels.display());
    };
    let pairs: usize = hits.iter().map(Vec::len).sum();
    let bar = terminal.progress_fraction("reranking");
    let cut = rescore(&encoder, &collection.queries, &collection.documents, &mut hits, &mut |share| {
        bar.set_fraction(share, "documents");
    });
    let seconds = bar.seconds();
    bar.finish();
    let cut = cut?;
    warn_about_pairs(cut, pairs, &encoder, terminal);
    note_special_names(&encoder.model.tokenizer, terminal);
    collection.sort(&mut hits);
    let Some(after) = collection.score_hits(&hits, &CUTOFFS) else { bail!("expected scores after reranking") };
    warn_about_scores(&after, terminal);
    let mut out = crate::output::stdout();
    if arguments.json {
        let mut line = arguments.encoder.describe(&encoder);
        for (prefix, scores) in [("", &after), ("base_", &before)] {
            let [at_10, at_100] = &scores.at[..] else { bail!("expected scores at two cutoffs") };
            line[format!("{prefix}ndcg_at_10")] = json!(at_10.ndcg);
            line[format!("{prefix}map")] = json!(scores.map);
            line[format!("{prefix}mrr")] = json!(scores.mrr);
            line[format!("{prefix}recall_at_100")] = json!(at_100.recall);
        }
        for (key, value) in [
            ("queries", json!(after.queries)),
            ("queries_without_relevant", json!(after.without_relevant)),
            ("documents", json!(collection.documents.len())),
            ("top", json!(arguments.top)),
            ("retriever", json!(arguments.retriever.as_deref().map(format::path))),
            ("run", json!(arguments.run.as_deref().map(format::path))),
            ("pairs", json!(pairs)),
            ("pairs_truncated", json!(cut)),
            ("corpus", json!(format::path(given.corpus))),
            ("seconds", json!(seconds)),
            ("pairs_per_s", json!(pairs as f64 / seconds.max(f64::MIN_POSITIVE))),
            ("peak_rss_bytes", json!(cloze_files::machine::peak_memory())),
        ] {
            line[key] = value;
        }
        writeln!(out, "{line}")?;
        return Ok(());
    }
    for (what, RetrievalScores { map, mrr, at, .. }) in [("before", &before), ("after", &after)] {
        let [at_10, at_100] = &at[..] else { bail!("expected scores at two cutoffs") };
        let (ndcg, recall) = (at_10.ndcg, at_100.recall);
        writeln!(
            out,
            "{:<8} nDCG@10 {ndcg:.4}, MAP {map:.4}, MRR {mrr:.4}, recall@100 {recall:.4}",
            format!("{what}:")
        )?;
    }
    let (queries, top) = (format::count(after.queries as u64), format::count(arguments.top as u64));
    writeln!(out, "{queries} queries, the first {top} documents of each, {} pairs", format::count(pairs as u64))?;
    Ok(())
}

/// The documents nearest to each query by the vectors of an embedding model.
fn retrieve(
    arguments: &Arguments,
    collection: &Collection,
    leave_out: bool,
    terminal: &Terminal,
) -> Result<Vec<Vec<Hit>>> {
    let Some(named) = &arguments.retriever else { return Ok(Vec::new()) };
    let dir = HubArguments::default().find(named, Contents::Vectors, terminal)?;
    let device = terminal.open_device()?;
    let embedder = Embedder::open(&dir, device, Precision::F32, &Options::default())?;
    embedder.notes.iter().for_each(|note| terminal.note(note));
    show_notes(&embedder.model.tokenizer, terminal);
    let bar = terminal.progress_fraction("embedding");
    let (documents, queries, _) = embed_collection(&embedder, collection, &bar, terminal)?;
    bar.finish();
    let index = Index::new(documents, embedder.similarity);
    Ok(collection.nearest(&index, queries, leave_out, arguments.top, &embedder.model.device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_or_a_collection_is_required() {
        use clap::{Args, Command, FromArgMatches};
        let parse = |words: &[&str]| {
            let command = Arguments::augment_args(Command::new("rerank"));
            let matches = command.try_get_matches_from([&["rerank", "--model", "m"], words].concat())?;
            Arguments::from_arg_matches(&matches)
        };
        let collection = ["--corpus", "c", "--queries", "q", "--qrels", "r"];
        assert!(parse(&["--data", "d"]).is_ok_and(|given| given.corpus.is_none() && given.at == 10));
        assert!(parse(&[&collection[..], &["--run", "x"]].concat()).is_ok_and(|given| given.qrels.is_some()));
        assert!(parse(&[]).is_err());
        assert!(parse(&collection[..4]).is_err());
        assert!(parse(&[&collection[..], &["--data", "d"]].concat()).is_err());
        assert!(parse(&[&collection[..], &["--run", "x", "--retriever", "y"]].concat()).is_err());
    }
}
