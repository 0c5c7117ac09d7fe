//! NVIDIA's libraries, found at run time: the driver, NVRTC and cuBLASLt. They come from the folder that `CLOZE_CUDA` names, from the
//! system, or from NVIDIA's Python wheels. A library is opened by its path first, so that cudarc, which looks for names only, finds it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::EngineError;

/// A library, by the start of its file name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The driver, which comes with the card's kernel module.
    Driver,
    /// What NVRTC opens itself.
    NvrtcBuiltins,
    /// The compiler of kernels.
    Nvrtc,
    /// Matrix products.
    CublasLt,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::Driver, Kind::NvrtcBuiltins, Kind::Nvrtc, Kind::CublasLt];

    fn stem(self) -> &'static str {
        match self {
            Kind::Driver => "libcuda.so",
            Kind::NvrtcBuiltins => "libnvrtc-builtins.so",
            Kind::Nvrtc => "libnvrtc.so",
            Kind::CublasLt => "libcublasLt.so",
        }
    }

    /// The names by which the dynamic linker may know it.
    fn names(self) -> &'static [&'static str] {
        match self {
            Kind::Driver => &["libcuda.so.1", "libcuda.so"],
            Kind::NvrtcBuiltins => &["libnvrtc-builtins.so.13.0", "libnvrtc-builtins.so.13.1", "libnvrtc-builtins.so"],
            Kind::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
            Kind::CublasLt => &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Kind::Driver => "install NVIDIA's driver, version 570 or later",
            _ => {
                "install CUDA 12.8 or later, or `pip install nvidia-cuda-nvrtc nvidia-cublas`, or set CLOZE_CUDA to the folder of the libraries"
            }
        }
    }
}

/// A library that was opened, and where it was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) kind: Kind,
    /// A path, or the name by which the dynamic linker found it.
    pub(crate) place: String,
}

/// Opens the driver.
pub(crate) fn open_driver() -> Result<Found, EngineError> {
    open(Kind::Driver, &folders(&Environment::current()))
}

/// Opens the compiler of kernels.
pub(crate) fn open_nvrtc() -> Result<Found, EngineError> {
    let folders = folders(&Environment::current());
    // NVRTC opens it by name. It is in the same folder, or where the linker looks.
    let _ = open(Kind::NvrtcBuiltins, &folders);
    open(Kind::Nvrtc, &folders)
}

/// Opens the library of matrix products.
pub(crate) fn open_cublas_lt() -> Result<Found, EngineError> {
    open(Kind::CublasLt, &folders(&Environment::current()))
}

/// All libraries, found or not, for a report.
pub(crate) fn report() -> Vec<(&'static str, Result<String, String>)> {
    let folders = folders(&Environment::current());
    let one = |kind: Kind| {
        let found = open(kind, &folders).map(|found| found.place).map_err(|error| error.to_string());
        (kind.stem().trim_end_matches(".so"), found)
    };
    Kind::ALL.into_iter().filter(|kind| *kind != Kind::NvrtcBuiltins).map(one).collect()
}

/// What says where libraries may be.
struct Environment {
    cloze_cuda: Option<PathBuf>,
    home: Option<PathBuf>,
    /// Prefixes of Python environments.
    prefixes: Vec<PathBuf>,
    /// CUDA's own folders, `/usr/local/cuda*`.
    toolkits: PathBuf,
}

impl Environment {
    fn current() -> Environment {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        // Where `python3` is, and where it is if this is a link: a virtual environment has a link to another's interpreter.
        let pythons = |path: OsString| -> Vec<PathBuf> {
            let python = std::env::split_paths(&path).map(|folder| folder.join("python3")).find(|file| file.exists());
            let files = python.into_iter().flat_map(|file| [file.clone(), file.canonicalize().unwrap_or(file)]);
            files.filter_map(|file| Some(file.parent()?.parent()?.to_owned())).collect()
        };
        let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).map(PathBuf::from);
        let interpreter = variable("PATH").map(pythons).unwrap_or_default();
        let usual = ["/usr/local", "/usr"].map(PathBuf::from);
        Environment {
            cloze_cuda: variable("CLOZE_CUDA").map(PathBuf::from),
            home: variable("HOME").map(PathBuf::from),
            prefixes: environments.chain(interpreter).chain(usual).collect(),
            toolkits: PathBuf::from("/usr/local"),
        }
    }
}

/// The folders that may have libraries, in the order of search. With `CLOZE_CUDA`, only those within it.
fn folders(environment: &Environment) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(root) = &environment.cloze_cuda {
        folders.extend([root.clone(), root.join("lib64"), root.join("lib")]);
        wheels(root, &mut folders);
        return folders;
    }
    let mut toolkits = entries(&environment.toolkits, |name| name.starts_with("cuda"));
    toolkits.sort();
    folders.extend(toolkits.into_iter().rev().map(|toolkit| toolkit.join("lib64")));
    let home = environment.home.iter().map(|home| home.join(".local"));
    for prefix in environment.prefixes.iter().cloned().chain(home) {
        for python in entries(&prefix.join("lib"), |name| name.starts_with("python3")) {
            for packages in ["site-packages", "dist-packages"] {
                wheels(&python.join(packages).join("nvidia"), &mut folders);
            }
        }
    }
    folders
}

/// The folders of libraries in NVIDIA's wheels: `nvidia/cu13/lib`, `nvidia/cublas/lib` and others.
fn wheels(nvidia: &Path, folders: &mut Vec<PathBuf>) {
    let mut packages = entries(nvidia, |_| true);
    // Ascending, so that `cu13`, the form of CUDA 13 and later, is before `cublas`, that of earlier versions.
    packages.sort();
    folders.extend(packages.into_iter().map(|package| package.join("lib")).filter(|lib| lib.is_dir()));
}

/// The entries of a folder whose names pass; none if there is no such folder.
fn entries(folder: &Path, passes: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&passes)).collect()
}

/// The files of a library in these folders, within a folder the latest version first.
fn files(kind: Kind, folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for folder in folders {
        let is_library =
            |name: &str| name.strip_prefix(kind.stem()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let mut found = entries(folder, is_library);
        found.sort_by_cached_key(|path| std::cmp::Reverse(version(path, kind)));
        all.extend(found);
    }
    all
}

/// The numbers after the name: `libnvrtc.so.13` → [13].
fn version(path: &Path, kind: Kind) -> Vec<u32> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let rest = name.strip_prefix(kind.stem()).unwrap_or_default();
    rest.split('.').filter_map(|number| number.parse().ok()).collect()
}

/// Opens a library for the rest of the process.
fn open(kind: Kind, folders: &[PathBuf]) -> Result<Found, EngineError> {
    static OPENED: Mutex<Vec<Found>> = Mutex::new(Vec::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = opened.iter().find(|found| found.kind == kind) {
        return Ok(found.clone());
    }
    let paths = files(kind, folders).into_iter().map(PathBuf::into_os_string);
    // The driver belongs to the system, not to a toolkit or a wheel, which may have a stub of it.
    let (before, after): (Vec<OsString>, Vec<OsString>) = match kind {
        Kind::Driver => (kind.names().iter().map(OsString::from).collect(), paths.collect()),
        _ => (paths.collect(), kind.names().iter().map(OsString::from).collect()),
    };
    let mut problems = Vec::new();
    for candidate in before.into_iter().chain(after) {
        // SAFETY: NVIDIA's libraries have no requirements on being opened.
        match unsafe { Library::open(Some(&candidate), RTLD_NOW | RTLD_GLOBAL) } {
            Ok(library) => {
                // It stays open: cudarc keeps addresses of its functions.
                std::mem::forget(library);
                let found = Found { kind, place: candidate.to_string_lossy().into_owned() };
                opened.push(found.clone());
                return Ok(found);
            }
            Err(error) if Path::new(&candidate).is_absolute() => {
                problems.push(format!("{}: {}", candidate.display(), cause(&error)));
            }
            // A name that the dynamic linker does not know.
            Err(_) => {}
        }
    }
    let found = match problems.is_empty() {
        true => "not found".to_owned(),
        false => format!("cannot be opened ({})", problems.join("; ")),
    };
    Err(EngineError::CudaLibrary { name: kind.stem(), found, remedy: kind.remedy() })
}

/// The dynamic linker's own words.
fn cause(error: &libloading::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plant(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, "not a library").expect("a file");
        }
    }

    #[test]
    fn libraries_are_found_in_toolkits_and_wheels() {
        let root = std::env::temp_dir().join(format!("cloze-libraries-{}", std::process::id()));
        let venv = "venv/lib/python3.12/site-packages/nvidia";
        plant(
            &root,
            &[
                "local/cuda-12.8/lib64/libnvrtc.so.12",
                "local/cuda-13.0/lib64/libnvrtc.so.13",
                "local/cuda-13.0/lib64/libnvrtc.so.13.0.88",
                "local/cuda-13.0/lib64/libnvrtc-builtins.so.13.0",
                &format!("{venv}/cu13/lib/libcublasLt.so.13"),
                &format!("{venv}/cublas/lib/libcublasLt.so.12"),
                "own/lib/libnvrtc.so.13",
            ],
        );
        let mut environment = Environment {
            cloze_cuda: None,
            home: None,
            prefixes: vec![root.join("venv")],
            toolkits: root.join("local"),
        };
        let found = |environment: &Environment, kind| -> Vec<String> {
            let files = files(kind, &folders(environment));
            files.iter().map(|file| file.strip_prefix(&root).expect("within").display().to_string()).collect()
        };
        assert_eq!(
            found(&environment, Kind::Nvrtc),
            [
                "local/cuda-13.0/lib64/libnvrtc.so.13.0.88",
                "local/cuda-13.0/lib64/libnvrtc.so.13",
                "local/cuda-12.8/lib64/libnvrtc.so.12"
            ]
        );
        assert_eq!(found(&environment, Kind::NvrtcBuiltins), ["local/cuda-13.0/lib64/libnvrtc-builtins.so.13.0"]);
        let wheels = [format!("{venv}/cu13/lib/libcublasLt.so.13"), format!("{venv}/cublas/lib/libcublasLt.so.12")];
        assert_eq!(found(&environment, Kind::CublasLt), wheels);
        environment.cloze_cuda = Some(root.join("own"));
        assert_eq!(found(&environment, Kind::Nvrtc), ["own/lib/libnvrtc.so.13"]);
        assert!(found(&environment, Kind::CublasLt).is_empty(), "only where CLOZE_CUDA says");
        std::fs::remove_dir_all(&root).expect("the folder");
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let root = std::env::temp_dir().join(format!("cloze-unreadable-{}", std::process::id()));
        plant(&root, &["libcublasLt.so.99"]);
        let error = open(Kind::CublasLt, std::slice::from_ref(&root));
        // Where cuBLASLt is installed, the dynamic linker finds it.
        if let Err(error) = error {
            let text = error.to_string();
            assert!(text.contains("libcublasLt.so.99") && text.contains("CLOZE_CUDA"), "{text}");
        }
        std::fs::remove_dir_all(&root).expect("the folder");
    }
}
