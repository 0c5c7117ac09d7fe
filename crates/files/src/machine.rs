//! Resources of the machine: worker threads, the memory limit, the memory of this process.

use std::fs;
use std::thread::{self, Builder};

/// Runs `work` on this thread and on up to `threads` − 1 more threads, and returns when all calls have returned. `work`
/// takes items from a shared queue, so the result does not depend on how many threads the system can start.
pub fn on_threads(threads: usize, work: impl Fn() + Sync) {
    thread::scope(|scope| {
        for _ in 1..threads {
            if Builder::new().spawn_scoped(scope, &work).is_err() {
                break;
            }
        }
        work();
    });
}

/// The memory that this process can use, in bytes, including swap: the memory of the machine, or the limit of its container.
/// `None` if the system does not report it.
pub fn memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok()).min();
    limit.into_iter().chain(machine_memory(&info)).min()
}

fn machine_memory(info: &str) -> Option<u64> {
    Some(bytes_of(info, "MemTotal:")? + bytes_of(info, "SwapTotal:").unwrap_or_default())
}

/// The resident memory of this process in bytes; `None` if the system does not report it.
pub fn resident_memory() -> Option<u64> {
    bytes_of(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// The peak of the resident memory of this process in bytes; `None` if the system does not report it.
pub fn peak_memory() -> Option<u64> {
    bytes_of(&fs::read_to_string("/proc/self/status").ok()?, "VmHWM:")
}

/// The value of a line such as `VmRSS:  1000 kB`.
fn bytes_of(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(1024 * kibibytes)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn all_work_is_done_with_any_number_of_threads() {
        for threads in [0, 1, 3] {
            let (left, sum) = (AtomicUsize::new(100), AtomicUsize::new(0));
            on_threads(threads, || {
                while let Ok(part) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                {
                    sum.fetch_add(part, Ordering::Relaxed);
                }
            });
            assert_eq!(sum.into_inner(), 5050, "{threads} threads");
        }
    }

    #[test]
    fn the_memory_of_this_process_is_plausible_if_known() {
        if let (Some(now), Some(peak)) = (resident_memory(), peak_memory()) {
            assert!((100_000..1_000_000_000_000).contains(&now), "{now}");
            assert!((100_000..1_000_000_000_000).contains(&peak), "{peak}");
        }
    }

    #[test]
    fn machine_memory_includes_swap() {
        let info = "MemTotal:       16384 kB\nMemFree:         1000 kB\nSwapTotal:       1024 kB\n";
        assert_eq!(machine_memory(info), Some(17408 * 1024));
        assert_eq!(machine_memory("SwapTotal: 1 kB"), None);
        assert!(memory().is_none_or(|bytes| bytes > 1 << 20));
    }
}
