//! The processors, from /proc/cpuinfo (proc_cpuinfo(5)).

use schemars::JsonSchema;
use serde::Serialize;

use super::{InfoError, read};

/// One processor as the kernel schedules on it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Cpu {
    /// Its number.
    pub cpu: u32,
    /// Who made it.
    #[serde(rename = "vendorId")]
    pub vendor_id: String,
    /// Family.
    pub family: String,
    /// Model number.
    pub model: String,
    /// Stepping.
    pub stepping: u32,
    /// Its socket.
    #[serde(rename = "physicalId")]
    pub physical_id: String,
    /// Its core in the socket.
    #[serde(rename = "coreId")]
    pub core_id: String,
    /// Cores of this entry, always 1: every processor has an entry of its own.
    pub cores: u32,
    /// Its name.
    #[serde(rename = "modelName")]
    pub model_name: String,
    /// Clock in MHz now.
    pub mhz: f64,
    /// Cache in KiB.
    #[serde(rename = "cacheSize")]
    pub cache_size: u32,
    /// What it can.
    pub flags: Vec<String>,
    /// Revision of its microcode.
    pub microcode: String,
}

/// All processors that are online.
pub fn cpus() -> Result<Vec<Cpu>, InfoError> {
    let cpus = parse(&read("/proc/cpuinfo")?);
    if cpus.is_empty() { Err(InfoError::Incomplete("/proc/cpuinfo", "processor")) } else { Ok(cpus) }
}

fn parse(text: &str) -> Vec<Cpu> {
    let mut cpus: Vec<Cpu> = Vec::new();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let (key, value) = (key.trim(), value.trim());
        if key == "processor" {
            cpus.push(Cpu { cpu: value.parse().unwrap_or(0), cores: 1, ..Cpu::default() });
            continue;
        }
        // What comes before the first processor, or after the last one, is about the board (ARM).
        let Some(cpu) = cpus.last_mut() else { continue };
        match key {
            "vendor_id" | "CPU implementer" => cpu.vendor_id = value.to_owned(),
            "cpu family" | "CPU architecture" => cpu.family = value.to_owned(),
            "model" | "CPU part" => cpu.model = value.to_owned(),
            "model name" => cpu.model_name = value.to_owned(),
            "stepping" | "CPU revision" => cpu.stepping = value.parse().unwrap_or(0),
            "physical id" => cpu.physical_id = value.to_owned(),
            "core id" => cpu.core_id = value.to_owned(),
            "cpu MHz" => cpu.mhz = value.parse().unwrap_or(0.0),
            "cache size" => cpu.cache_size = value.trim_end_matches(" KB").parse().unwrap_or(0),
            "flags" | "Features" => cpu.flags = value.split_whitespace().map(str::to_owned).collect(),
            "microcode" => cpu.microcode = value.to_owned(),
            _ => {}
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_the_processors_that_the_kernel_counts() {
        let online = std::thread::available_parallelism().unwrap().get();
        let cpus = cpus().unwrap();
        assert!(cpus.len() >= online, "{} < {online}", cpus.len());
        assert_eq!(cpus[0].cpu, 0);
        assert!(!cpus[0].flags.is_empty());
    }

    #[test]
    fn each_processor_gets_its_own_values() {
        let cpus = parse(
            "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\
             stepping\t: 1\ncpu MHz\t\t: 2445.402\ncache size\t: 512 KB\nphysical id\t: 0\ncore id\t\t: 3\n\
             flags\t\t: fpu sse4_2\n\nprocessor\t: 1\ncpu MHz\t\t: odd\n",
        );
        assert_eq!(cpus.len(), 2);
        assert_eq!((cpus[0].mhz, cpus[0].cache_size), (2445.402, 512));
        assert_eq!((cpus[0].model_name.as_str(), cpus[0].core_id.as_str()), ("AMD EPYC", "3"));
        assert_eq!(cpus[0].flags, ["fpu", "sse4_2"]);
        assert_eq!((cpus[1].cpu, cpus[1].mhz), (1, 0.0));
    }

    #[test]
    fn names_are_those_of_the_predecessor() {
        let json = serde_json::to_value(Cpu::default()).unwrap();
        for name in
            ["cpu", "vendorId", "physicalId", "coreId", "cores", "modelName", "mhz", "cacheSize", "flags"]
        {
            assert!(json.get(name).is_some(), "{name}");
        }
    }
}
