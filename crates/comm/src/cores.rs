//! The share of a rank in the cores of its machine.

use crate::Communicator;

/// The number of threads of this rank by default: the cores that it may use, divided by the number of ranks that may use them, too.
/// Launchers may bind each rank to cores of its own (Open MPI does by default), or to none.
pub fn threads_of_rank(ranks: &Communicator) -> usize {
    let available = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if ranks.is_single() {
        return available;
    }
    let mine = format!("{}\n{}", ranks.host(), allowed_cores());
    let all: Vec<String> =
        ranks.all_gather(mine.as_bytes()).iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
    let sharing = all.iter().filter(|other| shares_cores(&mine, other)).count();
    (available / sharing.max(1)).max(1)
}

/// The cores that this process may use, as the kernel writes them: "0-3,8". Empty if unknown.
fn allowed_cores() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or_default().trim().to_owned()
}

/// Whether two ranks, given as host and cores, may use the same core.
fn shares_cores(a: &str, b: &str) -> bool {
    let (Some((host_a, cores_a)), Some((host_b, cores_b))) = (a.split_once('\n'), b.split_once('\n')) else {
        return false;
    };
    let (cores_a, cores_b) = (ranges(cores_a), ranges(cores_b));
    let overlap = || cores_a.iter().any(|a| cores_b.iter().any(|b| a.0 <= b.1 && b.0 <= a.1));
    host_a == host_b && (cores_a.is_empty() || cores_b.is_empty() || overlap())
}

/// First and last core of each range of "0-3,8".
fn ranges(list: &str) -> Vec<(usize, usize)> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    list.split(',').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_the_cores_of_one_machine_that_both_may_use() {
        assert!(shares_cores("a\n0-3,8", "a\n8-9"));
        assert!(!shares_cores("a\n0-3", "a\n4-7"));
        assert!(!shares_cores("a\n0-3", "b\n0-3"));
        assert!(shares_cores("a\n", "a\n4-7"), "unknown cores");
        assert!(threads_of_rank(&Communicator::single()) >= 1);
    }
}
