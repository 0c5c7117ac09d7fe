//! The loop, in this process: what a run leaves, resuming, refusing, stopping.

mod corpus;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cloze_data::shards::{Shards, Split};
use cloze_engine::Device;
use cloze_model::{Heads, Model};
use cloze_train::TrainError;
use cloze_train::checkpoint;
use cloze_train::evaluate::{EvaluateOptions, evaluate_folder};
use cloze_train::plan::End;
use cloze_train::pretrain::{DryRun, Outcome, PretrainEvent, State, device_of_run, dry_run, pretrain};
use cloze_train::recipe::{Precision, Recipe};
use cloze_train::run::{Line, RunFolder, read_metrics};
use cloze_train::train_loop::Event;
use corpus::{assert_same_files, losses, make_shards, make_shards_holding_out, recipe};

fn run(recipe: &Recipe, out: &Path, resume: bool) -> Result<Outcome, TrainError> {
    run_watched(recipe, out, resume, &AtomicBool::new(false), &mut |_| ())
}

/// On the device that the binary would make for the run.
fn run_watched(
    recipe: &Recipe,
    out: &Path,
    resume: bool,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(&PretrainEvent),
) -> Result<Outcome, TrainError> {
    pretrain(recipe, &device_of_run(recipe, out, resume)?, out, resume, stop, on_event)
}

fn dry(recipe: &Recipe, out: &Path, resume: bool, stop: &AtomicBool) -> Result<Option<DryRun>, TrainError> {
    dry_run(recipe, &device_of_run(recipe, out, resume)?, out, resume, stop)
}

/// Runs until a step is done, then raises the flag that a signal would raise.
fn run_until(recipe: &Recipe, out: &Path, resume: bool, last: u64) -> Outcome {
    let stop = AtomicBool::new(false);
    let mut watch = |event: &PretrainEvent| {
        if matches!(event, Event::Step(s) if s.figures.step == last) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    run_watched(recipe, out, resume, &stop, &mut watch).unwrap()
}

#[test]
fn a_run_leaves_its_folder_as_documented() {
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
    let kept: Vec<u64> = checkpoint::list(&folder).unwrap().into_iter().map(|(s, _)| s).collect();
    let best = checkpoint::verify::<State>(&outcome.checkpoint).unwrap().best.unwrap();
    assert!(kept.ends_with(&[9, 10]) || kept.ends_with(&[8, 10]), "{kept:?}");
    assert!(kept.len() <= 3 && kept.contains(&best.step), "{kept:?}, best {best:?}");
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

    // The folder serves the commands that follow.
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
    for precision in ["f32", "bf16"] {
        let recipe = recipe(&shards, &[&format!("precision={precision}")]);
        let whole = dir.path().join(format!("whole-{precision}"));
        run(&recipe, &whole, false).unwrap();
        // Interrupted between two logged lines, in each phase, on a phase's last step, in an evaluation and in the last one: those were
        // finished first, whatever time they took.
        let parts = dir.path().join(format!("parts-{precision}"));
        for (i, last) in [3, 7, 8, 10].into_iter().enumerate() {
            let outcome = run_until(&recipe, &parts, i > 0, last);
            assert!(!outcome.finished && outcome.step == last && outcome.model.is_none());
            // What can be used meanwhile is the model so far.
            let so_far = checkpoint::path_of(&RunFolder::new(&parts), last);
            for file in ["config.json", "model.safetensors", "vocab.txt"] {
                assert_eq!(fs::read(parts.join("model").join(file)).unwrap(), fs::read(so_far.join(file)).unwrap());
            }
            let lines = read_metrics(&parts.join("metrics.jsonl")).unwrap();
            let logged = lines.iter().filter(|l| matches!(l, Line::Train(_))).map(Line::step).max();
            assert_eq!(logged, Some(last), "the last step is logged");
            assert!(
                !lines.iter().any(|l| matches!(l, Line::Eval(eval) if eval.step == last)),
                "an evaluation at step {last}"
            );
        }
        run(&recipe, &parts, true).unwrap();
        assert_same_files(&whole.join("model"), &parts.join("model"));
        assert_same_files(&whole.join("checkpoints/step-00000010"), &parts.join("checkpoints/step-00000010"));
        assert_eq!(losses(&whole), losses(&parts));
        // A finished run, resumed, is finished.
        let again = run(&recipe, &parts, true).unwrap();
        assert!(again.finished && again.step == 10);
        assert_same_files(&whole.join("model"), &parts.join("model"));
    }
}

/// `precision = "auto"` and the instruction set are chosen when a run begins, and kept: another choice would change its numbers.
#[test]
fn a_resumed_run_keeps_the_precision_and_instruction_set_that_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let automatic = recipe(&shards, &["precision=auto"]);
    let kept = |out: &Path| Recipe::open_unchecked(&out.join("recipe.toml")).unwrap();

    let out = dir.path().join("auto");
    run_until(&automatic, &out, false, 1);
    let device = Device::cpu(None).unwrap();
    assert_eq!(kept(&out).precision, Precision::Auto.resolved(&device));
    assert_ne!(kept(&out).precision, Precision::Auto);
    assert_eq!(kept(&out).instruction_set.as_deref(), Some(device.instruction_set()));

    // One of the two types is not what `auto` stands for here, and no machine finds `portable` the fastest.
    for read_settings in ["precision=f32", "precision=bf16"] {
        let asked = recipe(&shards, &[read_settings, "instruction_set=portable"]);
        let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(format!("{name}-{read_settings}")));
        run(&asked, &whole, false).unwrap();
        run_until(&asked, &parts, false, 3);
        run(&automatic, &parts, true).unwrap();
        assert_same_files(&whole.join("model"), &parts.join("model"));
        assert_eq!(kept(&parts), kept(&whole));
    }

    // On a machine without the instruction set that it began with a run goes on with another, and says so.
    let elsewhere = if cfg!(target_arch = "x86_64") { "neon" } else { "avx2" };
    let text = fs::read_to_string(out.join("recipe.toml")).unwrap();
    let here = format!("instruction_set = \"{}\"", device.instruction_set());
    assert!(text.contains(&here), "{text}");
    fs::write(out.join("recipe.toml"), text.replace(&here, &format!("instruction_set = \"{elsewhere}\""))).unwrap();
    run(&automatic, &out, true).unwrap();
    assert_eq!(kept(&out).instruction_set.as_deref(), Some(device.instruction_set()));
    let lines = read_metrics(&out.join("metrics.jsonl")).unwrap();
    assert!(lines.iter().any(|line| matches!(line, Line::Event(event) if event.message.contains("instruction_set"))));
    // Asked for by the user, it is an error, unless `CLOZE_CPU` comes first.
    if std::env::var_os("CLOZE_CPU").is_none_or(|word| word.is_empty()) {
        let refused = run(&recipe(&shards, &[&format!("instruction_set={elsewhere}")]), &dir.path().join("no"), false);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(elsewhere), "{refused}");
    }
}

#[test]
fn a_longer_run_may_follow_but_not_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let short = recipe(&shards, &["steps=3"]);
    let out = dir.path().join("run");
    run(&short, &out, false).unwrap();
    let e = run(&short, &out, false).unwrap_err().to_string();
    assert!(e.contains("--resume"), "{e}");
    let e = run(&recipe(&shards, &["steps=3", "optimizer.lr=1"]), &out, true).unwrap_err().to_string();
    assert!(e.contains("optimizer.lr"), "{e}");
    let longer = run(&recipe(&shards, &["steps=5"]), &out, true).unwrap();
    assert_eq!(longer.step, 5);
    // Two micro-batches a step, each learned once: of the first phase two steps before and one more now, two of the second.
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

/// The last evaluation came after the last checkpoint was saved, so that `best` pointed elsewhere or nowhere.
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
    // A killed run had not pointed at it yet: the next one does.
    fs::remove_file(folder.best()).unwrap();
    run(&recipe, &out, true).unwrap();
    assert!(folder.best().exists());
    let scored = read_metrics(&folder.metrics()).unwrap().iter().filter(|l| matches!(l, Line::Eval(_))).count();
    assert_eq!(scored, 1, "a finished run is not scored again");
}

/// The figures of a finished run's last steps were logged again after "finished", and a session without a step said nothing: such
/// runs were taken for interrupted ones.
#[test]
fn a_finished_run_says_so_last_however_it_came_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let says_so_last = |out: &Path| {
        let lines = read_metrics(&out.join("metrics.jsonl")).unwrap();
        matches!(lines.last(), Some(Line::Event(event)) if event.message.starts_with("finished after step"))
    };
    let incomplete = recipe(&shards, &["steps=5", "log.every=4", "eval.every=0"]);
    let out = dir.path().join("incomplete");
    run(&incomplete, &out, false).unwrap();
    assert!(says_so_last(&out));
    run(&incomplete, &out, true).unwrap();
    assert!(says_so_last(&out), "resumed without a step");

    // Interrupted, then made so short that it is over.
    let out = dir.path().join("short");
    run_until(&incomplete, &out, false, 3);
    assert!(!says_so_last(&out));
    let outcome = run(&recipe(&shards, &["steps=3", "log.every=4", "eval.every=0"]), &out, true).unwrap();
    assert!(outcome.finished && outcome.step == 3 && says_so_last(&out));
}

/// Only multiples of log.every were logged: a report showed "20 steps" of a run of 21.
#[test]
fn the_last_step_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let recipe = recipe(&shards, &["log.every=4", "eval.every=0"]);
    let logged = |out: &Path| -> Vec<u64> {
        let lines = read_metrics(&out.join("metrics.jsonl")).unwrap();
        lines.iter().filter(|l| matches!(l, Line::Train(_))).map(Line::step).collect()
    };
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    run(&recipe, &whole, false).unwrap();
    assert_eq!(logged(&whole), [4, 8, 10]);
    for (i, (last, lines)) in [(3, vec![3]), (4, vec![4]), (9, vec![4, 8, 9])].into_iter().enumerate() {
        run_until(&recipe, &parts, i > 0, last);
        assert_eq!(logged(&parts), lines);
    }
    run(&recipe, &parts, true).unwrap();
    assert_eq!(losses(&whole), losses(&parts));
    // No line is repeated or lost when a finished run is resumed; a longer run logs as an uninterrupted one.
    run(&recipe, &parts, true).unwrap();
    assert_eq!(losses(&whole), losses(&parts));
    let mut longer = recipe.clone();
    longer.steps = Some(12);
    run(&longer, &parts, true).unwrap();
    assert_eq!(logged(&parts), [4, 8, 12]);
}

#[test]
fn intervals_may_be_shares_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let recipe =
        recipe(&shards, &["steps=9", "eval.every=50%", "checkpoint.every=25 %", "log.every=20 %", "checkpoint.keep=9"]);
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    run(&recipe, &whole, false).unwrap();
    let lines = read_metrics(&whole.join("metrics.jsonl")).unwrap();
    let steps =
        |wanted: fn(&Line) -> bool| -> Vec<u64> { lines.iter().filter(|l| wanted(l)).map(Line::step).collect() };
    assert_eq!(steps(|l| matches!(l, Line::Train(_))), [2, 4, 6, 8, 9]);
    assert_eq!(steps(|l| matches!(l, Line::Eval(_))), [5, 9]);
    let kept: Vec<u64> = checkpoint::list(&RunFolder::new(&whole)).unwrap().into_iter().map(|(s, _)| s).collect();
    assert_eq!(kept, [3, 5, 7, 9]);
    for (i, last) in [2, 5].into_iter().enumerate() {
        run_until(&recipe, &parts, i > 0, last);
    }
    run(&recipe, &parts, true).unwrap();
    assert_eq!(losses(&whole), losses(&parts));
    assert_same_files(&whole.join("model"), &parts.join("model"));
}

#[test]
fn a_dry_run_says_how_long_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let out = dir.path().join("run");
    let go = AtomicBool::new(false);
    let dry_here = |recipe: &Recipe, resume: bool| dry(recipe, &out, resume, &go);
    let asked = recipe(&shards, &["steps=1000", "eval.every=100"]);
    let said = dry_here(&asked, false).unwrap().unwrap();
    assert!(!out.exists());
    assert_eq!((said.end, said.step), (End::Steps(1000), 0));
    let phases = &said.estimate.phases;
    assert_eq!(phases.iter().map(|p| p.steps).collect::<Vec<_>>(), [700.0, 300.0]);
    assert!(phases.iter().all(|p| p.step_tokens > 20.0 && p.step_seconds > 0.0), "{phases:?}");
    let steps: f64 = phases.iter().map(|p| p.seconds).sum();
    assert!(said.estimate.seconds > steps && said.estimate.seconds < 2.0 * steps, "evaluations count: {said:?}");
    assert!(said.parameters > 1000 && said.corpus_tokens > 1000);

    // The rest of a run; a folder in use; what the run itself would refuse; an interrupt.
    run_until(&asked, &out, false, 3);
    let rest = dry_here(&asked, true).unwrap().unwrap();
    assert_eq!((rest.step, rest.estimate.phases[0].steps), (3, 697.0));
    assert!(matches!(dry_here(&asked, false), Err(TrainError::RunExists(_))));
    // Where there are both, what ends the run is what it comes to first, not what it is nearer to at its start.
    let by_clock = dry_here(&recipe(&shards, &["steps=100000000", "minutes=1"]), true).unwrap().unwrap();
    assert_eq!(by_clock.end, End::Seconds(60.0));
    let by_steps = dry_here(&recipe(&shards, &["steps=10", "minutes=1000"]), true).unwrap().unwrap();
    assert_eq!(by_steps.end, End::Steps(10));
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let refused = dry_here(&recipe(&make_shards(&other, 1), &["steps=1000"]), true);
    assert!(matches!(refused, Err(TrainError::OtherShards { .. })));
    assert!(matches!(dry_here(&recipe(&shards, &["optimizer.lr=1"]), true), Err(TrainError::RecipeChanged { .. })));
    assert_eq!(dry(&asked, &dir.path().join("x"), false, &AtomicBool::new(true)).unwrap(), None);
}

/// With several documents of which one is held out, pre-training with sentence pairs refused to begin; before that, it died at
/// its first evaluation.
#[test]
fn one_held_out_document_is_scored_without_sentence_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let one = (1..100)
        .map(|i| {
            let place = dir.path().join(i.to_string());
            fs::create_dir(&place).unwrap();
            make_shards_holding_out(&place, 0, f64::from(i) / 400.0)
        })
        .find(|shards| Shards::open(shards).unwrap().split(Split::Valid).len() == 1)
        .expect("a share that holds out one document");
    let out = dir.path().join("run");
    let mut messages = Vec::new();
    run_watched(&recipe(&one, &["steps=2", "eval.every=1"]), &out, false, &AtomicBool::new(false), &mut |event| {
        if let Event::Message(m) = event {
            messages.push(m.clone());
        }
    })
    .unwrap();
    assert!(messages.len() == 1 && messages[0].contains("score masked tokens alone"), "{messages:?}");
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

/// Weight decay shrank the heads of a checkpoint that the objective leaves alone.
#[test]
fn heads_that_are_not_trained_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let (first, next) = (dir.path().join("first"), dir.path().join("next"));
    run(&recipe(&shards, &["steps=0"]), &first, false).unwrap();
    let mut alone = recipe(&shards, &["steps=4", "objective.nsp=false", "optimizer.weight_decay=0.5"]);
    alone.model = Default::default();
    alone.model.init = Some(first.join("model"));
    run_until(&alone, &next, false, 2);
    run(&alone, &next, true).unwrap();
    let [before, after] =
        [first, next].map(|run| Model::load(&run.join("model"), &Device::cpu(Some(1)).unwrap()).unwrap());
    for id in before.params.ids() {
        let name = before.params.name(id);
        let rests = name.starts_with("bert.pooler.") || name.starts_with("cls.seq_relationship.");
        let same = before.params.read(id) == after.params.read(id);
        assert_eq!(same, rests, "{name}");
    }
}

#[test]
fn no_steps_write_the_first_model_and_a_run_can_start_from_it() {
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
    // The same weights and batches: as if it had not stopped.
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    run(&recipe(&shards, &["steps=4"]), &a, false).unwrap();
    run_until(&from(&shards, &[]), &b, false, 2);
    // What it began with may be gone.
    let moved = dir.path().join("moved");
    fs::rename(&first, &moved).unwrap();
    let rest = dry(&from(&shards, &[]), &b, true, &AtomicBool::new(false)).unwrap().unwrap();
    assert_eq!(rest.estimate.steps(), 2.0);
    run(&from(&shards, &[]), &b, true).unwrap();
    fs::rename(&moved, &first).unwrap();
    assert_same_files(&a.join("model"), &b.join("model"));

    // Without a head that the objective needs, it is new.
    let (alone, both) = (dir.path().join("alone"), dir.path().join("both"));
    run(&recipe(&shards, &["steps=0", "objective.nsp=false"]), &alone, false).unwrap();
    let mut with_nsp = from(&shards, &[]);
    with_nsp.model.init = Some(alone.join("model"));
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
    assert!(!dir.path().join("c").exists(), "nothing is made of a run that cannot start");
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    let e = run(&from(&make_shards(&other, 3), &[]), &dir.path().join("d"), false).unwrap_err();
    assert!(matches!(e, TrainError::OtherTokenizer { .. }), "{e}");
}

#[test]
fn a_causal_language_model_is_trained_resumed_evaluated_and_continued() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let causal = recipe(&shards, &["objective.kind=causal-lm"]);
    let [whole, parts] = ["whole", "parts"].map(|name| dir.path().join(name));
    let outcome = run(&causal, &whole, false).unwrap();
    for (i, last) in [3, 8].into_iter().enumerate() {
        run_until(&causal, &parts, i > 0, last);
    }
    run(&causal, &parts, true).unwrap();
    assert_same_files(&whole.join("model"), &parts.join("model"));
    assert_eq!(losses(&whole), losses(&parts));

    let text = fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
    assert!(text.contains("\"clm_loss\":") && text.contains("\"clm_perplexity\":"), "{text}");
    assert!(!text.contains("mlm_") && !text.contains("nsp_"), "{text}");
    let best = checkpoint::verify::<State>(&outcome.checkpoint).unwrap().best.unwrap();
    assert_eq!(best.loss.keys().collect::<Vec<_>>(), ["clm_loss"]);
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(whole.join("model/config.json")).unwrap()).unwrap();
    assert_eq!((&config["is_decoder"], &config["architectures"][0]), (&true.into(), &"BertLMHeadModel".into()));

    let device = Device::cpu(Some(1)).unwrap();
    let mut options = EvaluateOptions::default();
    options.precision = Precision::F32;
    options.seq_len = 32;
    let scores = evaluate_folder(&whole.join("model"), &shards, &device, &options, |_| ()).unwrap();
    let clm = scores.losses.get("clm").unwrap();
    assert_eq!(clm.perplexity, clm.loss.map(f64::exp));
    assert_eq!((scores.losses.iter().count(), scores.predicted), (1, scores.tokens - scores.sequences));

    // It can be continued, by its own objective alone.
    let continued = |kind: &str, init: &Path| {
        let mut recipe = recipe(&shards, &["steps=2", kind]);
        recipe.model = Default::default();
        recipe.model.init = Some(init.to_owned());
        recipe
    };
    run(&continued("objective.kind=causal-lm", &whole.join("model")), &dir.path().join("next"), false).unwrap();
    let refused = run(&continued("objective.kind=masked-lm", &whole.join("model")), &dir.path().join("no"), false);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("model.init") && refused.contains("is a causal language model"), "{refused}");
    let bert = dir.path().join("bert");
    run(&recipe(&shards, &["steps=0"]), &bert, false).unwrap();
    let refused = run(&continued("objective.kind=causal-lm", &bert.join("model")), &dir.path().join("no"), false);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("is not a causal language model (BertLMHeadModel)"), "{refused}");
    assert!(!dir.path().join("no").exists());
}

#[test]
fn steps_that_are_not_finite_are_skipped_then_stop_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let out = dir.path().join("run");
    let options = ["steps=40", "eval.every=0", "checkpoint.every=2", "log.every=1"];
    run_until(&recipe(&shards, &options), &out, false, 4);
    // Poison the weights on disk, with checksums that fit: what training would do with a rate far too high.
    let folder = RunFolder::new(&out);
    let device = Device::cpu(Some(1)).unwrap();
    let (_, path) = checkpoint::list(&folder).unwrap().pop().unwrap();
    let mut loaded = checkpoint::load::<Model, State>(&path, &device).unwrap();
    loaded.network.params.edit_all(|values| values[40] = f32::INFINITY);
    let tokenizer = cloze_text::Tokenizer::open(&path).unwrap();
    loaded.state.step = 5;
    checkpoint::save(&folder, loaded.state.step, &loaded.network, &loaded.moments, &tokenizer, &loaded.state).unwrap();
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
    // Nothing was saved over what was there while steps were bad.
    assert!(last.ends_with("step-00000005"), "{e}");
    checkpoint::verify::<State>(&checkpoint::path_of(&folder, 4)).unwrap();
    let lines = read_metrics(&folder.metrics()).unwrap();
    assert_eq!(lines.iter().filter(|l| matches!(l, Line::Event(e) if e.message.contains("skipped"))).count(), 5);
}

#[test]
fn damaged_checkpoints_are_named_file_by_file() {
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
fn by_the_clock_the_run_ends_on_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe(&make_shards(dir.path(), 0), &["minutes=0.02", "eval.every=0", "checkpoint.every=0"]);
    recipe.steps = None;
    let began = std::time::Instant::now();
    let mut figures = Vec::new();
    let stop = AtomicBool::new(false);
    let outcome = run_watched(&recipe, &dir.path().join("run"), false, &stop, &mut |event| {
        if let Event::Step(s) = event {
            figures.push((s.progress, s.figures.lr, s.figures.phase));
        }
    })
    .unwrap();
    assert!(outcome.finished && outcome.step > 3, "{outcome:?}");
    assert!(began.elapsed().as_secs_f64() > 1.2);
    assert!(figures.is_sorted_by(|a, b| a.0 <= b.0) && figures.is_sorted_by_key(|f| f.2));
    let peak = figures.iter().map(|f| f.1).fold(0.0, f64::max);
    assert!(peak <= 3e-3 && peak > 1.5e-3 && figures.last().unwrap().1 < peak / 2.0, "{figures:?}");
}
