//! Exports a Hugging Face folder as an ONNX file: `onnx FOLDER MODEL.onnx [LARGEST_FILE_BYTES]`. Used by `fixtures/onnx/check.py`.
#![allow(clippy::print_stdout, reason = "a program")]

use std::error::Error;
use std::path::Path;

use cloze_convert::onnx::{self, OnnxOptions};
use cloze_engine::Device;
use cloze_model::Model;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (dir, path, limit) = match arguments.as_slice() {
        [dir, path] => (dir, path, OnnxOptions::LARGEST_FILE),
        [dir, path, limit] => (dir, path, limit.parse()?),
        _ => return Err("expected FOLDER MODEL.onnx [LARGEST_FILE_BYTES]".into()),
    };
    let model = Model::load(Path::new(dir), &Device::cpu(Some(1))?)?;
    let mut options = OnnxOptions::new(model.class());
    options.largest_file = limit;
    println!("{:?}", onnx::write(&model, Path::new(path), &options)?);
    Ok(())
}
