//! Handles SIGINT (Ctrl-C), SIGTERM, SIGHUP and SIGUSR1. During training the first signal sets a flag: the run finishes its step
//! and saves. At any other time, and at the second signal, the program exits at once and removes unfinished output
//! files.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGUSR1, SIGXFSZ};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
#[cfg(unix)]
use signal_hook::iterator::Signals;

use crate::failure::INTERRUPTED;
use crate::output::write_stderr;
use crate::ranks;

/// Set by the first signal.
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// Whether the first signal exits the program.
static EXITS: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));
/// Set by SIGHUP if the command reads its settings again.
static RELOAD: AtomicBool = AtomicBool::new(false);
/// Whether SIGHUP does that instead of ending the program.
static RELOADS: AtomicBool = AtomicBool::new(false);
/// The message for an exit by a signal.
static MESSAGE: Mutex<&str> = Mutex::new("");

/// The flag that the first signal sets.
pub fn stop() -> &'static AtomicBool {
    &STOP
}

/// The flag that SIGHUP sets if the command reads its settings again.
pub fn reload() -> &'static AtomicBool {
    &RELOAD
}

/// Installs the signal handlers. `message` is printed after "interrupted;" when a signal exits the program. `reloads`: whether SIGHUP only sets the
/// flag of [`reload`].
///
/// # Errors
/// The operating system refuses a handler.
pub fn watch(message: &'static str, reloads: bool) -> std::io::Result<()> {
    RELOADS.store(reloads, Ordering::SeqCst);
    *MESSAGE.lock().unwrap_or_else(PoisonError::into_inner) = message;
    let mut signals = vec![SIGINT, SIGTERM];
    #[cfg(unix)]
    {
        // A file above the size limit (ulimit -f) then gives a write error instead of a signal.
        flag::register(SIGXFSZ, Arc::default())?;
        // `nohup` sets SIGHUP to be ignored; keep that, unless it only means to read settings again.
        if reloads || !is_ignored(SIGHUP) {
            signals.push(SIGHUP);
        }
        // mpirun gives it to all ranks, and Slurm can send it before the time of a job is over.
        if !is_ignored(SIGUSR1) {
            signals.push(SIGUSR1);
        }
        let mut signals_received = Signals::new(&signals)?;
        let thread = std::thread::Builder::new().name("signals".to_owned());
        let started = thread.spawn(move || signals_received.forever().for_each(handle_signal));
        if started.is_ok() {
            return Ok(());
        }
    }
    // No thread could be started: the default action exits the program.
    for signal in signals {
        flag::register_conditional_default(signal, Arc::clone(&EXITS))?;
        // The order matters: a signal exits the program if the flag is already set; only then it sets the flag.
        flag::register_conditional_default(signal, Arc::clone(&STOP))?;
        flag::register(signal, Arc::clone(&STOP))?;
    }
    Ok(())
}

/// Handles one signal.
fn handle_signal(signal: i32) {
    #[cfg(unix)]
    if signal == SIGHUP && RELOADS.load(Ordering::SeqCst) {
        RELOAD.store(true, Ordering::SeqCst);
        return;
    }
    let is_first = !STOP.swap(true, Ordering::SeqCst);
    let exits = EXITS.load(Ordering::SeqCst);
    if is_first && !exits {
        return;
    }
    cloze_files::remove_unfinished();
    match exits {
        _ if !explains(signal) => {}
        true => write_stderr(format_args!("interrupted; {}", MESSAGE.lock().unwrap_or_else(PoisonError::into_inner))),
        false if RELOADS.load(Ordering::SeqCst) => write_stderr("interrupted again; running requests are cut off"),
        false => write_stderr("interrupted again; the steps since the last checkpoint are lost"),
    }
    std::process::exit(INTERRUPTED.into());
}

/// Whether this process says that a signal ends it. Of a job of several ranks, which all get the signal, only rank 0 does; and not
/// after SIGTERM, with which launchers end a job when a rank has failed, because that rank has given the reason.
fn explains(signal: i32) -> bool {
    ranks::is_single() || (ranks::is_root() && signal != SIGTERM)
}

/// Whether this process was started with the signal ignored. `true` if the system does not report it.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    // Without /proc, as on macOS, SIGHUP keeps its default action.
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    ignores(&status, signal)
}

#[cfg(unix)]
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}

/// While this value exists, the first signal only sets the flag, and the command stops by itself.
pub struct GracefulStop(());

impl GracefulStop {
    /// Begins the period in which the first signal only sets the flag.
    pub fn begin() -> GracefulStop {
        EXITS.store(false, Ordering::SeqCst);
        GracefulStop(())
    }
}

impl Drop for GracefulStop {
    fn drop(&mut self) {
        EXITS.store(true, Ordering::SeqCst);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// `nohup cloze pretrain …` continues after its terminal is closed.
    #[test]
    fn ignored_signals_are_found_in_the_process_status() {
        let status = |mask: &str| format!("Name:\tcloze\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores(&status("0000000000001001"), SIGHUP));
        assert!(!ignores(&status("0000000000001000"), SIGHUP) && !ignores("", SIGHUP));
    }
}
