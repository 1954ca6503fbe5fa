//! How much memory this process has resident, and how much there is for it. Linux tells both in files; elsewhere
//! nobody knows, and there is no ceiling.

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// Memory of this process that is resident, in bytes.
#[must_use]
pub fn resident() -> Option<u64> {
    in_kilobytes(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// What this process may have: what the machine has, or less where a control group says so.
#[must_use]
pub fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| in_kilobytes(&text, "MemTotal:"));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups).into_iter().filter_map(|file| fs::read_to_string(file).ok());
    // `max` is no number, and no limit.
    let limits = limits.filter_map(|text| text.trim().parse().ok());
    limits.chain(machine).min()
}

/// A line such as `VmRSS:     1234 kB`.
fn in_kilobytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Where the limits of our control group and those above it stand, in version 2 and version 1 of the hierarchy.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, name) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let above = Path::new(path.trim_start_matches('/')).ancestors();
        files.extend(above.map(|group| Path::new(root).join(group).join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_less_than_there_is() {
        if cfg!(target_os = "linux") {
            let (resident, available) = (resident().unwrap(), available().unwrap());
            assert!(resident > 64 * 1024 && resident < available, "{resident} of {available}");
        }
    }

    #[test]
    fn numbers_are_found_in_their_lines() {
        let text = "Name:\tx\nVmRSS:\t    1234 kB\nVmRSSX: 1 kB\n";
        assert_eq!(in_kilobytes(text, "VmRSS:"), Some(1234 * 1024));
        for text in ["", "VmRSS: x kB", "VmRSS: 1", "VmRSS: 99999999999999999999 kB"] {
            assert_eq!(in_kilobytes(text, "VmRSS:"), None, "{text}");
        }
    }

    #[test]
    fn a_control_group_obeys_those_above_it() {
        let files = limit_files("4:memory,cpu:/a\n2:devices:/a\n0::/system.slice/t.service\nrubbish\n");
        let expected = [
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/system.slice/t.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
    }
}
