use super::*;
use crate::datasets::testing::{fails, file};

fn read(name: &str, text: &str, need: LabelsNeeded) -> Result<Vec<Choice>, TaskError> {
    Choices::read(&file(name, text).path, need)?.into_rows(0).into_iter().collect()
}

const SWAG: &str = ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n0,a,1,\"He sits, then. He\",\"He sits, then.\",He,gold,runs.,\"says \"\"no\"\".\",eats.,sleeps.,2\n1,a,2,She is. It,She is.,It,gold,a,b,c,d,0\n";

#[test]
fn swag_is_read_as_published() {
    let found = read("train.csv", SWAG, LabelsNeeded::Required).unwrap();
    assert_eq!((found.len(), found[0].endings.len()), (2, 4));
    let first = Choice {
        context: "He sits, then.".into(),
        ending_prefix: "He".into(),
        endings: ["runs.", "says \"no\".", "eats.", "sleeps."].map(String::from).into(),
        label: Some(2),
        line: 2,
    };
    assert_eq!(found[0], first);
    assert_eq!((found[1].label, found[1].line), (Some(0), 3));
}

#[test]
fn labels_are_indices_and_may_be_missing_in_prediction() {
    let test = "startphrase,ending0,ending1\nHe,a,b\n";
    let found = read("test.csv", test, LabelsNeeded::Optional).unwrap();
    assert_eq!((found[0].label, &*found[0].context), (None, "He"));
    fails(read("test.csv", test, LabelsNeeded::Required), &["test.csv:2:", "no label"]);
    for wrong in ["2", "-2", "x", "1.5"] {
        let text = format!("sent1,ending0,ending1,label\nHe,a,b,0\nHe,a,b,{wrong}\n");
        fails(read("a.csv", &text, LabelsNeeded::Required), &["a.csv:3:", wrong, "0 to 1"]);
    }
    let unlabelled = "sent1,ending0,ending1,label\nHe,a,b,-1\n";
    assert_eq!(read("a.csv", unlabelled, LabelsNeeded::Optional).unwrap()[0].label, None);
    fails(read("a.csv", unlabelled, LabelsNeeded::Required), &["\"-1\""]);
}

#[test]
fn lists_of_endings_are_read() {
    let text = "{\"context\": \"C\", \"endings\": [\"a\", \"b\", \"c\"], \"label\": 1, \"ending_prefix\": \"P\"}\n{\"question\": \"Q\", \"choices\": [\"d\", \"e\", \"f\"], \"label\": \"2\"}\n{\"ctx\": \"X\", \"endings\": [\"g\", \"h\", \"i\"], \"label\": \"\"}\n";
    let found = read("a.jsonl", text, LabelsNeeded::Optional).unwrap();
    let rows: Vec<_> = found.iter().map(|c| (&*c.context, &*c.endings[0], c.label, c.line)).collect();
    assert_eq!(rows, [("C", "a", Some(1), 1), ("Q", "d", Some(2), 2), ("X", "g", None, 3)]);
    assert_eq!((&*found[0].ending_prefix, found[0].endings.len()), ("P", 3));
    fails(read("a.jsonl", text, LabelsNeeded::Required), &["a.jsonl:3:", "no label"]);
    let flat = "{\"sent1\": \"C\", \"sent2\": \"P\", \"ending0\": \"a\", \"ending1\": \"b\", \"label\": 1}\n";
    let found = read("a.jsonl", flat, LabelsNeeded::Required).unwrap();
    assert_eq!((&*found[0].ending_prefix, found[0].endings.len()), ("P", 2));
}

#[test]
fn invalid_rows_are_errors() {
    let first = "{\"context\": \"C\", \"endings\": [\"a\", \"b\"], \"label\": 0}\n";
    for (row, parts) in [
        ("{\"context\": \"C\", \"endings\": \"a\", \"label\": 1}", ["\"endings\"", "list of strings"]),
        ("{\"context\": \"C\", \"endings\": [1, 2], \"label\": 1}", ["\"endings\"", "list of strings"]),
        ("{\"context\": \"C\", \"label\": 1}", ["no choices", "\"choices\""]),
        ("{\"context\": 1, \"endings\": [\"a\", \"b\"], \"label\": 1}", ["\"context\" is a number", "string"]),
        ("{\"endings\": [\"a\", \"b\"], \"label\": 1}", ["no context", "\"question\""]),
        ("{\"context\": \"C\", \"endings\": [\"a\", \"b\"], \"label\": 2}", ["label \"2\"", "0 to 1"]),
        (
            "{\"context\": \"C\", \"endings\": [\"a\", \"b\"], \"label\": [1]}",
            ["\"label\" is a list", "number, letter or text"],
        ),
        ("{\"context\": \"C\", \"endings\": [\"a\", \"b\"], \"label\": -1}", ["label \"-1\"", "0 to 1"]),
    ] {
        fails(read("a.jsonl", &format!("{first}{row}"), LabelsNeeded::Required), &["a.jsonl:2:", parts[0], parts[1]]);
    }
    fails(
        read("a.jsonl", "{\"context\": \"C\", \"endings\": [\"a\"]}", LabelsNeeded::Optional),
        &["a.jsonl:1:", "at least two"],
    );
    fails(read("a.csv", "sent1,ending0,label\nHe,a,0\n", LabelsNeeded::Required), &["a.csv:2:", "at least two"]);
    fails(read("a.csv", "sent1,label\nHe,0\n", LabelsNeeded::Required), &["a.csv", "ending0", "\"sent1\""]);
    fails(
        read("a.csv", "sen1,ending0,ending1\nHe,0,1\n", LabelsNeeded::Optional),
        &["no column \"sent1\"", "\"sen1\"?"],
    );
    fails(read("a.jsonl", "", LabelsNeeded::Optional), &["a.jsonl", "empty"]);
}

fn labels(text: &str) -> Vec<Option<usize>> {
    let choices = Choices::read(&file("a.jsonl", text).path, LabelsNeeded::Required).unwrap();
    let first = choices.first_number().unwrap_or(0);
    choices.into_rows(first).into_iter().map(|row| row.unwrap().label).collect()
}

/// Rows with these choices and labels, as JSON lines.
fn lines(rows: &[(&str, &str)]) -> String {
    rows.iter()
        .map(|(choices, label)| format!("{{\"question\": \"Q\", \"options\": {choices}, \"answerKey\": {label}}}\n"))
        .collect()
}

#[test]
fn r46_labels_are_numbers_letters_or_texts() {
    let (two, three, four) = ("[\"w\", \"x\"]", "[\"w\", \"x\", \"y\"]", "[\"w\", \"x\", \"y\", \"z\"]");
    // Rows with different numbers of choices.
    let rows = [(four, "\"A\""), (three, "\"c\""), (two, "\"x\""), (four, "\"D\"")];
    assert_eq!(labels(&lines(&rows)), [0, 2, 1, 3].map(Some));
    assert_eq!(labels(&lines(&[(two, "0"), (three, "2"), (four, "\"1.0\"")])), [0, 2, 1].map(Some), "from 0");
    assert_eq!(labels(&lines(&[(four, "1"), (three, "3"), (four, "4")])), [0, 2, 3].map(Some), "from 1");
    let first_of = |rows: &[(&str, &str)]| {
        let choices = Choices::read(&file("a.jsonl", lines(rows)).path, LabelsNeeded::Required).unwrap();
        (choices.first_number(), choices.has_numbers())
    };
    assert_eq!(first_of(&[(four, "1"), (four, "3")]), (None, true));
    assert_eq!(first_of(&[(four, "\"B\"")]), (None, false));
    for (row, parts) in [
        ((two, "\"E\""), ["label \"E\"", "0 to 1"]),
        ((two, "null"), ["no label", "expected"]),
        ((two, "\"nan\""), ["no label", "expected"]),
        (("[\"b\", \"a\"]", "\"a\""), ["number or letter of one choice", "text of another"]),
        (("[\"s\", \"s\", \"t\"]", "\"s\""), ["several choices", "a letter"]),
    ] {
        let rows = lines(&[(two, "0"), row]);
        fails(read("a.jsonl", &rows, LabelsNeeded::Required), &["a.jsonl:2:", parts[0], parts[1]]);
    }
}

#[test]
fn r46_published_formats_of_questions_are_read() {
    let arc = "{\"question\": \"Q\", \"choices\": {\"text\": [\"a\", \"b\", \"c\"], \"label\": [\"1\", \"2\", \"3\"]}, \"answerKey\": \"2\"}";
    let list = "{\"question\": \"Q\", \"choices\": [{\"label\": \"A\", \"text\": \"a\"}, {\"label\": \"B\", \"text\": \"b\"}], \"answerKey\": \"B\"}";
    let stem = "{\"question\": {\"stem\": \"Q\", \"choices\": [{\"label\": \"A\", \"text\": \"a\"}, {\"label\": \"B\", \"text\": \"b\"}]}, \"answerKey\": \"B\"}";
    let race = "{\"article\": \"A\", \"question\": \"Q\", \"options\": [\"a\", \"b\"], \"answer\": \"B\"}";
    let found = read("a.jsonl", &[arc, list, stem, race].join("\n"), LabelsNeeded::Required).unwrap();
    assert!(found.iter().all(|choice| choice.label == Some(1)), "{found:?}");
    assert_eq!((&*found[2].context, &*found[2].endings[1], found[0].endings.len()), ("Q", "b", 3));
    // A question about a text comes before each choice.
    assert_eq!((&*found[3].context, &*found[3].ending_prefix), ("A", "Q"));
    let wrong = arc.replace("\"answerKey\": \"2\"", "\"answerKey\": \"0\"");
    fails(
        read("a.jsonl", &wrong, LabelsNeeded::Required),
        &["a.jsonl:1:", "one of the choices' labels", "\"1\", \"2\", \"3\""],
    );
    let csv = "question,choice1,choice2,choice3,label\nQ,a,b,c,0\nQ,a,b,,1\n";
    let found = read("a.csv", csv, LabelsNeeded::Required).unwrap();
    assert_eq!(found.iter().map(|choice| choice.endings.len()).collect::<Vec<_>>(), [3, 2]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/huggingface.parquet");
    let found: Vec<Choice> =
        Choices::read(&path, LabelsNeeded::Required).unwrap().into_rows(0).into_iter().map(Result::unwrap).collect();
    assert_eq!(found.iter().map(|choice| choice.label).collect::<Vec<_>>(), [0, 2, 1].map(Some));
    assert_eq!((&*found[1].context, &*found[1].endings[2]), ("What is Jupiter made of?", "gas"));
}
