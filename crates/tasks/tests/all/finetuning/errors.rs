//! Rows, settings and weights that cannot be used.

use cloze_tasks::{AnyRows, ClassWeights};

use super::*;

#[test]
fn weights_that_are_not_finite_end_a_run_without_partial_files() {
    let bench = Bench::new(0.0);
    let mut model = Model::load(&bench.model, &bench.device).unwrap();
    let id = model.params.ids().find(|id| model.params.name(*id).ends_with("layer.1.output.dense.weight")).unwrap();
    model.params.edit(id, |values| values[5] = f32::INFINITY);
    model.save(&bench.model).unwrap();
    let (task, rows) = classifier();
    let run = |epochs: u32, dev: &[classify::Row], out: &str| {
        let settings = with!(settings(), epochs: epochs, checkpoint_every: Some(1));
        let error = bench.run(&task, [&rows, dev], &settings, out, false, &mut |_, _| ()).unwrap_err();
        let left = names(&bench.path(out));
        assert!(left.iter().all(|name| name != "model" && !name.contains("partial")), "{left:?}");
        assert!(names(&bench.path(out).join("checkpoints")).is_empty());
        error
    };
    // Ten steps, where five consecutive ones are skipped; fewer steps than that; an evaluation before that.
    let error = run(5, &[], "many");
    assert!(matches!(error, TaskError::NotFinite { step: 5 }), "{error}");
    assert_eq!(figures(&bench.path("many"), &["event"]).len(), 5);
    let error = run(1, &[], "few");
    assert!(matches!(error, TaskError::NotFinite { step: 2 }), "{error}");
    let error = run(5, &rows, "dev");
    assert!(matches!(error, TaskError::Logits(_)) && error.to_string().contains("damaged"), "{error}");
}

#[test]
fn rows_that_do_not_fit_the_model_are_errors_before_the_folder_is_created() {
    let bench = Bench::new(0.0);
    let (mut task, rows) = classifier();
    task.length.max_len = 600;
    let long = classify::Row { text: text(&"fox ".repeat(50)), label: Some(0) };
    let with_long = [&rows[..], std::slice::from_ref(&long)].concat();
    let message = |error: TaskError| {
        let message = error.to_string();
        assert!(message.contains("40 positions") && message.contains("52 tokens"), "{message}");
        assert!(message.contains("`max_len`"), "{message}");
    };
    for rows in [[&with_long[..], &rows[..]], [&rows, &with_long]] {
        message(bench.run(&task, rows, &settings(), "run", false, &mut |_, _| ()).unwrap_err());
        assert!(!bench.path("run").exists());
    }
    bench.finish(&task, [&rows, &[]], &with!(settings(), epochs: 1), "fits");
    let trained = bench.model("fits");
    // A row that does not fit does not affect the predictions of the others.
    let mut found = Rows::new(task.clone(), with_long.clone()).predict(0..with_long.len(), &trained);
    message(found.pop().unwrap().unwrap_err());
    assert!(found.iter().all(Result::is_ok) && found.len() == rows.len());
    message(main_score(&trained, &task, &with_long).unwrap_err());

    let freeze = with!(settings(), freeze: Some(LAYERS + 1));
    let message = bench.run(&task, [&rows, &[]], &freeze, "run", false, &mut |_, _| ()).unwrap_err().to_string();
    assert!(message.contains("`freeze`: expected at most 3"), "{message}");
    let weights = with!(settings(), class_weights: ClassWeights::Given(vec![1.0, 2.0]));
    let message = bench.run(&task, [&rows, &[]], &weights, "run", false, &mut |_, _| ()).unwrap_err().to_string();
    assert!(message.contains("each of the 3 classes, found 2"), "{message}");
    let none = bench.run(&task, [&[], &rows], &settings(), "run", false, &mut |_, _| ()).unwrap_err().to_string();
    assert!(none.contains("no training rows"), "{none}");
    assert!(!bench.path("run").exists());
}
