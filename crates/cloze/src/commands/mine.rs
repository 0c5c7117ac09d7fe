//! `cloze mine`: finds hard negatives for pairs of texts.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::builder::{PathBufValueParser, TypedValueParser};
use cloze_hub::Contents;
use cloze_tasks::datasets::format::{FORMATS, Format};
use cloze_tasks::datasets::table::Column;
use cloze_tasks::embed::Embedder;
use cloze_tasks::embed::prompts::Purpose;
use cloze_tasks::embed::texts::{Text, Texts};
use cloze_tasks::embed::vectors::Vectors;
use cloze_tasks::inference::Precision;
use cloze_tasks::mining::output::{self, Layout};
use cloze_tasks::mining::pairs::read_pairs;
use cloze_tasks::mining::{self, Candidates, Mined, Options, PairTexts, Rescored, Sampling, Summary};
use cloze_tasks::rerank::{self, CrossEncoder};
use cloze_tasks::{TaskError, embed};
use serde_json::{Value, json};

use super::embed::{SearchArguments, ShorteningArguments, VectorArguments, warn_about_texts};
use super::model::HubArguments;
use super::tokenizer::{note_special_names, show_notes};
use crate::failure::usage;
use crate::terminal::Terminal;
use crate::{format, help};

/// `cloze mine --model DIR --input FILE --out FILE`
#[derive(Debug, clap::Args)]
#[command(
    after_help = help::examples(&EXAMPLES[..2]),
    after_long_help = help::details(
        "For each anchor (a query or a question), finds the most similar documents that are not its positives: hard negatives, to train \
         an embedding model or a reranker with. Documents are the positives of all pairs and the texts of --corpus. The rules, options and \
         defaults are those of sentence-transformers' mine_hard_negatives(): the candidates of the ranks --range-min to --range-max, \
         without the anchor's own positives; margins are compared with the least similar positive. The setting that NV-Retriever \
         recommends is --relative-margin 0.05. Differences: a document with the same text as the anchor is never a negative, and \
         equal scores are in the order of the documents.\n\n\
         With --rescore, a cross-encoder reads each anchor with its candidates and positives. Its scores, after its activation function, \
         replace the similarities, so that margins and limits of scores apply to them; then come the ranks (--range-min, --range-max). \
         sentence-transformers' cross_encoder does the same if a margin or limit is given, and nothing without one; Cloze always rescores.\n\n\
         Layouts of the output (--output-format):\n\n\
         triplet       anchor, positive, negative: a row for each negative\n\
         n-tuple       anchor, positive, negative_1, …: only pairs with all negatives\n\
         labeled-pair  anchor, document, label: 1 for positives, 0 for negatives\n\
         labeled-list  anchor, documents, labels: lists, the positive first",
        &EXAMPLES,
    )
)]
pub struct Arguments {
    #[command(flatten)]
    vectors: VectorArguments,

    #[command(flatten)]
    shortening: ShorteningArguments,

    #[command(flatten)]
    search: SearchArguments,

    /// Pairs of texts: a .tsv, .csv, .jsonl or .parquet file
    #[arg(long, value_name = "FILE")]
    input: PathBuf,

    /// Column of the anchors: a name, or a number such as #1 [default: anchor, else the first]
    #[arg(long, value_name = "NAME", requires = "positive")]
    anchor: Option<String>,

    /// Column of the positives: a name, or a number such as #2 [default: positive, else the second]
    #[arg(long, value_name = "NAME", requires = "anchor")]
    positive: Option<String>,

    /// Format of the pairs: tsv, csv, jsonl, json, parquet [default: from the extension, else from the first lines]
    #[arg(long, hide_possible_values = true, value_name = "FORMAT", value_parser = crate::values::named(&FORMATS))]
    format: Option<Format>,

    /// More documents: a file with one text per line, .jsonl, .tsv, .csv or .parquet [default: only the positives]
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,

    /// Text column of a .jsonl, .tsv, .csv or .parquet corpus [default: text]
    #[arg(long, value_name = "NAME", requires = "corpus")]
    corpus_column: Option<String>,

    /// Cross-encoder whose scores replace the similarities of the candidates and positives: see `cloze rerank`
    #[arg(long, value_name = "DIR|NAME")]
    rescore: Option<PathBuf>,

    /// Maximum number of tokens of an anchor and a document, with special tokens, for --rescore [default: its model's]
    #[arg(long, value_name = "N", requires = "rescore", hide_short_help = true, value_parser = crate::values::positive)]
    rescore_max_len: Option<usize>,

    /// Negatives of each anchor
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = crate::values::items)]
    num_negatives: usize,

    /// Most similar candidates to skip, which may be positives that nobody marked
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = crate::values::items_or_none)]
    range_min: usize,

    /// Most similar candidates to consider, including those skipped [default: --range-min, the negatives (ten times as many
    /// with margins or --max-score) and the most pairs of an anchor]
    #[arg(long, value_name = "N", value_parser = crate::values::items)]
    range_max: Option<usize>,

    /// Highest score of a negative
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    max_score: Option<f32>,

    /// Lowest score of a negative
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    min_score: Option<f32>,

    /// Least difference between the scores of the positive and of a negative
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    absolute_margin: Option<f32>,

    /// The same as a fraction of the positive's score: with 0.05, negatives have at most 95 % of it
    #[arg(long, value_name = "X", allow_hyphen_values = true)]
    relative_margin: Option<f32>,

    /// How negatives are chosen from the candidates
    #[arg(long, default_value = "top", value_parser = crate::values::named(&Sampling::ALL))]
    sampling_strategy: Sampling,

    /// Seed of a random choice
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,

    /// Layout of the output
    #[arg(long, default_value = "triplet", value_parser = crate::values::named(&Layout::ALL))]
    output_format: Layout,

    /// Write scores too; in the labelled layouts instead of labels
    #[arg(long)]
    output_scores: bool,

    /// Output file: .jsonl, or .tsv for triplets; an existing file is replaced
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(output_file))]
    out: PathBuf,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Examples for the help, one per line.
const EXAMPLES: [&str; 4] = [
    "cloze mine --model all-MiniLM-L6-v2 --input pairs.tsv --relative-margin 0.05 --out triplets.jsonl",
    "cloze mine --model runs/mini --input pairs.jsonl --anchor question --positive answer --corpus passages.txt --out hard.jsonl",
    "cloze mine --model runs/mini --input pairs.tsv --range-min 10 --range-max 50 --sampling-strategy random \
     --output-format labeled-list --out lists.jsonl",
    "cloze mine --model all-MiniLM-L6-v2 --input pairs.tsv --rescore cross-encoder/ms-marco-MiniLM-L6-v2 --relative-margin 0.05 \
     --output-scores --out scored.jsonl",
];

fn output_file(path: PathBuf) -> Result<PathBuf, String> {
    match path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase).as_deref() {
        Some("jsonl" | "tsv") => Ok(path),
        _ => Err("expected a file name that ends in .jsonl or .tsv".to_owned()),
    }
}

impl Arguments {
    fn options(&self) -> Options {
        let mut options = Options::default();
        options.range_min = self.range_min;
        options.range_max = self.range_max;
        options.max_score = self.max_score;
        options.min_score = self.min_score;
        options.absolute_margin = self.absolute_margin;
        options.relative_margin = self.relative_margin;
        options.num_negatives = self.num_negatives;
        options.sampling = self.sampling_strategy;
        options.seed = self.seed;
        options.rescored = self.rescore.is_some();
        options
    }
}

pub fn run(arguments: &Arguments, terminal: &Terminal) -> Result<()> {
    // Before texts are read.
    let options = arguments.options();
    output::check_name(&arguments.out, arguments.output_format, arguments.output_scores).map_err(as_usage)?;
    options.check().map_err(as_usage)?;
    let texts = read(arguments, terminal)?;
    let vectors = arguments.vectors.open_to_search(&arguments.search, arguments.shortening, terminal)?;
    note_texts(arguments, &texts, &options, terminal);
    // Its errors are found before the vectors are computed.
    let rescorer = arguments.rescore.as_deref().map(|named| Rescorer::open(named, arguments, terminal)).transpose()?;
    let mut read = embed::Summary::default();
    let bar = terminal.progress_fraction("embedding");
    let total = (texts.documents.len() + texts.anchors.len()) as f64;
    let mut embed = |of: &[String], purpose: Purpose, before: usize| -> Result<Vectors> {
        let mut all = Vectors::new(vectors.width(), Vec::new());
        let mut progress = |done: usize| bar.set_fraction((before + done) as f64 / total, "anchors and documents");
        let summary = vectors.embed_stream(of.iter().map(Ok), purpose, &mut progress, |_, more| {
            all.append(more);
            Ok(())
        })?;
        warn_about_texts(&summary, &vectors, purpose, terminal);
        read += summary;
        Ok(all)
    };
    let documents = embed(&texts.documents, Purpose::Document, 0)?;
    let anchors = embed(&texts.anchors, Purpose::Query, texts.documents.len())?;
    let embedding_seconds = bar.seconds();
    bar.finish();
    let bar = terminal.progress_fraction("searching");
    let index = mining::index(documents, vectors.similarity);
    let mut progress = |share: f64| bar.set_fraction(share, "most similar documents");
    let device = &vectors.model.device;
    let mut candidates = mining::candidates(device, anchors, &index, &texts.relations, &options, &mut progress)?;
    let search_seconds = bar.seconds();
    bar.finish();
    let mut seconds = vec![embedding_seconds, search_seconds];
    let rescored = match &rescorer {
        None => None,
        Some(rescorer) => {
            let (rescored, rescoring_seconds) = rescorer.rescore(&texts, &mut candidates, terminal)?;
            seconds.push(rescoring_seconds);
            Some((rescorer, rescored))
        }
    };
    let mined = mining::select(candidates, &options);
    note_special_names(&vectors.model.tokenizer, terminal);
    if mined.summary.negatives == 0 {
        let considered = format::count(mined.summary.candidates as u64);
        bail!(
            "found no negatives: none of {considered} candidates fits the ranks and scores; lower --range-min, raise --range-max, relax the \
             margins and scores, or add texts with --corpus"
        );
    }
    let (layout, with_scores) = (arguments.output_format, arguments.output_scores);
    let rows = output::write(&arguments.out, &texts, &mined, layout, options.num_negatives, with_scores)?;
    report(arguments, &vectors, &read, &texts, &mined, rescored, rows, &seconds)
}

/// The cross-encoder that scores candidates again.
struct Rescorer {
    encoder: CrossEncoder,
    named: PathBuf,
}

impl Rescorer {
    fn open(named: &Path, arguments: &Arguments, terminal: &Terminal) -> Result<Rescorer> {
        let dir = HubArguments::default().find(named, Contents::Vectors, terminal)?;
        let device = terminal.open_device()?;
        let mut options = rerank::Options::default();
        options.max_len = arguments.rescore_max_len;
        // Its option is not the `max_len` of the vectors.
        let encoder = CrossEncoder::open(&dir, device, Precision::F32, &options).map_err(|error| match error {
            TaskError::Setting { problem, .. } => usage(format!("--rescore-max-len: {problem}")),
            other => other.into(),
        })?;
        encoder.check_scores()?;
        encoder.notes.iter().for_each(|note| terminal.note(note));
        show_notes(&encoder.model.tokenizer, terminal);
        Ok(Rescorer { encoder, named: named.to_owned() })
    }

    /// Scores candidates and positives again. Also returns the seconds that it took.
    fn rescore(&self, texts: &PairTexts, candidates: &mut Candidates, terminal: &Terminal) -> Result<(Rescored, f64)> {
        let bar = terminal.progress_fraction("rescoring");
        let rescored = mining::rescore(&self.encoder, texts, candidates, &mut |share| bar.set_fraction(share, "pairs"));
        let seconds = bar.seconds();
        bar.finish();
        let rescored = rescored?;
        if rescored.cut > 0 {
            let [cut, pairs] = [rescored.cut, rescored.pairs].map(|number| format::count(number as u64));
            let max_len = self.encoder.max_len();
            terminal.warn(&format!(
                "{cut} of {pairs} pairs to rescore were longer than {max_len} tokens and were truncated (see --rescore-max-len)"
            ));
        }
        note_special_names(&self.encoder.model.tokenizer, terminal);
        Ok((rescored, seconds))
    }

    fn describe(&self, rescored: Rescored, seconds: f64) -> Value {
        json!({
            "model": format::path(&self.named),
            "activation": self.encoder.activation.name(),
            "max_len": self.encoder.max_len(),
            "prompt": self.encoder.prompt(),
            "pairs": rescored.pairs,
            "pairs_truncated": rescored.cut,
            "pairs_per_s": rescored.pairs as f64 / seconds.max(f64::MIN_POSITIVE),
        })
    }
}

/// An error of an option as a usage error.
fn as_usage(error: TaskError) -> anyhow::Error {
    usage(crate::flags::in_message(&error.to_string()))
}

fn read(arguments: &Arguments, terminal: &Terminal) -> Result<PairTexts> {
    for (flag, path) in [("--input", Some(&arguments.input)), ("--corpus", arguments.corpus.as_ref())] {
        if path.is_some_and(|path| path == Path::new("-")) {
            return Err(usage(format!("{flag}: expected a file, found standard input")));
        }
    }
    let columns = match (&arguments.anchor, &arguments.positive) {
        (Some(anchor), Some(positive)) => Some((Column::parse(anchor)?, Column::parse(positive)?)),
        _ => None,
    };
    let read = read_pairs(&arguments.input, columns, arguments.format)?;
    read.note.iter().for_each(|note| terminal.note(note));
    let mut corpus = Vec::new();
    if let Some(path) = &arguments.corpus {
        let texts = Texts::open(path, arguments.corpus_column.as_deref(), None)?;
        texts.note().iter().for_each(|note| terminal.note(note));
        for text in texts {
            match text? {
                Text { problem: Some(problem), .. } => bail!(problem),
                Text { text, .. } => corpus.push(text),
            }
        }
    }
    Ok(PairTexts::new(read.pairs, corpus)?)
}

/// Notes about texts that are left out, and about few documents.
fn note_texts(arguments: &Arguments, texts: &PairTexts, options: &Options, terminal: &Terminal) {
    let count = |n: usize| format::count(n as u64);
    let (pairs, anchors, documents) = (count(texts.pairs), count(texts.anchors.len()), count(texts.documents.len()));
    terminal.note(&format!("{pairs} pairs: {anchors} unique anchors, {documents} unique documents"));
    if texts.repeated_pairs > 0 {
        terminal.note(&format!("{} pairs repeat an earlier one and count once", count(texts.repeated_pairs)));
    }
    if let Some(corpus) = &arguments.corpus {
        let corpus = corpus.display();
        if texts.repeated_documents > 0 {
            let repeated = count(texts.repeated_documents);
            terminal.note(&format!("{corpus}: {repeated} texts repeat an earlier one and count once"));
        }
        if texts.blank_documents > 0 {
            terminal.warn(&format!("{corpus}: {} texts are blank and are left out", count(texts.blank_documents)));
        }
    }
    let same = texts.relations.same_text.iter().flatten().count();
    if same > 0 {
        terminal.note(&format!("{} anchors are also documents, which are not negatives of themselves", count(same)));
    }
    let range_max = options.range_max(texts.relations.most_pairs);
    if range_max > texts.documents.len() {
        terminal.note(&format!(
            "the ranks up to {} are considered, but there are only {documents} documents; more can be added with --corpus",
            count(range_max)
        ));
    }
}

/// Reports the result. `seconds` are those of embedding, searching and, if candidates were rescored, of that.
#[allow(clippy::too_many_arguments)]
fn report(
    arguments: &Arguments,
    vectors: &Embedder,
    read: &embed::Summary,
    texts: &PairTexts,
    mined: &Mined,
    rescored: Option<(&Rescorer, Rescored)>,
    rows: usize,
    seconds: &[f64],
) -> Result<()> {
    let mut out = crate::output::stdout();
    let summary: &Summary = &mined.summary;
    if arguments.json {
        let mut line = arguments.vectors.describe_search(vectors);
        for (key, value) in [
            ("out", json!(format::path(&arguments.out))),
            ("output_format", json!(arguments.output_format.name())),
            ("rows", json!(rows)),
            ("pairs", json!(texts.pairs)),
            ("mined", json!(summary)),
            ("texts_read", json!(read)),
            ("embedding_seconds", json!(seconds.first())),
            ("search_seconds", json!(seconds.get(1))),
            ("peak_rss_bytes", json!(cloze_files::machine::peak_memory())),
        ] {
            line[key] = value;
        }
        if let (Some((rescorer, rescored)), Some(&seconds)) = (rescored, seconds.get(2)) {
            line["rescored"] = rescorer.describe(rescored, seconds);
            line["rescoring_seconds"] = json!(seconds);
        }
        writeln!(out, "{line}")?;
        return Ok(());
    }
    let count = |n: usize| format::count(n as u64);
    writeln!(
        out,
        "{}: {} rows ({}; {} negatives of {} anchors; {})",
        arguments.out.display(),
        count(rows),
        arguments.output_format.name(),
        count(summary.negatives),
        count(summary.anchors),
        format::duration(seconds.iter().sum()),
    )?;
    if let Some((rescorer, rescored)) = rescored {
        let name = rescorer.named.display();
        writeln!(out, "scores: {name}, {} pairs of anchors with candidates and positives", count(rescored.pairs))?;
    }
    let negative = summary.mean_negative.map_or("–".to_owned(), |mean| format!("{mean:.4}"));
    writeln!(out, "mean score: positives {:.4}, negatives {negative}", summary.mean_positive)?;
    write!(out, "candidates: {}", count(summary.candidates))?;
    for (removed, by) in [
        (summary.by_absolute_margin, "--absolute-margin"),
        (summary.by_relative_margin, "--relative-margin"),
        (summary.by_max_score, "--max-score"),
        (summary.by_min_score, "--min-score"),
    ] {
        if removed > 0 {
            write!(out, ", {} removed by {by}", count(removed))?;
        }
    }
    writeln!(out)?;
    if summary.incomplete > 0 {
        writeln!(
            out,
            "anchors with fewer than {} negatives: {}, {} of them with none (see --range-max, the margins and scores, --corpus)",
            arguments.num_negatives,
            count(summary.incomplete),
            count(summary.without),
        )?;
    }
    Ok(())
}
