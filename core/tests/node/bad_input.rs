//! What no process, name or argument can be: one clear error of that one command, and the node works on.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::harness::{Node, with_own_network};

/// What a `core.system` of these arguments was told.
fn refused(node: &Node, arguments: Value) -> (u64, String) {
    let result = node.call("core.system", arguments);
    assert_eq!(result["state"], "ERROR", "{result}");
    let text: String = serde_json::from_str(result["data"].as_str().unwrap()).unwrap();
    assert!(text.len() < 600, "{} bytes of an error", text.len());
    (result["code"].as_u64().unwrap(), text)
}

#[test]
fn a_nul_anywhere_in_a_process_is_refused() {
    let node = Node::start();
    for arguments in [
        json!({"name": "tr\0ue"}),
        json!({"name": "true", "args": ["fine", "a\0b"]}),
        json!({"name": "true", "args": ["\0"]}),
        json!({"name": "true", "env": {"A\0B": "c"}}),
        json!({"name": "true", "env": {"A": "b\0"}}),
        json!({"name": "true", "dir": "/tmp\0/etc"}),
    ] {
        let (code, text) = refused(&node, arguments.clone());
        assert!(code == 400 && text.contains("NUL"), "{arguments}: {code} {text}");
    }
    let script = node.call("bash", json!({"script": "echo a\0b"}));
    assert!(script["code"] == 400 && script["data"].as_str().unwrap().contains("NUL"), "{script}");
    // In what it reads NUL is a byte as any other.
    let read = node.call("core.system", json!({"name": "wc", "args": ["-c"], "stdin": "a\0b"}));
    assert_eq!(read["streams"][0], "3\n");
}

#[test]
fn what_is_too_long_for_a_process_is_refused_with_how_long_it_may_be() {
    let node = Node::start();
    let longest = (128 << 10) - 1;
    let long = "x".repeat(longest + 1);
    for (arguments, text) in [
        (json!({"name": "true", "args": [long]}), "has 131072 bytes"),
        (json!({"name": "true", "env": {"A": &long[2..]}}), "has 131072 bytes"),
        (json!({"name": "true", "env": {long.as_str(): ""}}), "has 131073 bytes"),
        (json!({"name": long}), "has 131072 bytes"),
        (json!({"name": "true", "args": vec!["x"; 5000]}), "more than 4096 arguments"),
        (json!({"name": "true", "dir": format!("/{}", "x".repeat(4095))}), "the folder has 4096 bytes"),
        (json!({"name": "true", "env": {"": "x"}}), "no name of a variable"),
        (json!({"name": "true", "env": {"A=B": "x"}}), "no name of a variable"),
    ] {
        let (code, said) = refused(&node, arguments);
        assert!(code == 400 && said.contains(text), "{text}: {code} {said}");
    }
    // The longest there may be arrives whole.
    let args = json!(["-c", "echo ${#1} ${#A}", "sh", &long[1..]]);
    let fits = node.call("core.system", json!({"name": "sh", "args": args, "env": {"A": &long[3..]}}));
    assert_eq!(fits["streams"][0], format!("{} {}\n", longest, longest - 2), "{}", fits["data"]);
}

/// Something that is there on no machine, of the kind that a schema wants: nothing can be made below /proc either.
fn nothing(schema: &Value) -> Value {
    match (schema["$ref"].as_str(), schema["type"].as_str()) {
        (Some("#/$defs/AbsolutePath"), _) => json!("/proc/no-such"),
        (_, Some("integer")) => json!(1_000_000_000),
        (_, Some("array")) => json!([]),
        (_, Some("object")) => json!({}),
        _ => json!("no-such"),
    }
}

#[test]
fn an_argument_of_a_megabyte_and_a_half_is_one_short_result_of_every_command() {
    with_own_network(|| {
        let node = Node::start();
        let described = node.call("system.commands", json!({}));
        let described: Value = serde_json::from_str(described["data"].as_str().unwrap()).unwrap();
        let long = "x".repeat(3 << 19);
        let mut tried = 0;
        for command in described["commands"].as_array().unwrap() {
            let name = command["command"].as_str().unwrap();
            let schema = &command["arguments"];
            let Some(properties) = schema["properties"].as_object() else { continue };
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            for (property, kind) in properties {
                let mut arguments: serde_json::Map<String, Value> = properties
                    .iter()
                    .filter(|(other, _)| required.contains(&json!(other)))
                    .map(|(other, kind)| (other.clone(), nothing(kind)))
                    .collect();
                let value = match kind["type"].as_str() {
                    Some("array") => json!([long]),
                    Some("object") => json!({"a": long}),
                    _ => json!(long),
                };
                arguments.insert(property.clone(), value);
                let result = node.call(name, arguments.into());
                let text = |field: &str| result[field].as_str().unwrap();
                let told = format!("{name} {property}: {:.1000}", result.to_string());
                let longest = ["data", "critical", "command"].map(|field| text(field).len());
                assert!(longest.iter().all(|length| *length < 1000), "{longest:?} {told}");
                assert!(result["streams"].to_string().len() < 2000, "{told}");
                let code = result["code"].as_u64().unwrap();
                // Nothing was found that is so; a shell found no program; it was refused; or no node has that.
                assert!([0, 1127, 400, 404, 406].contains(&code), "{told}");
                let redis = &mut node.connect();
                let results: u64 =
                    redis::cmd("LLEN").arg(format!("result:{}", text("id"))).query(redis).unwrap();
                assert_eq!(results, 1, "{told}");
                tried += 1;
            }
        }
        assert!(tried > 100, "{tried} arguments");
        let unknown = node.call(&long, json!({}));
        assert_eq!((&unknown["state"], &unknown["code"]), (&json!("UNKNOWN_CMD"), &json!(404)));
        assert!(
            unknown["command"].as_str().unwrap().len() < 100 && unknown.to_string().len() < 1000,
            "{unknown}"
        );
        for envelope in [
            json!({"command": &long, "max_time": "soon"}),
            json!({"command": "core.ping", "max_time": &long}),
            json!({"command": "core.ping", "tags": &long}),
            json!({"command": "core.ping", "container": &long}),
        ] {
            let result = node.result(&node.push(envelope));
            assert_eq!(
                (&result["state"], &result["code"]),
                (&json!("ERROR"), &json!(400)),
                "{:.1000}",
                result.to_string()
            );
            assert!(result.to_string().len() < 2000);
        }
        assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    });
}

#[test]
fn arguments_that_are_too_many_together_are_the_kernels_refusal_of_that_one_command() {
    // execve(2) takes a quarter of the stack's limit of them, which all that is started here inherits.
    let stack = Rlimit { current: Some(8 << 20), ..getrlimit(Resource::Stack) };
    setrlimit(Resource::Stack, stack).unwrap();
    let node = Node::start();
    // Each may be, and this is about what a command can hold.
    let many = vec!["x".repeat(1000); 2040];
    let (code, text) =
        refused(&node, json!({"name": "true", "args": many, "env": {"A": "y".repeat(40_000)}}));
    assert!(code == 500 && text.contains("Argument list too long"), "{code} {text}");
    let (code, text) = refused(&node, json!({"name": "true", "dir": format!("/{}", "x".repeat(300))}));
    assert!(code == 500 && text.contains("File name too long"), "{code} {text}");
    let works = node.call("core.system", json!({"name": "echo", "args": ["works"]}));
    assert_eq!(works["streams"][0], "works\n");
}

#[test]
fn names_that_lead_elsewhere_are_no_names() {
    let node = Node::start();
    std::fs::write(node.dir.join("outside.toml"), "exec = ['touch', 'outside']").unwrap();
    for name in ["../outside", "/etc/passwd", "a/b", "..", "", "a\0b", "x\n"] {
        for verb in ["status", "start", "stop", "restart", "logs"] {
            let result = node.call(&format!("service.{verb}"), json!({"name": name}));
            assert!(
                result["state"] == "ERROR" && [400, 404].contains(&result["code"].as_u64().unwrap()),
                "{result}"
            );
        }
    }
    for (command, arguments) in [
        ("filesystem.open", json!({"file": "etc/passwd"})),
        ("filesystem.list", json!({"path": "../.."})),
        ("flist.mount", json!({"ref": "../../etc/passwd", "mountpoint": node.dir})),
        ("flist.mount", json!({"ref": "x", "mountpoint": "mnt"})),
        ("disk.getinfo", json!({"disk": "../../etc/passwd"})),
        ("disk.getinfo", json!({"disk": "loop0", "part": "../loop1"})),
        ("ip.link.up", json!({"name": "../lo"})),
        ("bridge.create", json!({"name": "../br"})),
        ("logger.subscribe", json!({"queue": "a:b"})),
        ("corex.get", json!({"query": "../1"})),
    ] {
        let result = node.call(command, arguments.clone());
        let code = result["code"].as_u64().unwrap();
        assert!(result["state"] == "ERROR" && [400, 404].contains(&code), "{command} {arguments}: {result}");
    }
    // Who asks for files by whole paths is the administrator, and means what is there.
    assert_eq!(node.call("filesystem.exists", json!({"path": "/etc/../etc/passwd"}))["data"], "true");
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
}
