//! MPI as a transport. Calls are non-blocking and polled: so a waiting rank yields its core (several ranks may share one), and
//! notices when another rank does not come.
//!
//! | file | what it does |
//! | --- | --- |
//! | `library.rs` | finds the library of the launcher, and its functions and handles in either ABI |
//! | `watch.rs` | which ranks wait for which operation: names those that do not come |

mod library;
mod watch;

use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytemuck::cast_slice_mut;

use self::library::{Counts, Handle, Library};
use self::watch::Watch;
use crate::{Collective, CommError, Launch};

/// How long to test without giving the core away, and then without sleeping.
const SPIN: Duration = Duration::from_micros(20);
const YIELD: Duration = Duration::from_millis(2);
/// The sleep between tests, at first and after a second.
const SLEEP: Duration = Duration::from_micros(50);
const LONG_SLEEP: Duration = Duration::from_millis(1);

/// The communicator of all processes that a launcher started.
pub struct Mpi {
    library: Library,
    rank: usize,
    hosts: Vec<String>,
    version: String,
    /// One operation at a time: `MPI_THREAD_SERIALIZED`.
    watch: Mutex<Watch>,
    on_failure: Box<dyn Fn(&str) + Send + Sync>,
}

impl Mpi {
    /// Starts the communication of this process, in the library of its launcher. `on_failure` gets one line when the
    /// communication fails, before all processes end with exit code 1. If other ranks do not come to an operation for `patience`, that
    /// is a failure, too.
    ///
    /// # Errors
    /// No library, or one that is not the launcher's.
    pub fn start(
        launch: Launch,
        patience: Duration,
        on_failure: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Mpi, CommError> {
        let library = Library::find(launch)?;
        library.init()?;
        let (rank, size) = library.rank_and_size();
        if size != launch.size {
            return Err(CommError::OtherLauncher {
                launcher: launch.launcher.to_string(),
                expected: launch.size,
                library: library.name().to_owned(),
                found: size,
            });
        }
        let (host, version) = (library.processor_name(), library.version());
        let watch = Mutex::new(Watch::new(rank, size, patience));
        let on_failure = Box::new(on_failure);
        let mut mpi = Mpi { library, rank, hosts: vec![String::new(); size], version, watch, on_failure };
        // Names of at most 64 bytes, padded with zeros.
        let mut names = vec![0; 64 * size];
        host.bytes().take(64).zip(&mut names[64 * rank..]).for_each(|(byte, to)| *to = byte);
        mpi.all_gather(&mut names, &vec![64; size]);
        let name = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
        mpi.hosts = names.chunks(64).map(name).collect();
        Ok(mpi)
    }

    fn lock(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request is complete. The operation's buffers must live until then.
    fn wait(&self, watch: &mut Watch, mut request: Handle) {
        let start = Instant::now();
        watch.begin();
        while !self.library.test(&mut request) {
            let waited = start.elapsed();
            if waited < SPIN {
                std::hint::spin_loop();
            } else if waited < YIELD {
                std::thread::yield_now();
            } else if let Some(missing) = watch.poll(&self.library, waited) {
                self.fail(&self.describe_missing(&missing, waited));
            } else {
                std::thread::sleep(if waited.as_secs() < 1 { SLEEP } else { LONG_SLEEP });
            }
        }
    }

    fn describe_missing(&self, missing: &[usize], waited: Duration) -> String {
        let seconds = waited.as_secs();
        let name = |rank: &usize| format!("rank {rank} ({})", self.hosts[*rank]);
        match missing {
            [] => format!("rank {}: no answer from the other ranks for {seconds} s", self.rank),
            missing => {
                let names: Vec<String> = missing.iter().map(name).collect();
                let verb = if missing.len() == 1 { "does" } else { "do" };
                format!(
                    "{} {verb} not answer for {seconds} s: hanging, stopped or unreachable; all other ranks wait. Start the same command \
                     with --resume to continue from the last checkpoint",
                    names.join(", ")
                )
            }
        }
    }

    /// Reports a failure and ends all processes.
    fn fail(&self, message: &str) -> ! {
        (self.on_failure)(message);
        self.abort(1)
    }
}

/// Numbers of bytes, and where they start, as MPI wants them.
fn counts(counts: &[usize]) -> Counts {
    let mut end = 0;
    let number = |n: usize| c_int::try_from(n).expect("an operation has at most 2 GiB");
    let starts = counts.iter().map(|count| {
        let start = end;
        end += count;
        number(start)
    });
    let starts = starts.collect();
    number(end);
    (counts.iter().map(|count| number(*count)).collect(), starts)
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.hosts.len()
    }

    fn host(&self) -> String {
        self.hosts[self.rank].clone()
    }

    fn describe(&self) -> String {
        format!("{} ({})", self.version, self.library.name())
    }

    fn all_to_all(&self, send: &[u8], send_counts: &[usize], receive: &mut [u8], receive_counts: &[usize]) {
        assert_eq!([send.len(), receive.len()], [send_counts.iter().sum(), receive_counts.iter().sum::<usize>()]);
        let mut watch = self.lock();
        let (mut to, mut from) = (counts(send_counts), counts(receive_counts));
        // What stays at this rank is copied here: libraries take a slower way.
        let part = |(counts, starts): &Counts| {
            let start = starts[self.rank] as usize;
            start..start + counts[self.rank] as usize
        };
        if from.0[self.rank] > 0 {
            receive[part(&from)].copy_from_slice(&send[part(&to)]);
        }
        (to.0[self.rank], from.0[self.rank]) = (0, 0);
        // SAFETY: the buffers and counts live until the request is complete.
        let request = unsafe { self.library.all_to_all(send, &to, receive, &from) };
        self.wait(&mut watch, request);
    }

    fn all_gather(&self, all: &mut [u8], of_ranks: &[usize]) {
        assert_eq!(all.len(), of_ranks.iter().sum());
        let mut watch = self.lock();
        let of_ranks = counts(of_ranks);
        // SAFETY: the buffer and counts live until the request is complete.
        let request = unsafe { self.library.all_gather(all, &of_ranks) };
        self.wait(&mut watch, request);
    }

    fn broadcast(&self, bytes: &mut [u8], root: usize) {
        let mut watch = self.lock();
        // SAFETY: the buffer lives until the request is complete.
        let request = unsafe { self.library.broadcast(bytes, root) };
        self.wait(&mut watch, request);
    }

    fn barrier(&self) {
        let mut watch = self.lock();
        let request = self.library.barrier();
        self.wait(&mut watch, request);
    }

    fn abort(&self, code: u8) -> ! {
        // Without the lock: another thread may be waiting for ranks that will not come.
        self.library.abort(code.into());
        std::process::exit(code.into())
    }

    fn finish(&self) {
        let mut watch = self.lock();
        let mut sent = vec![0u64; self.size()];
        sent[self.rank] = watch.end();
        let of_ranks = counts(&vec![size_of::<u64>(); self.size()]);
        // SAFETY: the buffer and counts live until the request is complete.
        let request = unsafe { self.library.all_gather(cast_slice_mut(&mut sent), &of_ranks) };
        self.wait(&mut watch, request);
        watch.drain(&self.library, &sent);
        self.library.finalize();
    }
}
