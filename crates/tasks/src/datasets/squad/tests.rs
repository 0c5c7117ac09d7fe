use super::*;
use crate::datasets::testing::{fails, file, shared_data};

/// A SQuAD file of one paragraph.
fn squad(context: &str, qas: &str) -> String {
    let context = serde_json::to_string(context).unwrap();
    format!(
        "{{\"version\": \"1.1\", \"data\": [{{\"title\": \"T\", \"paragraphs\":\n[{{\"context\": {context}, \"qas\": [{qas}]}}]}}]}}"
    )
}

fn qa(id: &str, text: &str, start: usize) -> String {
    format!(
        "{{\"id\": \"{id}\", \"question\": \"Q?\", \"answers\": [{{\"text\": \"{text}\", \"answer_start\": {start}}}]}}"
    )
}

fn read(name: &str, text: &str) -> Result<Questions, TaskError> {
    Questions::read(&file(name, text).path, BadAnswers::Error)
}

fn starts(questions: &Questions) -> Vec<usize> {
    questions.questions().iter().flat_map(|q| q.answers.iter().map(|a| a.start)).collect()
}

#[test]
fn starts_are_bytes_of_the_context() {
    let context = "Zoë 🦀 owes Zoë £5.";
    let text = squad(context, &[qa("1", "Zoë", 11), qa("2", "£5", 15), qa("3", "owes", 6)].join(","));
    let found = read("a.json", &text).unwrap();
    assert_eq!(found.notes(), SquadNotes::default());
    assert_eq!(starts(&found), [15, 20, 10]);
    for question in found.questions() {
        let answer = &question.answers[0];
        assert!(question.context[answer.start..].starts_with(&answer.text));
        assert_eq!((&*question.title, &*question.question, &*question.context), ("T", "Q?", context));
        assert!(!question.impossible);
        assert!(Arc::ptr_eq(&question.context, &found.questions()[0].context));
    }
}

#[test]
fn an_answer_elsewhere_is_moved_to_the_nearest_place() {
    // Occurrences of aa at 0, 1, 6 and 7.
    for (said, expected, moved) in [(2, 1, 1), (3, 1, 1), (4, 6, 1), (5, 6, 1), (900, 7, 1), (1, 1, 0), (7, 7, 0)] {
        let found = read("a.json", &squad("aaa bcaaa", &qa("1", "aa", said))).unwrap();
        assert_eq!((starts(&found), found.notes().moved_answers), (vec![expected], moved), "{said}");
    }
    let found = read("a.json", &squad("é a é a", &qa("1", "a", 3))).unwrap();
    assert_eq!(starts(&found), [3], "as near as the other, and before it");
}

#[test]
fn an_answer_nowhere_is_an_error_or_counted() {
    let both = "{\"id\": \"2\", \"question\": \"Q?\", \"answers\": [{\"text\": \"c\", \"answer_start\": 0}, {\"text\": \"a\", \"answer_start\": 0}]}";
    let text = squad("a b", &[qa("1", "c", 0), both.to_owned(), qa("3", "", 0)].join(","));
    fails(read("a.json", &text), &["a.json", "question \"1\"", "\"c\" is not in its context"]);
    let found = Questions::read(&file("a.json", &text).path, BadAnswers::Skip).unwrap();
    assert_eq!(found.questions().len(), 1);
    assert_eq!(found.questions()[0].answers, [Answer { text: "a".into(), start: 0 }]);
    assert_eq!(found.notes(), SquadNotes { moved_answers: 0, skipped_answers: 3, skipped_questions: 2 });
    assert!(!found.questions()[0].impossible);
}

#[test]
fn impossible_questions() {
    let qas = [
        "{\"id\": \"1\", \"question\": \"Q?\", \"answers\": [], \"is_impossible\": true, \"plausible_answers\": [{\"text\": \"a\", \"answer_start\": 0}]}",
        "{\"id\": \"2\", \"question\": \"Q?\", \"answers\": [{\"text\": \"a\", \"answer_start\": 0}], \"is_impossible\": false}",
        "{\"id\": \"3\", \"question\": \"Q?\", \"answers\": []}",
        "{\"id\": \"4\", \"question\": \"Q?\"}",
        "{\"id\": \"5\", \"question\": \"Q?\", \"answers\": [], \"is_impossible\": false}",
    ];
    let found = read("a.json", &squad("a", &qas.join(","))).unwrap();
    let impossible: Vec<bool> = found.questions().iter().map(|q| q.impossible).collect();
    assert_eq!(impossible, [true, false, true, false, true]);
    let both = qa("9", "a", 0).replace("\"id\"", "\"is_impossible\": true, \"id\"");
    fails(read("a.json", &squad("a", &both)), &["question \"9\"", "is_impossible"]);
}

#[test]
fn rows_as_hugging_face_exports_them() {
    let text = "{\"id\": \"x\", \"title\": \"T\", \"context\": \"é b\", \"question\": \"Q?\", \"answers\": {\"text\": [\"b\", \"é\"], \"answer_start\": [2, 0]}}\n\n{\"context\": \"é b\", \"question\": \"R?\", \"answers\": {\"text\": [], \"answer_start\": []}}\n{\"context\": \"c\", \"question\": \"S?\"}\n{\"context\": \"c\", \"question\": \"S?\", \"answers\": [{\"text\": \"c\", \"answer_start\": 0}]}\n";
    for name in ["a.jsonl", "a.json"] {
        let found = read(name, text).unwrap();
        let ids: Vec<&str> = found.questions().iter().map(|q| q.id.as_str()).collect();
        assert_eq!(ids, ["x", "3", "4", "5"]);
        assert_eq!(starts(&found), [3, 0, 0]);
        let impossible: Vec<bool> = found.questions().iter().map(|q| q.impossible).collect();
        assert_eq!(impossible, [false, true, false, false]);
        assert!(Arc::ptr_eq(&found.questions()[0].context, &found.questions()[1].context));
    }
    let row = |rest: &str| format!("{{\"context\": \"a\", \"question\": \"b\"}}\n{{{rest}}}\n");
    for (rest, parts) in [
        ("\"context\": \"a\"", ["\"question\"", "expected the keys"]),
        ("\"context\": 1, \"question\": \"b\"", ["\"context\" is a number", "string"]),
        ("\"context\": \"a\", \"question\": \"b\", \"answers\": 3", ["\"answers\"", "integer"]),
        (
            "\"context\": \"a\", \"question\": \"b\", \"answers\": {\"text\": [\"a\"], \"answer_start\": []}",
            ["1 of", "0 of"],
        ),
        ("\"context\": \"a\", \"question\": \"b\", \"is_impossible\": 1", ["\"is_impossible\"", "boolean"]),
        ("\"context\": \"a\", ", ["one JSON object", "column"]),
    ] {
        fails(read("a.jsonl", &row(rest)), &["a.jsonl:2:", parts[0], parts[1]]);
    }
}

#[test]
fn broken_files() {
    let whole = squad("a", &qa("1", "a", 0));
    fails(read("a.json", &whole[..whole.len() - 3]), &["a.json:2:", "not SQuAD's JSON", "EOF"]);
    fails(read("a.json", &whole.replace("\"id\"", "\"di\"")), &["a.json:2:", "missing field `id`"]);
    fails(read("a.json", &whole.replace(": 0", ": -1")), &["a.json:2:", "-1"]);
    fails(read("a.json", &squad("a", "")), &["a.json", "no questions"]);
    fails(read("a.json", ""), &["a.json", "empty"]);
    fails(read("a.jsonl", "\n"), &["a.jsonl", "empty"]);
    let twice = squad("a", &[qa("1", "a", 0), qa("1", "a", 0)].join(","));
    fails(read("a.json", &twice), &["question \"1\"", "twice"]);
}

#[test]
fn squad_as_published() {
    let Some(data) = shared_data() else { return };
    for (name, questions, impossible) in [
        ("dev-v1.1", 10_570, 0),
        ("dev-v2.0", 11_873, 5_945),
        ("v1-learn-train", 12_865, 0),
        ("v1-learn-dev", 2_075, 0),
        ("v2-learn-train", 9_544, 4_727),
        ("v2-learn-dev", 2_329, 1_218),
    ] {
        let found = read_shared(&data.join(format!("squad/{name}.json")));
        assert_eq!(found.questions().len(), questions, "{name}");
        assert_eq!(found.questions().iter().filter(|q| q.impossible).count(), impossible, "{name}");
        assert_eq!(found.notes(), SquadNotes::default(), "{name}");
        for question in found.questions() {
            assert_eq!(question.answers.is_empty(), question.impossible, "{name} {}", question.id);
            for answer in &question.answers {
                assert!(question.context[answer.start..].starts_with(&answer.text), "{name} {}", question.id);
            }
        }
    }
}

fn read_shared(path: &Path) -> Questions {
    Questions::read(path, BadAnswers::Error).unwrap()
}
