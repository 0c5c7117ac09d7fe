//! Pre-training runs in this process: files of a run, resuming, rejected settings, stopping.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::corpus::{assert_same_files, losses, make_shards, make_shards_holding_out, recipe};
use cloze_comm::Communicator;
use cloze_data::shards::{Shards, Split};
use cloze_engine::{DType, Device, Share};
use cloze_model::{Heads, Model};
use cloze_train::TrainError;
use cloze_train::checkpoint;
use cloze_train::evaluate::{EvaluateOptions, evaluate_folder};
use cloze_train::plan::End;
use cloze_train::pretrain::{
    DryRun, LrRange, Outcome, PretrainEvent, State, device_of_run, dry_run, find_lr, pretrain,
};
use cloze_train::recipe::{Precision, Recipe};
use cloze_train::run::{Line, RunFolder, read_metrics};
use cloze_train::step::Trainer;
use cloze_train::train_loop::Event;

pub fn run(recipe: &Recipe, out: &Path, resume: bool) -> Result<Outcome, TrainError> {
    run_watched(recipe, out, resume, &AtomicBool::new(false), &mut |_| ())
}

/// Runs on the device that the binary would choose.
fn run_watched(
    recipe: &Recipe,
    out: &Path,
    resume: bool,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&PretrainEvent),
) -> Result<Outcome, TrainError> {
    let alone = Communicator::single();
    pretrain(recipe, &device_of_run(recipe, out, resume, &alone)?, out, resume, &alone, stop, on_event)
}

pub fn dry(recipe: &Recipe, out: &Path, resume: bool, stop: &AtomicBool) -> Result<Option<DryRun>, TrainError> {
    dry_run(recipe, &device_of_run(recipe, out, resume, &Communicator::single())?, out, resume, stop)
}

/// Runs until a step is done, then sets the flag that a signal would set.
pub fn run_until(recipe: &Recipe, out: &Path, resume: bool, last: u64) -> Outcome {
    let stop = AtomicBool::new(false);
    let mut watch = |event: &PretrainEvent| {
        if matches!(event, Event::Step(s) if s.figures.step == last) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    run_watched(recipe, out, resume, &stop, &mut watch).unwrap()
}

#[test]
fn a_run_folder_has_the_documented_files() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(&make_shards(dir.path(), 0), &[]);
    let out = dir.path().join("run");
    let mut phases = Vec::new();
    let stop = AtomicBool::new(false);
    let outcome = run_watched(&recipe, &out, false, &stop, &mut |event| {
        if let Event::Step(s) = event {
            phases.push(s.figures.phase);
        }
    })
    .unwrap();
    assert!(outcome.finished && outcome.step == 10);
    assert_eq!(phases, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
    let lines = read_metrics(&out.join("metrics.jsonl")).unwrap();
    let trained: Vec<u64> = lines.iter().filter(|l| matches!(l, Line::Train(_))).map(Line::step).collect();
    let scored: Vec<u64> = lines.iter().filter(|l| matches!(l, Line::Eval(_))).map(Line::step).collect();
    assert_eq!((trained, scored), (vec![2, 4, 6, 8, 10], vec![4, 8, 10]));
    assert!(matches!(&lines[0], Line::Start(s) if s.parameters > 1000 && s.threads == 1 && s.precision == "f32"));
    assert!(lines.iter().all(|l| match l {
        Line::Train(t) =>
            t.tokens_per_s > 0.0 && t.share_of_peak > 0.0 && t.losses.loss("nsp").is_some() && t.grad_norm > 0.0,
        _ => true,
    }));
    // The last two of 3, 4, 6, 8, 9, 10 (saves at multiples of 3 and at each best), and the best.
    let folder = RunFolder::new(&out);
    let checkpoints: Vec<u64> = checkpoint::list(&folder).unwrap().into_iter().map(|(s, _)| s).collect();
    let best = checkpoint::verify::<State>(&outcome.checkpoint).unwrap().best.unwrap();
    assert!(checkpoints.ends_with(&[9, 10]) || checkpoints.ends_with(&[8, 10]), "{checkpoints:?}");
    assert!(checkpoints.len() <= 3 && checkpoints.contains(&best.step), "{checkpoints:?}, best {best:?}");
    assert_eq!(
        fs::canonicalize(folder.best()).unwrap(),
        fs::canonicalize(checkpoint::path_of(&folder, best.step)).unwrap()
    );
    assert!(
        fs::read_dir(&out).unwrap().any(|e| e
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("events.out.tfevents."))
    );
    for file in ["config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json"] {
        assert!(out.join("model").join(file).is_file(), "model/{file}");
        assert!(outcome.checkpoint.join(file).is_file(), "checkpoint {file}");
    }

    // The folder can be used by other commands.
    let mut options = EvaluateOptions::default();
    options.precision = Precision::F32;
    options.seq_len = 32;
    let device = Device::cpu(Some(1)).unwrap();
    let scores = evaluate_folder(&out.join("model"), &recipe.data, &device, &options, |_| ()).unwrap();
    assert!(
        scores.losses.loss("mlm").unwrap().is_finite()
            && scores.losses.accuracy("nsp").is_some()
            && scores.predicted > 10,
        "{scores:?}"
    );
    let mut long = options;
    long.seq_len = 65;
    assert!(evaluate_folder(&out.join("model"), &recipe.data, &device, &long, |_| ()).is_err());
}

#[test]
fn resuming_is_bit_exact() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let plain: [&str; 1] = ["precision=f32"];
    let lamb = ["precision=bf16", "optimizer.kind=lamb", "optimizer.bias_correction=true"];
    let growing = [&lamb[..], &["phase.0.accumulate=4", "schedule.batch_warmup_share=0.8"]].concat();
    for (precision, overrides, batches) in [("f32", &plain[..], [14, 6]), ("bf16", &growing, [16, 6])] {
        let recipe = recipe(&shards, overrides);
        let uninterrupted = dir.path().join(format!("uninterrupted-{precision}"));
        run(&recipe, &uninterrupted, false).unwrap();
        // Interrupted between two logged lines, in each phase, on the last step of a phase, at an evaluation, and at
        // the last step. In an uninterrupted run, these steps and evaluations are done first.
        let interrupted = dir.path().join(format!("interrupted-{precision}"));
        for (i, last) in [3, 7, 8, 10].into_iter().enumerate() {
            let outcome = run_until(&recipe, &interrupted, i > 0, last);
            assert!(!outcome.finished && outcome.step == last && outcome.model.is_none());
            // The current model can be used meanwhile.
            let so_far = checkpoint::path_of(&RunFolder::new(&interrupted), last);
            for file in ["config.json", "model.safetensors", "vocab.txt"] {
                assert_eq!(
                    fs::read(interrupted.join("model").join(file)).unwrap(),
                    fs::read(so_far.join(file)).unwrap()
                );
            }
            let lines = read_metrics(&interrupted.join("metrics.jsonl")).unwrap();
            let logged = lines.iter().filter(|l| matches!(l, Line::Train(_))).map(Line::step).max();
            assert_eq!(logged, Some(last), "the last step is logged");
            assert!(
                !lines.iter().any(|l| matches!(l, Line::Eval(eval) if eval.step == last)),
                "an evaluation at step {last}"
            );
        }
        run(&recipe, &interrupted, true).unwrap();
        assert_same_files(&uninterrupted.join("model"), &interrupted.join("model"));
        assert_same_files(
            &uninterrupted.join("checkpoints/step-00000010"),
            &interrupted.join("checkpoints/step-00000010"),
        );
        assert_eq!(losses(&uninterrupted), losses(&interrupted));
        let state = checkpoint::verify::<State>(&interrupted.join("checkpoints/step-00000010")).unwrap();
        assert_eq!(state.batches, batches);
        // A finished run that is resumed is finished.
        let again = run(&recipe, &interrupted, true).unwrap();
        assert!(again.finished && again.step == 10);
        assert_same_files(&uninterrupted.join("model"), &interrupted.join("model"));
    }
}

/// `precision = "auto"` and the instruction set are resolved when a run starts, and stored: another choice would change
/// its results.
#[test]
fn a_resumed_run_keeps_its_precision_and_instruction_set() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let automatic = recipe(&shards, &["precision=auto"]);
    let stored = |out: &Path| Recipe::open_unchecked(&out.join("recipe.toml")).unwrap();

    let out = dir.path().join("auto");
    run_until(&automatic, &out, false, 1);
    let device = Device::cpu(None).unwrap();
    assert_eq!(stored(&out).precision, Precision::Auto.resolved(&device));
    assert_ne!(stored(&out).precision, Precision::Auto);
    assert_eq!(stored(&out).instruction_set.as_deref(), Some(device.instruction_set()));

    // One of the two types is not what `auto` resolves to here, and `portable` is never the fastest.
    for precision in ["precision=f32", "precision=bf16"] {
        let explicit = recipe(&shards, &[precision, "instruction_set=portable"]);
        let [uninterrupted, interrupted] =
            ["uninterrupted", "interrupted"].map(|name| dir.path().join(format!("{name}-{precision}")));
        run(&explicit, &uninterrupted, false).unwrap();
        run_until(&explicit, &interrupted, false, 3);
        run(&automatic, &interrupted, true).unwrap();
        assert_same_files(&uninterrupted.join("model"), &interrupted.join("model"));
        assert_eq!(stored(&interrupted), stored(&uninterrupted));
    }

    // A run whose instruction set this machine does not have continues with another one, and reports it.
    let unavailable = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    let text = fs::read_to_string(out.join("recipe.toml")).unwrap();
    let here = format!("instruction_set = \"{}\"", device.instruction_set());
    assert!(text.contains(&here), "{text}");
    fs::write(out.join("recipe.toml"), text.replace(&here, &format!("instruction_set = \"{unavailable}\""))).unwrap();
    run(&automatic, &out, true).unwrap();
    assert_eq!(stored(&out).instruction_set.as_deref(), Some(device.instruction_set()));
    let lines = read_metrics(&out.join("metrics.jsonl")).unwrap();
    assert!(lines.iter().any(|line| matches!(line, Line::Event(event) if event.message.contains("instruction_set"))));
    // Requested by the user, it is an error, unless `CLOZE_CPU` has precedence.
    if std::env::var_os("CLOZE_CPU").is_none_or(|word| word.is_empty()) {
        let rejected =
            run(&recipe(&shards, &[&format!("instruction_set={unavailable}")]), &dir.path().join("no"), false);
        let rejected = rejected.unwrap_err().to_string();
        assert!(rejected.contains(unavailable), "{rejected}");
    }
}

#[test]
fn a_run_can_be_extended_but_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let short = recipe(&shards, &["steps=3"]);
    let out = dir.path().join("run");
    run(&short, &out, false).unwrap();
    let e = run(&short, &out, false).unwrap_err().to_string();
    assert!(e.contains("`resume`"), "{e}");
    let e = run(&recipe(&shards, &["steps=3", "optimizer.lr=1"]), &out, true).unwrap_err().to_string();
    assert!(e.contains("optimizer.lr"), "{e}");
    let e = run(&recipe(&shards, &["steps=3", "optimizer.kind=lamb"]), &out, true).unwrap_err().to_string();
    assert!(e.contains("optimizer.kind"), "{e}");
    let longer = run(&recipe(&shards, &["steps=5"]), &out, true).unwrap();
    assert_eq!(longer.step, 5);
    // Two micro-batches per step, each used once: in the first phase two steps before and at least one more now, in the
    // second two.
    let batches = checkpoint::verify::<State>(&longer.checkpoint).unwrap().batches;
    assert_eq!(batches.iter().sum::<u64>(), 10, "{batches:?}");
    assert!(batches[0] >= 6, "{batches:?}");
    let lines = read_metrics(&out.join("metrics.jsonl")).unwrap();
    assert!(lines.iter().any(|l| matches!(l, Line::Event(e) if e.message.contains("steps"))));
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let e = run(&recipe(&make_shards(&other, 1), &["steps=7"]), &out, true).unwrap_err();
    assert!(matches!(e, TrainError::OtherShards { .. }), "{e}");
    let e = run(&short, &dir.path().join("nowhere"), true).unwrap_err();
    assert!(matches!(e, TrainError::NoRun(_)), "{e}");
}

/// Regression: the last evaluation came after the last checkpoint was saved, so that `best` pointed to another
/// checkpoint or to none.
#[test]
fn the_last_evaluation_can_be_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(&make_shards(dir.path(), 0), &["steps=6", "eval.every=100"]);
    let out = dir.path().join("run");
    let outcome = run(&recipe, &out, false).unwrap();
    let folder = RunFolder::new(&out);
    assert_eq!(fs::canonicalize(folder.best()).unwrap(), fs::canonicalize(checkpoint::path_of(&folder, 6)).unwrap());
    let state = checkpoint::verify::<State>(&outcome.checkpoint).unwrap();
    assert_eq!((state.evaluated, state.best.unwrap().step), (6, 6));
    // A killed run had not linked it yet; the next run does.
    fs::remove_file(folder.best()).unwrap();
    run(&recipe, &out, true).unwrap();
    assert!(folder.best().exists());
    let scored = read_metrics(&folder.metrics()).unwrap().iter().filter(|l| matches!(l, Line::Eval(_))).count();
    assert_eq!(scored, 1, "a finished run is not scored again");
}

/// Regression: the metrics of a finished run's last steps were logged again after "finished", and a session without
/// steps logged nothing, so that such runs appeared as interrupted.
#[test]
fn the_last_line_of_a_finished_run_says_finished() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let is_finished = |out: &Path| {
        let lines = read_metrics(&out.join("metrics.jsonl")).unwrap();
        matches!(lines.last(), Some(Line::Event(event)) if event.message.starts_with("finished after step"))
    };
    let incomplete = recipe(&shards, &["steps=5", "log.every=4", "eval.every=0"]);
    let out = dir.path().join("incomplete");
    run(&incomplete, &out, false).unwrap();
    assert!(is_finished(&out));
    run(&incomplete, &out, true).unwrap();
    assert!(is_finished(&out), "resumed without a step");

    // Interrupted, then shortened so that it is over.
    let out = dir.path().join("short");
    run_until(&incomplete, &out, false, 3);
    assert!(!is_finished(&out));
    let outcome = run(&recipe(&shards, &["steps=3", "log.every=4", "eval.every=0"]), &out, true).unwrap();
    assert!(outcome.finished && outcome.step == 3 && is_finished(&out));
}

/// Regression: only multiples of log.every were logged: a report showed "20 steps" of a run of 21.
#[test]
fn the_last_step_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let recipe = recipe(&shards, &["log.every=4", "eval.every=0"]);
    let logged = |out: &Path| -> Vec<u64> {
        let lines = read_metrics(&out.join("metrics.jsonl")).unwrap();
        lines.iter().filter(|l| matches!(l, Line::Train(_))).map(Line::step).collect()
    };
    let (uninterrupted, interrupted) = (dir.path().join("uninterrupted"), dir.path().join("interrupted"));
    run(&recipe, &uninterrupted, false).unwrap();
    assert_eq!(logged(&uninterrupted), [4, 8, 10]);
    for (i, (last, lines)) in [(3, vec![3]), (4, vec![4]), (9, vec![4, 8, 9])].into_iter().enumerate() {
        run_until(&recipe, &interrupted, i > 0, last);
        assert_eq!(logged(&interrupted), lines);
    }
    run(&recipe, &interrupted, true).unwrap();
    assert_eq!(losses(&uninterrupted), losses(&interrupted));
    // No line is repeated or lost when a finished run is resumed; an extended run logs as an uninterrupted one.
    run(&recipe, &interrupted, true).unwrap();
    assert_eq!(losses(&uninterrupted), losses(&interrupted));
    let mut longer = recipe.clone();
    longer.steps = Some(12);
    run(&longer, &interrupted, true).unwrap();
    assert_eq!(logged(&interrupted), [4, 8, 12]);
}

#[test]
fn intervals_can_be_percentages_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let recipe =
        recipe(&shards, &["steps=9", "eval.every=50%", "checkpoint.every=25 %", "log.every=20 %", "checkpoint.keep=9"]);
    let (uninterrupted, interrupted) = (dir.path().join("uninterrupted"), dir.path().join("interrupted"));
    run(&recipe, &uninterrupted, false).unwrap();
    let lines = read_metrics(&uninterrupted.join("metrics.jsonl")).unwrap();
    let steps = |is_selected: fn(&Line) -> bool| -> Vec<u64> {
        lines.iter().filter(|l| is_selected(l)).map(Line::step).collect()
    };
    assert_eq!(steps(|l| matches!(l, Line::Train(_))), [2, 4, 6, 8, 9]);
    assert_eq!(steps(|l| matches!(l, Line::Eval(_))), [5, 9]);
    let checkpoints: Vec<u64> =
        checkpoint::list(&RunFolder::new(&uninterrupted)).unwrap().into_iter().map(|(s, _)| s).collect();
    assert_eq!(checkpoints, [3, 5, 7, 9]);
    for (i, last) in [2, 5].into_iter().enumerate() {
        run_until(&recipe, &interrupted, i > 0, last);
    }
    run(&recipe, &interrupted, true).unwrap();
    assert_eq!(losses(&uninterrupted), losses(&interrupted));
    assert_same_files(&uninterrupted.join("model"), &interrupted.join("model"));
}

#[test]
fn a_dry_run_estimates_the_duration_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let out = dir.path().join("run");
    let go = AtomicBool::new(false);
    let dry_here = |recipe: &Recipe, resume: bool| dry(recipe, &out, resume, &go);
    let recipe_of_1000 = recipe(&shards, &["steps=1000", "eval.every=100"]);
    let result = dry_here(&recipe_of_1000, false).unwrap().unwrap();
    assert!(!out.exists());
    assert_eq!((result.end, result.step), (End::Steps(1000), 0));
    let phases = &result.estimate.phases;
    assert_eq!(phases.iter().map(|p| p.steps).collect::<Vec<_>>(), [700.0, 300.0]);
    assert!(phases.iter().all(|p| p.step_tokens > 20.0 && p.step_seconds > 0.0), "{phases:?}");
    let steps: f64 = phases.iter().map(|p| p.seconds).sum();
    assert!(result.estimate.seconds > steps && result.estimate.seconds < 2.0 * steps, "evaluations count");
    assert!(result.parameters > 1000 && result.corpus_tokens > 1000);

    // The rest of a run; a folder in use; settings that the run itself would reject; an interrupt.
    run_until(&recipe_of_1000, &out, false, 3);
    let rest = dry_here(&recipe_of_1000, true).unwrap().unwrap();
    assert_eq!((rest.step, rest.estimate.phases[0].steps), (3, 697.0));
    assert!(matches!(dry_here(&recipe_of_1000, false), Err(TrainError::RunExists(_))));
    // With both limits, the run ends at whichever comes first, regardless of which is closer at the start.
    let by_clock = dry_here(&recipe(&shards, &["steps=100000000", "minutes=1"]), true).unwrap().unwrap();
    assert_eq!(by_clock.end, End::Seconds(60.0));
    let by_steps = dry_here(&recipe(&shards, &["steps=10", "minutes=1000"]), true).unwrap().unwrap();
    assert_eq!(by_steps.end, End::Steps(10));
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let rejected = dry_here(&recipe(&make_shards(&other, 1), &["steps=1000"]), true);
    assert!(matches!(rejected, Err(TrainError::OtherShards { .. })));
    assert!(matches!(dry_here(&recipe(&shards, &["optimizer.lr=1"]), true), Err(TrainError::RecipeChanged { .. })));
    assert_eq!(dry(&recipe_of_1000, &dir.path().join("x"), false, &AtomicBool::new(true)).unwrap(), None);
}

/// Regression: if only one of several documents is held out, pre-training with sentence pairs refused to start; before
/// that, it failed at its first evaluation.
#[test]
fn one_held_out_document_is_scored_without_sentence_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let one = (1..100)
        .map(|i| {
            let folder = dir.path().join(i.to_string());
            fs::create_dir(&folder).unwrap();
            make_shards_holding_out(&folder, 0, f64::from(i) / 400.0)
        })
        .find(|shards| Shards::open(shards).unwrap().split(Split::Valid).len() == 1)
        .expect("a fraction that holds out one document");
    let out = dir.path().join("run");
    let mut messages = Vec::new();
    run_watched(&recipe(&one, &["steps=2", "eval.every=1"]), &out, false, &AtomicBool::new(false), &mut |event| {
        if let Event::Message(m) = event {
            messages.push(m.clone());
        }
    })
    .unwrap();
    assert!(messages.len() == 1 && messages[0].contains("score only masked tokens"), "{messages:?}");
    let lines = read_metrics(&out.join("metrics.jsonl")).unwrap();
    let evals: Vec<_> = lines.iter().filter_map(|l| if let Line::Eval(e) = l { Some(e) } else { None }).collect();
    assert!(
        evals.len() == 2
            && evals.iter().all(|e| e.losses.loss("mlm").unwrap().is_finite() && e.losses.loss("nsp").is_none()),
        "{evals:?}"
    );
    assert!(lines.iter().all(|l| if let Line::Train(t) = l { t.losses.loss("nsp").is_some() } else { true }));
    let mut options = EvaluateOptions::default();
    options.precision = Precision::F32;
    options.seq_len = 32;
    let scores = evaluate_folder(&out.join("model"), &one, &Device::cpu(Some(1)).unwrap(), &options, |_| ()).unwrap();
    assert!(
        scores.losses.loss("mlm").unwrap().is_finite() && scores.predicted > 0 && scores.losses.loss("nsp").is_none(),
        "{scores:?}"
    );
}

/// Regression: weight decay shrank the heads of a checkpoint that the objective does not train.
#[test]
fn heads_that_are_not_trained_do_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let (first, next) = (dir.path().join("first"), dir.path().join("next"));
    run(&recipe(&shards, &["steps=0"]), &first, false).unwrap();
    let mut without_nsp = recipe(&shards, &["steps=4", "objective.nsp=false", "optimizer.weight_decay=0.5"]);
    without_nsp.model = Default::default();
    without_nsp.model.init = Some(first.join("model"));
    run_until(&without_nsp, &next, false, 2);
    run(&without_nsp, &next, true).unwrap();
    let [before, after] =
        [first, next].map(|run| Model::load(&run.join("model"), &Device::cpu(Some(1)).unwrap()).unwrap());
    for id in before.params.ids() {
        let name = before.params.name(id);
        let is_frozen = name.starts_with("bert.pooler.") || name.starts_with("cls.seq_relationship.");
        let is_unchanged = before.params.read(id) == after.params.read(id);
        assert_eq!(is_unchanged, is_frozen, "{name}");
    }
}

#[test]
fn zero_steps_save_the_initial_model_and_a_run_can_start_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let first = dir.path().join("first");
    let outcome = run(&recipe(&shards, &["steps=0"]), &first, false).unwrap();
    assert!(outcome.finished && outcome.step == 0 && outcome.evaluation.is_none());
    let init = first.join("model").display().to_string();
    let from = |data: &Path, more: &[&str]| {
        let mut recipe = recipe(data, &["steps=4"]);
        recipe.model = Default::default();
        recipe.model.init = Some(init.clone().into());
        let text = recipe.to_toml().unwrap();
        let more: Vec<String> = more.iter().map(|s| s.to_string()).collect();
        Recipe::parse(&text, "from", &more).unwrap()
    };
    // Same weights and batches as a run without the break.
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    run(&recipe(&shards, &["steps=4"]), &a, false).unwrap();
    run_until(&from(&shards, &[]), &b, false, 2);
    // The initial model is not needed any more.
    let moved = dir.path().join("moved");
    fs::rename(&first, &moved).unwrap();
    let rest = dry(&from(&shards, &[]), &b, true, &AtomicBool::new(false)).unwrap().unwrap();
    assert_eq!(rest.estimate.steps(), 2.0);
    run(&from(&shards, &[]), &b, true).unwrap();
    fs::rename(&moved, &first).unwrap();
    assert_same_files(&a.join("model"), &b.join("model"));

    // A head that the objective needs but the model does not have is new.
    let (mlm_only, both) = (dir.path().join("mlm_only"), dir.path().join("both"));
    run(&recipe(&shards, &["steps=0", "objective.nsp=false"]), &mlm_only, false).unwrap();
    let mut with_nsp = from(&shards, &[]);
    with_nsp.model.init = Some(mlm_only.join("model"));
    let mut messages = Vec::new();
    run_watched(&with_nsp, &both, false, &AtomicBool::new(false), &mut |event| {
        if let Event::Message(m) = event {
            messages.push(m.clone());
        }
    })
    .unwrap();
    assert_eq!(messages, ["newly initialized: pooler, next-sentence head"]);
    assert_eq!(Model::load(&both.join("model"), &Device::cpu(Some(1)).unwrap()).unwrap().heads, Heads::PRETRAINING);

    let e = run(&from(&shards, &["phase.1.seq_len=65"]), &dir.path().join("c"), false).unwrap_err();
    assert!(e.to_string().contains("64 positions"), "{e}");
    assert!(!dir.path().join("c").exists(), "a run that cannot start creates nothing");
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let e = run(&from(&make_shards(&other, 3), &[]), &dir.path().join("d"), false).unwrap_err();
    assert!(matches!(e, TrainError::OtherTokenizer { .. }), "{e}");
}

#[test]
fn steps_that_are_not_finite_are_skipped_then_stop_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let out = dir.path().join("run");
    let options = ["steps=40", "eval.every=0", "checkpoint.every=2", "log.every=1"];
    run_until(&recipe(&shards, &options), &out, false, 4);
    // Damage the weights on disk, with matching checksums, as training with a far too high learning rate would.
    let folder = RunFolder::new(&out);
    let device = Device::cpu(Some(1)).unwrap();
    let (_, path) = checkpoint::list(&folder).unwrap().pop().unwrap();
    let mut loaded = checkpoint::load::<Model, State>(&path, &device, Share::WHOLE).unwrap();
    loaded.network.params.edit_all(|values| values[40] = f32::INFINITY);
    let tokenizer = cloze_text::Tokenizer::open(&path).unwrap();
    loaded.state.step = 5;
    let optimizer = cloze_train::recipe::Optimizer::default();
    let mut trainer = Trainer::new(loaded.network, &device, DType::F32, &optimizer, 5, &Communicator::single());
    trainer.moments = loaded.moments;
    checkpoint::save(&folder, loaded.state.step, &trainer, &tokenizer, &loaded.state).unwrap();
    let mut messages = Vec::new();
    let stop = AtomicBool::new(false);
    let e = run_watched(&recipe(&shards, &options), &out, true, &stop, &mut |event| {
        if let Event::Message(m) = event {
            messages.push(m.clone());
        }
    })
    .unwrap_err();
    let TrainError::NotFinite { step: 10, in_a_row: 5, checkpoint: Some(last) } = &e else { panic!("{e}") };
    assert_eq!(messages.len(), 5, "{messages:?}");
    assert!(messages[0].contains("not finite: skipped (1 of at most 5"), "{messages:?}");
    // Nothing was saved while steps were skipped.
    assert!(last.ends_with("step-00000005"), "{e}");
    checkpoint::verify::<State>(&checkpoint::path_of(&folder, 4)).unwrap();
    let lines = read_metrics(&folder.metrics()).unwrap();
    assert_eq!(lines.iter().filter(|l| matches!(l, Line::Event(e) if e.message.contains("skipped"))).count(), 5);
}

#[test]
fn damaged_files_of_checkpoints_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let recipe_of_two = recipe(&shards, &["steps=2", "eval.every=0"]);
    let out = dir.path().join("run");
    let outcome = run(&recipe_of_two, &out, false).unwrap();
    let longer = recipe(&shards, &["steps=3", "eval.every=0"]);
    for file in ["model.safetensors", "optimizer.safetensors", "config.json", "vocab.txt", "training_state.json"] {
        let path = outcome.checkpoint.join(file);
        let good = fs::read(&path).unwrap();
        let mut altered = good.clone();
        let middle = altered.len() / 2;
        altered[middle] ^= 1;
        for bad in [altered, good[..good.len() - 9].to_vec()] {
            fs::write(&path, bad).unwrap();
            let e = run(&longer, &out, true).unwrap_err();
            assert!(matches!(e, TrainError::Damaged { .. }), "{file}: {e}");
            assert!(e.to_string().contains(file), "{e}");
        }
        fs::remove_file(&path).unwrap();
        let e = run(&longer, &out, true).unwrap_err();
        assert!(e.to_string().contains(file), "{e}");
        fs::write(&path, good).unwrap();
    }
    assert_eq!(run(&longer, &out, true).unwrap().step, 3);
}

#[test]
fn a_run_with_a_time_limit_ends_on_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe(&make_shards(dir.path(), 0), &["minutes=0.02", "eval.every=0", "checkpoint.every=0"]);
    recipe.steps = None;
    let start = std::time::Instant::now();
    let mut figures = Vec::new();
    let stop = AtomicBool::new(false);
    let outcome = run_watched(&recipe, &dir.path().join("run"), false, &stop, &mut |event| {
        if let Event::Step(s) = event {
            figures.push((s.progress, s.figures.lr, s.figures.phase));
        }
    })
    .unwrap();
    assert!(outcome.finished && outcome.step > 3, "{outcome:?}");
    assert!(start.elapsed().as_secs_f64() > 1.2);
    assert!(figures.is_sorted_by(|a, b| a.0 <= b.0) && figures.is_sorted_by_key(|f| f.2));
    let peak = figures.iter().map(|f| f.1).fold(0.0, f64::max);
    assert!(peak <= 3e-3 && peak > 1.5e-3 && figures.last().unwrap().1 < peak / 2.0, "{figures:?}");
}

#[test]
fn documents_of_one_sentence_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let path = shards.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"one_sentence_documents\": 0", "\"one_sentence_documents\": 45")).unwrap();
    for (number, (pairs, expected)) in
        [("nsp=false", ""), ("nsp=true", "next sentence is always a random one"), ("sop=true", "is cut in two")]
            .iter()
            .enumerate()
    {
        let mut messages = String::new();
        let recipe = recipe(&shards, &["steps=0", "eval.every=0", &format!("objective.{pairs}")]);
        let out = dir.path().join(number.to_string());
        run_watched(&recipe, &out, false, &AtomicBool::new(false), &mut |event| {
            if let Event::Message(m) = event {
                messages += m;
            }
        })
        .unwrap();
        assert!(messages.contains(expected) && messages.is_empty() == expected.is_empty(), "{messages}");
        // Reported once, not for each phase.
        assert_eq!(messages.matches("75 % of the documents").count(), usize::from(!expected.is_empty()));
    }
}

/// The range test takes normal steps, with every optimizer and objective, and stops at the end of its range, if the loss
/// diverges, or if it is interrupted.
#[test]
fn the_range_test_finds_a_rate_at_which_the_loss_falls() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let device = Device::cpu(Some(1)).unwrap();
    let mut range = LrRange::default();
    range.lr_steps = 60;
    let go = AtomicBool::new(false);
    for overrides in [&[][..], &["optimizer.kind=lamb"], &["objective.kind=causal-lm", "objective.short_seq_prob=0"]] {
        let recipe = recipe(&shards, overrides);
        let mut seen = Vec::new();
        let found = find_lr(&recipe, &device, &range, &go, &mut |step| seen.push(*step)).unwrap();
        assert_eq!(seen, found.steps);
        assert!(!found.interrupted && found.steps[0].lr == 1e-6 && found.diverged.is_some() || found.steps.len() == 60);
        let rate = found.suggestion.unwrap_or_else(|| panic!("{overrides:?}: {found:?}"));
        assert!((1e-4..0.2).contains(&rate), "{overrides:?}: {rate}");
        // Only the wall clock could change the rates of the same test.
        let again = find_lr(&recipe, &device, &range, &go, &mut |_| ()).unwrap();
        assert_eq!(again, found);
    }
    let recipe = recipe(&shards, &[]);
    let short =
        find_lr(&recipe, &device, &range, &go, &mut |step| go.store(step.step == 4, Ordering::Relaxed)).unwrap();
    assert!(short.interrupted && short.steps.len() == 5, "{short:?}");
    go.store(false, Ordering::Relaxed);
    range.lr_minutes = 1e-6;
    let late = find_lr(&recipe, &device, &range, &go, &mut |_| ()).unwrap();
    assert!(late.steps.len() < 10 && late.steps.last().unwrap().lr == 1.0, "{late:?}");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the corpus and its shards: {left:?}");
}
