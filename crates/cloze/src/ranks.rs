//! The ranks of this job: one process, unless mpirun or srun started several.

use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Result;
use cloze_comm::{Communicator, Launch, threads_of_rank};

use cloze_train::agreement::require_same;

use crate::failure::usage;

/// How long a rank waits for the others, in seconds, unless `CLOZE_PATIENCE` is set. Rank 0 saves checkpoints while they wait.
const PATIENCE: u64 = 600;
/// How long a failed rank gives rank 0 to fail with the same message, so that it appears only once.
const FIRST_RANK_FIRST: Duration = Duration::from_secs(2);

/// How long a failed rank gives the launcher to pass on its error line before all processes end: MPICH's may lose it otherwise.
const LINE_ARRIVES: Duration = Duration::from_millis(200);

static RANKS: OnceLock<Communicator> = OnceLock::new();

/// The ranks of this job.
pub fn current() -> &'static Communicator {
    RANKS.get_or_init(Communicator::single)
}

/// Starts the communication, if a launcher started several processes. `print` prints a line when it fails later; then all processes end.
///
/// # Errors
/// A command that runs in one process; no MPI library.
pub fn start(supports_ranks: bool, print: fn(&str)) -> Result<()> {
    let Some(launch) = Launch::detect() else { return Ok(()) };
    if !supports_ranks {
        return Err(usage(format!(
            "{} started {} processes, but this command runs in one: start it without the launcher",
            launch.launcher, launch.size
        )));
    }
    let patience = match std::env::var("CLOZE_PATIENCE") {
        Ok(seconds) => seconds
            .parse()
            .map_err(|_| usage(format!("CLOZE_PATIENCE: expected a number of seconds, found {seconds:?}")))?,
        Err(_) => PATIENCE,
    };
    let ranks = Communicator::start(launch, Duration::from_secs(patience), move |line| {
        cloze_files::remove_unfinished();
        print(line);
    })?;
    let ranks = RANKS.get_or_init(|| ranks);
    Ok(require_same(ranks, "program", program()?.as_bytes())?)
}

/// The version and the digest of this program: another build may round differently.
fn program() -> Result<String> {
    let digest = cloze_files::digest::of_file(&std::env::current_exe()?)?;
    Ok(format!("{} {} {}", crate::VERSION, digest.bytes, digest.xxh3))
}

/// Whether this process is rank 0, or the only one, according to the launcher. Before [`start`], too.
pub fn is_root() -> bool {
    RANKS.get().map_or_else(|| Launch::detect().is_none_or(|launch| launch.rank == 0), Communicator::is_root)
}

/// Whether the launcher started only this process. Before [`start`], too.
pub fn is_single() -> bool {
    RANKS.get().map_or_else(|| Launch::detect().is_none(), Communicator::is_single)
}

/// The default number of threads: the share of this rank in the cores; `None` for a job of one process.
pub fn threads() -> Option<usize> {
    let ranks = current();
    (!ranks.is_single()).then(|| threads_of_rank(ranks))
}

/// Before the error of a failed rank is printed: which rank it is; nothing for a job of one process. Ranks other than rank 0 wait first.
pub fn before_error() -> String {
    if !is_root() {
        std::thread::sleep(FIRST_RANK_FIRST);
    }
    RANKS
        .get()
        .filter(|ranks| !ranks.is_single())
        .map_or_else(String::new, |ranks| format!("rank {} of {} ({}): ", ranks.rank(), ranks.size(), ranks.host()))
}

/// Ends the job after this rank has failed: the others may wait for it.
pub fn abort(code: u8) -> ExitCode {
    match RANKS.get().filter(|ranks| !ranks.is_single()) {
        Some(ranks) => {
            std::thread::sleep(LINE_ARRIVES);
            ranks.abort(code)
        }
        None => ExitCode::from(code),
    }
}

/// Ends the communication of a rank that is done.
pub fn finish() {
    if let Some(ranks) = RANKS.get() {
        ranks.finish();
    }
}
