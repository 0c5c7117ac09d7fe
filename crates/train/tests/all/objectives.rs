//! Each objective and each family: trained, resumed, evaluated.

use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use crate::corpus::{assert_same_files, losses, make_shards, recipe};
use crate::pretraining::{dry, run, run_until};
use cloze_data::shards::{Shards, Split};
use cloze_engine::Device;
use cloze_model::{Config, Heads, Model};
use cloze_text::Tokenizer;
use cloze_train::checkpoint;
use cloze_train::evaluate::{EvaluateOptions, evaluate_folder};
use cloze_train::pretrain::State;
use cloze_train::recipe::{Precision, Recipe};
use cloze_train::run::{Line, read_metrics};

#[test]
fn a_causal_language_model_is_trained_resumed_evaluated_and_continued() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let causal = recipe(&shards, &["objective.kind=causal-lm"]);
    let [uninterrupted, interrupted] = ["uninterrupted", "interrupted"].map(|name| dir.path().join(name));
    let outcome = run(&causal, &uninterrupted, false).unwrap();
    for (i, last) in [3, 8].into_iter().enumerate() {
        run_until(&causal, &interrupted, i > 0, last);
    }
    run(&causal, &interrupted, true).unwrap();
    assert_same_files(&uninterrupted.join("model"), &interrupted.join("model"));
    assert_eq!(losses(&uninterrupted), losses(&interrupted));

    let text = fs::read_to_string(uninterrupted.join("metrics.jsonl")).unwrap();
    assert!(text.contains("\"clm_loss\":") && text.contains("\"clm_perplexity\":"), "{text}");
    assert!(!text.contains("mlm_") && !text.contains("nsp_"), "{text}");
    let best = checkpoint::verify::<State>(&outcome.checkpoint).unwrap().best.unwrap();
    assert_eq!(best.loss.keys().collect::<Vec<_>>(), ["clm_loss"]);
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(uninterrupted.join("model/config.json")).unwrap()).unwrap();
    assert_eq!((&config["is_decoder"], &config["architectures"][0]), (&true.into(), &"BertLMHeadModel".into()));

    let device = Device::cpu(Some(1)).unwrap();
    let mut options = EvaluateOptions::default();
    options.precision = Precision::F32;
    options.seq_len = 32;
    let scores = evaluate_folder(&uninterrupted.join("model"), &shards, &device, &options, |_| ()).unwrap();
    let clm = scores.losses.get("clm").unwrap();
    assert_eq!(clm.perplexity, clm.loss.map(f64::exp));
    assert_eq!((scores.losses.iter().count(), scores.predicted), (1, scores.tokens - scores.sequences));
    // The complete text was scored: the code length of the text, divided by its characters.
    let characters = Shards::open(&shards).unwrap().manifest.split(Split::Valid).characters().unwrap();
    let bits = clm.loss.unwrap() * scores.predicted as f64 / std::f64::consts::LN_2;
    assert!((clm.bits_per_character.unwrap() - bits / characters as f64).abs() < 1e-9, "{clm:?}");

    // It can be continued, but only with its own objective.
    let continued = |kind: &str, init: &Path| {
        let mut recipe = recipe(&shards, &["steps=2", kind]);
        recipe.model = Default::default();
        recipe.model.init = Some(init.to_owned());
        recipe
    };
    run(&continued("objective.kind=causal-lm", &uninterrupted.join("model")), &dir.path().join("next"), false).unwrap();
    let rejected =
        run(&continued("objective.kind=masked-lm", &uninterrupted.join("model")), &dir.path().join("no"), false);
    let rejected = rejected.unwrap_err().to_string();
    assert!(rejected.contains("model.init") && rejected.contains("is a causal language model"), "{rejected}");
    let bert = dir.path().join("bert");
    run(&recipe(&shards, &["steps=0"]), &bert, false).unwrap();
    let rejected = run(&continued("objective.kind=causal-lm", &bert.join("model")), &dir.path().join("no"), false);
    let rejected = rejected.unwrap_err().to_string();
    assert!(rejected.contains("is not a causal language model (BertLMHeadModel)"), "{rejected}");
    assert!(!dir.path().join("no").exists());
}

/// The masking rate follows the run's progress, and batches that were prepared in advance do not depend on it.
#[test]
fn a_schedule_of_the_masking_rate_resumes_bit_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = ["objective.rate=0.5", "objective.final_rate=0.1", "objective.masking=span", "log.every=1"];
    let recipe = recipe(&make_shards(dir.path(), 0), &overrides);
    let (uninterrupted, interrupted) = (dir.path().join("uninterrupted"), dir.path().join("interrupted"));
    run(&recipe, &uninterrupted, false).unwrap();
    for (i, last) in [3, 7].into_iter().enumerate() {
        run_until(&recipe, &interrupted, i > 0, last);
    }
    run(&recipe, &interrupted, true).unwrap();
    assert_same_files(&uninterrupted.join("model"), &interrupted.join("model"));
    assert_eq!(losses(&uninterrupted), losses(&interrupted));
}

#[test]
fn sentence_order_is_learned_logged_and_remembered_by_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let recipe = recipe(&shards, &["objective.sop=true", "steps=4"]);
    let out = dir.path().join("run");
    let outcome = run(&recipe, &out, false).unwrap();
    for line in read_metrics(&out.join("metrics.jsonl")).unwrap() {
        match line {
            Line::Train(t) => assert!(t.losses.loss("sop").is_some() && t.losses.get("nsp").is_none(), "{t:?}"),
            Line::Eval(e) => assert!(e.losses.accuracy("sop").is_some() && e.losses.get("nsp").is_none(), "{e:?}"),
            _ => {}
        }
    }
    let held_out = outcome.evaluation.unwrap().losses;
    let mlm = held_out.get("mlm").unwrap();
    // The perplexity is per token; the text has between three and six characters per token.
    let nats_per_character = mlm.bits_per_character.unwrap() * std::f64::consts::LN_2;
    assert!((3.0..6.0).contains(&(mlm.loss.unwrap() / nats_per_character)), "{mlm:?}");
    assert!(held_out.get("sop").unwrap().bits_per_character.is_none());

    let mut options = EvaluateOptions::default();
    options.precision = Precision::F32;
    options.seq_len = 32;
    let device = Device::cpu(Some(1)).unwrap();
    let scores = evaluate_folder(&out.join("model"), &shards, &device, &options, |_| ()).unwrap();
    assert!(scores.losses.accuracy("sop").is_some() && scores.losses.get("nsp").is_none(), "{scores:?}");

    // A run of next-sentence prediction that starts from this model trains the same head, and says so.
    let mut next = crate::corpus::recipe(&shards, &["steps=1", "eval.every=0"]);
    next.model = Default::default();
    next.model.init = Some(out.join("model"));
    run(&next, &dir.path().join("next"), false).unwrap();
    let scores = evaluate_folder(&dir.path().join("next/model"), &shards, &device, &options, |_| ()).unwrap();
    assert!(scores.losses.accuracy("nsp").is_some() && scores.losses.get("sop").is_none(), "{scores:?}");
}

/// A run of a causal and then a masked language model: the losses of both are logged, only the evaluations of the last
/// objective are compared, the final model is a masked language model, and resuming is bit-exact in both parts.
#[test]
fn causal_first_and_then_masked_in_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let recipe = recipe(
        &shards,
        &[
            "objective.nsp=false",
            "phase.0.objective=causal-lm",
            "phase.0.share=0.5",
            "phase.1.share=0.5",
            "log.every=4",
        ],
    );
    let (uninterrupted, interrupted) = (dir.path().join("uninterrupted"), dir.path().join("interrupted"));
    let outcome = run(&recipe, &uninterrupted, false).unwrap();
    // Also at the boundary, step 5, with the evaluation and the line that are due there.
    for (i, last) in [2, 4, 5, 6].into_iter().enumerate() {
        run_until(&recipe, &interrupted, i > 0, last);
        let model = Model::load(&interrupted.join("model"), &Device::cpu(Some(1)).unwrap()).unwrap();
        assert_eq!(model.architecture().causal, last <= 5, "after step {last}");
    }
    run(&recipe, &interrupted, true).unwrap();
    assert_same_files(&uninterrupted.join("model"), &interrupted.join("model"));
    assert_eq!(losses(&uninterrupted), losses(&interrupted));

    let (mut trained, mut scored) = (Vec::new(), Vec::new());
    for line in read_metrics(&uninterrupted.join("metrics.jsonl")).unwrap() {
        let names = |losses: &cloze_train::run::LossFigures| {
            losses.iter().filter(|figure| figure.loss.is_some()).map(|figure| figure.name.clone()).collect::<Vec<_>>()
        };
        match line {
            Line::Train(t) => trained.push((t.step, names(&t.losses).join(" "))),
            Line::Eval(e) => {
                assert!(e.losses.iter().all(|figure| figure.loss.is_none() || figure.bits_per_character.is_some()));
                scored.push((e.step, names(&e.losses).join(" ")));
            }
            _ => {}
        }
    }
    // No line has the losses of both.
    let named =
        |steps: &[(u64, &str)]| steps.iter().map(|(step, name)| (*step, (*name).to_owned())).collect::<Vec<_>>();
    assert_eq!(trained, named(&[(4, "clm"), (5, "clm"), (8, "mlm"), (10, "mlm")]));
    assert_eq!(scored, named(&[(4, "clm"), (8, "mlm"), (10, "mlm")]));
    let best = checkpoint::verify::<State>(&outcome.checkpoint).unwrap().best.unwrap();
    assert!(best.step > 5 && best.loss.contains_key("mlm_loss"), "{best:?}");
    let model = Model::load(&uninterrupted.join("model"), &Device::cpu(Some(1)).unwrap()).unwrap();
    assert_eq!((model.class_name(), model.architecture().causal), ("BertForMaskedLM", false));
    // The dry run measures both objectives.
    let measured = dry(&recipe, &dir.path().join("dry"), false, &AtomicBool::new(false)).unwrap().unwrap();
    assert_eq!(measured.estimate.phases.len(), 2);
}

/// Every family is pre-trained, saved under its names, and continued; replaced-token detection writes two models.
#[test]
fn every_family_is_pretrained_and_resumes_bit_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let shards = make_shards(dir.path(), 0);
    let electra = ["model.family=electra", "model.embedding_size=8"];
    let cases: [(&str, &[&str], &str); 8] = [
        ("modernbert", &["model.family=modernbert", "model.local_attention=4"], "ModernBertForMaskedLM"),
        ("mpnet", &["model.family=mpnet", "model.max_position_embeddings=66"], "MPNetForMaskedLM"),
        ("roberta", &["model.family=roberta", "model.max_position_embeddings=66"], "RobertaForMaskedLM"),
        ("distilbert", &["model.family=distilbert"], "DistilBertForMaskedLM"),
        ("albert", &["model.family=albert", "model.embedding_size=8", "objective.sop=true"], "AlbertForPreTraining"),
        ("generator", &electra, "ElectraForMaskedLM"),
        ("shared", &["model.shared_parts=attention"], "BertForMaskedLM"),
        ("rtd", &[electra[0], electra[1], "objective.kind=rtd", "objective.mask=0.85"], "ElectraForPreTraining"),
    ];
    for (name, overrides, class) in cases {
        let overrides = [overrides, &["objective.nsp=false", "precision=f32"]].concat();
        let recipe = recipe(&shards, &overrides);
        let (whole, parts) = (dir.path().join(name), dir.path().join(format!("{name}-parts")));
        run(&recipe, &whole, false).unwrap();
        for (i, last) in [3, 7].into_iter().enumerate() {
            run_until(&recipe, &parts, i > 0, last);
        }
        run(&recipe, &parts, true).unwrap();
        let folders: &[&str] = if name == "rtd" { &["discriminator", "generator"] } else { &[""] };
        for folder in folders {
            assert_same_files(&whole.join("model").join(folder), &parts.join("model").join(folder));
        }
        assert_eq!(losses(&whole), losses(&parts), "{name}");
        let model = Model::load(&whole.join("model").join(folders[0]), &Device::cpu(Some(1)).unwrap()).unwrap();
        assert_eq!(model.class_name(), class);
        assert!(whole.join("model").join(folders[0]).join("tokenizer.json").is_file());
        if name == "rtd" {
            let lines = read_metrics(&whole.join("metrics.jsonl")).unwrap();
            let both =
                |losses: &cloze_train::run::LossFigures| losses.loss("rtd").is_some() && losses.loss("mlm").is_some();
            assert!(lines.iter().any(|line| matches!(line, Line::Eval(eval) if both(&eval.losses))));
        }
    }
}

/// A teacher of these sizes in `dir`, with the tokenizer of the shards.
fn save_teacher(dir: &Path, shards: &Path, hidden_size: usize, spare: usize, heads: Heads) {
    let tokenizer = Tokenizer::open(&Shards::open(shards).unwrap().tokenizer_dir()).unwrap();
    let mut config = Config::default();
    config.vocab_size = tokenizer.vocab_size() + spare;
    config.hidden_size = hidden_size;
    config.num_hidden_layers = 3;
    config.num_attention_heads = 2;
    config.intermediate_size = 64;
    config.max_position_embeddings = 64;
    Model::new(config, heads, &Device::cpu(Some(1)).unwrap(), 3).unwrap().save(dir).unwrap();
    tokenizer.save_for(dir, 64).unwrap();
}

#[test]
fn a_distillation_is_resumed_bit_exactly_and_needs_the_same_teacher() {
    let dir = tempfile::tempdir().unwrap();
    let (shards, teacher) = (make_shards(dir.path(), 0), dir.path().join("teacher"));
    save_teacher(&teacher, &shards, 32, 0, Heads::MLM);
    let of = |overrides: &[&str]| {
        let teacher = format!("objective.teacher={}", teacher.display());
        recipe(&shards, &[&["objective.kind=distill", &teacher], overrides].concat())
    };
    let relations = ["objective.relation_weight=1", "objective.relation_heads=4"];
    let distilbert = ["model.family=distilbert", "objective.init_from_teacher=true", "precision=bf16"];
    let all_losses = of(&[&distilbert[..], &relations].concat());
    let weights = ["objective.mlm_weight=0", "objective.kl_weight=0", "objective.cosine_weight=0"];
    let minilm = of(&[&["model.hidden_size=24"], &weights[..], &relations].concat());
    for (name, recipe, names) in
        [("all", &all_losses, &["mlm", "kl", "cosine", "relation"][..]), ("minilm", &minilm, &["relation"])]
    {
        let [uninterrupted, interrupted] =
            ["uninterrupted", "interrupted"].map(|kind| dir.path().join(format!("{kind}-{name}")));
        let outcome = run(recipe, &uninterrupted, false).unwrap();
        run_until(recipe, &interrupted, false, 3);
        run(recipe, &interrupted, true).unwrap();
        assert_same_files(&uninterrupted.join("model"), &interrupted.join("model"));
        assert_eq!(losses(&uninterrupted), losses(&interrupted));
        let evaluation = outcome.evaluation.unwrap();
        assert!(
            evaluation.losses.iter().map(|figure| figure.name.as_str()).eq(names.iter().copied()),
            "{evaluation:?}"
        );
        assert!(evaluation.losses.iter().all(|figure| figure.loss.is_some_and(|loss| loss > 0.0)), "{evaluation:?}");
    }
    let class = |run: &str| Model::load(&dir.path().join(run).join("model"), &Device::cpu(Some(1)).unwrap()).unwrap();
    assert_eq!(class("uninterrupted-all").class_name(), "DistilBertForMaskedLM");
    assert_eq!(class("uninterrupted-minilm").class_name(), "BertModel");
    let estimate = dry(&all_losses, &dir.path().join("dry"), false, &AtomicBool::new(false)).unwrap();
    assert!(estimate.unwrap().estimate.seconds > 0.0);

    let error = |recipe: &Recipe, out: &str, resume: bool| {
        run(recipe, &dir.path().join(out), resume).map(|_| ()).unwrap_err().to_string()
    };
    for (overrides, expected) in [
        (
            &["model.hidden_size=24"][..],
            "`objective.cosine_weight` compares hidden states of equal widths: that of the teacher is 32",
        ),
        (
            &["model.num_hidden_layers=4", "objective.init_from_teacher=true"],
            "the student has 4 layers, more than the teacher's 3",
        ),
        (
            &["objective.relation_weight=1"],
            "`objective.relation_heads` is 48; expected a divisor of the teacher's hidden_size, 32",
        ),
        (&[relations[0], relations[1], "objective.relation_layer=4"], "is 4, but the teacher only has 3 layers"),
    ] {
        let found = error(&of(overrides), "rejected", false);
        assert!(found.contains(expected), "{found}");
    }
    save_teacher(&teacher, &shards, 32, 3, Heads::MLM);
    let found = error(&all_losses, "interrupted-all", true);
    assert!(found.contains("embeddings, but its tokenizer has 30 tokens"), "{found}");
    let found = error(&minilm, "interrupted-minilm", true);
    assert!(found.contains("this is not the teacher with which the run was started"), "{found}");
    save_teacher(&teacher, &shards, 32, 0, Heads::NONE);
    let found = error(&all_losses, "rejected", false);
    assert!(found.contains("the model has no masked-language-model head"), "{found}");
    let other = tempfile::tempdir().unwrap();
    save_teacher(&teacher, &make_shards(other.path(), 2), 32, 0, Heads::MLM);
    let found = error(&all_losses, "rejected", false);
    assert!(found.contains("prepared with another tokenizer"), "{found}");
    assert!(!dir.path().join("rejected").exists());
}
