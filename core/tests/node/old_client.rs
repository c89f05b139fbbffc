//! The old client from PyPI, `g8core` 1.0.0, unmodified, as far as jobs go.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::Node;
use crate::venv::venv;

/// A Python with the client in it.
pub fn python() -> PathBuf {
    venv("g8core").join("bin/python")
}

#[test]
fn the_old_client_pings_runs_and_is_told_of_failures() {
    let node = Node::start();
    let script = r#"
import sys
from g8core import Client
c = Client("127.0.0.1", int(sys.argv[1]), sys.argv[2])
assert c.ping().startswith("PONG "), c.ping()
r = c.system("cat", stdin="some input").get()
assert (r.state, r.stdout, r.stderr) == ("SUCCESS", "some input\n", ""), r
assert r.time >= 0 and r.starttime > 1.4e9 and r.id
r = c.system("sh -c 'echo out; echo err >&2; exit 9'", env={"A": "b"}).get()
assert (r.state, r.stdout, r.stderr) == ("ERROR", "out\n", "err\n"), r
response = c.bash("echo 20::[1,2]")
for _ in range(2):
    assert (response.get().data, response.get().level) == ("[1,2]", 20)
try:
    c.json("no.such.command", {})
except RuntimeError as e:
    assert "UNKNOWN_CMD" in str(e), e
else:
    raise SystemExit("an unknown command succeeded")
many = [c.bash("echo %d" % i) for i in range(100)]
assert [m.get().stdout for m in many] == ["%d\n" % i for i in range(100)]
print("passed")
"#;
    let said =
        Command::new(python()).args(["-c", script, &node.port.to_string(), &node.password]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&said.stdout),
        "passed\n",
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
}
