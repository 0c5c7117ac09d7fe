use super::*;
use crate::datasets::testing::{fails, file};

/// A SQuAD file with one paragraph.
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

/// The valid questions.
fn good(questions: &Questions) -> Vec<&Question> {
    questions.questions.iter().flatten().collect()
}

/// The error of the first invalid question.
fn first_error(read: Result<Questions, TaskError>) -> Result<(), TaskError> {
    read?.into_questions().into_iter().find_map(Result::err).map_or(Ok(()), Err)
}

fn starts(questions: &Questions) -> Vec<usize> {
    good(questions).iter().flat_map(|q| q.answers.iter().map(|a| a.start)).collect()
}

#[test]
fn starts_are_bytes_of_the_context() {
    let context = "Zoë 🦀 owes Zoë £5.";
    let text = squad(context, &[qa("1", "Zoë", 11), qa("2", "£5", 15), qa("3", "owes", 6)].join(","));
    let found = read("a.json", &text).unwrap();
    assert_eq!(found.notes(), SquadNotes::default());
    assert_eq!(starts(&found), [15, 20, 10]);
    for question in good(&found) {
        let answer = &question.answers[0];
        assert!(question.context[answer.start..].starts_with(&answer.text));
        assert_eq!((&*question.title, &*question.question, &*question.context), ("T", "Q?", context));
        assert!(!question.impossible);
        assert!(Arc::ptr_eq(&question.context, &good(&found)[0].context));
    }
}

#[test]
fn a_misplaced_answer_is_moved_to_the_nearest_occurrence() {
    // Occurrences of aa at 0, 1, 6 and 7.
    for (stated, expected, moved) in [(2, 1, 1), (3, 1, 1), (4, 6, 1), (5, 6, 1), (900, 7, 1), (1, 1, 0), (7, 7, 0)] {
        let found = read("a.json", &squad("aaa bcaaa", &qa("1", "aa", stated))).unwrap();
        assert_eq!((starts(&found), found.notes().moved_answers), (vec![expected], moved), "{stated}");
    }
    let found = read("a.json", &squad("é a é a", &qa("1", "a", 3))).unwrap();
    assert_eq!(starts(&found), [3], "of two equally near occurrences, the first");
}

#[test]
fn an_answer_outside_its_context_is_an_error_or_counted() {
    let both = "{\"id\": \"2\", \"question\": \"Q?\", \"answers\": [{\"text\": \"c\", \"answer_start\": 0}, {\"text\": \"a\", \"answer_start\": 0}]}";
    let text = squad("a b", &[qa("1", "c", 0), both.to_owned(), qa("3", " ", 1)].join(","));
    fails(first_error(read("a.json", &text)), &["a.json", "question \"1\"", "\"c\" is not in its context"]);
    let found = Questions::read(&file("a.json", &text).path, BadAnswers::Skip).unwrap();
    let [Err(_), Ok(second), Err(third)] = &found.questions[..] else { panic!("{found:?}") };
    assert_eq!(second.answers, [Answer { text: "a".into(), start: 0 }]);
    assert_eq!(found.notes(), SquadNotes { skipped_answers: 1, ..SquadNotes::default() });
    assert!(!second.impossible);
    assert!(third.to_string().contains("question \"3\": its answer \" \" is only white space"), "{third}");
}

#[test]
fn impossible_questions_are_recognized() {
    let qas = [
        "{\"id\": \"1\", \"question\": \"Q?\", \"answers\": [], \"is_impossible\": true, \"plausible_answers\": [{\"text\": \"a\", \"answer_start\": 0}]}",
        "{\"id\": \"2\", \"question\": \"Q?\", \"answers\": [{\"text\": \"a\", \"answer_start\": 0}], \"is_impossible\": false}",
        "{\"id\": \"3\", \"question\": \"Q?\", \"answers\": []}",
        "{\"id\": \"4\", \"question\": \"Q?\"}",
        "{\"id\": \"5\", \"question\": \"Q?\", \"answers\": [], \"is_impossible\": false}",
    ];
    let found = read("a.json", &squad("a", &qas.join(","))).unwrap();
    let impossible: Vec<bool> = good(&found).iter().map(|q| q.impossible).collect();
    assert_eq!(impossible, [true, false, true, false, true]);
    assert_eq!(found.notes().impossible, 3);
    let both = qa("9", "a", 0).replace("\"id\"", "\"is_impossible\": true, \"id\"");
    fails(first_error(read("a.json", &squad("a", &both))), &["question \"9\"", "is_impossible"]);
}

#[test]
fn rows_of_hugging_face_exports_are_read() {
    let text = "{\"id\": \"x\", \"title\": \"T\", \"context\": \"é b\", \"question\": \"Q?\", \"answers\": {\"text\": [\"b\", \"é\"], \"answer_start\": [2, 0]}}\n\n{\"context\": \"é b\", \"question\": \"R?\", \"answers\": {\"text\": [], \"answer_start\": []}}\n{\"context\": \"c\", \"question\": \"S?\"}\n{\"context\": \"c\", \"question\": \"S?\", \"answers\": [{\"text\": \"c\", \"answer_start\": 0}]}\n";
    for name in ["a.jsonl", "a.json"] {
        let found = read(name, text).unwrap();
        let ids: Vec<&str> = good(&found).iter().map(|q| q.id.as_str()).collect();
        assert_eq!(ids, ["x", "3", "4", "5"]);
        assert_eq!(starts(&found), [3, 0, 0]);
        let impossible: Vec<bool> = good(&found).iter().map(|q| q.impossible).collect();
        assert_eq!(impossible, [false, true, false, false]);
        assert!(Arc::ptr_eq(&good(&found)[0].context, &good(&found)[1].context));
    }
    let row = |rest: &str| format!("{{\"context\": \"a\", \"question\": \"b\"}}\n{{{rest}}}\n");
    for (rest, parts) in [
        ("\"context\": \"a\"", ["\"question\"", "expected the keys"]),
        ("\"context\": 1, \"question\": \"b\"", ["\"context\" is a number", "string"]),
        ("\"context\": \"a\", \"question\": \"b\", \"answers\": 3", ["\"answers\" is a number", "answer_start"]),
        (
            "\"context\": \"a\", \"question\": \"b\", \"answers\": {\"text\": [\"a\"], \"answer_start\": []}",
            ["1 of", "0 of"],
        ),
        ("\"context\": \"a\", \"question\": \"b\", \"is_impossible\": 2", ["\"is_impossible\"", "boolean"]),
        ("\"context\": \"a\", ", ["one JSON object", "column"]),
    ] {
        fails(first_error(read("a.jsonl", &row(rest))), &["a.jsonl:2:", parts[0], parts[1]]);
    }
}

#[test]
fn invalid_files_are_errors() {
    let text = squad("a", &qa("1", "a", 0));
    fails(read("a.json", &text[..text.len() - 3]), &["a.json:2:", "not SQuAD's JSON", "EOF"]);
    fails(
        first_error(read("a.json", &text.replace(": 0", ": 0.5"))),
        &["a.json", "question \"1\"", "0.5", "expected an integer"],
    );
    fails(first_error(read("a.json", "{\"rows\": [1]}\n")), &["a.json:1:", "question", "context"]);
    fails(read("a.json", "{\"rows\":\n[1]}\n"), &["a.json", "an object with the keys rows"]);
    fails(read("a.json", "{\"data\":\n{\"id\": [1]}}\n"), &["a.json", "\"data\" is an object, expected a list"]);
    fails(read("a.json", &squad("a", "")), &["a.json", "at least one question"]);
    fails(read("a.json", ""), &["a.json", "empty"]);
    fails(read("a.jsonl", "\n"), &["a.jsonl", "empty"]);
    let twice = squad("a", &[qa("1", "a", 0), qa("1", "a", 0)].join(","));
    fails(first_error(read("a.json", &twice)), &["question \"1\"", "twice"]);
    // In prediction answers are ignored, so they cannot be errors.
    let found = Questions::read(&file("a.json", &twice).path, BadAnswers::Ignore).unwrap();
    assert_eq!(good(&found).len(), 2);
}

#[test]
fn r40_variants_of_squad_are_read() {
    // The answer of each question starts at byte 3 of its context, or there is none.
    let with_questions = |qas: &str| squad("é b", qas);
    let at = "\"question\": \"Q?\", \"answers\"";
    for (name, text, ids, answered) in [
        (
            "integer ids",
            with_questions(&format!("{{\"id\": 7, {at}: [{{\"text\": \"b\", \"answer_start\": 2}}]}}")),
            "7",
            true,
        ),
        ("MRQA's ids", with_questions(&format!("{{\"qid\": \"q\", {at}: [\"b\"]}}")), "q", true),
        ("no id", with_questions(&format!("{{{at}: [{{\"text\": \"b\", \"answer_start\": 2}}]}}")), "1", true),
        (
            "a null id",
            with_questions(&format!("{{\"id\": null, {at}: [{{\"text\": \"b\", \"answer_start\": 2}}]}}")),
            "1",
            true,
        ),
        (
            "start as a string",
            with_questions(&format!("{{\"id\": 1, {at}: [{{\"text\": \"b\", \"answer_start\": \"2\"}}]}}")),
            "1",
            true,
        ),
        (
            "start as a float",
            with_questions(&format!("{{\"id\": 1, {at}: [{{\"text\": \"b\", \"answer_start\": 2.0}}]}}")),
            "1",
            true,
        ),
        (
            "start unknown",
            with_questions(&format!("{{\"id\": 1, {at}: [{{\"text\": \"b\", \"answer_start\": -1}}]}}")),
            "1",
            true,
        ),
        (
            "lists",
            with_questions(&format!("{{\"id\": 1, {at}: {{\"text\": [\"b\"], \"answer_start\": [2]}}}}")),
            "1",
            true,
        ),
        (
            "one answer",
            with_questions(&format!("{{\"id\": 1, {at}: {{\"text\": \"b\", \"answer_start\": 2}}}}")),
            "1",
            true,
        ),
        (
            "an empty text",
            with_questions(&format!(
                "{{\"id\": 1, {at}: [{{\"text\": \"\", \"answer_start\": -1}}], \"is_impossible\": true}}"
            )),
            "1",
            false,
        ),
        (
            "only an empty text",
            with_questions(&format!("{{\"id\": 1, {at}: {{\"text\": [\"\"], \"answer_start\": [-1]}}}}")),
            "1",
            false,
        ),
        (
            "impossible without answers",
            with_questions("{\"id\": 1, \"question\": \"Q?\", \"answers\": null, \"is_impossible\": \"True\"}"),
            "1",
            false,
        ),
        (
            "impossible as a number",
            with_questions("{\"id\": 1, \"question\": \"Q?\", \"is_impossible\": 1}"),
            "1",
            false,
        ),
        (
            "rows in a list",
            format!("[\n{{\"id\": 1, \"context\": \"é b\", {at}: {{\"text\": [\"b\"], \"answer_start\": [2]}}}}]"),
            "1",
            true,
        ),
        (
            "rows as data",
            format!(
                "{{\"data\":\n[{{\"id\": 1, \"context\": \"é b\", {at}: {{\"text\": [\"b\"], \"answer_start\": [2]}}}}]}}"
            ),
            "1",
            true,
        ),
        (
            "paragraphs in a list",
            format!("[{{\"context\": \"é b\",\n\"qas\": [{{\"id\": 1, {at}: [\"b\"]}}]}}]"),
            "1",
            true,
        ),
        (
            "one article",
            format!("{{\"paragraphs\":\n[{{\"context\": \"é b\", \"qas\": [{{\"id\": 1, {at}: [\"b\"]}}]}}]}}"),
            "1",
            true,
        ),
        (
            "one paragraph per line",
            format!(
                "{{\"header\": {{\"split\": \"dev\"}}}}\n{{\"context\": \"é b\", \"qas\": [{{\"qid\": \"1\", {at}: [\"b\"]}}]}}\n"
            ),
            "1",
            true,
        ),
    ] {
        for bad in [BadAnswers::Error, BadAnswers::Skip, BadAnswers::Ignore] {
            let found = Questions::read(&file("a.json", &text).path, bad).unwrap();
            let [Ok(question)] = &found.questions[..] else { panic!("{name}: {found:?}") };
            assert_eq!((&*question.id, &*question.context), (ids, "é b"), "{name}");
            assert_eq!(question.impossible, !answered, "{name}");
            let starts: Vec<usize> = question.answers.iter().map(|answer| answer.start).collect();
            let expected = if answered && bad != BadAnswers::Ignore { vec![3] } else { Vec::new() };
            assert_eq!(starts, expected, "{name}");
        }
    }
    let found = read("a.json", &with_questions(&format!("{{{at}: [{{\"text\": \"b\"}}]}}"))).unwrap();
    assert_eq!((found.notes().without_id, found.notes().without_start), (1, 1));
}

#[test]
fn r40_an_invalid_question_is_named_and_does_not_affect_the_others() {
    let good = qa("good", "b", 2);
    for (bad, parts) in [
        ("{\"id\": \"x\", \"question\": null, \"answers\": []}", ["question \"x\"", "\"question\" is null"]),
        ("{\"id\": 7, \"answers\": []}", ["question \"7\"", "no \"question\""]),
        ("{\"id\": \"x\", \"question\": \"Q?\", \"answers\": true}", ["question \"x\"", "\"answers\" is a boolean"]),
        ("{\"id\": \"x\", \"question\": \"Q?\", \"answers\": [3]}", ["question \"x\"", "an answer is a number"]),
        (
            "{\"id\": \"x\", \"question\": \"Q?\", \"answers\": [{\"text\": null}]}",
            ["question \"x\"", "\"text\" of an answer is null"],
        ),
        (
            "{\"id\": \"x\", \"question\": \"Q?\", \"answers\": [{\"text\": \"b\", \"answer_start\": \"two\"}]}",
            ["question \"x\"", "\"two\""],
        ),
        ("{\"id\": [1], \"question\": \"Q?\"}", ["question 2", "\"id\" is a list"]),
        ("17", ["question 2", "found a number"]),
    ] {
        let found = read("a.json", &squad("a b", &[good.as_str(), bad, &qa("last", "a", 0)].join(","))).unwrap();
        let [Ok(_), Err(error), Ok(last)] = &found.questions[..] else { panic!("{bad}: {found:?}") };
        assert!(parts.iter().all(|part| error.to_string().contains(part)), "{error}");
        assert_eq!(last.id, "last");
    }
    let text = squad("a", &qa("1", "a", 0)).replace("\"context\": \"a\"", "\"context\": null");
    fails(first_error(read("a.json", &text)), &["question \"1\"", "\"context\" is null"]);
    let found = read(
        "a.jsonl",
        "{\"question\": \"Q?\", \"context\": \"a\"}\n{\"question\"\n{\"question\": \"Q?\", \"context\": \"a\"}\n",
    )
    .unwrap();
    let [Ok(_), Err(error), Ok(last)] = &found.questions[..] else { panic!("{found:?}") };
    assert!(error.to_string().contains("a.jsonl:2: expected one JSON object per line"), "{error}");
    assert_eq!(last.id, "3");
}

#[test]
fn r40_parquet_rows_of_hugging_face_are_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/squad.parquet");
    let found = Questions::read(&path, BadAnswers::Error).unwrap();
    let ids: Vec<&str> = good(&found).iter().map(|q| &*q.id).collect();
    assert_eq!((ids, starts(&found)), (vec!["1", "2", "3", "4"], vec![4, 4, 9]));
    let impossible: Vec<bool> = good(&found).iter().map(|q| q.impossible).collect();
    assert_eq!(impossible, [false, true, false, false]);
    assert_eq!((&*good(&found)[0].title, &*good(&found)[1].title), ("Mill", ""));
    assert_eq!(found.notes(), SquadNotes { without_start: 1, impossible: 1, ..SquadNotes::default() });
}

#[test]
fn r43_starts_in_other_units_are_converted_and_counted() {
    let utf16 = "🦀🦀 one two";
    let found = read("a.json", &squad(utf16, &qa("1", "two", 9))).unwrap();
    assert_eq!((starts(&found), found.notes()), (vec![13], SquadNotes { in_utf16: 1, ..SquadNotes::default() }));
    let bytes = "é é é one two one two";
    let found = read("a.json", &squad(bytes, &qa("1", "two", 13))).unwrap();
    assert_eq!((starts(&found), found.notes()), (vec![13], SquadNotes { in_bytes: 1, ..SquadNotes::default() }));
    let found = read("a.json", &squad(bytes, &qa("1", "two", 12))).unwrap();
    assert_eq!(found.notes(), SquadNotes { moved_answers: 1, ..SquadNotes::default() });
}

#[test]
fn r23_answers_that_differ_only_in_form_give_a_hint() {
    for (context, answer, part) in [
        ("the cafe\u{301}", "café", "normalization form"),
        ("the café", "cafe\u{301}", "normalization form"),
        ("the Cafe\u{301}", "café", "capitalization"),
        ("the old  café", "old café", "white space"),
    ] {
        let text = squad(context, &qa("1", answer, 4));
        fails(first_error(read("a.json", &text)), &["question \"1\"", "is not in its context", part]);
    }
    fails(first_error(read("a.json", &squad("the tea", &qa("1", "café", 4)))), &["is not in its context; correct it"]);
}

#[test]
fn squad_is_read_as_published() {
    let Some(data) = cloze_testing::real_data("squad") else { return };
    for (name, questions, impossible) in [
        ("dev-v1.1", 10_570, 0),
        ("dev-v2.0", 11_873, 5_945),
        ("v1-learn-train", 12_865, 0),
        ("v1-learn-dev", 2_075, 0),
        ("v2-learn-train", 9_544, 4_727),
        ("v2-learn-dev", 2_329, 1_218),
    ] {
        let found = read_shared(&data.join(format!("{name}.json")));
        assert_eq!((found.questions.len(), good(&found).len()), (questions, questions), "{name}");
        assert_eq!(good(&found).iter().filter(|q| q.impossible).count(), impossible, "{name}");
        assert_eq!(found.notes(), SquadNotes { impossible, ..SquadNotes::default() }, "{name}");
        for question in good(&found) {
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

/// Regression test: with columns `answers` and `answers.text`, the second was inserted into the first, which panicked if
/// the first was a string.
#[test]
fn a_column_with_the_name_of_a_struct_is_an_error() {
    let mut bytes = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/squad.parquet")).unwrap();
    for at in 0..bytes.len() - 7 {
        if bytes[at..].starts_with(b"context") {
            bytes[at..at + 7].copy_from_slice(b"answers");
        }
    }
    let found = Questions::read(&file("a.parquet", bytes).path, BadAnswers::Error);
    fails(found, &["a.parquet", "expected only one of the columns \"answers\" and \"answers.text\""]);
}
