//! Exports a Hugging Face folder as an ONNX file: `onnx FOLDER MODEL.onnx [LARGEST_FILE_BYTES|int8]`. Used by `fixtures/onnx/check.py`.
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::path::Path;

use cloze_convert::onnx::{self, OnnxOptions, Quantization};
use cloze_engine::Device;
use cloze_model::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (dir, path, option) = match arguments.as_slice() {
        [dir, path] => (dir, path, None),
        [dir, path, option] => (dir, path, Some(option.as_str())),
        _ => return Err("expected FOLDER MODEL.onnx [LARGEST_FILE_BYTES|int8]".into()),
    };
    let model = Model::load(Path::new(dir), &Device::cpu(Some(1))?)?;
    let mut options = OnnxOptions::new(model.class());
    match option {
        Some("int8") => options.quantization = Some(Quantization::Int8),
        Some(limit) => options.largest_file = limit.parse()?,
        None => {}
    }
    println!("{:?}", onnx::write(&model, Path::new(path), &options)?);
    Ok(())
}
