use std::fs;

use anyhow::{Context, Result};

/// What a process holds in memory, in kibibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) resident: u64,
    pub(crate) peak: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        Self::parse(&status).with_context(|| format!("{path} has no VmRSS and VmHWM"))
    }

    fn parse(status: &str) -> Option<Self> {
        let kibibytes = |key: &str| -> Option<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            value.trim().strip_suffix(" kB")?.parse().ok()
        };
        Some(Self { resident: kibibytes("VmRSS")?, peak: kibibytes("VmHWM")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_and_its_peak_are_read_from_the_status() {
        let status = "Name:\tvdbi-injector\nVmHWM:\t   20480 kB\nVmRSS:\t   18000 kB\n";
        assert_eq!(Memory::parse(status), Some(Memory { resident: 18000, peak: 20480 }));
        assert_eq!(Memory::parse("Name:\tzombie\n"), None);
    }

    #[test]
    fn this_process_has_some() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(0 < memory.resident && memory.resident <= memory.peak);
    }
}
