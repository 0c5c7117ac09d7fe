use super::*;
use crate::datasets::LabelsNeeded;
use crate::datasets::classification::LabelledTexts;
use crate::datasets::classification::{LabelledText, score};
use crate::datasets::labels::Labels;
use crate::datasets::testing::fails;

#[test]
fn every_name_is_a_preset_with_complete_settings() {
    for name in NAMES {
        let task = DatasetPreset::named(name).unwrap();
        assert_eq!(task.name, name);
        assert!(task.metrics.contains(&task.best), "{name}");
        let texts = matches!(task.kind, "classify" | "regress");
        let labelled = matches!(task.kind, "classify" | "tag");
        assert_eq!(labelled, Labels::from_names(task.labels.iter().copied()).is_ok(), "{name}");
        assert_eq!(texts, task.exported.is_some(), "{name}");
        for split in [Split::Train, Split::Dev] {
            let file = task.files.iter().find(|file| file.split == split).unwrap();
            assert_eq!(texts, file.columns.as_ref().is_some_and(|columns| columns.label.is_some()), "{name}");
        }
        assert_eq!(task.kind == "answer", task.settings.stride.is_some(), "{name}");
    }
    assert_eq!(DatasetPreset::named("SST-2").unwrap().name, "sst2");
    assert_eq!(DatasetPreset::named("STS_B").unwrap().name, "stsb");
    fails(DatasetPreset::named("mnlii"), &["`task`", "\"mnlii\"", "did you mean \"mnli\"?", "\"squad2\""]);
}

#[test]
fn settings_are_those_of_the_paper() {
    let of = |name| DatasetPreset::named(name).unwrap().settings;
    let triple = |s: Settings| (s.batch_size, s.epochs, s.learning_rate);
    assert_eq!(triple(of("rte")), (32, 3, 2e-5));
    assert_eq!(triple(of("squad1")), (32, 3, 5e-5));
    assert_eq!(triple(of("squad2")), (48, 2, 5e-5));
    assert_eq!(triple(of("swag")), (16, 3, 2e-5));
    assert_eq!((of("squad2").max_length, of("squad2").stride, of("sst2").max_length), (384, Some(128), 128));
}

#[test]
fn files_are_found_in_the_official_folder() {
    let folder = tempfile::tempdir().unwrap();
    let mnli = DatasetPreset::named("mnli").unwrap();
    fails(mnli.find(folder.path(), Split::Dev), &["Dev file of mnli", "dev_matched.tsv", "contains none"]);
    for name in ["dev_matched.tsv.gz", "dev_mismatched.tsv", "train.csv", "valid.txt", "test.tsv"] {
        std::fs::write(folder.path().join(name), "").unwrap();
    }
    let find = |task: &str, split| DatasetPreset::named(task).unwrap().find(folder.path(), split);
    assert!(find("mnli", Split::Dev).unwrap().ends_with("dev_matched.tsv.gz"));
    assert!(find("mnli", Split::DevMismatched).unwrap().ends_with("dev_mismatched.tsv"));
    assert!(find("conll2003", Split::Dev).unwrap().ends_with("valid.txt"));
    assert!(find("mrpc", Split::Test).unwrap().ends_with("test.tsv"));
    fails(find("sst2", Split::Train), &["expected train.tsv", "\"train.csv\""]);
    fails(find("squad1", Split::Test), &["squad1 has no Test files"]);
    fails(mnli.find(&folder.path().join("none"), Split::Dev), &["cannot read"]);
}

#[test]
fn columns_follow_the_file() {
    let label = |task: &str, name: &str| {
        let task = DatasetPreset::named(task).unwrap();
        task.columns_of(Path::new(name)).map(|columns| columns.label.clone())
    };
    assert_eq!(label("cola", "x/train.tsv.gz"), Some(Some(Column::number(2))));
    assert_eq!(label("cola", "x/test.tsv"), Some(None));
    assert_eq!(label("cola", "my.tsv"), Some(Some(Column::number(2))));
    assert_eq!(label("cola", "train.parquet"), Some(Some(Column::name("label"))));
    assert_eq!(label("stsb", "test-gold.tsv"), Some(Some(Column::number(5))));
    assert_eq!(label("mnli", "dev_mismatched.tsv"), Some(Some(Column::name("gold_label"))));
    assert_eq!(label("squad1", "dev-v1.1.json"), None);
}

#[test]
fn glue_is_read_as_published() {
    let Some(data) = cloze_testing::real_data("glue") else { return };
    let read = |task: &DatasetPreset, folder: &str, split, need| {
        let path = task.find(&data.join(folder), split).unwrap();
        LabelledTexts::read(&path, task.columns_of(&path).unwrap(), need, task.ragged).unwrap()
    };
    for (name, folder, train, dev, test) in [
        ("sst2", "SST-2", 67_349, 872, 1_821),
        ("cola", "CoLA", 8_551, 1_043, 1_063),
        ("mrpc", "MRPC", 3_668, 408, 1_725),
        ("stsb", "STS-B", 5_749, 1_500, 1_379),
    ] {
        let task = DatasetPreset::named(name).unwrap();
        for (split, rows) in [(Split::Train, train), (Split::Dev, dev)] {
            let texts = read(&task, folder, split, LabelsNeeded::Required);
            // Some copies of MRPC's training file lack one row.
            let short = usize::from((name, split) == ("mrpc", Split::Train));
            assert!((rows - short..=rows).contains(&texts.rows().len()), "{name} {split:?}");
            assert!(texts.skipped().is_empty());
            assert!(texts.rows().iter().all(|row| !row.as_ref().unwrap().text.is_empty()));
            if task.kind == "regress" {
                assert!(texts.rows().iter().flatten().all(|row| row.pair.is_some()));
                let rows = texts.with_labels(score);
                assert!(rows.iter().all(|row| (0.0..=5.0).contains(&row.as_ref().unwrap().1)), "{name}");
            } else {
                let labels = Labels::from_names(task.labels.iter().copied()).unwrap();
                assert_eq!(texts.labels().unwrap().names(), ["0", "1"]);
                let rows = texts.with_labels(|label| labels.id_or_problem(label));
                let ids: Vec<usize> = rows.into_iter().map(|row| row.unwrap().1).collect();
                assert!((0..2).all(|id| ids.contains(&id)), "{name}");
            }
        }
        let test_texts = read(&task, folder, Split::Test, LabelsNeeded::Optional);
        assert_eq!(test_texts.rows().len(), test, "{name}");
        // MRPC's and STS-B's gold files take precedence.
        assert_eq!(test_texts.is_labelled(), ["mrpc", "stsb"].contains(&name), "{name}");
    }
    let stsb = DatasetPreset::named("stsb").unwrap();
    let gold = read(&stsb, "STS-B", Split::Test, LabelsNeeded::Required);
    let gold: Vec<(LabelledText, f32)> = gold.with_labels(score).into_iter().map(Result::unwrap).collect();
    assert_eq!(gold.iter().map(|(_, score)| *score).take(3).collect::<Vec<_>>(), [2.5, 3.6, 5.0]);
    assert_eq!(gold[0].0.text, "A girl is styling her hair.");
    assert_eq!(gold[0].0.pair.as_deref(), Some("A girl is brushing her hair."));
    // The unlabelled test files have the same sentences in the same order.
    for (task, folder, name) in
        [(&stsb, "STS-B", "test.tsv"), (&DatasetPreset::named("mrpc").unwrap(), "MRPC", "test.tsv")]
    {
        let path = data.join(folder).join(name);
        let bare =
            LabelledTexts::read(&path, task.columns_of(&path).unwrap(), LabelsNeeded::Optional, task.ragged).unwrap();
        let gold = read(task, folder, Split::Test, LabelsNeeded::Required);
        let texts = |texts: &LabelledTexts| -> Vec<(String, Option<String>)> {
            // STS-B's gold file has trailing spaces in some texts.
            let trimmed = |text: &String| text.trim().to_owned();
            texts
                .rows()
                .iter()
                .flatten()
                .map(|example| (trimmed(&example.text), example.pair.as_ref().map(trimmed)))
                .collect()
        };
        assert!(texts(&bare) == texts(&gold), "{folder}");
    }
    let cola = DatasetPreset::named("cola").unwrap();
    let dev = read(&cola, "CoLA", Split::Dev, LabelsNeeded::Required);
    assert_eq!(dev.rows()[0].as_ref().unwrap().line, 1);
}
