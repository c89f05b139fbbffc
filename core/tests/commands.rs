//! COMMANDS.md is what the table of commands says.

#[test]
fn the_reference_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/COMMANDS.md");
    let made = core0::schema::reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == made, "COMMANDS.md is old: UPDATE=1 cargo test -p core0 --test commands");
}
