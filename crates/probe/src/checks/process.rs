//! Processes by name, from `/proc/*/stat`.

use std::fs;

/// The kernel keeps this much of a process' name (`TASK_COMM_LEN`, less its zero
/// byte), so a longer name in a gossfile can only be compared this far.
const NAME_LENGTH: usize = 15;

/// Whether a process of this name runs. One that has ended and only waits to be
/// reaped does not.
pub(super) fn is_running(name: &str) -> Result<bool, String> {
    let cannot = |error| format!("cannot list processes: {error}");
    let wanted = String::from_utf8_lossy(&name.as_bytes()[..name.len().min(NAME_LENGTH)]);
    for entry in fs::read_dir("/proc").map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        let is_process = path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        // It may have ended since it was listed.
        let Some(stat) = is_process.then(|| fs::read(path.join("stat")).ok()).flatten() else { continue };
        if let Some((comm, state)) = name_and_state(&String::from_utf8_lossy(&stat))
            && comm == wanted
            && !matches!(state, 'Z' | 'X')
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The second and third field of proc_pid_stat(5). The name may itself hold
/// parentheses and spaces.
fn name_and_state(stat: &str) -> Option<(&str, char)> {
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once(" (")?;
    Some((name, after.chars().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_the_kernel_prints_them() {
        for (stat, expected) in [
            ("1 (systemd) S 0 1 1 0 -1", Some(("systemd", 'S'))),
            ("812 (tmux: server) S 1 812", Some(("tmux: server", 'S'))),
            ("900 (a) (b) c) R 1 900", Some(("a) (b) c", 'R'))),
            ("901 (sh) Z 1 901", Some(("sh", 'Z'))),
            ("", None),
        ] {
            assert_eq!(name_and_state(stat), expected, "{stat}");
        }
    }

    #[test]
    fn this_very_process_runs() {
        let comm = fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(is_running(comm.trim_end()), Ok(true));
        assert_eq!(is_running("no-such-process"), Ok(false));
    }
}
