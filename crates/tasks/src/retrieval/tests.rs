use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;
use crate::embed::search::Similarity;

struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn of(corpus: &str, queries: &str, qrels: &str) -> Files {
        let files = Files { dir: tempfile::tempdir().unwrap() };
        for (name, text) in [("corpus", corpus), ("queries", queries), ("qrels", qrels)] {
            std::fs::write(files.dir.path().join(name), text).unwrap();
        }
        files
    }

    fn open(&self) -> Result<Collection, TaskError> {
        let path = |name| self.dir.path().join(name);
        Collection::open(&path("corpus"), &path("queries"), &path("qrels"))
    }

    fn error(&self) -> String {
        self.open().unwrap_err().to_string()
    }
}

fn device() -> Device {
    Device::cpu(Some(2)).unwrap()
}

fn texts(entries: &[Entry]) -> Vec<(&str, &str)> {
    entries.iter().map(|entry| (&entry.id[..], &entry.text[..])).collect()
}

const CORPUS: &str = "{\"_id\": \"a\", \"title\": \"One\", \"text\": \"first\"}\n{\"_id\": 7, \"text\": \"second\"}\n\n\
                      {\"_id\": \"q1\", \"title\": \"\", \"text\": \"third\"}\n";
const QUERIES: &str =
    "{\"_id\": \"q1\", \"text\": \"?\"}\n{\"_id\": \"q 2\", \"text\": \"??\"}\n{\"_id\": \"q3\", \"text\": \"???\"}\n";
const QRELS: &str = "query-id\tcorpus-id\tscore\nq1\ta\t2\nq1\tq1\t1\nq 2\t7\t1\nq 2\tgone\t1\nq 2\ta\t-1\n";

#[test]
fn beir_collections_are_read_and_scored() {
    let collection = Files::of(CORPUS, QUERIES, QRELS).open().unwrap();
    assert_eq!(texts(&collection.documents), [("a", "One first"), ("7", "second"), ("q1", "third")]);
    assert_eq!(texts(&collection.queries), [("q1", "?"), ("q 2", "??")]);
    assert_eq!((collection.unjudged, collection.missing, collection.judgements()), (1, 1, 5));
    // Each query has two relevant documents. One of them cannot be found (q1's document with the same id is excluded, q
    // 2's is not in the corpus), and the other has rank 2.
    let documents = Vectors::new(2, vec![1.0, 0.0, 1.0, 2.0, 0.0, 3.0]);
    let queries = Vectors::new(2, vec![0.5, 1.0, 0.2, 9.0]);
    let documents = Index::new(documents, Similarity::Cosine);
    let scores = collection.score(&documents, queries, true, 10, &[1, 10], &device()).unwrap();
    assert_eq!((scores.queries, scores.without_relevant), (2, 0));
    let (first, second) = (1.0 / 2.0, 1.0 / 2.0);
    assert!((scores.mrr - (first + second) / 2.0).abs() < 1e-12, "{scores:?}");
    assert!((scores.map - (first / 2.0 + second / 2.0) / 2.0).abs() < 1e-12, "{scores:?}");
    assert_eq!((scores.at[0].recall, scores.at[1].recall), (0.0, 0.5));
}

#[test]
fn trec_judgements_and_files_without_a_header_are_read() {
    let collection = Files::of(CORPUS, QUERIES, "q3 0 a 2\nq3 Q0 7 0\n").open().unwrap();
    assert_eq!(collection.grades, [HashMap::from([(0, 2), (1, 0)])]);
    let collection = Files::of(CORPUS, QUERIES, "q3\ta\t2\n").open().unwrap();
    assert_eq!(collection.grades, [HashMap::from([(0, 2)])]);
}

#[test]
fn r49_null_titles_and_documents_with_only_a_title_are_read() {
    let corpus = "{\"_id\": \"a\", \"title\": null, \"text\": \"first\"}\n{\"_id\": \"b\", \"title\": 1984}\n\
                  {\"_id\": \"c\", \"title\": \"Three\", \"text\": null}\n";
    let collection = Files::of(corpus, QUERIES, "q3\ta\t2\n").open().unwrap();
    assert_eq!(texts(&collection.documents), [("a", "first"), ("b", "1984"), ("c", "Three")]);
}

#[test]
fn r49_judgements_are_read_in_all_published_formats() {
    let grades = |qrels: &str| Files::of(CORPUS, QUERIES, qrels).open().unwrap().grades;
    let expected = [HashMap::from([(0, 2), (1, 0)])];
    assert_eq!(grades("query-id\tcorpus-id\tscore\nq3\ta\t2.0\nq3\t7\t0.0\n"), expected);
    assert_eq!(grades("q3 0 a 2.000\nq3 0 7 -1\n"), expected);
    let objects = "{\"query-id\": \"q3\", \"corpus-id\": \"a\", \"score\": 2}\n{\"query-id\": \"q3\", \"corpus-id\": 7, \"score\": 0.0}\n";
    assert_eq!(grades(objects), expected);
    // Judged queries that are not in the file of queries are counted.
    let collection = Files::of(CORPUS, QUERIES, "q8\ta\t1\nq3\ta\t2\nq8\t7\t1\nq9\ta\t1\n").open().unwrap();
    assert_eq!((collection.unknown, collection.missing, collection.judgements()), (2, 0, 1));
    // The formats of CISI and CACM.
    let collection =
        Files::of(SMART, SMART_QUERIES, "     1     2\t0\t0.000000\n     2    10\t0\t0.000000\n").open().unwrap();
    assert_eq!(collection.grades, [HashMap::from([(1, 1)]), HashMap::from([(3, 1)])]);
    assert!(collection.grading.contains("every listed document"), "{}", collection.grading);
    let collection = Files::of(SMART, SMART_QUERIES, "01 0002  0 0\n").open().unwrap();
    assert_eq!(collection.grades, [HashMap::from([(1, 1)])]);
}

#[test]
fn r49_documents_with_the_id_of_the_query_are_excluded_unless_relevant() {
    let queries = "{\"_id\": \"1\", \"text\": \"?\"}\n{\"_id\": \"2\", \"text\": \"??\"}\n";
    let corpus = "{\"_id\": \"1\", \"text\": \"one\"}\n{\"_id\": \"2\", \"text\": \"two\"}\n{\"_id\": \"3\", \"text\": \"three\"}\n";
    let open = |qrels: &str| Files::of(corpus, queries, qrels).open().unwrap();
    let score = |of: &Collection, leave_out| {
        let documents = Index::new(Vectors::new(2, vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]), Similarity::Cosine);
        let queries = Vectors::new(2, vec![3.0, 1.0, 1.0, 3.0]);
        of.score(&documents, queries, leave_out, 10, &[10], &device()).unwrap().mrr
    };
    // Queries are also documents, which are excluded. BEIR's means are 1 and, with ignore_identical_ids=False, 0.5.
    let quora = open("1\t3\t1\n2\t3\t1\n");
    assert_eq!((quora.same_id, quora.same_id_relevant, quora.leaves_out_same_id()), (2, 0, true));
    assert_eq!((score(&quora, true), score(&quora, false)), (1.0, 0.5));
    // Independent numbers.
    let numbered = open("1\t1\t1\n2\t3\t1\n");
    assert_eq!((numbered.same_id, numbered.same_id_relevant, numbered.leaves_out_same_id()), (2, 1, false));
    assert_eq!((score(&numbered, true), score(&numbered, false)), (0.5, 0.75));
}

#[test]
fn scores_of_a_collection_equal_beir() {
    #[derive(serde::Deserialize)]
    struct Expected {
        documents: BTreeMap<String, Vec<f32>>,
        queries: BTreeMap<String, Vec<f32>>,
        qrels: BTreeMap<String, BTreeMap<String, i32>>,
        scored: usize,
        map: f64,
        mrr: f64,
        ndcg: BTreeMap<String, f64>,
        recall: BTreeMap<String, f64>,
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/retrieval/collection.json");
    let expected: Expected = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let lines = |of: &BTreeMap<String, Vec<f32>>| -> String {
        of.keys().map(|id| format!("{{\"_id\": \"{id}\", \"text\": \"x\"}}\n")).collect()
    };
    let vectors = |of: &BTreeMap<String, Vec<f32>>| Vectors::new(4, of.values().flatten().copied().collect());
    let mut qrels = "query-id\tcorpus-id\tscore\n".to_owned();
    for (query, judged) in &expected.qrels {
        judged.iter().for_each(|(document, grade)| qrels += &format!("{query}\t{document}\t{grade}.0\n"));
    }
    let collection = Files::of(&lines(&expected.documents), &lines(&expected.queries), &qrels).open().unwrap();
    assert_eq!((collection.unknown, collection.missing), (1, 1));
    assert_eq!((collection.same_id, collection.leaves_out_same_id()), (2, true));
    let (documents, queries) = (vectors(&expected.documents), vectors(&expected.queries));
    let found =
        collection.score(&Index::new(documents, Similarity::Cosine), queries, true, 1000, &[5, 10], &device()).unwrap();
    assert_eq!((found.queries, found.without_relevant), (expected.scored, 1));
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}: {found:?}");
    close(found.map, expected.map);
    close(found.mrr, expected.mrr);
    for at in &found.at {
        close(at.ndcg, expected.ndcg[&at.k.to_string()]);
        close(at.recall, expected.recall[&at.k.to_string()]);
    }
}

#[test]
fn documents_of_equal_similarity_are_ranked_as_in_trec_eval() {
    // pytrec_eval of {"a": 0.5, "b": 0.5, "c": 0.1} with a relevant: reciprocal rank 0.5.
    let corpus =
        "{\"_id\": \"a\", \"text\": \"x\"}\n{\"_id\": \"b\", \"text\": \"x\"}\n{\"_id\": \"c\", \"text\": \"y\"}\n";
    let collection = Files::of(corpus, QUERIES, "q1\ta\t1\n").open().unwrap();
    let documents = Index::new(Vectors::new(2, vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0]), Similarity::Cosine);
    let scores = collection.score(&documents, Vectors::new(2, vec![1.0, 0.2]), true, 10, &[10], &device()).unwrap();
    assert_eq!(scores.mrr, 0.5);
}

const SMART: &str = ".I 1\r\n.T\r\nwings  in\r\nwind .\r\n.A\r\nsomebody\r\n.B\r\n1958\r\n.W\r\nwings in wind .\r\n  are .short\r\n\
                     .I 2\n.T\ntitle\n.W\nother words\n.I 3\n.T\n.A\n.B\n.W\n.I 10\n.T\nonly title\n";
const SMART_QUERIES: &str = ".I 001\n.W\nwhat is\nit .\n.I 004\n.W\nwhy .\n";

#[test]
fn smart_collections_are_read() {
    let collection = Files::of(SMART, SMART_QUERIES, "1 1 1\r\n1 2 4 \r\n2 10 -1\n2 3 3").open().unwrap();
    assert_eq!(
        texts(&collection.documents),
        [("1", "wings in wind . are .short"), ("2", "title other words"), ("3", ""), ("10", "only title")]
    );
    assert_eq!(texts(&collection.queries), [("1", "what is it ."), ("2", "why .")]);
    assert_eq!(collection.grades, [HashMap::from([(0, 4), (1, 1)]), HashMap::from([(3, 0), (2, 2)])]);
    assert!(collection.grading.contains("codes"));
    // MED's judgements have TREC's format.
    let collection = Files::of(SMART, SMART_QUERIES, "1 0 1 1\n2 0 10 1\n").open().unwrap();
    assert_eq!(collection.grades, [HashMap::from([(0, 1)]), HashMap::from([(3, 1)])]);
    assert!(!collection.grading.contains("codes"));
}

#[test]
fn errors_of_invalid_files_say_where_and_what() {
    let beir = |corpus: &str, queries: &str, qrels: &str| Files::of(corpus, queries, qrels).error();
    assert!(beir("", QUERIES, QRELS).contains("corpus: expected documents or queries"));
    assert!(beir("\nplain", QUERIES, QRELS).contains("corpus:2: expected JSON"));
    assert!(beir(CORPUS, SMART_QUERIES, QRELS).contains("queries: expected the layout of"));
    assert!(
        beir("{\"id\": \"a\", \"text\": \"x\"}", QUERIES, QRELS).contains("corpus:1: no key \"_id\", only id, text")
    );
    assert!(beir("{\"_id\": null, \"text\": \"x\"}", QUERIES, QRELS).contains("\"_id\" is null"));
    assert!(
        beir("{\"_id\": \"a\", \"text\": [1]}", QUERIES, QRELS).contains("expected a string in \"text\", found [1]")
    );
    assert!(
        beir(&format!("{CORPUS}{{\"_id\": \"a\", \"text\": \"\"}}"), QUERIES, QRELS)
            .contains("corpus:5: expected unique ids, found \"a\" again, which is also in line 1")
    );
    assert!(beir(CORPUS, QUERIES, "").contains("qrels: expected lines with query, document and grade"));
    assert!(beir(CORPUS, QUERIES, "h\th\th\n").contains("qrels: expected lines with query, document and grade"));
    assert!(beir(CORPUS, QUERIES, "h\th\th\nq1\ta\tx\n").contains("qrels:2: expected an integer"));
    assert!(beir(CORPUS, QUERIES, "q1\ta\n").contains("found 2 cells"));
    assert!(beir(CORPUS, QUERIES, "q1\ta\t1\nq1\t7\t0.5\n").contains("qrels:2: expected an integer as the last cell"));
    assert!(beir(CORPUS, QUERIES, "q9\ta\t1\n").contains("qrels: unknown query \"q9\""));
    assert!(beir(CORPUS, QUERIES, "{\"query-id\": \"q1\", \"score\": 1}\n").contains("qrels:1: no key \"corpus-id\""));
    assert!(
        beir(CORPUS, QUERIES, "q1\ta\t1\nq1\ta\t2\n")
            .contains("qrels:2: expected one grade for each document of query \"q1\"")
    );
    assert!(beir(CORPUS, QUERIES, "q1\tgone\t1\n").contains("no judged document is in the corpus"));
    let smart = |corpus: &str, qrels: &str| Files::of(corpus, SMART_QUERIES, qrels).error();
    assert!(smart(".I 1\nwords\n", "1 1 1").contains("corpus:2: expected a field"));
    assert!(smart(".I\n.W\nx\n", "1 1 1").contains("expected JSON"));
    assert!(smart(".I 1\n.W\nx\n.I\n", "1 1 1").contains("corpus:4: expected a number after .I"));
    assert!(
        smart(".I 1\n.W\nx\n.I 1\n.W\ny\n", "1 1 1")
            .contains("corpus:4: expected unique ids, found \"1\" again, which is also in line 1")
    );
    assert!(smart(SMART, "4 1 1").contains("qrels: unknown query \"4\"; the queries are numbered from 1 to 2"));
    assert!(smart(SMART, "1 1 6").contains("qrels:1: expected a code"));
    assert!(Collection::open(&PathBuf::from("absent"), &PathBuf::from("x"), &PathBuf::from("y")).is_err());
}

#[test]
fn cranfield_is_read_completely() {
    let Some(dir) = cloze_testing::real_data("retrieval/cranfield") else { return };
    let path = |name| dir.join(name);
    let collection = Collection::open(&path("cran.all.1400"), &path("cran.qry"), &path("cranqrel")).unwrap();
    let counts = (collection.documents.len(), collection.queries.len(), collection.judgements());
    assert_eq!(counts, (1400, 225, 1837));
    assert_eq!((collection.unjudged, collection.missing), (0, 0));
    let empty: Vec<&str> = collection.documents.iter().filter(|d| d.text.is_empty()).map(|d| &d.id[..]).collect();
    assert_eq!(empty, ["471", "995"]);
    let mut of_grade = [0; 5];
    for grades in &collection.grades {
        grades.values().for_each(|&grade| of_grade[grade as usize] += 1);
    }
    assert_eq!(of_grade, [225, 363, 734, 387, 128]);
    assert!(collection.queries[224].text.starts_with("what design factors"));
}

/// Every seed must give a collection or an error, without a panic.
#[test]
fn seeds_of_the_fuzz_target_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["corpus", "queries", "judgements"].map(|name| dir.path().join(name));
    for seed in cloze_testing::fuzz_seeds("retrieval") {
        let seed = String::from_utf8_lossy(&seed);
        let files = seed.split("\n-----\n").chain(std::iter::repeat(""));
        names.iter().zip(files).for_each(|(name, file)| std::fs::write(name, file).unwrap());
        let [corpus, queries, judgements] = &names;
        let _ = Collection::open(corpus, queries, judgements);
    }
}
