//! Runs on a tiny model: equal gradients for any micro-batches, resuming, and the folders that are written.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_comm::Communicator;
use cloze_engine::{DType, Device, Pass};
use cloze_model::Inputs;
use cloze_train::network::Network;
use cloze_train::recipe::Precision;
use cloze_train::train_loop::Event;

use super::rows::TextRow;
use super::run::first_gradient;
use super::{EmbedRun, EmbedSettings, EmbeddingNetwork, LossKind, train};
use crate::TaskError;
use crate::embed::pooling::Pool;
use crate::embed::prompts::{Prompt, Purpose};
use crate::embed::search::Similarity;
use crate::embed::{Embedder, Options, PoolChoice};
use crate::finetune::Outcome;

fn device() -> Device {
    Device::cpu(Some(2)).unwrap()
}

/// A tiny model with dropout, in a folder.
fn tiny() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    cloze_testing::save_model(cloze_testing::config(), dir.path());
    cloze_testing::tokenizer(&[]).save(dir.path()).unwrap();
    dir
}

fn row(anchor: &str, positive: &str, negatives: &[&str], scores: &[f32]) -> TextRow {
    TextRow {
        anchor: anchor.to_owned(),
        positives: vec![positive.to_owned()],
        negatives: negatives.iter().map(|text| (*text).to_owned()).collect(),
        scores: scores.to_vec(),
        path: "rows.tsv".into(),
        line: 1,
    }
}

fn pairs() -> Vec<TextRow> {
    let texts = [
        "the fox sees",
        "a owl paints red leaves",
        "anna in paris",
        "otto in rome",
        "old tower .",
        "who sees the quiet river",
    ];
    texts.iter().enumerate().map(|(i, text)| row(text, texts[i ^ 1], &[], &[])).collect()
}

fn settings() -> EmbedSettings {
    let mut settings = EmbedSettings::default();
    settings.training.batch = 3;
    settings.training.lr = 1e-3;
    settings.training.epochs = 2;
    settings.training.precision = Precision::F32;
    settings
}

fn run(
    model: &Path,
    out: &Path,
    rows: &[TextRow],
    settings: &EmbedSettings,
    options: &Options,
    resume: bool,
) -> Result<Outcome, TaskError> {
    run_until(model, out, rows, settings, options, resume, u64::MAX)
}

fn run_until(
    model: &Path,
    out: &Path,
    rows: &[TextRow],
    settings: &EmbedSettings,
    options: &Options,
    resume: bool,
    last: u64,
) -> Result<Outcome, TaskError> {
    let (device, stop) = (device(), AtomicBool::new(false));
    let config = EmbedRun {
        ranks: &Communicator::single(),
        train: rows,
        dev: rows,
        files: [&[], &[]],
        model,
        options,
        settings,
        out,
        resume,
        device: &device,
    };
    train(&config, &stop, &mut |event| {
        if let Event::Step(step) = event
            && step.figures.step >= last
        {
            stop.store(true, Ordering::Relaxed);
        }
    })
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model/model.safetensors")).unwrap()
}

/// GradCache: the gradient of a step in many passes is that of one pass. (Without dropout: a mask depends on the pass.)
#[test]
fn micro_batches_have_the_gradient_of_the_complete_step() {
    let (model, device, options) = (tiny(), device(), Options::default());
    let of = |of: TextRow| row(&of.anchor, &of.positives[0], &["quiet tower"], &[]);
    let rows: Vec<TextRow> = pairs().into_iter().map(of).collect();
    for (loss, dimensions) in
        [(LossKind::InfoNce, vec![]), (LossKind::InfoNce, vec![4, 2]), (LossKind::Triplet, vec![])]
    {
        let [whole, parts] = [8192, 12].map(|micro_tokens| {
            let mut settings = settings();
            settings.loss = loss;
            settings.training.dropout = Some(0.0);
            settings.learn_temperature = loss == LossKind::InfoNce;
            settings.dense = Some(5);
            settings.dimensions = dimensions.clone();
            settings.micro_tokens = micro_tokens;
            let (model, out) = (model.path(), Path::new("absent"));
            let config = EmbedRun {
                ranks: &Communicator::single(),
                train: &rows,
                dev: &[],
                files: [&[], &[]],
                model,
                options: &options,
                settings: &settings,
                out,
                resume: false,
                device: &device,
            };
            first_gradient(&config)
        });
        let largest = whole.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let distance = whole.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(largest > 1e-3 && distance < 1e-5 * largest, "{}: {distance} of {largest}", loss.name());
        assert!(loss != LossKind::InfoNce || whole[whole.len() - 1] != 0.0, "the temperature has a gradient");
    }
}

/// Bit by bit, with dropout and a learned temperature, and with several passes in a step.
#[test]
fn a_resumed_run_equals_an_uninterrupted_one() {
    let (model, out) = (tiny(), tempfile::tempdir().unwrap());
    for micro_tokens in [8192, 12] {
        let mut settings = settings();
        settings.micro_tokens = micro_tokens;
        settings.learn_temperature = true;
        settings.dense = Some(5);
        let [whole, parts] = ["whole", "parts"].map(|name| out.path().join(format!("{name}-{micro_tokens}")));
        let options = Options::default();
        assert!(run(model.path(), &whole, &pairs(), &settings, &options, false).unwrap().finished);
        let first = run_until(model.path(), &parts, &pairs(), &settings, &options, false, 1).unwrap();
        assert!(!first.finished);
        assert!(run(model.path(), &parts, &pairs(), &settings, &options, true).unwrap().finished);
        assert_eq!(weights(&whole), weights(&parts));
        let dense = |folder: &Path| std::fs::read(folder.join("model/2_Dense/model.safetensors")).unwrap();
        assert_eq!(dense(&whole), dense(&parts));
        let sentences =
            |folder: &Path| std::fs::read_to_string(folder.join("model/config_sentence_transformers.json")).unwrap();
        assert_eq!(sentences(&whole), sentences(&parts));
        assert!(sentences(&whole).contains("cloze_log_scale"));
        let mut other = settings.clone();
        other.symmetric = true;
        let problem = run(model.path(), &parts, &pairs(), &other, &options, true).unwrap_err().to_string();
        assert!(problem.contains("symmetric = false, now true"), "{problem}");
        let problem = run(model.path(), &parts, &pairs()[1..], &settings, &options, true).unwrap_err().to_string();
        assert!(problem.contains("different rows"), "{problem}");
    }
}

/// Bit by bit, also between two times of mining.
#[test]
fn a_resumed_run_has_the_same_mined_negatives() {
    let (model, out) = (tiny(), tempfile::tempdir().unwrap());
    let mut settings = settings();
    settings.mine_every = Some(3);
    settings.mine_negatives = 2;
    settings.mine_margin = 0.0;
    let options = Options::default();
    let [whole, parts, plain] = ["whole", "parts", "plain"].map(|name| out.path().join(name));
    assert!(run(model.path(), &whole, &pairs(), &settings, &options, false).unwrap().finished);
    // Of four steps, the second and the third use what was mined before the first; the fourth mines again.
    let first = run_until(model.path(), &parts, &pairs(), &settings, &options, false, 1).unwrap();
    assert!(!first.finished);
    let checkpoint = std::fs::read_dir(parts.join("checkpoints")).unwrap().next().unwrap().unwrap().path();
    let negatives = std::fs::read_to_string(checkpoint.join("negatives.json")).unwrap();
    let negatives: std::collections::BTreeMap<usize, Vec<usize>> = serde_json::from_str(&negatives).unwrap();
    assert!(negatives.len() == 6 && negatives.values().any(|mined| !mined.is_empty()), "{negatives:?}");
    assert!(run(model.path(), &parts, &pairs(), &settings, &options, true).unwrap().finished);
    assert_eq!(weights(&whole), weights(&parts));
    assert!(!whole.join("model/negatives.json").exists());
    settings.mine_every = None;
    (settings.mine_negatives, settings.mine_margin) = (1, 0.05);
    run(model.path(), &plain, &pairs(), &settings, &options, false).unwrap();
    assert_ne!(weights(&whole), weights(&plain), "mined negatives change the gradient");
}

/// Denoising: bit-exact resuming, equal gradients for any passes, and an encoder without the decoder at the end.
#[test]
fn denoising_trains_the_encoder() {
    let (model, out, device) = (tiny(), tempfile::tempdir().unwrap(), device());
    let rows: Vec<TextRow> = pairs().iter().map(|of| row(&of.anchor, &of.anchor, &[], &[])).collect();
    let mut settings = settings();
    settings.loss = LossKind::Denoising;
    let options = Options::default();
    let [whole, parts] = ["whole", "parts"].map(|name| out.path().join(name));
    assert!(run(model.path(), &whole, &rows, &settings, &options, false).unwrap().finished);
    assert!(!run_until(model.path(), &parts, &rows, &settings, &options, false, 1).unwrap().finished);
    let checkpoint = std::fs::read_dir(parts.join("checkpoints")).unwrap().next().unwrap().unwrap().path();
    assert!(checkpoint.join("decoder/model.safetensors").exists());
    assert!(run(model.path(), &parts, &rows, &settings, &options, true).unwrap().finished);
    assert_eq!(weights(&whole), weights(&parts));
    assert!(!whole.join("model/decoder").exists());
    let config = std::fs::read_to_string(whole.join("model/config.json")).unwrap();
    assert!(config.contains("\"BertModel\""), "{config}");
    Embedder::open(&whole.join("model"), device.clone(), DType::F32, &options).unwrap();

    // Regression: pooled vectors are f32, which a decoder of bf16 could not read.
    let mut narrow = settings.clone();
    narrow.training.precision = Precision::Bf16;
    assert!(run(model.path(), &out.path().join("bf16"), &rows, &narrow, &options, false).unwrap().finished);

    settings.training.dropout = Some(0.0);
    let [one, several] = [8192, 12].map(|micro_tokens| {
        settings.micro_tokens = micro_tokens;
        let (model, out) = (model.path(), Path::new("absent"));
        let (settings, options) = (&settings, &options);
        let files = [&[][..], &[]];
        first_gradient(&EmbedRun {
            ranks: &Communicator::single(),
            train: &rows,
            dev: &[],
            files,
            model,
            options,
            settings,
            out,
            resume: false,
            device: &device,
        })
    });
    let largest = one.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let distance = one.iter().zip(&several).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(largest > 1e-3 && distance < 1e-5 * largest, "{distance} of {largest}");

    let labelled = [row("a fox", "the owl", &[], &[])];
    let problem = run(model.path(), &out.path().join("x"), &labelled, &settings, &options, false).unwrap_err();
    assert!(problem.to_string().contains("rows.tsv:1: expected one text, for the loss denoising"), "{problem}");
}

#[test]
fn the_folder_keeps_pooling_prompts_lengths_and_modules() {
    let (model, out) = (tiny(), tempfile::tempdir().unwrap());
    let mut options = Options { pool: PoolChoice::Of(Pool::Max), max_len: Some(7), ..Options::default() };
    options.prompts.query = Prompt::Text("query: ".to_owned());
    options.prompts.document = Prompt::Text("passage: ".to_owned());
    let mut settings = settings();
    settings.dense = Some(5);
    settings.dimensions = vec![3];
    let folder = out.path().join("run");
    run(model.path(), &folder, &pairs(), &settings, &options, false).unwrap();
    let embedder = Embedder::open(&folder.join("model"), device(), DType::F32, &Options::default()).unwrap();
    assert_eq!(embedder.describe(), "max of layer 2, Dense 32 → 5 (Tanh), not normalised");
    assert_eq!((embedder.width(), embedder.similarity), (5, Similarity::Cosine));
    assert_eq!(embedder.max_len(Purpose::Document), 7);
    assert_eq!(
        [embedder.prompt(Purpose::Query), embedder.prompt(Purpose::Document), embedder.prompt(Purpose::Text)],
        ["query: ", "passage: ", ""]
    );
    // Training and inference compute the same vectors; the dense layer by the engine and on the host.
    let network = EmbeddingNetwork::load(&folder.join("model"), &device()).unwrap();
    let mut inputs = Inputs::default();
    let sequence = embedder.encode("the red fox sees", Purpose::Document).0;
    inputs.push(&sequence.ids, &sequence.segments);
    let device = device();
    let mut pass = Pass::inference(&device, network.params(), DType::F32);
    let trained = network.embed(&mut pass, &inputs, 0).value().to_vec_f32();
    let inferred = embedder.embed(&["the red fox sees"], Purpose::Document, &mut |_| {}).unwrap().vectors;
    for (a, b) in trained.iter().zip(inferred.values()) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    let card = std::fs::read_to_string(folder.join("model/README.md")).unwrap();
    assert!(card.starts_with("---\nlibrary_name: sentence-transformers\n") && card.contains("info-nce"), "{card}");
    // Training continues from it.
    let next = out.path().join("next");
    settings.dense = None;
    settings.dimensions = Vec::new();
    run(&folder.join("model"), &next, &pairs(), &settings, &Options::default(), false).unwrap();
    let next = Embedder::open(&next.join("model"), device.clone(), DType::F32, &Options::default()).unwrap();
    assert_eq!(next.describe(), embedder.describe());
    assert_eq!(next.prompt(Purpose::Query), "query: ");
}

#[test]
fn scored_pairs_are_scored_by_correlation_and_others_by_search() {
    let (model, out) = (tiny(), tempfile::tempdir().unwrap());
    let scored: Vec<TextRow> =
        pairs().iter().zip(0..).map(|(of, i)| row(&of.anchor, &of.positives[0], &[], &[i as f32 / 5.0])).collect();
    let mut settings = settings();
    settings.loss = LossKind::Cosent;
    settings.training.epochs = 30;
    settings.training.batch = 6;
    settings.training.dropout = Some(0.0);
    let best = run(model.path(), &out.path().join("sts"), &scored, &settings, &Options::default(), false)
        .unwrap()
        .best
        .unwrap();
    assert!(best.metric == "spearman" && best.score > 0.9, "{best:?}");
    settings.loss = LossKind::InfoNce;
    let best = run(model.path(), &out.path().join("search"), &pairs(), &settings, &Options::default(), false)
        .unwrap()
        .best
        .unwrap();
    assert!(best.metric == "ndcg_at_10" && best.score > 0.9, "{best:?}");
}

#[test]
fn invalid_settings_and_rows_are_explained() {
    let (model, out) = (tiny(), tempfile::tempdir().unwrap());
    let problem = |change: &dyn Fn(&mut EmbedSettings), rows: &[TextRow]| {
        let mut settings = settings();
        change(&mut settings);
        let folder = out.path().join("run");
        let problem = run(model.path(), &folder, rows, &settings, &Options::default(), false).unwrap_err().to_string();
        assert!(!folder.exists(), "nothing is written");
        problem
    };
    assert!(problem(&|s| s.training.batch = 1, &pairs()).contains("`batch`: expected at least 2 rows"));
    assert!(
        problem(&|s| s.dimensions = vec![99], &pairs())
            .contains("`dimensions`: expected at most 32, the width of the vectors, found 99")
    );
    assert!(
        problem(&|s| s.margin = Some(1.0), &pairs())
            .contains("`margin`: has no effect with the loss info-nce; it is for triplet")
    );
    assert!(problem(&|s| s.temperature = Some(0.0), &pairs()).contains("`temperature`: expected a number above 0"));
    assert!(
        problem(&|s| s.loss = LossKind::Triplet, &pairs())
            .contains("rows.tsv:1: expected an anchor with a positive and a negative")
    );
    assert!(
        problem(&|s| s.loss = LossKind::Cosent, &pairs())
            .contains("rows.tsv:1: expected a score, found 0 scores, for the loss cosent")
    );
    assert!(problem(&|s| s.training.accumulate = 2, &pairs()).contains("`accumulate`: set `micro_tokens` instead"));
    assert!(problem(&|_| (), &[]).contains("no training rows"));
    assert!(
        problem(&|s| s.mine_negatives = 2, &pairs()).contains("`mine_negatives`: has no effect without `mine_every`")
    );
    let cosent = |s: &mut EmbedSettings| (s.loss, s.mine_every) = (LossKind::Cosent, Some(5));
    assert!(problem(&cosent, &pairs()).contains("`mine_every`: has no effect with the loss cosent"));
    let denoising = |s: &mut EmbedSettings| (s.loss, s.training.freeze) = (LossKind::Denoising, Some(1));
    assert!(problem(&denoising, &pairs()).contains("`freeze`: expected no frozen layers"));
    let teacher = [row("a fox", "the owl", &[], &[1.0, 2.0])];
    assert!(
        problem(&|s| s.loss = LossKind::Mse, &teacher)
            .contains("a teacher's vector of 32 numbers, the model's width, found 2 scores")
    );
}

/// Regression: a model that was trained with the pooler was stored, and then read, with the mean.
#[test]
fn a_pooling_that_a_folder_cannot_store_is_refused() {
    let (model, out) = (tiny(), tempfile::tempdir().unwrap());
    let options = Options { pool: PoolChoice::Of(Pool::Pooler), ..Options::default() };
    let folder = out.path().join("run");
    let problem = run(model.path(), &folder, &pairs(), &settings(), &options, false).unwrap_err().to_string();
    assert!(problem.contains("`pool`") && problem.contains("cannot store the pooling pooler"), "{problem}");
    assert!(!folder.exists());
    use super::folder::can_store;
    assert!(can_store(&[Pool::LastToken]) && can_store(&[Pool::Cls, Pool::Mean]));
    assert!(!can_store(&[Pool::Mean, Pool::Cls]) && !can_store(&[Pool::Mean, Pool::Mean]));
}

#[test]
fn the_number_of_negatives_is_reported() {
    let (model, out) = (tiny(), tempfile::tempdir().unwrap());
    let mut rows = pairs();
    // Two rows with one text: it is no negative of its own.
    rows[1].positives = rows[0].positives.clone();
    let mut settings = settings();
    settings.training.batch = 6;
    let (device, stop, options) = (device(), AtomicBool::new(false), Options::default());
    let config = EmbedRun {
        ranks: &Communicator::single(),
        train: &rows,
        dev: &[],
        files: [&[], &[]],
        model: model.path(),
        options: &options,
        settings: &settings,
        out: &out.path().join("run"),
        resume: false,
        device: &device,
    };
    let mut notes = Vec::new();
    train(&config, &stop, &mut |event| {
        if let Event::Start(start) = event {
            notes.clone_from(&start.notes);
        }
    })
    .unwrap();
    // Six candidates: the anchors of rows 0 and 1 have their positive twice, row 1 is its positive; the others have one.
    let expected = rows.iter().map(|row| {
        let others =
            rows.iter().filter(|other| other.positives[0] != row.anchor && other.positives[0] != row.positives[0]);
        others.count()
    });
    let expected = format!("{:.1} negatives on average", expected.sum::<usize>() as f64 / 6.0);
    assert!(notes.iter().any(|note| note.contains(&expected)), "{expected}: {notes:?}");
}
