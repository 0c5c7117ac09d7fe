use super::*;
use crate::datasets::testing::{fails, file, shared_data};

fn read(name: &str, text: &str, need: Need) -> Result<TaggedSentences, TaskError> {
    TaggedSentences::read(&file(name, text).path, None, need)
}

fn sentence(words: &[&str], tags: &[&str], document: usize, line: usize) -> TaggedSentence {
    let owned = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
    TaggedSentence { words: owned(words), tags: owned(tags), document, line }
}

const CONLL: &str = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n\n-DOCSTART- -X- -X- O\n-DOCSTART- -X- -X- O\n\n# SYM O O";

/// The numbers of all tags.
fn ids(file: &TaggedSentences, labels: &Labels) -> Result<Vec<Vec<usize>>, TaskError> {
    file.sentences().iter().map(|sentence| file.tag_ids(sentence, labels, |_| None)).collect()
}

#[test]
fn conll_columns_and_documents() {
    let file_ = read("eng.train", CONLL, Need::Required).unwrap();
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
    let tags = TaggedSentences::read(&file("a", CONLL).path, chosen, Need::Required).unwrap();
    assert_eq!(tags.sentences()[0].tags, ["NNP", "VBZ"]);
}

#[test]
fn columns_between_tabs_and_marks_and_line_ends() {
    let text = "\u{feff}New\u{a0}York\tB-LOC\r\nis\tO\r\n \r\nbig  O\r\n";
    let expected = [sentence(&["New\u{a0}York", "is"], &["B-LOC", "O"], 0, 1), sentence(&["big"], &["O"], 0, 4)];
    assert_eq!(read("a.txt", text, Need::Required).unwrap().sentences(), expected);
}

#[test]
fn wikiann_loses_its_language() {
    let text = "en:10:30\tO\nen::\tO\nen:Paris\tB-LOC\n\nen:x\tO\n";
    let file_ = read("a.txt", text, Need::Required).unwrap();
    assert_eq!(file_.format(), TagFormat::WikiAnn);
    let expected = [sentence(&["10:30", ":", "Paris"], &["O", "O", "B-LOC"], 0, 1), sentence(&["x"], &["O"], 0, 5)];
    assert_eq!(file_.sentences(), expected);
    // One other line and the colon is a part of the word.
    let other = read("a.txt", &format!("{text}yes\tO\n"), Need::Required).unwrap();
    assert_eq!(other.format(), TagFormat::COLUMNS);
    assert_eq!(other.sentences()[1].words, ["en:x", "yes"]);
    let wikiann = |text: &str, need| TaggedSentences::read(&file("a", text).path, Some(TagFormat::WikiAnn), need);
    assert_eq!(wikiann("en:a\nen:b\n", Need::Optional).unwrap().sentences()[0].words, ["a", "b"]);
    fails(wikiann("en:a\tO\nb\tO\n", Need::Required), &["a:2:", "language:word"]);
    fails(wikiann("en:a\tx\tO\n", Need::Required), &["a:1:", "language:word"]);
    fails(wikiann("en:\tO\n", Need::Required), &["a:1:", "word is empty"]);
    fails(wikiann("en:a\t\n", Need::Required), &["a:1:", "tag is empty"]);
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
fn conllu_leaves_out_ranges_and_empty_nodes() {
    let expected = [
        sentence(&["vamos", "nos"], &["VERB", "PRON"], 0, 5),
        sentence(&["al mar"], &["NOUN"], 0, 10),
        sentence(&["#"], &["SYM"], 1, 13),
    ];
    for name in ["a.conllu", "a.txt"] {
        let file_ = read(name, &conllu(), Need::Required).unwrap();
        assert_eq!(file_.format(), TagFormat::UPOS);
        assert_eq!(file_.sentences(), expected, "{name}");
    }
    let xpos = TaggedSentences::read(&file("a.conllu", conllu()).path, Some(TagFormat::XPOS), Need::Required);
    assert_eq!(xpos.unwrap().sentences()[0].tags, ["V", "P"]);
}

#[test]
fn broken_conllu() {
    fails(read("a.conllu", "1\tword\tNOUN\n", Need::Required), &["a.conllu:1:", "3 columns", "expected 10"]);
    let eleven = token("1", "a", "X", "_").replace('\n', "\tmore\n");
    fails(read("a.conllu", &eleven, Need::Required), &["a.conllu:1:", "11 columns"]);
    let no_blank = token("1", "a", "X", "_") + &token("1", "b", "X", "_");
    fails(read("a.conllu", &no_blank, Need::Required), &["a.conllu:2:", "expected 2", "blank line"]);
    let gap = token("1", "a", "X", "_") + &token("2", "b", "_", "_");
    fails(read("a.conllu", &gap, Need::Required), &["a.conllu:2:", "no tag"]);
    fails(read("a.conllu", &gap, Need::Optional), &["a.conllu:2:", "words before have"]);
    for tag in [0, 11] {
        let format = Some(TagFormat::ConllU { tag });
        fails(TaggedSentences::read(&file("a.conllu", conllu()).path, format, Need::Required), &["column"]);
    }
}

#[test]
fn words_without_tags_only_for_prediction() {
    let text = "One\nword\n\na\nline\n";
    let file_ = read("a.txt", text, Need::Optional).unwrap();
    assert_eq!(file_.sentences(), [sentence(&["One", "word"], &[], 0, 1), sentence(&["a", "line"], &[], 0, 4)]);
    assert!(!file_.is_tagged());
    assert_eq!(ids(&file_, &Labels::given(["O"]).unwrap()).unwrap(), [vec![0usize; 0], vec![]]);
    fails(file_.labels(), &["no tags"]);
    fails(read("a.txt", text, Need::Required), &["a.txt:1:", "\"One\" has no tag"]);
    let bare = token("1", "a", "_", "_") + &token("2", "b", "_", "_");
    assert_eq!(read("a.conllu", &bare, Need::Optional).unwrap().sentences()[0].words, ["a", "b"]);
    fails(read("a.conllu", &(bare + &token("3", "c", "X", "_")), Need::Optional), &["a.conllu:3:", "before have none"]);
}

#[test]
fn words_and_tags_that_do_not_align() {
    fails(read("a.txt", "one O\ntwo\n", Need::Required), &["a.txt:2:", "1 columns", "expected 2"]);
    fails(read("a.txt", "one\ntwo O\n", Need::Optional), &["a.txt:2:", "2 columns", "expected 1"]);
    fails(read("a.txt", "a b O\n\nc d e O\n", Need::Required), &["a.txt:3:", "4 columns"]);
    fails(read("a.txt", "a\t\n", Need::Required), &["a.txt:1:", "tag is empty"]);
    for (word, tag) in [(0, None), (1, Some(0))] {
        let format = Some(TagFormat::Columns { word, tag });
        fails(TaggedSentences::read(&file("a", "a O").path, format, Need::Required), &["column: 0"]);
    }
    let format = Some(TagFormat::Columns { word: 3, tag: None });
    fails(TaggedSentences::read(&file("a", "a O").path, format, Need::Required), &["a:1:", "word in column 3"]);
    let format = Some(TagFormat::Columns { word: 1, tag: Some(3) });
    fails(TaggedSentences::read(&file("a", "a O").path, format, Need::Required), &["a:1:", "no tag"]);
}

#[test]
fn unknown_tags_and_empty_files() {
    let dev = read("a.txt", "one O\n\ntwo O\nthree B-LOK\n", Need::Required).unwrap();
    let labels = Labels::found(["O", "B-LOC"]).unwrap();
    let parts = ["a.txt:3:", "word 2", "\"three\"", "unknown label \"B-LOK\"", "did you mean \"B-LOC\"?"];
    fails(ids(&dev, &labels), &parts);
    for text in ["", "\n\n", "-DOCSTART- O\n"] {
        fails(read("a.txt", text, Need::Optional), &["a.txt", "no words"]);
    }
}

#[test]
fn wikiann_as_published() {
    let Some(data) = shared_data() else { return };
    for (split, sentences, words) in [("train", 20_000, 160_394), ("dev", 10_000, 80_536), ("test", 10_000, 80_326)] {
        let path = data.join(format!("ner/wikiann-en.{split}.txt"));
        let found = TaggedSentences::read(&path, None, Need::Required).unwrap();
        assert_eq!(found.format(), TagFormat::WikiAnn);
        assert_eq!(found.sentences().len(), sentences, "{split}");
        assert_eq!(found.sentences().iter().map(|s| s.words.len()).sum::<usize>(), words, "{split}");
        let labels = found.labels().unwrap();
        assert_eq!(labels.names(), ["B-LOC", "B-ORG", "B-PER", "I-LOC", "I-ORG", "I-PER", "O"]);
        assert_eq!(ids(&found, &labels).unwrap().len(), sentences);
    }
}

#[test]
fn ud_english_ewt_as_published() {
    let Some(data) = shared_data() else { return };
    // Counted with grep and cut: sentences by blank lines, documents by # newdoc, nouns by lines.
    for (split, sentences, documents, nouns) in
        [("train", 12_544, 540, 34_751), ("dev", 2_001, 318, 4_210), ("test", 2_077, 316, 4_123)]
    {
        let path = data.join(format!("ud-ewt/en_ewt-ud-{split}.conllu"));
        let found = TaggedSentences::read(&path, None, Need::Required).unwrap();
        assert_eq!(found.sentences().len(), sentences, "{split}");
        assert_eq!(found.sentences().last().unwrap().document + 1, documents, "{split}");
        let tags = found.sentences().iter().flat_map(|sentence| &sentence.tags);
        assert_eq!(tags.filter(|tag| *tag == "NOUN").count(), nouns, "{split}");
        assert_eq!(found.labels().unwrap().len(), 17, "{split}");
    }
}
