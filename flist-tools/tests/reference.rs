//! `flist-tools/CLI.md` is what `--help` says, for reading without the program.

use clap::CommandFactory;
use flist_tools::cli::Cli;

/// Help shows what the environment says, and the tests may run with a mode, a store or a cache there.
fn forget_the_environment() {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("G8_") {
            // SAFETY: this is the only test of the process, and nobody else looks at the environment meanwhile.
            unsafe { std::env::remove_var(&name) };
        }
    }
}

fn reference() -> String {
    let mut text = String::from(
        "# flist\n\nGenerated from the program's own help: `UPDATE=1 cargo test -p flist-tools`.\n",
    );
    let mut command = Cli::command().term_width(100);
    command.build();
    section(&mut text, &mut command);
    text
}

fn section(text: &mut String, command: &mut clap::Command) {
    let title = command.get_bin_name().unwrap_or("flist").to_owned();
    let help = command.render_long_help().to_string();
    // Options of all commands are told once, at the top.
    let own: Vec<&str> = help.lines().map(str::trim_end).collect();
    text.push_str(&format!("\n## {title}\n\n```text\n{}\n```\n", own.join("\n").trim_end()));
    let visible = command.get_subcommands_mut().filter(|c| !c.is_hide_set() && c.get_name() != "help");
    for below in visible {
        section(text, below);
    }
}

#[test]
fn the_reference_is_what_help_says() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/CLI.md");
    forget_the_environment();
    let now = reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(file, &now).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap_or_default();
    assert!(written == now, "CLI.md is out of date: UPDATE=1 cargo test -p flist-tools");
}
