"""A small node that answers a few commands over a real redis, as the wire has it: what a client meets, made on purpose."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
import redis.backoff
import redis.retry

Reply = dict[str, Any]


def no_retry() -> Any:
    """redis-py would otherwise sleep for seconds within one call, depending on its version."""
    library: Any = redis
    return library.retry.Retry(library.backoff.NoBackoff(), 0)


class ScriptedNode:
    """Takes commands from the queues of its users until it is stopped; each job has a thread of its own."""

    def __init__(self, url: str, users: tuple[str, ...] = ()) -> None:
        self._redis: Any = redis.Redis.from_url(url, socket_timeout=20, protocol=2, retry=no_retry())
        self._queues = {"core:default": ""} | {f"core:user:{user}": f"{user}:" for user in users}
        self._stopping = threading.Event()
        self._seen: set[str] = set()
        self.taken: list[dict[str, Any]] = []
        self.duplicates = 0
        self.listeners: set[str] = set()
        self.killed = threading.Event()
        self._jobs: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> ScriptedNode:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Waits for each job: one that still speaks to redis would find its connection closed under it."""
        self._stopping.set()
        self.killed.set()
        self._thread.join(30)
        for thread in (self._thread, *self._jobs):
            thread.join(30)
            assert not thread.is_alive()
        self._redis.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                popped = self._redis.execute_command("BLPOP", *self._queues, "0.2")
            except (redis.RedisError, OSError):
                time.sleep(0.05)  # redis is being restarted
                continue
            if popped is None:
                continue
            queue, raw = popped
            command = json.loads(raw)
            name = self._queues[queue.decode()] + command["id"]
            if name in self._seen:
                self.duplicates += 1
                continue
            self._seen.add(name)
            self.taken.append(command)
            with contextlib.suppress(redis.ConnectionError):
                self._redis.execute_command("RPUSH", f"result:{name}:flag", "")
            self._start(threading.Thread(target=self._run, args=(name, command), daemon=True))

    def _start(self, thread: threading.Thread) -> None:
        self._jobs.append(thread)
        thread.start()

    def _run(self, name: str, command: dict[str, Any]) -> None:
        # What a node answers while its redis is being killed is lost.
        with contextlib.suppress(redis.ConnectionError):
            self._handle(name, command)

    def _handle(self, name: str, command: dict[str, Any]) -> None:
        handler = HANDLERS.get(command["command"])
        if handler is None:
            self.finish(name, command, {"state": "UNKNOWN_CMD", "level": 20, "data": json.dumps("no such command")})
        else:
            self.finish(name, command, handler(self, name, command["arguments"]))

    def finish(self, name: str, command: dict[str, Any], reply: Reply) -> None:
        result = {"id": command["id"], "command": command["command"], "state": "SUCCESS", "code": 0} | reply
        pipe = self._redis.pipeline(transaction=False)
        if ":" in name:
            pipe.execute_command("XADD", f"result:{name}", "1-0", "json", json.dumps(result))
        else:
            pipe.execute_command("RPUSH", f"result:{name}", json.dumps(result))
        pipe.execute_command("EXPIRE", f"result:{name}", 300)
        pipe.execute_command("EXPIRE", f"result:{name}:flag", 300)
        pipe.execute()

    def pause(self, seconds: float) -> None:
        """Until the time is over or the node stops."""
        self._stopping.wait(seconds)

    def say(self, name: str, level: int, text: str) -> None:
        fields = ("level", level, "time", int(time.time() * 1000), "source", f"job {name}", "text", text)
        self._redis.execute_command("XADD", f"stream:{name}", "MAXLEN", "~", 1000, "*", *fields)

    def later(self, seconds: float, name: str, state: str) -> None:
        self._start(threading.Timer(seconds, self.end, (name, state)))

    def add(self, stream: str, *fields: Any) -> None:
        self._redis.execute_command("XADD", stream, "*", *fields)

    def end(self, name: str, state: str) -> None:
        self._redis.execute_command("XADD", f"stream:{name}", "*", "end", state)
        self._redis.execute_command("EXPIRE", f"stream:{name}", 60)


def answer(value: Any) -> Reply:
    return {"level": 20, "data": json.dumps(value)}


def failure(code: int, text: str) -> Reply:
    return {"state": "ERROR", "code": code, "level": 20, "data": json.dumps(text)}


def _ping(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    return answer("PONG scripted")


def _sleep(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    node.pause(arguments["seconds"])
    return answer(arguments["seconds"])


def _count(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    for n in range(arguments["lines"]):
        node.say(name, 1 if n % 2 == 0 else 2, f"line {n}")
        node.pause(arguments.get("pause", 0))
    # As core0 does: the result may come before the end of the stream.
    if late := arguments.get("late"):
        node.later(late, name, "SUCCESS")
    else:
        node.end(name, "SUCCESS")
    return {"streams": ["out", "err"]}


def _fail(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    return failure(arguments["code"], arguments["text"])


def _system(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    """`exit N` ends with N, `hang` until it is killed, `flood` prints much; anything else is printed."""
    argv = [arguments["name"], *arguments["args"]]
    if argv == ["hang"]:
        node.say(name, 1, "hanging")
        assert node.killed.wait(60)
        node.end(name, "KILLED")
        return {"state": "KILLED", "code": 1143}
    if argv == ["flood"]:
        for n in range(500):
            node.say(name, 1, f"flood {n}")
    if argv[0] == "exit":
        node.say(name, 2, "about to fail")
        node.end(name, "ERROR")
        return {"state": "ERROR", "code": 1000 + int(argv[1]), "streams": ["so far\n", "about to fail\n"]}
    node.say(name, 1, " ".join(argv))
    node.end(name, "SUCCESS")
    return {"streams": [" ".join(argv) + "\n", ""]}


def _garbage(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    return {"state": 7}


def _jobs(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    cmd = {"id": "a", "command": "core.system", "arguments": {"name": "sleep", "args": ["\x1b[31m9"]}}
    return answer([{"id": "a", "pid": 7, "cpu": 1.25, "rss": 3 << 20, "starttime": (time.time() - 90) * 1000, "cmd": cmd}])


def _services(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    since = (time.time() - 90) * 1000
    redis = {"state": "ready", "since": since, "pid": 12, "restarts": 3, "reason": ""}
    return answer({"redis": redis, "ntp": {"state": "failed", "since": since, "pid": 0, "restarts": 0, "reason": "no net"}})


def _service_logs(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    records = [{"time": n * 1000, "level": 1, "text": f"line {n}"} for n in range(100)]
    return answer(records[-arguments.get("lines", 10) :])


def _subscribe(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    stream = f"logger:{arguments['queue']}"
    fields = ("level", 1, "time", 0, "source", arguments.get("source") or "job x", "text", "said before")
    node.listeners.add(arguments["queue"])
    node.add(stream, *fields)
    return answer({"stream": stream})


def _unsubscribe(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    node.listeners.discard(arguments["queue"])
    return answer(True)


def _kill(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    node.killed.set()
    return answer(True)


def _echo(node: ScriptedNode, name: str, arguments: dict[str, Any]) -> Reply:
    return answer(arguments)


HANDLERS: dict[str, Callable[[ScriptedNode, str, dict[str, Any]], Reply]] = {
    "core.ping": _ping,
    "core.system": _system,
    "test.sleep": _sleep,
    "test.count": _count,
    "test.fail": _fail,
    "test.garbage": _garbage,
    "test.echo": _echo,
    "job.list": _jobs,
    "job.kill": _kill,
    "service.list": _services,
    "service.status": _echo,
    "service.logs": _service_logs,
    "logger.subscribe": _subscribe,
    "logger.unsubscribe": _unsubscribe,
}
