//! Compiles the kernels for the GPU that is there, with NVRTC, at their first use. The result is kept in the user's cache.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};

use cudarc::nvrtc::sys;

use super::{libraries, sources};
use crate::EngineError;

/// Kernels for one architecture.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cubin {
    /// The code, an ELF file.
    pub(crate) image: Vec<u8>,
    /// The symbol of each instance of a kernel template. Other kernels have their own names.
    pub(crate) symbols: HashMap<String, String>,
}

/// The kernels for an architecture (`sm_90a`), from the cache or compiled.
pub(crate) fn cubin(architecture: &str) -> Result<Cubin, EngineError> {
    let found = libraries::open_nvrtc()?;
    let program = sources::program();
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both are valid for writes.
    check(unsafe { sys::nvrtcVersion(&mut major, &mut minor) }, &found.place)?;
    let key = [&program, architecture, &format!("{major}.{minor}"), &OPTIONS.join(" "), env!("CARGO_PKG_VERSION")];
    let file = cache_folder().map(|folder| folder.join(format!("{architecture}-{:016x}.cubin", hash(&key))));
    if let Some(cached) = file.as_deref().and_then(read) {
        return Ok(cached);
    }
    let (cubin, _) = compile(&program, architecture)?;
    if let Some(file) = file {
        // Without a cache, the next start compiles again.
        let _ = write(&file, &cubin);
    }
    Ok(cubin)
}

const OPTIONS: [&str; 3] = ["--std=c++20", "--extra-device-vectorization", "--ptxas-options=-v"];

/// Compiles a program; also returns the compiler's report: registers, spills and shared memory of each kernel.
pub(crate) fn compile(program: &str, architecture: &str) -> Result<(Cubin, String), EngineError> {
    let failed = |reason: String| EngineError::CudaCompiler { architecture: architecture.to_owned(), reason };
    let text = CString::new(program).expect("sources without NUL");
    let instances = sources::instances();
    let mut handle: sys::nvrtcProgram = std::ptr::null_mut();
    // SAFETY: the text is valid for the call; the compiler makes a copy.
    let created = unsafe {
        sys::nvrtcCreateProgram(&mut handle, text.as_ptr(), c"cloze.cu".as_ptr(), 0, std::ptr::null(), std::ptr::null())
    };
    check(created, "nvrtcCreateProgram")?;
    let program = Program(handle);
    let expressions: Vec<CString> =
        instances.iter().map(|(_, expression)| CString::new(expression.as_str()).expect("no NUL")).collect();
    for expression in &expressions {
        // SAFETY: the program is valid, and so is the text.
        check(unsafe { sys::nvrtcAddNameExpression(program.0, expression.as_ptr()) }, "nvrtcAddNameExpression")?;
    }
    let options: Vec<CString> = [format!("--gpu-architecture={architecture}")]
        .into_iter()
        .chain(OPTIONS.map(str::to_owned))
        .map(|option| CString::new(option).expect("no NUL"))
        .collect();
    let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    // SAFETY: the program and the options are valid.
    let compiled = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
    let log = program.log();
    if compiled != sys::nvrtcResult::NVRTC_SUCCESS {
        return Err(failed(format!("{compiled:?}\n{log}")));
    }
    let mut symbols = HashMap::new();
    for ((name, _), expression) in instances.iter().zip(&expressions) {
        let mut symbol: *const c_char = std::ptr::null();
        // SAFETY: the program is compiled; the symbol is valid as long as the program.
        let symbol = unsafe {
            check(sys::nvrtcGetLoweredName(program.0, expression.as_ptr(), &mut symbol), "nvrtcGetLoweredName")?;
            CStr::from_ptr(symbol)
        };
        symbols.insert(name.clone(), symbol.to_string_lossy().into_owned());
    }
    let mut size = 0;
    // SAFETY: the program is compiled, and `image` has the size that it says.
    let image = unsafe {
        check(sys::nvrtcGetCUBINSize(program.0, &mut size), "nvrtcGetCUBINSize")?;
        let mut image = vec![0u8; size];
        check(sys::nvrtcGetCUBIN(program.0, image.as_mut_ptr().cast()), "nvrtcGetCUBIN")?;
        image
    };
    Ok((Cubin { image, symbols }, log))
}

/// A program of the compiler.
struct Program(sys::nvrtcProgram);

impl Program {
    fn log(&self) -> String {
        let mut size = 0;
        // SAFETY: the program is valid, and `log` has the size that it says.
        unsafe {
            if sys::nvrtcGetProgramLogSize(self.0, &mut size) != sys::nvrtcResult::NVRTC_SUCCESS {
                return String::new();
            }
            let mut log = vec![0u8; size];
            sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast());
            String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned()
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is valid and not used again.
        unsafe { sys::nvrtcDestroyProgram(&mut self.0) };
    }
}

fn check(result: sys::nvrtcResult, call: &str) -> Result<(), EngineError> {
    match result {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        error => Err(EngineError::CudaCompiler { architecture: call.to_owned(), reason: format!("{error:?}") }),
    }
}

fn cache_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(cache.join("cloze").join("kernels"))
}

/// FNV-1a.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The first line of a file: its form, and the number of symbols and of bytes of code.
const FORM: &str = "cloze kernels 1";

/// Writes the file completely or not at all.
fn write(file: &Path, cubin: &Cubin) -> std::io::Result<()> {
    let folder = file.parent().expect("a file in a folder");
    std::fs::create_dir_all(folder)?;
    let mut symbols: Vec<_> = cubin.symbols.iter().collect();
    symbols.sort();
    let mut bytes = format!("{FORM} {} {}\n", symbols.len(), cubin.image.len()).into_bytes();
    for (name, symbol) in symbols {
        bytes.extend(format!("{name} {symbol}\n").bytes());
    }
    bytes.extend(&cubin.image);
    let own = file.with_extension(std::process::id().to_string());
    std::fs::write(&own, bytes)?;
    std::fs::rename(&own, file)
}

/// A complete file; `None` if there is none.
fn read(file: &Path) -> Option<Cubin> {
    let bytes = std::fs::read(file).ok()?;
    let line = |from: usize| -> Option<(&str, usize)> {
        let end = from + bytes[from..].iter().position(|byte| *byte == b'\n')?;
        Some((std::str::from_utf8(&bytes[from..end]).ok()?, end + 1))
    };
    let (first, mut at) = line(0)?;
    let (count, size) = first.strip_prefix(FORM)?.trim_start().split_once(' ')?;
    let mut symbols = HashMap::new();
    for _ in 0..count.parse::<usize>().ok()? {
        let (text, next) = line(at)?;
        let (name, symbol) = text.split_once(' ')?;
        symbols.insert(name.to_owned(), symbol.to_owned());
        at = next;
    }
    let image = bytes[at..].to_vec();
    (image.len() == size.parse::<usize>().ok()?).then_some(Cubin { image, symbols })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_cubin_is_read_as_it_was_written() {
        let folder = std::env::temp_dir().join(format!("cloze-cubin-{}", std::process::id()));
        let symbols = [("add_norm_f32", "_Z8add_normIf"), ("add_norm_bf16", "_Z8add_normI4bf16")];
        let symbols = symbols.into_iter().map(|(name, symbol)| (name.to_owned(), symbol.to_owned())).collect();
        let cubin = Cubin { image: b"ELF\n\0 code".to_vec(), symbols };
        let file = folder.join("sm_90a.cubin");
        write(&file, &cubin).expect("written");
        assert_eq!(read(&file), Some(cubin));
        let bytes = std::fs::read(&file).expect("read");
        std::fs::write(&file, &bytes[..bytes.len() - 1]).expect("cut");
        assert_eq!(read(&file), None, "an incomplete file counts as none");
        std::fs::remove_dir_all(&folder).expect("the folder");
    }

    /// Each kernel compiles for each architecture and needs no memory for spilled registers.
    #[test]
    fn kernels_compile_for_all_architectures_without_spills() {
        if let Err(error) = libraries::open_nvrtc() {
            println!("skipped: {error}");
            return;
        }
        let program = sources::program();
        let mut spilling = Vec::new();
        for architecture in ["sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"] {
            let (cubin, log) = compile(&program, architecture).unwrap_or_else(|error| panic!("{error}"));
            assert!(cubin.image.starts_with(b"\x7fELF"), "{architecture}: a cubin");
            let mut kernel = "";
            for line in log.lines() {
                kernel = line.split_once("Compiling entry function '").map_or(kernel, |(_, rest)| rest);
                let spills =
                    line.contains("bytes spill stores") && !line.contains("0 bytes spill stores, 0 bytes spill loads");
                if spills {
                    spilling.push(format!(
                        "{architecture}: {}: {}",
                        kernel.split('\'').next().unwrap_or_default(),
                        line.trim()
                    ));
                }
                if line.contains("Used ") && architecture == "sm_90a" {
                    println!("{}: {}", kernel.split('\'').next().unwrap_or_default(), line.trim());
                }
            }
        }
        assert!(spilling.is_empty(), "registers are spilled:\n{}", spilling.join("\n"));
    }
}
