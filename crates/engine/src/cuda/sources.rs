//! The kernels' sources, as text in the binary: NVRTC compiles them for the GPU that is there, and in tests a C++ compiler for the host.

use std::borrow::Cow;

/// A source of this crate: in tests, the file itself, so that a change needs no compilation of the crate.
macro_rules! source {
    ($path:expr) => {
        Source {
            path: concat!("src/", $path),
            #[cfg(not(any(test, feature = "emulator")))]
            text: include_str!(concat!("../", $path)),
        }
    };
}

macro_rules! kernels {
    ($($op:literal),* $(,)?) => { [$(source!(concat!("ops/", $op, "/cuda.cu"))),*] };
}

struct Source {
    path: &'static str,
    #[cfg(not(any(test, feature = "emulator")))]
    text: &'static str,
}

impl Source {
    fn text(&self) -> Cow<'static, str> {
        #[cfg(not(any(test, feature = "emulator")))]
        return Cow::Borrowed(self.text);
        #[cfg(any(test, feature = "emulator"))]
        {
            // A test binary that was built elsewhere is told where the sources are.
            let root = std::env::var_os("CLOZE_CUDA_SOURCES").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
            let path = std::path::Path::new(&root).join(self.path);
            Cow::Owned(std::fs::read_to_string(path).expect("a source of this crate"))
        }
    }
}

/// What kernels are written with, in the order of inclusion.
const HEADERS: &[Source] = &[
    source!("cuda/device.cuh"),
    source!("cuda/tile.cuh"),
    source!("cuda/activation.cuh"),
    source!("cuda/sums.cu"),
    source!("cuda/losses.cu"),
];

/// The kernels of each op.
const KERNELS: &[Source] = &kernels![
    "add",
    "add_norm",
    "attention",
    "binary_cross_entropy",
    "cast",
    "concat",
    "cosine_embedding_loss",
    "cross_entropy",
    "dropout",
    "embed",
    "glu",
    "index_select",
    "linear",
    "linear_cross_entropy",
    "linear_kl",
    "lstm",
    "matmul",
    "mse_loss",
    "multinomial",
    "normalize",
    "optimizer",
    "relation_kl",
    "rope",
    "scalar_mix",
    "segment_cross_entropy",
    "segment_mean",
    "segment_pool",
    "sum",
];

/// All sources as one program. Messages of the compiler name the files.
pub(super) fn program() -> String {
    let mut program = String::new();
    for source in HEADERS.iter().chain(KERNELS) {
        program.push_str(&format!("#line 1 \"{}\"\n", source.path));
        for line in source.text().lines() {
            // The files are in one program already.
            let is_own_include = line.starts_with("#include \"") && !line.contains("cuda_cpu.h");
            program.push_str(if is_own_include || line == "#pragma once" { "" } else { line });
            program.push('\n');
        }
    }
    program
}

/// The instances of kernel templates: the name of the instance, and the expression that names it in C++.
pub(super) fn instances() -> Vec<(String, String)> {
    let mut instances = Vec::new();
    for source in HEADERS.iter().chain(KERNELS) {
        for line in source.text().lines() {
            let args = line.trim().strip_prefix("KERNEL_OF(").and_then(|rest| rest.strip_suffix(')')?.split_once(", "));
            instances.extend(args.map(|(name, element)| (format!("{name}_{element}"), format!("{name}<{element}>"))));
        }
    }
    instances
}
