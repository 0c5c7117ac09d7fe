//! libmpi, loaded at run time. Two ABIs cover the field: that of Open MPI, whose handles are addresses of the library's variables, and
//! that of MPICH (also Intel MPI, MVAPICH and Cray's), whose handles are integers.

use std::ffi::{c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library as Loaded, RTLD_GLOBAL, RTLD_NOW};

use crate::{CommError, Launch, Launcher};

/// A handle: an `int` in MPICH's ABI, an address in Open MPI's. Both are passed in one register or one slot of the stack.
pub(super) type Handle = usize;
/// Numbers of bytes for each rank, and where they start.
pub(super) type Counts = (Vec<c_int>, Vec<c_int>);

/// More than the size of `MPI_Status` in both ABIs.
type Status = [u64; 16];
/// `MPI_THREAD_SERIALIZED` in both ABIs.
const SERIALIZED: c_int = 2;
/// The tag of reports.
const TAG: c_int = 1907;
/// More than `MPI_MAX_LIBRARY_VERSION_STRING` and `MPI_MAX_PROCESSOR_NAME` in both ABIs.
const TEXT: usize = 8192 + 1;

const OPEN_MPI: [&str; 2] = ["libmpi.so.40", "libmpi.so"];
const MPICH: [&str; 4] = ["libmpi.so.12", "libmpich.so.12", "libmpi_cray.so.12", "libmpi.so"];
/// Where an installation has its libraries.
const FOLDERS: [&str; 4] = ["lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];

type Address = *const c_void;
type AllToAll = unsafe extern "C" fn(
    Address,
    *const c_int,
    *const c_int,
    Handle,
    *mut c_void,
    *const c_int,
    *const c_int,
    Handle,
    Handle,
    *mut Handle,
) -> c_int;
type AllGather = unsafe extern "C" fn(
    Address,
    c_int,
    Handle,
    *mut c_void,
    *const c_int,
    *const c_int,
    Handle,
    Handle,
    *mut Handle,
) -> c_int;

/// The functions of the library. Their addresses are valid as long as the library is loaded, and it is never unloaded.
struct Functions {
    init: unsafe extern "C" fn(Address, Address, c_int, *mut c_int) -> c_int,
    finalize: unsafe extern "C" fn() -> c_int,
    abort: unsafe extern "C" fn(Handle, c_int) -> c_int,
    rank: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    size: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    processor_name: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int,
    version: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int,
    all_to_all: AllToAll,
    all_gather: AllGather,
    broadcast: unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, Handle, *mut Handle) -> c_int,
    barrier: unsafe extern "C" fn(Handle, *mut Handle) -> c_int,
    test: unsafe extern "C" fn(*mut Handle, *mut c_int, *mut Status) -> c_int,
    send: unsafe extern "C" fn(Address, c_int, Handle, c_int, c_int, Handle, *mut Handle) -> c_int,
    probe: unsafe extern "C" fn(c_int, c_int, Handle, *mut c_int, *mut Status) -> c_int,
    receive: unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, c_int, Handle, *mut Status) -> c_int,
}

/// The library, and its constants.
pub(super) struct Library {
    functions: Functions,
    name: String,
    world: Handle,
    byte: Handle,
    in_place: usize,
    any_source: c_int,
}

impl Library {
    /// Finds the library: `CLOZE_MPI`; that of the installation of the process that started this one; those that the system's loader
    /// knows, of the launcher's kind first.
    pub(super) fn find(launch: Launch) -> Result<Library, CommError> {
        let mut tried = Vec::new();
        let named = std::env::var("CLOZE_MPI").ok().filter(|name| !name.is_empty());
        for name in named.map_or_else(|| candidates(launch.launcher), |name| vec![name]) {
            // SAFETY: the initialisers of an MPI library have no preconditions. Its symbols are global, because the plug-ins of Open
            // MPI look for them.
            let Ok(loaded) = (unsafe { Loaded::open(Some(&name), RTLD_NOW | RTLD_GLOBAL) }) else {
                tried.push(name);
                continue;
            };
            let library = Library::of(&loaded, &name);
            // The library stays loaded, as its functions are used until the process ends.
            std::mem::forget(loaded);
            return library;
        }
        Err(CommError::NoLibrary { launcher: launch.launcher.to_string(), size: launch.size, tried: tried.join(", ") })
    }

    fn of(loaded: &Loaded, name: &str) -> Result<Library, CommError> {
        let missing =
            |symbol: &str| CommError::Unusable { library: name.to_owned(), reason: format!("it has no {symbol}") };
        // SAFETY: only the addresses of these variables are used.
        let address = |symbol: &str| unsafe {
            loaded.get::<*mut c_void>(symbol.as_bytes()).map(|found| found.as_raw_ptr() as usize).ok()
        };
        macro_rules! function {
            ($symbol:literal) => {
                // SAFETY: the field's type is the function's signature in the MPI standard, version 3.1, with handles as above.
                *unsafe { loaded.get($symbol.as_bytes()) }.map_err(|_| missing($symbol))?
            };
        }
        let functions = Functions {
            init: function!("MPI_Init_thread"),
            finalize: function!("MPI_Finalize"),
            abort: function!("MPI_Abort"),
            rank: function!("MPI_Comm_rank"),
            size: function!("MPI_Comm_size"),
            processor_name: function!("MPI_Get_processor_name"),
            version: function!("MPI_Get_library_version"),
            all_to_all: function!("MPI_Ialltoallv"),
            all_gather: function!("MPI_Iallgatherv"),
            broadcast: function!("MPI_Ibcast"),
            barrier: function!("MPI_Ibarrier"),
            test: function!("MPI_Test"),
            send: function!("MPI_Isend"),
            probe: function!("MPI_Iprobe"),
            receive: function!("MPI_Recv"),
        };
        let name = name.to_owned();
        Ok(match address("ompi_mpi_comm_world") {
            Some(world) => {
                let byte = address("ompi_mpi_byte").ok_or_else(|| missing("ompi_mpi_byte"))?;
                Library { functions, name, world, byte, in_place: 1, any_source: -1 }
            }
            None => {
                Library { functions, name, world: 0x4400_0000, byte: 0x4c00_010d, in_place: usize::MAX, any_source: -2 }
            }
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn init(&self) -> Result<(), CommError> {
        let mut provided = 0;
        // SAFETY: called once in a process; the arguments of `main` may be null.
        let code = unsafe { (self.functions.init)(std::ptr::null(), std::ptr::null(), SERIALIZED, &mut provided) };
        let reason = match (code, provided) {
            (0, SERIALIZED..) => return Ok(()),
            (0, _) => "it does not support threads (MPI_THREAD_SERIALIZED)".to_owned(),
            (code, _) => format!("MPI_Init_thread failed with code {code}"),
        };
        Err(CommError::Unusable { library: self.name.clone(), reason })
    }

    pub(super) fn finalize(&self) {
        // SAFETY: the library was initialised, and all requests are complete.
        unsafe { (self.functions.finalize)() };
    }

    pub(super) fn abort(&self, code: c_int) {
        // SAFETY: the library was initialised.
        unsafe { (self.functions.abort)(self.world, code) };
    }

    pub(super) fn rank_and_size(&self) -> (usize, usize) {
        let (mut rank, mut size) = (0, 0);
        // SAFETY: the library was initialised; both numbers live during the calls.
        unsafe {
            (self.functions.rank)(self.world, &mut rank);
            (self.functions.size)(self.world, &mut size);
        }
        (rank as usize, size as usize)
    }

    pub(super) fn processor_name(&self) -> String {
        text(self.functions.processor_name)
    }

    /// The first line of the library's version.
    pub(super) fn version(&self) -> String {
        let version = text(self.functions.version);
        // "MPICH Version:      4.2" and "Open MPI v5.0.11, package: …".
        let line = version.lines().next().unwrap_or_default().split(',').next().unwrap_or_default().to_owned();
        line.split_whitespace().collect::<Vec<_>>().join(" ").replace("Version: ", "")
    }

    /// # Safety
    /// The buffers and counts must live until the request is complete, and `receive` must not be used until then.
    pub(super) unsafe fn all_to_all(&self, send: &[u8], to: &Counts, receive: &mut [u8], from: &Counts) -> Handle {
        let mut request = 0;
        // An empty vector of bytes has the address 1, which is Open MPI's `MPI_IN_PLACE`. This address is not used, either.
        let nothing = from.0.as_ptr().cast_mut();
        let send = if send.is_empty() { nothing.cast() } else { send.as_ptr().cast() };
        let receive = if receive.is_empty() { nothing.cast() } else { receive.as_mut_ptr().cast() };
        // SAFETY: the counts lie within the buffers; the rest by the caller's contract.
        unsafe {
            (self.functions.all_to_all)(
                send,
                to.0.as_ptr(),
                to.1.as_ptr(),
                self.byte,
                receive,
                from.0.as_ptr(),
                from.1.as_ptr(),
                self.byte,
                self.world,
                &mut request,
            );
        }
        request
    }

    /// # Safety
    /// As for [`Library::all_to_all`].
    pub(super) unsafe fn all_gather(&self, all: &mut [u8], counts: &Counts) -> Handle {
        let mut request = 0;
        let (send, all) = (self.in_place as Address, all.as_mut_ptr().cast());
        // SAFETY: the counts lie within the buffer; the rest by the caller's contract.
        unsafe {
            (self.functions.all_gather)(
                send,
                0,
                self.byte,
                all,
                counts.0.as_ptr(),
                counts.1.as_ptr(),
                self.byte,
                self.world,
                &mut request,
            );
        }
        request
    }

    /// # Safety
    /// As for [`Library::all_to_all`].
    pub(super) unsafe fn broadcast(&self, bytes: &mut [u8], root: usize) -> Handle {
        let mut request = 0;
        let length = c_int::try_from(bytes.len()).expect("an operation has at most 2 GiB");
        // SAFETY: by the caller's contract.
        unsafe {
            let bytes = bytes.as_mut_ptr().cast();
            (self.functions.broadcast)(bytes, length, self.byte, root as c_int, self.world, &mut request);
        }
        request
    }

    pub(super) fn barrier(&self) -> Handle {
        let mut request = 0;
        // SAFETY: the library was initialised.
        unsafe { (self.functions.barrier)(self.world, &mut request) };
        request
    }

    /// Whether a request is complete.
    pub(super) fn test(&self, request: &mut Handle) -> bool {
        let (mut done, mut status): (c_int, Status) = (0, [0; 16]);
        // SAFETY: the request is one of this library; numbers and status live during the call.
        unsafe { (self.functions.test)(request, &mut done, &mut status) };
        done != 0
    }

    /// Sends a report, without waiting.
    pub(super) fn send(&self, to: usize, report: [u64; 2]) {
        let mut request = 0;
        // Reports are rare; the memory of one is never freed, so that it lives until the request is complete.
        let report: &'static [u64; 2] = Box::leak(Box::new(report));
        // SAFETY: the report is 16 bytes that live forever.
        unsafe {
            let bytes = report.as_ptr().cast();
            (self.functions.send)(bytes, 16, self.byte, to as c_int, TAG, self.world, &mut request);
        }
    }

    /// Receives a report, if there is one.
    pub(super) fn receive(&self) -> Option<[u64; 2]> {
        let (mut found, mut status): (c_int, Status) = (0, [0; 16]);
        let mut report = [0; 2];
        // SAFETY: all numbers live during the calls. Only reports of 16 bytes have the tag, so `receive` returns at once.
        unsafe {
            (self.functions.probe)(self.any_source, TAG, self.world, &mut found, &mut status);
            if found == 0 {
                return None;
            }
            let bytes = report.as_mut_ptr().cast();
            (self.functions.receive)(bytes, 16, self.byte, self.any_source, TAG, self.world, &mut status);
        }
        Some(report)
    }
}

/// The result of a function that writes a text and its length.
fn text(function: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int) -> String {
    let (mut bytes, mut length) = (vec![0u8; TEXT], 0);
    // SAFETY: the buffer has the size that the standard requires.
    unsafe { function(bytes.as_mut_ptr().cast(), &mut length) };
    bytes.truncate(length.max(0) as usize);
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

/// The libraries to try, in this order.
fn candidates(launcher: Launcher) -> Vec<String> {
    let names: Vec<&str> = match launcher {
        Launcher::OpenMpi => OPEN_MPI.to_vec(),
        Launcher::Mpich => MPICH.to_vec(),
        Launcher::Slurm => OPEN_MPI[..1].iter().chain(&MPICH).copied().collect(),
    };
    let installed = installations().into_iter().flat_map(|prefix| {
        let files = FOLDERS.iter().flat_map(|folder| names.iter().map(move |name| (folder, name)));
        let files: Vec<PathBuf> = files.map(|(folder, name)| prefix.join(folder).join(name)).collect();
        files.into_iter().filter(|path| path.is_file()).map(|path| path.to_string_lossy().into_owned())
    });
    installed.chain(names.iter().map(|name| (*name).to_owned())).collect()
}

/// The folders in which the programs that started this process are installed, above their `bin`: the launcher is one of them.
fn installations() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut process = "self".to_owned();
    for _ in 0..4 {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { break };
        let Some(parent) = status.lines().find_map(|line| line.strip_prefix("PPid:")) else { break };
        process = parent.trim().to_owned();
        if let Ok(program) = std::fs::read_link(format!("/proc/{process}/exe"))
            && let Some(prefix) = program.parent().and_then(Path::parent)
        {
            found.push(prefix.to_owned());
        }
    }
    found
}
