//! What runs in a container while another one is made with a place that both write to: nothing of that leads out.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::harness::{Node, until, with_own_mounts, with_own_network};
use crate::place::{Place, data, names};

/// Containers that are made while places are changed under them.
const ROUNDS: usize = 30;

/// Has `/shared/x` lead to a folder beside it, out by dots, and to an absolute path, in turns and without a pause.
const SWAP: &str = "cd /shared; mkdir d; while [ ! -e /tmp/stop ]; do
        for to in d ../../../../../../../..$VICTIM $VICTIM; do busybox ln -s $to next && busybox mv -T next x; done
        [ -e /tmp/ready ] || echo ready > /tmp/ready
    done";

#[test]
fn a_place_that_is_swapped_for_a_link_while_a_container_is_made_leads_nothing_out() {
    with_own_mounts(|| {
        with_own_network(|| {
            let folder = tempfile::tempdir().unwrap();
            let place = Place::on(Node::start_in(folder.path()));
            let [shared, victim, given] =
                ["a-shared", "victim", "b-given"].map(|name| folder.path().join(name));
            for path in [&shared, &victim, &given] {
                fs::create_dir(path).unwrap();
            }
            fs::write(given.join("file"), "given").unwrap();
            let volume = json!({shared.to_str().unwrap(): "/shared"});
            let attacker = place.created(json!({"mount": volume, "nics": [], "env": {"VICTIM": victim}}));
            let swapping = place.begin(attacker, "core.system", json!({"name": "sh", "args": ["-c", SWAP]}));
            until("it swaps", || place.sh(attacker, "cat /tmp/ready 2>/dev/null") == "ready\n");

            let (mut made, mut refused) = (0, 0);
            for round in 0..10 * ROUNDS {
                if round >= ROUNDS && made > 0 && refused > 0 {
                    break;
                }
                let (at, host) = (format!("/shared/x/{round}/deep"), victim.join(round.to_string()));
                // A mount in the folder, and what would have to be made for it.
                let mounts = json!({shared.to_str().unwrap(): "/shared", given.to_str().unwrap(): at});
                let result = place.create(json!({"mount": mounts, "nics": []}));
                match result["state"] == "SUCCESS" {
                    true => {
                        made += 1;
                        let id = data(&result).as_u64().unwrap();
                        place.terminate(id);
                    }
                    false => {
                        refused += 1;
                        let said = result["data"].as_str().unwrap();
                        assert!(said.contains("mount a volume"), "{said}");
                    }
                }
                assert!(!host.exists(), "round {round} made something outside");
            }
            // Both ways were tried: a place that is there, and one that leads out.
            assert!(made > 0 && refused > 0, "{made} were made, {refused} refused");
            assert_eq!(names(&victim), Vec::<String>::new());
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!table.contains(victim.to_str().unwrap()), "{table}");
            place.sh(attacker, "touch /tmp/stop");
            assert_eq!(place.node.result(&swapping)["state"], "SUCCESS");
            place.terminate(attacker);
            place.until_nothing_is_left();
            assert_eq!(fs::read_to_string(Path::new(&given).join("file")).unwrap(), "given");
        })
    });
}
