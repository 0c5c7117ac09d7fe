use super::*;
use crate::datasets::testing::{fails, file};

fn read(name: &str, text: &str, need: LabelsNeeded) -> Result<TaggedSentences, TaskError> {
    TaggedSentences::read(&file(name, text).path, None, need)
}

fn sentence(words: &[&str], tags: &[&str], document: usize, line: usize) -> TaggedSentence {
    let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
    TaggedSentence { words: owned(words), tags: owned(tags), document, line }
}

const CONLL: &str = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n\n-DOCSTART- -X- -X- O\n-DOCSTART- -X- -X- O\n\n# SYM O O";

/// The indices of all tags.
fn ids(file: &TaggedSentences, labels: &Labels) -> Result<Vec<Vec<usize>>, TaskError> {
    file.sentences().iter().map(|sentence| file.tag_ids(sentence, labels, |_| None)).collect()
}

#[test]
fn conll_columns_and_documents_are_read() {
    let file_ = read("eng.train", CONLL, LabelsNeeded::Required).unwrap();
    let expected = [
        sentence(&["EU", "rejects"], &["B-ORG", "O"], 0, 3),
        sentence(&["Peter"], &["B-PER"], 0, 7),
        sentence(&["#"], &["O"], 1, 12),
    ];
    assert_eq!(file_.sentences(), expected);
    assert_eq!(file_.format(), TagFormat::COLUMNS);
    assert!(file_.is_tagged());
    let labels = file_.labels().unwrap();
    assert_eq!(labels.names(), ["B-ORG", "B-PER", "O"]);
    assert_eq!(ids(&file_, &labels).unwrap(), [vec![0, 2], vec![1], vec![2]]);
    let chosen = Some(TagFormat::Columns { word: 1, tag: Some(2) });
    let tags = TaggedSentences::read(&file("a", CONLL).path, chosen, LabelsNeeded::Required).unwrap();
    assert_eq!(tags.sentences()[0].tags, ["NNP", "VBZ"]);
}

#[test]
fn columns_may_have_tabs_a_byte_order_mark_and_any_line_endings() {
    let text = "\u{feff}New\u{a0}York\tB-LOC\r\nis\tO\r\n \r\nbig  O\r\n";
    let expected = [sentence(&["New\u{a0}York", "is"], &["B-LOC", "O"], 0, 1), sentence(&["big"], &["O"], 0, 4)];
    assert_eq!(read("a.txt", text, LabelsNeeded::Required).unwrap().sentences(), expected);
}

#[test]
fn the_language_prefix_of_wikiann_is_removed() {
    let text = "en:10:30\tO\nen::\tO\nen:Paris\tB-LOC\n\nen:x\tO\n";
    let file_ = read("a.txt", text, LabelsNeeded::Required).unwrap();
    assert_eq!(file_.format(), TagFormat::WikiAnn);
    let expected = [sentence(&["10:30", ":", "Paris"], &["O", "O", "B-LOC"], 0, 1), sentence(&["x"], &["O"], 0, 5)];
    assert_eq!(file_.sentences(), expected);
    // One line without a prefix: then the colon is part of the word.
    let other = read("a.txt", &format!("{text}yes\tO\n"), LabelsNeeded::Required).unwrap();
    assert_eq!(other.format(), TagFormat::COLUMNS);
    assert_eq!(other.sentences()[1].words, ["en:x", "yes"]);
    let wikiann = |text: &str, need| TaggedSentences::read(&file("a", text).path, Some(TagFormat::WikiAnn), need);
    assert_eq!(wikiann("en:a\nen:b\n", LabelsNeeded::Optional).unwrap().sentences()[0].words, ["a", "b"]);
    fails(wikiann("en:a\tO\nb\tO\n", LabelsNeeded::Required), &["a:2:", "language:word"]);
    fails(wikiann("en:a\tx\tO\n", LabelsNeeded::Required), &["a:1:", "language:word"]);
    fails(wikiann("en:\tO\n", LabelsNeeded::Required), &["a:1:", "word is empty"]);
    fails(wikiann("en:a\t\n", LabelsNeeded::Required), &["a:1:", "expected a tag"]);
}

/// A line of CoNLL-U.
fn token(id: &str, word: &str, upos: &str, xpos: &str) -> String {
    format!("{id}\t{word}\t_\t{upos}\t{xpos}\t_\t_\t_\t_\t_\n")
}

fn conllu() -> String {
    [
        "# newdoc id = a\n# sent_id = 1\n# newdoc_like = x\n",
        &token("1-2", "vámonos", "_", "_"),
        &token("1", "vamos", "VERB", "V"),
        &token("2", "nos", "PRON", "P"),
        &token("2.1", "gap", "_", "_"),
        "\n# newpar\n",
        &token("1", "al mar", "NOUN", "N"),
        "\n# newdoc\n",
        &token("1", "#", "SYM", "S"),
    ]
    .concat()
}

#[test]
fn ranges_and_empty_nodes_of_conllu_are_skipped() {
    let expected = [
        sentence(&["vamos", "nos"], &["VERB", "PRON"], 0, 5),
        sentence(&["al mar"], &["NOUN"], 0, 10),
        sentence(&["#"], &["SYM"], 1, 13),
    ];
    for name in ["a.conllu", "a.txt"] {
        let file_ = read(name, &conllu(), LabelsNeeded::Required).unwrap();
        assert_eq!(file_.format(), TagFormat::UPOS);
        assert_eq!(file_.sentences(), expected, "{name}");
    }
    let xpos = TaggedSentences::read(&file("a.conllu", conllu()).path, Some(TagFormat::XPOS), LabelsNeeded::Required);
    assert_eq!(xpos.unwrap().sentences()[0].tags, ["V", "P"]);
}

#[test]
fn invalid_conllu_is_an_error() {
    fails(read("a.conllu", "1\tword\tNOUN\n", LabelsNeeded::Required), &["a.conllu:1:", "found 3", "expected 10"]);
    let eleven = token("1", "a", "X", "_").replace('\n', "\tmore\n");
    fails(read("a.conllu", &eleven, LabelsNeeded::Required), &["a.conllu:1:", "found 11"]);
    let no_blank = token("1", "a", "X", "_") + &token("1", "b", "X", "_");
    fails(
        read("a.conllu", &no_blank, LabelsNeeded::Required),
        &["a.conllu:2:", "expected word number 2", "blank line"],
    );
    let gap = token("1", "a", "X", "_") + &token("2", "b", "_", "_");
    fails(read("a.conllu", &gap, LabelsNeeded::Required), &["a.conllu:2:", "expected a tag"]);
    fails(read("a.conllu", &gap, LabelsNeeded::Optional), &["a.conllu:2:", "previous words have"]);
    for tag in [0, 11] {
        let format = Some(TagFormat::ConllU { tag });
        fails(TaggedSentences::read(&file("a.conllu", conllu()).path, format, LabelsNeeded::Required), &["column"]);
    }
}

#[test]
fn words_may_have_no_tags_only_for_prediction() {
    let text = "One\nword\n\na\nline\n";
    let file_ = read("a.txt", text, LabelsNeeded::Optional).unwrap();
    assert_eq!(file_.sentences(), [sentence(&["One", "word"], &[], 0, 1), sentence(&["a", "line"], &[], 0, 4)]);
    assert!(!file_.is_tagged());
    assert_eq!(ids(&file_, &Labels::from_names(["O"]).unwrap()).unwrap(), [vec![0usize; 0], vec![]]);
    fails(file_.labels(), &["expected a tag for each word"]);
    fails(read("a.txt", text, LabelsNeeded::Required), &["a.txt:1:", "none for \"One\""]);
    let bare = token("1", "a", "_", "_") + &token("2", "b", "_", "_");
    assert_eq!(read("a.conllu", &bare, LabelsNeeded::Optional).unwrap().sentences()[0].words, ["a", "b"]);
    fails(
        read("a.conllu", &(bare + &token("3", "c", "X", "_")), LabelsNeeded::Optional),
        &["a.conllu:3:", "previous words have none"],
    );
}

#[test]
fn words_and_tags_that_do_not_align_are_errors() {
    fails(read("a.txt", "one O\ntwo\n", LabelsNeeded::Required), &["a.txt:2:", "found 1", "expected 2 columns"]);
    fails(read("a.txt", "one\ntwo O\n", LabelsNeeded::Optional), &["a.txt:2:", "found 2", "expected 1 columns"]);
    fails(read("a.txt", "a b O\n\nc d e O\n", LabelsNeeded::Required), &["a.txt:3:", "found 4"]);
    fails(read("a.txt", "a\t\n", LabelsNeeded::Required), &["a.txt:1:", "expected a tag"]);
    for (word, tag) in [(0, None), (1, Some(0))] {
        let format = Some(TagFormat::Columns { word, tag });
        fails(
            TaggedSentences::read(&file("a", "a O").path, format, LabelsNeeded::Required),
            &["column`: expected a number from 1"],
        );
    }
    let format = Some(TagFormat::Columns { word: 3, tag: None });
    fails(TaggedSentences::read(&file("a", "a O").path, format, LabelsNeeded::Required), &["a:1:", "word in column 3"]);
    let format = Some(TagFormat::Columns { word: 1, tag: Some(3) });
    fails(TaggedSentences::read(&file("a", "a O").path, format, LabelsNeeded::Required), &["a:1:", "expected a tag"]);
}

#[test]
fn unknown_tags_and_empty_files_are_errors() {
    let dev = read("a.txt", "one O\n\ntwo O\nthree B-LOK\n", LabelsNeeded::Required).unwrap();
    let labels = Labels::from_data(["O", "B-LOC"]).unwrap();
    let parts = ["a.txt:3:", "word 2", "\"three\"", "unknown label \"B-LOK\"", "did you mean \"B-LOC\"?"];
    fails(ids(&dev, &labels), &parts);
    for text in ["", "\n\n", "-DOCSTART- O\n"] {
        fails(read("a.txt", text, LabelsNeeded::Optional), &["a.txt", "no words"]);
    }
}

#[test]
fn wikiann_is_read_as_published() {
    let Some(data) = cloze_testing::real_data("ner") else { return };
    for (split, sentences, words) in [("train", 20_000, 160_394), ("dev", 10_000, 80_536), ("test", 10_000, 80_326)] {
        let path = data.join(format!("wikiann-en.{split}.txt"));
        let found = TaggedSentences::read(&path, None, LabelsNeeded::Required).unwrap();
        assert_eq!(found.format(), TagFormat::WikiAnn);
        assert_eq!(found.sentences().len(), sentences, "{split}");
        assert_eq!(found.sentences().iter().map(|s| s.words.len()).sum::<usize>(), words, "{split}");
        let labels = found.labels().unwrap();
        assert_eq!(labels.names(), ["B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O"]);
        assert_eq!(ids(&found, &labels).unwrap().len(), sentences);
    }
}

#[test]
fn ud_english_ewt_is_read_as_published() {
    let Some(data) = cloze_testing::real_data("ud-ewt") else { return };
    // Counted with grep and cut: sentences by blank lines, documents by # newdoc, nouns by lines.
    for (split, sentences, documents, nouns) in
        [("train", 12_544, 540, 34_751), ("dev", 2_001, 318, 4_210), ("test", 2_077, 316, 4_123)]
    {
        let path = data.join(format!("en_ewt-ud-{split}.conllu"));
        let found = TaggedSentences::read(&path, None, LabelsNeeded::Required).unwrap();
        assert_eq!(found.sentences().len(), sentences, "{split}");
        assert_eq!(found.sentences().last().unwrap().document + 1, documents, "{split}");
        let tags = found.sentences().iter().flat_map(|sentence| &sentence.tags);
        assert_eq!(tags.filter(|tag| *tag == "NOUN").count(), nouns, "{split}");
        assert_eq!(found.labels().unwrap().len(), 17, "{split}");
    }
}

fn words_and_tags(name: &str, text: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let found = read(name, text, LabelsNeeded::Required).unwrap();
    found.sentences().iter().map(|sentence| (sentence.words.clone(), sentence.tags.clone())).collect()
}

fn pair(words: &str, tags: &str) -> (Vec<String>, Vec<String>) {
    let split = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    (split(words), split(tags))
}

#[test]
fn r37_json_is_not_read_as_columns() {
    let expected = [pair("EU rejects", "B-ORG O"), pair("{", "O")];
    for (name, text) in [
        (
            "a.jsonl",
            "{\"words\": [\"EU\", \"rejects\"], \"tags\": [\"B-ORG \", \"O\"]}\n\n{\"tokens\": [\"{\"], \"tags\": [\"O\"]}\n",
        ),
        (
            "a.txt",
            "{\"words\": [\"EU\", \"rejects\"], \"labels\": [\"B-ORG\", \"O\"]}\n{\"tokens\": [\"{\"], \"labels\": [\"O\"]}\n",
        ),
        (
            "a.json",
            "[{\"tokens\": [\"EU\", \"rejects\"], \"ner_tags\": [\"B-ORG\", \"O\"]},\n {\"tokens\": [\"{\"], \"ner_tags\": [\"O\"]}]",
        ),
    ] {
        assert_eq!(words_and_tags(name, text), expected, "{name}");
        assert_eq!(read(name, text, LabelsNeeded::Required).unwrap().format(), TagFormat::Objects);
    }
    // A brace may be a word.
    assert_eq!(words_and_tags("a.txt", "{ O\n} O\n"), [pair("{ }", "O O")]);
    for (row, parts) in [
        ("{\"words\": [\"a\", \"b\"], \"tags\": \"B-PER O\"}", ["\"tags\" is a string", "expected a list"]),
        ("{\"words\": \"a b\", \"tags\": [\"O\"]}", ["\"words\" is a string", "expected a list"]),
        ("{\"words\": [\"a\", \"b\"], \"tags\": [\"O\"]}", ["2 words and 1 entries", "the same number"]),
        ("{\"words\": [\"a\"]}", ["none for \"a\"", "expected a tag"]),
        ("{\"words\": [1], \"tags\": [\"O\"]}", ["word 1 is a number", "string"]),
        ("{\"words\": [\"a\"], \"tags\": [null]}", ["the tag of word 1 is null", "name or a number"]),
        ("{\"text\": \"a\"}", ["expected a list of words", "\"text\""]),
        ("\"words\"", ["object", "a string"]),
    ] {
        let text = format!("{{\"words\": [\"x\"], \"tags\": [\"O\"]}}\n{row}\n");
        fails(read("a.jsonl", &text, LabelsNeeded::Required), &["a.jsonl:2:", parts[0], parts[1]]);
    }
    let both = "{\"tokens\": [\"a\"], \"pos_tags\": [\"NOUN\"], \"ner_tags\": [\"O\"]}\n";
    let found = read("a.jsonl", both, LabelsNeeded::Required).unwrap();
    assert_eq!(found.sentences()[0].tags, ["O"]);
    assert!(found.notes()[0].contains("\"ner_tags\"") && found.notes()[0].contains("`label`"), "{:?}", found.notes());
    let pos =
        TaggedSentences::read_key(&file("a.jsonl", both).path, None, Some("pos_tags"), LabelsNeeded::Required).unwrap();
    assert_eq!((&*pos.sentences()[0].tags, pos.notes().len()), (&["NOUN".to_owned()][..], 0));
    fails(
        TaggedSentences::read_key(&file("a.jsonl", both).path, None, Some("upos"), LabelsNeeded::Required),
        &["a.jsonl:1:", "no list \"upos\""],
    );
    fails(
        TaggedSentences::read_key(&file("a.txt", "a O").path, None, Some("tags"), LabelsNeeded::Required),
        &["`tag_column`"],
    );
    // A 0 in columns is not an index.
    let labels = Labels::from_model(&["B-LOC".to_owned(), "O".to_owned()], &[]).unwrap();
    fails(ids(&read("a.txt", "a 0\n", LabelsNeeded::Required).unwrap(), &labels), &["a.txt:1:", "unknown label \"0\""]);
    let objects = read("a.jsonl", "{\"tokens\": [\"a\"], \"tags\": [1]}\n", LabelsNeeded::Required).unwrap();
    assert_eq!(ids(&objects, &labels).unwrap(), [[1]]);
    // Numbers without names have no meaning.
    let numbers = read("a.jsonl", "{\"tokens\": [\"a\"], \"tags\": [3]}\n", LabelsNeeded::Required).unwrap();
    assert!(numbers.has_numbers() && numbers.sentences()[0].tags == ["3"]);
    assert_eq!(read("a.jsonl", "{\"tokens\": [\"a\"]}\n", LabelsNeeded::Optional).unwrap().sentences()[0].words, ["a"]);
}

#[test]
fn class_names_of_parquet_tags_are_used() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/huggingface.parquet");
    let found = TaggedSentences::read_key(&path, None, Some("ner_tags"), LabelsNeeded::Required).unwrap();
    let sentences: Vec<_> = found.sentences().iter().map(|s| (s.words.clone(), s.tags.clone())).collect();
    assert_eq!(sentences, [pair("Ada Lovelace wrote", "B-PER I-PER O"), pair("London", "B-LOC")]);
    assert!(!found.has_numbers());
    let pos = TaggedSentences::read_key(&path, None, Some("pos_tags"), LabelsNeeded::Required).unwrap();
    assert_eq!(pos.sentences()[1].tags, ["PROPN"]);
}

#[test]
fn r38_white_space_comments_and_headers_are_not_tags() {
    let expected = [pair("Paris is", "B-LOC O"), pair("Paris", "B-LOC")];
    for text in [
        "Paris\tB-LOC \nis\tO\n\nParis\tB-LOC\n",
        "Paris\tB-LOC\t \nis\tO\t \n\nParis\tB-LOC\t\n",
        "Paris \t B-LOC\nis\tO  \n\nParis\tB-LOC\n",
        "token\ttag\nParis\tB-LOC\nis\tO\n\nParis\tB-LOC\n",
        "Word Label\n\nParis B-LOC\nis O\n\nParis B-LOC\n",
        "# id 1\nParis B-LOC\nis O\n\n# a comment of its own\nParis B-LOC\n",
        "# id 1\tdomain=dev\nParis\tB-LOC\nis\tO\n\n# id 2\tdomain=dev\nParis\tB-LOC\n",
    ] {
        assert_eq!(words_and_tags("a.txt", text), expected, "{text:?}");
    }
    let multiconer = "# id f423 domain=dev\nParis _ _ B-LOC\nis _ _ O\n\n# id f424 domain=dev\nParis _ _ B-LOC\n";
    assert_eq!(words_and_tags("a.conll", multiconer), expected);
    assert!(
        read("a.txt", "token tag\na O\n", LabelsNeeded::Required).unwrap().notes()[0]
            .contains("line 1 (\"token tag\") is a header")
    );
    // It is a word if it has a tag that also occurs on other lines, or if a tab follows the # sign.
    assert_eq!(words_and_tags("a.txt", "#\tSYM\n1\tNUM\n"), [pair("# 1", "SYM NUM")]);
    assert_eq!(words_and_tags("a.txt", "# O\n1 O\n"), [pair("# 1", "O O")]);
    assert_eq!(words_and_tags("a.txt", "word O\ntag O\n"), [pair("word tag", "O O")]);
    // A word that contains a space is not split if its tag is missing.
    fails(read("a.txt", "a\tO\nNew York\t\n", LabelsNeeded::Required), &["a.txt:2:", "found 1", "expected 2 columns"]);
    let conllu = token("1", " a ", "AUX ", "_");
    assert_eq!(words_and_tags("a.conllu", &conllu), [pair("a", "AUX")]);
    assert_eq!(words_and_tags("a.txt", "en:ab\tB-PER \nen:cd\tO\t\n"), [pair("ab cd", "B-PER O")]);
}

#[test]
fn a_table_of_texts_is_not_read_as_words() {
    for (name, text) in [
        ("a.tsv", "sentence\tlabel\nA fine film .\tpos\nbad\tneg\n"),
        ("a.tsv", "A fine film .\tpos\nA bad one .\tneg\n"),
        ("a.csv", "text,label\nA fine film.,pos\n"),
    ] {
        fails(read(name, text, LabelsNeeded::Required), &[name, "table", "word"]);
    }
    let columns = Some(TagFormat::COLUMNS);
    let given =
        TaggedSentences::read(&file("a.tsv", "New York\tB-LOC\n").path, columns, LabelsNeeded::Required).unwrap();
    assert_eq!(given.sentences()[0].words, ["New York"]);
}
