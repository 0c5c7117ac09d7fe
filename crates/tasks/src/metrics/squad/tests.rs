use serde::Deserialize;

use super::super::fixtures::{assert_close, read};
use super::*;

#[derive(Deserialize)]
struct Fixture {
    pairs: Vec<Pair>,
    sets: Vec<Set>,
}

#[derive(Deserialize)]
struct Pair {
    prediction: String,
    answers: Vec<String>,
    /// None for unanswerable questions, which v1.1 does not support.
    v1: Option<(f64, f64)>,
    v2: (f64, f64),
}

#[derive(Deserialize)]
struct Set {
    questions: Vec<(String, Vec<String>)>,
    predictions: HashMap<String, String>,
    odds: HashMap<String, f64>,
    threshold: f64,
    plain: HashMap<String, f64>,
    with_odds: HashMap<String, f64>,
}

fn borrow(questions: &[(String, Vec<String>)]) -> impl Iterator<Item = Question<'_>> {
    questions.iter().map(|(id, answers)| Question { id, answers: answers.iter().map(String::as_str).collect() })
}

#[track_caller]
fn assert_scores(found: Option<SquadScores>, expected: &HashMap<String, f64>, prefix: &str) {
    let expected = |name: &str| expected.get(&format!("{prefix}{name}")).copied();
    assert_eq!(found.map(|f| f.total as f64), expected("total"), "{prefix}total");
    let Some(found) = found else { return };
    assert_close(found.exact, expected("exact").unwrap(), 1e-10, prefix);
    assert_close(found.f1, expected("f1").unwrap(), 1e-10, prefix);
}

#[test]
fn answer_scores_equal_the_official_scripts() {
    let Fixture { pairs, .. } = read("squad");
    assert!(pairs.len() > 90 && pairs.iter().filter(|p| p.v1.is_none()).count() > 3);
    for Pair { prediction, answers, v1, v2 } in &pairs {
        let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
        let what = format!("{prediction:?} for {answers:?}");
        if let Some((exact, f1)) = *v1 {
            let found = score_v1(prediction, &answers);
            assert_eq!(found.exact, exact, "v1.1: {what}");
            assert_close(found.f1, f1, 1e-15, &format!("v1.1: {what}"));
        }
        let found = score_v2(prediction, &answers);
        assert_eq!(found.exact, v2.0, "v2.0: {what}");
        assert_close(found.f1, v2.1, 1e-15, &format!("v2.0: {what}"));
    }
}

#[test]
fn set_scores_equal_the_official_script() {
    let Fixture { sets, .. } = read("squad");
    assert!(sets.len() > 20);
    let mut thresholds = 0;
    for set in &sets {
        let plain = evaluate_v2(borrow(&set.questions), &set.predictions, None).unwrap();
        assert_scores(Some(plain.all), &set.plain, "");
        assert_scores(plain.has_answer, &set.plain, "HasAns_");
        assert_scores(plain.no_answer, &set.plain, "NoAns_");
        assert_eq!(plain.best, None);
        let odds = NullOdds { odds: &set.odds, threshold: set.threshold };
        let found = evaluate_v2(borrow(&set.questions), &set.predictions, Some(odds)).unwrap();
        assert_scores(Some(found.all), &set.with_odds, "");
        assert_scores(found.has_answer, &set.with_odds, "HasAns_");
        assert_scores(found.no_answer, &set.with_odds, "NoAns_");
        let best = found.best.unwrap();
        assert_close(best.exact, set.with_odds["best_exact"], 1e-10, "best exact");
        assert_close(best.f1, set.with_odds["best_f1"], 1e-10, "best F1");
        assert_eq!(best.exact_threshold, set.with_odds["best_exact_thresh"]);
        assert_eq!(best.f1_threshold, set.with_odds["best_f1_thresh"]);
        thresholds += usize::from(best.f1_threshold != 0.0);
        assert!(found.missing.is_empty() && found.without_odds.is_empty());
    }
    assert!(thresholds > 5, "{thresholds} thresholds other than 0");
}

fn map<V: Clone>(pairs: &[(&str, V)]) -> HashMap<String, V> {
    pairs.iter().map(|(id, value)| (id.to_string(), value.clone())).collect()
}

fn three() -> Vec<Question<'static>> {
    let question = |id, answers: &[&'static str]| Question { id, answers: answers.to_vec() };
    vec![question("1", &["cat"]), question("2", &["dog", "the dog barks"]), question("3", &[])]
}

#[test]
fn questions_without_prediction_are_wrong_and_listed() {
    let predictions = map(&[("2", "dog barks".to_string()), ("of no question", "cat".to_string())]);
    let v1 = evaluate_v1(three(), &predictions).unwrap();
    assert_eq!(v1.missing, ["1", "3"]);
    assert_eq!(v1.all, SquadScores { exact: 100.0 / 3.0, f1: 100.0 / 3.0, total: 3 });
    let v2 = evaluate_v2(three(), &predictions, None).unwrap();
    assert_eq!(v2.missing, ["1", "3"]);
    assert_eq!(v2.no_answer, Some(SquadScores { exact: 0.0, f1: 0.0, total: 1 }));
    assert_eq!(v2.all.exact, 100.0 / 3.0);
    // They are wrong at every threshold.
    let odds = map(&[("1", 9.0), ("2", -1.0), ("3", 9.0)]);
    let v2 = evaluate_v2(three(), &predictions, Some(NullOdds { odds: &odds, threshold: 0.0 })).unwrap();
    assert_eq!(v2.all.exact, 100.0 / 3.0);
    let best = BestThresholds { exact: 100.0 / 3.0, exact_threshold: -1.0, f1: 100.0 / 3.0, f1_threshold: -1.0 };
    assert_eq!((v2.best, v2.without_odds.len()), (Some(best), 0));
}

#[test]
fn questions_without_odds_are_listed() {
    let predictions = map(&[("1", "cat".to_string()), ("2", "dog".to_string()), ("3", String::new())]);
    let odds = map(&[("1", 0.5), ("3", f64::NAN)]);
    let found = evaluate_v2(three(), &predictions, Some(NullOdds { odds: &odds, threshold: 0.0 })).unwrap();
    assert_eq!(found.without_odds, ["2"]);
    // 1 is not answered, 2 keeps its prediction, 3 was empty.
    assert_close(found.all.exact, 200.0 / 3.0, 1e-12, "exact");
    let best = found.best.unwrap();
    assert_close(best.exact, 200.0 / 3.0, 1e-12, "best exact");
    assert_eq!(best.exact_threshold, 0.5);
}

#[test]
fn without_questions_there_is_no_score() {
    assert_eq!(evaluate_v1([], &HashMap::new()), None);
    assert_eq!(evaluate_v2([], &HashMap::new(), None), None);
    assert_eq!(score_v1("", &[]), AnswerScore::WRONG);
    assert_eq!(score_v2("", &[]), AnswerScore::RIGHT);
}

#[derive(Deserialize)]
struct Data {
    data: Vec<Article>,
}

#[derive(Deserialize)]
struct Article {
    paragraphs: Vec<Paragraph>,
}

#[derive(Deserialize)]
struct Paragraph {
    qas: Vec<QuestionAnswers>,
}

#[derive(Deserialize)]
struct QuestionAnswers {
    id: String,
    answers: Vec<Answer>,
}

#[derive(Deserialize)]
struct Answer {
    text: String,
}

/// The questions of a development set and the predictions that BERT's authors submitted for it.
type Submission = (Vec<(String, Vec<String>)>, HashMap<String, String>);

fn submission(version: &str) -> Option<Submission> {
    let folder = cloze_testing::real_data("squad")?;
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let data: Data = serde_json::from_str(&text(&format!("dev-{version}.json"))).unwrap();
    let predictions = serde_json::from_str(&text(&format!("bert-predictions-{version}.json"))).unwrap();
    let questions = data.data.into_iter().flat_map(|a| a.paragraphs).flat_map(|p| p.qas);
    let questions = questions.map(|q| (q.id, q.answers.into_iter().map(|a| a.text).collect())).collect();
    Some((questions, predictions))
}

#[test]
fn scores_of_berts_v1_predictions_equal_the_official_script() {
    let Some((questions, predictions)) = submission("v1.1") else { return };
    let found = evaluate_v1(borrow(&questions), &predictions).unwrap();
    assert_eq!((found.all.total, found.missing.len()), (10_570, 0));
    assert_close(found.all.exact, 86.206, 5e-4, "exact match");
    assert_close(found.all.f1, 92.196, 5e-4, "F1");
}

#[test]
fn scores_of_berts_v2_predictions_equal_the_official_script() {
    let Some((questions, predictions)) = submission("v2.0") else { return };
    let found = evaluate_v2(borrow(&questions), &predictions, None).unwrap();
    let (has, no) = (found.has_answer.unwrap(), found.no_answer.unwrap());
    assert_eq!((found.all.total, has.total, no.total, found.missing.len()), (11_873, 5_928, 5_945, 0));
    assert_close(found.all.exact, 78.742, 5e-4, "exact match");
    assert_close(found.all.f1, 81.775, 5e-4, "F1");
    assert_eq!(no.exact, no.f1);
}
