//! What the table of commands says to programs and to people: a JSON document, and COMMANDS.md.

use std::fmt::Write;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::command::errand::ForContainer;
use crate::command::{COMMANDS, Code, Entry, Run};

/// Every command with its role, arguments and answer, as `core0 schema` prints it.
pub fn document() -> Value {
    let mut generator = generator();
    let commands: Vec<Value> = COMMANDS.iter().map(|entry| describe(entry, &mut generator)).collect();
    let codes: serde_json::Map<String, Value> =
        Code::ALL.iter().map(|code| (code.number().to_string(), json!(code.meaning()))).collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commands": commands,
        "codes": codes,
        "$defs": generator.take_definitions(true),
    })
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().into_generator()
}

fn describe(entry: &Entry, generator: &mut SchemaGenerator) -> Value {
    json!({
        "command": entry.name,
        "summary": entry.summary,
        "role": entry.role,
        "idempotent": entry.idempotent,
        "process": matches!(entry.run, Run::Process(_)),
        "container": !matches!(entry.for_container, ForContainer::Refused),
        "arguments": (entry.arguments)(generator),
        "output": entry.output.map(|output| output(generator)),
    })
}

/// COMMANDS.md.
pub fn reference() -> String {
    let mut text = String::from(
        "# Commands of a node\n\n\
         Made from the table in [src/command/table.rs](src/command/table.rs): `UPDATE=1 cargo test -p core0 --test commands`.\n\n\
         A command is sent as [src/wire.rs](src/wire.rs) says. `null` is absent, fields that a node does not know are \
         ignored. Roles: `read` looks, `operate` runs processes, `admin` changes the node. What is said to run in containers \
         is carried out inside by `corex.dispatch`, or with the field `container`: it has the files, processes, network and \
         rights of the container there; processors and memory are the node's.\n\n## Codes\n\n",
    );
    // Writing to a string does not fail.
    for code in Code::ALL {
        let _ = writeln!(text, "- `{}` {}", code.number(), code.meaning());
    }
    text.push_str("- `1000` and the exit code, or 1128 and the signal: a process that failed\n");
    let mut domain = "";
    for entry in COMMANDS {
        let own = entry.name.split('.').next().unwrap_or(entry.name);
        if own != domain {
            domain = own;
            let _ = writeln!(text, "\n## {domain}");
        }
        command(&mut text, entry);
    }
    text
}

fn command(text: &mut String, entry: &Entry) {
    let again = if entry.idempotent { ", runs again when it was interrupted" } else { "" };
    let role = serde_json::to_value(entry.role).unwrap_or_default();
    let role = role.as_str().unwrap_or_default();
    let inside = match entry.for_container {
        ForContainer::Refused => "",
        ForContainer::Node | ForContainer::Errand { .. } => ", also in containers",
    };
    let _ = write!(text, "\n### {}\n\n{} Role `{role}`{again}{inside}.\n", entry.name, entry.summary);
    let mut generator = generator();
    let schema = (entry.arguments)(&mut generator);
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let fields = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    if !fields.is_empty() {
        text.push_str("\n| argument | type | |\n|---|---|---|\n");
    }
    for (name, field) in &fields {
        let optional = if required.contains(&json!(name)) { "" } else { "optional. " };
        let told = field.get("description").and_then(Value::as_str).unwrap_or_default().replace('\n', " ");
        let _ = writeln!(text, "| `{name}` | {} | {optional}{told} |", kind(field));
    }
    let answer = match entry.output {
        Some(output) => kind(output(&mut generator).as_value()),
        None => "what the process prints".into(),
    };
    let _ = writeln!(text, "\nAnswers {answer}.");
}

/// The type of a field in a few words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        return format!("`{}`", name.rsplit('/').next().unwrap_or(name));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(" or ");
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(kinds) = schema.get(choice).and_then(Value::as_array) {
            let kinds: Vec<String> = kinds.iter().map(kind).filter(|kind| kind != "null").collect();
            return kinds.join(" or ");
        }
    }
    let list =
        |schema: &Value| schema.get("items").map_or_else(String::new, |items| format!(" of {}", kind(items)));
    match schema.get("type") {
        Some(Value::String(name)) => format!("{name}{}", list(schema)),
        Some(Value::Array(names)) => {
            let names = names.iter().filter_map(Value::as_str).filter(|name| *name != "null");
            format!("{}{}", names.collect::<Vec<_>>().join(" or "), list(schema))
        }
        Some(_) | None => "any".into(),
    }
}
