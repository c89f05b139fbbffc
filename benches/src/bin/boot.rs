//! `bench-boot`: how long a machine takes from the first line of its kernel until redis answers (`make bench-boot`), as a node
//! and bare, in turns.
//!
//! Both boot the same kernel and the same initramfs in the same emulator. The bare one runs a script in place of core0
//! (`benches/boot/bare.sh`): modules, a lease, redis, and nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow};
use benchmarks::{machine, run, stop};
use clap::Parser;
use harness::guest;
use jiff::Timestamp;
use serde_json::json;

/// A node may take so many times as long as a bare machine.
const AIM: f64 = 1.2;
const BARE: &str = "/usr/share/bench/bare.sh";
const PASSWORD: &str = "of the bench";
/// Of that password.
const SHA256: &str = "e8792fff2c02a954b6255e075f16d2720691e433c7343aeedd17c93b136251c1";

/// Times the boot of a node beside that of a bare machine
#[derive(Parser)]
struct Options {
    /// How often each machine boots
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the raw times go
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    results: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    stop::listen()?;
    let work = tempfile::tempdir().context("a folder for the image")?;
    let image = work.path().join("image");
    build(&image)?;
    let machines = [
        ("node", format!("redis.sha256={SHA256}"), Some(PASSWORD)),
        ("bare", format!("rdinit=/usr/bin/busybox -- sh {BARE}"), None),
    ];
    let mut seconds = BTreeMap::<&str, Vec<f64>>::new();
    for round in 0..options.rounds {
        // Who goes first changes, as the machine does.
        for turn in 0..machines.len() {
            let (name, arguments, password) = &machines[(turn + round as usize) % machines.len()];
            stop::check()?;
            let took = guest::time_to_pong(&image, arguments, *password)
                .map_err(|said| anyhow!("the {name} machine does not answer; it said:\n{said}"))?;
            eprintln!("round {}/{}: {name} {:.2} s", round + 1, options.rounds, took.as_secs_f64());
            seconds.entry(name).or_default().push(took.as_secs_f64());
        }
    }
    tell(&seconds, &options.results)
}

/// The image of the tests, with the script of the bare machine in it.
fn build(image: &Path) -> anyhow::Result<()> {
    let programs = std::env::current_exe().context("a process knows its executable")?;
    let programs = programs.parent().context("it is in a folder")?;
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut build = Command::new(programs.join("initramfs"));
    build.args(["build", "--minimal", "--relock", "--output"]).arg(image);
    build.arg("--recipes").arg(own.join("../initramfs/recipes")).arg("--programs").arg(programs);
    build.args(["--with", &format!("{BARE}={}", own.join("boot/bare.sh").display())]);
    run::silent(&mut build).map(drop)
}

/// Prints medians, their ratio and the verdict, and keeps all.
fn tell(seconds: &BTreeMap<&str, Vec<f64>>, results: &Path) -> anyhow::Result<()> {
    let median = |name: &str| {
        let mut values = seconds[name].clone();
        values.sort_by(f64::total_cmp);
        (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
    };
    println!(
        "from the first line of the kernel until redis answers, of {} boots each:",
        seconds["node"].len()
    );
    for (name, values) in seconds {
        let best = values.iter().copied().fold(f64::INFINITY, f64::min);
        println!("{name:<6} median {:.2} s, best {best:.2} s", median(name));
    }
    let ratio = median("node") / median("bare");
    let met = ratio <= AIM;
    println!("a node takes {ratio:.2} x as long (aim <= {AIM}: {})", if met { "met" } else { "missed" });
    let now = Timestamp::now();
    let document = json!({
        "facts": {
            "machine": machine::describe(),
            "load": std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
            "qemu": run::output(Command::new("qemu-system-x86_64").arg("--version"))?.lines().next(),
            "when": now.to_string(),
        },
        "figures": [{"what": "boot to PONG, x a bare machine", "aim": format!("<= {AIM}"), "value": ratio, "met": met}],
        "seconds": seconds,
    });
    let file = results.join(format!("{}-boot.json", now.strftime("%F-%H%M%S")));
    std::fs::write(&file, format!("{document:#}\n")).with_context(|| file.display().to_string())?;
    println!("kept in {}", file.display());
    Ok(())
}
