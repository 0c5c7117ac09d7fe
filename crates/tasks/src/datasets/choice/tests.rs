use super::*;
use crate::datasets::testing::{fails, file};

fn read(name: &str, text: &str, need: Need) -> Result<Vec<Choice>, TaskError> {
    Choices::read(&file(name, text).path, need)?.into_rows(0).into_iter().collect()
}

const SWAG: &str = ",video-id,fold-ind,startphrase,sent1,sent2,gold-source,ending0,ending1,ending2,ending3,label\n0,a,1,\"He sits, then. He\",\"He sits, then.\",He,gold,runs.,\"says \"\"no\"\".\",eats.,sleeps.,2\n1,a,2,She is. It,She is.,It,gold,a,b,c,d,0\n";

#[test]
fn swag_as_published() {
    let found = read("train.csv", SWAG, Need::Required).unwrap();
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
    let found = read("test.csv", test, Need::Optional).unwrap();
    assert_eq!((found[0].label, &*found[0].context), (None, "He"));
    fails(read("test.csv", test, Need::Required), &["test.csv:2:", "no label"]);
    for wrong in ["2", "-2", "x", "1.0"] {
        let text = format!("sent1,ending0,ending1,label\nHe,a,b,{wrong}\n");
        fails(read("a.csv", &text, Need::Required), &["a.csv:2:", wrong, "0 to 1"]);
    }
    let unlabelled = "sent1,ending0,ending1,label\nHe,a,b,-1\n";
    assert_eq!(read("a.csv", unlabelled, Need::Optional).unwrap()[0].label, None);
    fails(read("a.csv", unlabelled, Need::Required), &["\"-1\""]);
}

#[test]
fn lists_of_endings() {
    let text = "{\"context\": \"C\", \"endings\": [\"a\", \"b\", \"c\"], \"label\": 1, \"ending_prefix\": \"P\"}\n{\"question\": \"Q\", \"choices\": [\"d\", \"e\", \"f\"], \"label\": \"2\"}\n{\"ctx\": \"X\", \"endings\": [\"g\", \"h\", \"i\"], \"label\": \"\"}\n";
    let found = read("a.jsonl", text, Need::Optional).unwrap();
    let seen: Vec<_> = found.iter().map(|c| (&*c.context, &*c.endings[0], c.label, c.line)).collect();
    assert_eq!(seen, [("C", "a", Some(1), 1), ("Q", "d", Some(2), 2), ("X", "g", None, 3)]);
    assert_eq!((&*found[0].ending_prefix, found[0].endings.len()), ("P", 3));
    fails(read("a.jsonl", text, Need::Required), &["a.jsonl:3:", "no label"]);
    let flat = "{\"sent1\": \"C\", \"sent2\": \"P\", \"ending0\": \"a\", \"ending1\": \"b\", \"label\": 1}\n";
    let found = read("a.jsonl", flat, Need::Required).unwrap();
    assert_eq!((&*found[0].ending_prefix, found[0].endings.len()), ("P", 2));
}

#[test]
fn broken_rows() {
    let first = "{\"context\": \"C\", \"endings\": [\"a\", \"b\"], \"label\": 1}\n";
    for (row, parts) in [
        ("{\"context\": \"C\", \"endings\": [\"a\", \"b\", \"c\"], \"label\": 1}", ["3 endings", "expected 2"]),
        ("{\"context\": \"C\", \"endings\": \"a\", \"label\": 1}", ["\"endings\"", "list of strings"]),
        ("{\"context\": \"C\", \"endings\": [1, 2], \"label\": 1}", ["\"endings\"", "list of strings"]),
        ("{\"context\": \"C\", \"label\": 1}", ["no endings", "\"choices\""]),
        ("{\"context\": 1, \"endings\": [\"a\", \"b\"], \"label\": 1}", ["\"context\" is a number", "string"]),
        ("{\"endings\": [\"a\", \"b\"], \"label\": 1}", ["no context", "\"question\""]),
        ("{\"context\": \"C\", \"endings\": [\"a\", \"b\"], \"label\": 2}", ["label \"2\"", "0 to 1"]),
        ("{\"context\": \"C\", \"endings\": [\"a\", \"b\"], \"label\": [1]}", ["\"label\" is a list", "index"]),
        ("{\"context\": \"C\", \"endings\": [\"a\", \"b\"], \"label\": -1}", ["label \"-1\"", "0 to 1"]),
    ] {
        fails(read("a.jsonl", &format!("{first}{row}"), Need::Required), &["a.jsonl:2:", parts[0], parts[1]]);
    }
    fails(
        read("a.jsonl", "{\"context\": \"C\", \"endings\": [\"a\"]}", Need::Optional),
        &["a.jsonl:1:", "at least two"],
    );
    fails(read("a.csv", "sent1,ending0,label\nHe,a,0\n", Need::Required), &["a.csv:2:", "at least two"]);
    fails(read("a.csv", "sent1,label\nHe,0\n", Need::Required), &["a.csv", "ending0", "\"sent1\""]);
    fails(read("a.csv", "sen1,ending0,ending1\nHe,0,1\n", Need::Optional), &["no column \"sent1\"", "\"sen1\"?"]);
    fails(read("a.jsonl", "", Need::Optional), &["a.jsonl", "empty"]);
}
