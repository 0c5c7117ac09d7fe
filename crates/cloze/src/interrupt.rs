//! SIGINT (Ctrl-C), SIGTERM and SIGHUP. While a run trains, the first one asks it to finish its step and save. At any other time, and
//! the second time, the program ends at once, and what it was writing is removed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGXFSZ};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
#[cfg(unix)]
use signal_hook::iterator::Signals;

use crate::failure::INTERRUPTED;
use crate::output::say;

/// Raised by the first signal.
static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
/// Whether the first signal ends the program.
static ENDS: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));
/// What a program that ends by a signal says of its work.
static LOST: Mutex<&str> = Mutex::new("");

/// The flag that the first signal raises.
pub fn stop() -> &'static AtomicBool {
    &STOP
}

/// Handles signals from now on. `lost`: what a command says of its work where a signal ends it.
///
/// # Errors
/// The system's, if a handler cannot be set.
pub fn watch(lost: &'static str) -> std::io::Result<()> {
    *LOST.lock().unwrap_or_else(PoisonError::into_inner) = lost;
    let mut signals = vec![SIGINT, SIGTERM];
    #[cfg(unix)]
    {
        // A file beyond the limit of its size is then an error of the write.
        flag::register(SIGXFSZ, Arc::default())?;
        // `nohup` ignores it.
        if !is_ignored(SIGHUP) {
            signals.push(SIGHUP);
        }
        let mut arrivals = Signals::new(&signals)?;
        let thread = std::thread::Builder::new().name("signals".to_owned());
        let watching = thread.spawn(move || arrivals.forever().for_each(|_| arrived()));
        if watching.is_ok() {
            return Ok(());
        }
    }
    // No thread to be had: the system ends the program.
    for signal in signals {
        flag::register_conditional_default(signal, Arc::clone(&ENDS))?;
        // In this order: a signal that finds the flag raised ends the program, then the flag is raised.
        flag::register_conditional_default(signal, Arc::clone(&STOP))?;
        flag::register(signal, Arc::clone(&STOP))?;
    }
    Ok(())
}

/// What a signal does.
fn arrived() {
    let is_first = !STOP.swap(true, Ordering::SeqCst);
    let ends = ENDS.load(Ordering::SeqCst);
    if is_first && !ends {
        return;
    }
    cloze_files::remove_unfinished();
    if ends {
        say(format_args!("interrupted; {}", LOST.lock().unwrap_or_else(PoisonError::into_inner)));
    } else {
        say("interrupted again; what was done since the last checkpoint is lost");
    }
    std::process::exit(INTERRUPTED.into());
}

/// Whether this process was started to ignore a signal, where the system tells.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    // Without it, as on macOS, the signal stays as it is.
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    ignores(&status, signal)
}

#[cfg(unix)]
fn ignores(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}

/// As long as it lives the command looks at the flag itself, and ends in its own way.
pub struct Polling(());

impl Polling {
    /// From now on the first signal raises the flag and does nothing else.
    pub fn begin() -> Polling {
        ENDS.store(false, Ordering::SeqCst);
        Polling(())
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        ENDS.store(true, Ordering::SeqCst);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// `nohup cloze pretrain …` continues when its terminal is closed.
    #[test]
    fn a_signal_that_is_ignored_from_the_start_stays_so() {
        let status = |mask: &str| format!("Name:\tcloze\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignores(&status("0000000000001001"), SIGHUP));
        assert!(!ignores(&status("0000000000001000"), SIGHUP) && !ignores("", SIGHUP));
    }
}
