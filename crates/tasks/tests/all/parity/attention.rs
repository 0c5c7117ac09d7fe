//! Attention probabilities equal those of Transformers.

use cloze_engine::{DType, Pass};
use cloze_model::{Inputs, Model};

use super::reference::{Array, pack, read};
use super::{device, fixtures};

/// The largest difference of a probability that rounding explains in f32; the observed one is a tenth.
const BOUND: f64 = 2e-6;

/// The largest difference from the probabilities of a fixture.
fn largest_difference(model: &Model, sequences: &[Inputs], expected: &[Array]) -> f64 {
    let device = device();
    let mut largest: f64 = 0.0;
    for (row, inputs) in sequences.iter().enumerate() {
        let mut pass = Pass::inference(&device, &model.params, DType::F32);
        let layers: Vec<usize> = (0..expected.len()).collect();
        let scores = model.attention_scores(&mut pass, inputs, &layers);
        assert_eq!(scores.len(), expected.len());
        for (layer, expected) in scores.iter().zip(expected) {
            let [_, heads, width, _] = expected.shape[..] else { panic!("{:?}", expected.shape) };
            assert_eq!(layer.heads(), heads);
            for head in 0..heads {
                let found = layer.probabilities(head);
                for (token, found) in found.chunks(inputs.tokens()).enumerate() {
                    let expected = expected.row((row * heads + head) * width + token);
                    for (found, expected) in found.iter().zip(expected) {
                        largest = largest.max((f64::from(*found) - expected).abs());
                    }
                    let sum: f64 = found.iter().map(|p| f64::from(*p)).sum();
                    assert!((sum - 1.0).abs() < 1e-5, "a row sums to {sum}");
                }
            }
        }
    }
    largest
}

/// The folder's model, the sequences of its reference and the probabilities of its layers.
fn case(name: &str) -> (Model, Vec<Inputs>, Vec<Array>) {
    let folder = fixtures().join("parity").join(name);
    let model = Model::load(&folder, &device()).unwrap();
    let mut reference = read(&folder.join("reference.safetensors")).unwrap();
    let all = pack(&mut reference, model.heads, model.config()).unwrap().tokens;
    let sequence = |ends: &[i32]| {
        let range = ends[0] as usize..ends[1] as usize;
        let ids: Vec<u32> = all.ids[range.clone()].iter().map(|&id| id as u32).collect();
        let segments: Vec<u8> = all.segments[range].iter().map(|&segment| segment as u8).collect();
        let mut inputs = Inputs::default();
        inputs.push(&ids, &segments);
        inputs
    };
    let expected = read(&fixtures().join("attention").join(format!("{name}.safetensors"))).unwrap();
    let layers = (0..expected.len()).map(|layer| expected[&format!("layer.{layer}")].clone()).collect();
    (model, all.cu_seqlens.windows(2).map(sequence).collect(), layers)
}

#[test]
fn attention_probabilities_equal_those_of_transformers() {
    let entries = std::fs::read_dir(fixtures().join("attention")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() == "safetensors");
    let mut names: Vec<String> = paths.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names.len(), 15);
    for name in names {
        let (model, sequences, expected) = case(&name);
        assert_eq!(expected.len(), model.architecture().layers, "{name}");
        let found = largest_difference(&model, &sequences, &expected);
        println!("{name}: {found:.1e}");
        assert!(found < BOUND, "{name}: {found:e}");
    }
}

/// Tests the check itself: probabilities of other layers or of another sequence are noticed.
#[test]
fn attention_check_detects_differences() {
    for name in ["modernbert-base-model", "mpnet-base-model", "bert-base-model"] {
        let (model, sequences, expected) = case(name);
        let others: Vec<Array> = expected.iter().cycle().skip(1).take(expected.len()).cloned().collect();
        assert!(largest_difference(&model, &sequences, &others) > 1e-2, "{name}: other layers");
        assert!(largest_difference(&model, &sequences[1..2], &expected) > 1e-2, "{name}: another sequence");
    }
}
