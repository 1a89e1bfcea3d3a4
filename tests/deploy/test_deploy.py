"""The deployment files say what the code does: the same names, the same promises."""

from __future__ import annotations

import contextlib
import http.server
import importlib
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from dotenv import dotenv_values
from redis import Redis
from redis.exceptions import RedisError

from service import cli, log
from service.core.production import FACTS
from service.settings import Settings, load
from service.store.connection import safety_problems
from service.web import app, health
from workers import processes
from workers.redis_server import find_binary

TOP = Path(__file__).resolve().parents[2]
DEPLOY = TOP / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DEFAULTS: Mapping[str, Any] = {
    field.alias: field.default for field in Settings.model_fields.values() if field.alias is not None
}
SECRETS = {"JARAI_API_KEY", "JARAI_WEBHOOK_SECRETS", "ADMIN_TOKEN", "NOTIFY_URL", "NOTIFY_SECRET"}
DATA = "/var/lib/jarai-receiver"
UVICORN_KEEP_ALIVE_SECONDS = 5


def parse_yaml(path: Path) -> Any:
    return importlib.import_module("yaml").safe_load(path.read_text())  # comes with uvicorn[standard]


COMPOSE: Any = parse_yaml(DEPLOY / "compose.yaml")
RULES: Any = [rule for group in parse_yaml(DEPLOY / "alerts.yaml")["groups"] for rule in group["rules"]]
DOCKERFILE = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")


def assert_known(words: list[str]) -> None:
    """It is the command with a subcommand that exists and takes these options."""
    assert Path(words[0]).name == "jarai-receiver"
    command = cli.main.commands[words[1]]
    with command.make_context(words[1], words[2:]):
        pass


# --- .env.example ----------------------------------------------------------------------------------------------


def example_lines() -> Iterator[tuple[str, str, bool]]:
    """Name, value, and whether it is only a comment."""
    for line in (TOP / ".env.example").read_text().splitlines():
        if found := re.fullmatch(r"(# )?([A-Z][A-Z_]+)=(.*)", line):
            yield found[2], found[3], bool(found[1])


def test_the_example_names_every_setting_once_and_no_other() -> None:
    names = [name for name, _, _ in example_lines()]
    assert sorted(names) == sorted(DEFAULTS)


def test_each_line_of_the_example_explains_itself() -> None:
    lines = (TOP / ".env.example").read_text().splitlines()
    for number, line in enumerate(lines):
        if re.match(r"(# )?[A-Z][A-Z_]+=", line):
            assert lines[number - 1].startswith("# "), line


def test_the_example_as_it_stands_changes_no_default() -> None:
    assert load({}, TOP / ".env.example") == Settings()  # type: ignore[call-arg]


def test_the_example_shows_the_defaults() -> None:
    shown = {name: value for name, value, _ in example_lines() if value}
    assert load(shown, None) == Settings()  # type: ignore[call-arg]
    assert set(shown) == {name for name, default in DEFAULTS.items() if default not in ("", (), None)}


def test_no_secret_has_a_value_in_the_example() -> None:
    found = {name: value for name, value, _ in example_lines()}
    assert not any(found[name] for name in SECRETS)


# --- redis.conf ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def redis_with(tmp_path: Path, *arguments: str) -> Iterator[Redis]:
    """A server with our configuration, its data in tmp_path, reachable by a socket alone."""
    with tempfile.TemporaryDirectory(prefix="jarai-", dir="/tmp") as short:  # a socket's path has about 100 characters
        socket = Path(short) / "redis.sock"
        said = Path(short) / "said"
        with said.open("w") as output:
            process = subprocess.Popen(
                [find_binary(), str(DEPLOY / "redis.conf"), *arguments, "--port", "0", "--dir", str(tmp_path),
                 "--unixsocket", str(socket), "--daemonize", "no"],
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            with Redis(unix_socket_path=str(socket), socket_timeout=5) as redis:
                deadline = time.monotonic() + 20
                while True:
                    assert process.poll() is None, said.read_text()
                    with contextlib.suppress(RedisError):
                        redis.ping()
                        break
                    assert time.monotonic() < deadline, "Redis does not come up"
                    time.sleep(0.02)
                yield redis
        finally:
            process.terminate()
            process.wait()


def test_a_redis_with_our_configuration_keeps_accepted_events(tmp_path: Path) -> None:
    with redis_with(tmp_path) as redis:
        assert safety_problems(redis) == []
        kept: Any = redis.config_get("*")
    expected = {
        "appendfsync": "always",
        "maxmemory-policy": "noeviction",
        "no-appendfsync-on-rewrite": "no",
        "protected-mode": "yes",
        "save": "",
    }
    assert {name: kept[name] for name in expected} == expected
    assert int(kept["maxmemory"]) > 0


def test_what_it_answered_is_there_after_a_kill(tmp_path: Path) -> None:
    with redis_with(tmp_path) as redis:
        redis.set("event", "kept")
        info: Any = redis.info("server")
        os.kill(info["process_id"], 9)
    with redis_with(tmp_path) as redis:
        assert redis.get("event") == b"kept"


def test_what_compose_adds_to_the_configuration_is_understood(tmp_path: Path) -> None:
    command = COMPOSE["services"]["redis"]["command"]
    assert command[:4] == ["redis-server", "/etc/redis.conf", "--dir", "/data"]
    with redis_with(tmp_path, *command[4:]) as redis:
        kept: Any = redis.config_get("*")
        assert (kept["protected-mode"], kept["bind"]) == ("no", "0.0.0.0")
        assert safety_problems(redis) == []


# --- compose.yaml ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["web", "worker", "poller"])
def test_compose_runs_our_processes_as_the_code_expects(name: str) -> None:
    service = COMPOSE["services"][name]
    assert_known(service["command"])
    assert service["command"][1] == name
    assert service["env_file"] == ["../.env"]
    assert set(service["environment"]) <= set(DEFAULTS)
    settings = load({key: str(value) for key, value in service["environment"].items()}, None)
    assert settings.redis_url == "redis://redis:6379/0"
    assert settings.state_dir == Path(DATA)
    assert settings.storage_dir.is_relative_to(DATA)
    mounted = {volume.split(":")[1]: volume.split(":") for volume in service["volumes"]}
    assert mounted[DATA][0] == "files"
    assert ("ro" in mounted[DATA]) == (name != "worker")
    assert int(service["stop_grace_period"].removesuffix("s")) > max(processes.GRACE_SECONDS, app._DRAIN_SECONDS) + 1
    assert service["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert {"default", "store"} == set(service["networks"])


@pytest.mark.parametrize("name", ["redis", "web", "worker", "poller"])
def test_compose_gives_no_container_more_than_it_needs(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["mem_limit"]


@pytest.mark.parametrize("name", ["redis", "web", "worker", "poller"])
def test_compose_gives_no_container_a_way_around_that(name: str) -> None:
    service = COMPOSE["services"][name]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "userns_mode"} & set(service)
    assert not [volume for volume in service["volumes"] if "docker.sock" in volume or volume.startswith("/")]
    user = str(service.get("user", "10001:10001"))  # ours is the image's
    assert user.partition(":")[0] not in ("0", "root")


def test_what_compose_lets_be_written_is_never_code() -> None:
    for name in ("web", "worker", "poller"):
        service = COMPOSE["services"][name]
        writable = [volume.split(":")[1] for volume in service["volumes"] if not volume.endswith(":ro")]
        assert writable == ([DATA] if name == "worker" else [])
        assert [part.split(":")[0] for part in service["tmpfs"]] == ["/tmp"]
        assert "noexec" in service["tmpfs"][0]


def test_compose_opens_nothing_to_the_world() -> None:
    services = COMPOSE["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["web"]
    port = services["web"]["environment"]["PORT"]
    assert services["web"]["ports"] == [f"${{PUBLISH:-127.0.0.1:8000}}:{port}"]
    assert services["redis"]["networks"] == ["store"]
    assert COMPOSE["networks"]["store"] == {"internal": True}


def test_compose_gives_redis_our_configuration_a_volume_and_twice_its_memory() -> None:
    redis = COMPOSE["services"]["redis"]
    assert {"redis:/data", "./redis.conf:/etc/redis.conf:ro"} <= set(redis["volumes"])
    found = re.search(r"^maxmemory (\d+)gb$", (DEPLOY / "redis.conf").read_text(), re.M)
    assert found is not None
    assert redis["mem_limit"] == f"{2 * int(found[1])}g"
    assert redis["healthcheck"]


def test_only_web_is_asked_over_http() -> None:
    services = COMPOSE["services"]
    assert "/readyz" in services["web"]["healthcheck"]["test"][-1]
    assert services["worker"]["healthcheck"] == services["poller"]["healthcheck"] == {"disable": True}


# --- Dockerfile ------------------------------------------------------------------------------------------------


def instructions(name: str) -> list[str]:
    return [found.strip() for found in re.findall(rf"^{name}\s(.+)$", DOCKERFILE, re.M)]


def test_the_image_runs_web_without_a_shell_as_a_fixed_user() -> None:
    assert_known(json.loads(instructions("CMD")[-1]))
    uid, _, gid = instructions("USER")[-1].partition(":")
    assert int(uid) >= 10_000
    assert int(gid) >= 10_000
    assert instructions("VOLUME") == [DATA]


def test_nothing_in_the_image_is_written_after_the_last_user_is_set_and_its_code_is_roots() -> None:
    runtime = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    copied = re.findall(r"^COPY\s(.+)$", runtime, re.M)
    assert copied == ["--from=build /opt/jarai-receiver /opt/jarai-receiver"]  # no --chown: stays root's
    assert re.findall(r"-o 10001 -g 10001 -m 0750 (\S+)", runtime) == [DATA]
    assert "chown" not in runtime
    assert "chmod" not in runtime
    after = runtime[runtime.index("\nUSER ") :]
    assert re.findall(r"^RUN\s(.+)$", after, re.M) == ['["jarai-receiver", "--version"]']


def test_the_image_is_given_no_secret_and_installs_nothing_without_a_hash() -> None:
    assert not [name for name in SECRETS if re.search(rf"^(ENV|ARG)\s.*{name}", DOCKERFILE, re.M)]
    installs = re.findall(r"\bpip(?:\s--python\s\S+)?\s+install\s+[^&\n]+", DOCKERFILE)
    assert len(installs) == 3
    assert all("--require-hashes" in one or "--no-index" in one for one in installs)


def test_the_settings_in_the_image_exist() -> None:
    runtime = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    names = re.findall(r"\b([A-Z_]+)=", "".join(re.findall(r"^ENV\s(.+)$", runtime, re.M)))
    ours = {name for name in names if name != "PATH" and not name.startswith("PYTHON")}
    assert ours == {"HOST", "PORT", "STATE_DIR", "STORAGE_URL"}
    assert ours <= set(DEFAULTS)


def test_everything_the_image_copies_is_let_through_to_the_build() -> None:
    lines = (TOP / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source
        for words in map(str.split, instructions("COPY"))
        if not words[0].startswith("--from")
        for source in words[:-1]
    }
    assert "*" in lines
    assert copied == allowed


def test_the_build_backend_is_found_in_the_lock() -> None:
    pattern = re.search(r"awk '(.+?)' (\S+) > build\.lock", DOCKERFILE)
    assert pattern is not None
    if shutil.which("awk") is None:
        pytest.skip("there is no awk here")
    lock = subprocess.run(["awk", pattern[1], str(TOP / pattern[2])], capture_output=True, text=True, check=True).stdout
    assert [line.partition("==")[0] for line in lock.splitlines() if line[:1].isalpha()] == ["setuptools"]
    assert "--hash=sha256:" in lock


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers each path as the server was told to; anything else 404."""

    def do_GET(self) -> None:
        assert isinstance(self.server, _Stub)
        self.send_response(self.server.answers.get(self.path, 404))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Stub(http.server.HTTPServer):
    def __init__(self, answers: Mapping[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.answers = answers


def run_check(command: list[str], path: str, status: int) -> int:
    """The exit code of a health check against a server that answers `path` with `status`."""
    assert command[0] == "python"
    server = _Stub({path: status})
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        environment = {"PATH": os.environ["PATH"], "PORT": str(server.server_port)}
        return subprocess.run([sys.executable, *command[1:]], env=environment, timeout=20, check=False).returncode
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_of_the_image_asks_healthz(status: int, code: int) -> None:
    command = json.loads(instructions("HEALTHCHECK")[-1].partition("CMD ")[2])
    assert run_check(command, "/healthz", status) == code


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_of_compose_asks_readyz(status: int, code: int) -> None:
    test = COMPOSE["services"]["web"]["healthcheck"]["test"]
    assert test[0] == "CMD"
    assert run_check(test[1:], "/readyz", status) == code


# --- systemd ---------------------------------------------------------------------------------------------------


def directives(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^([A-Za-z]+)=(.*)$", unit.read_text(), re.M):
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_each_unit_starts_a_command_that_exists_with_our_settings(unit: Path) -> None:
    found = directives(unit)
    (start,) = found["ExecStart"]
    assert_known(shlex.split(start))
    assert unit.stem == f"jarai-receiver-{shlex.split(start)[1]}"
    assert found["EnvironmentFile"] == ["/etc/jarai-receiver/env"]
    given = dict(pair.split("=", 1) for line in found["Environment"] for pair in line.split())
    ours = {name: value for name, value in given.items() if not name.startswith("PYTHON")}
    assert ours == {"STATE_DIR": DATA, "STORAGE_URL": f"{DATA}/deliverables"}
    assert found["StateDirectory"] == [Path(DATA).name]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_each_unit_comes_back_and_has_time_to_end(unit: Path) -> None:
    found = directives(unit)
    assert found["Restart"] == ["always"]
    assert found["StartLimitIntervalSec"] == ["0"]
    assert found["KillSignal"] == ["SIGTERM"]
    assert found["KillMode"] == ["mixed"]
    assert int(found["TimeoutStopSec"][0]) > max(processes.GRACE_SECONDS, app._DRAIN_SECONDS) + 1


def test_the_units_are_hardened_alike() -> None:
    differ = {"Description", "ExecStart", "MemoryMax", "LimitNOFILE"}
    first, *others = [{k: v for k, v in directives(unit).items() if k not in differ} for unit in UNITS]
    assert others == [first, first]
    assert first["NoNewPrivileges"] == ["yes"]
    assert first["ProtectSystem"] == ["strict"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_no_unit_is_root_keeps_a_capability_or_may_write_its_own_code(unit: Path) -> None:
    found = directives(unit)
    assert found["User"][0] not in ("root", "0")
    assert found["CapabilityBoundingSet"] == found["AmbientCapabilities"] == [""]
    assert found["SystemCallFilter"] == ["@system-service"]
    assert found["RestrictSUIDSGID"] == found["LockPersonality"] == found["RestrictNamespaces"] == ["yes"]
    assert not {"ReadWritePaths", "PermissionsStartOnly", "SupplementaryGroups", "BindPaths"} & set(found)
    assert not re.search(r"^Exec\w+=[+!]", unit.read_text(), re.M), "a command with full privileges"
    code = Path(shlex.split(found["ExecStart"][0])[0])
    assert not code.is_relative_to(DATA)


def test_the_target_wants_every_unit() -> None:
    target = directives(DEPLOY / "systemd" / "jarai-receiver.target")
    assert sorted(target["Wants"][0].split()) == [unit.name for unit in UNITS]


def test_the_user_of_the_units_is_made() -> None:
    (user,) = directives(UNITS[0])["User"]
    assert re.search(rf"^u {user} ", (DEPLOY / "systemd" / "jarai-receiver.sysusers.conf").read_text(), re.M)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for file in (DEPLOY / "systemd").iterdir():
        text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", file.read_text(), flags=re.M)
        (tmp_path / file.name).write_text(text)
    units = [str(path) for path in sorted(tmp_path.iterdir()) if path.suffix in (".service", ".target")]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, [line for line in done.stdout.splitlines() if "jarai-receiver" in line]) == (0, [])


# --- alerts.yaml -----------------------------------------------------------------------------------------------


def test_every_metric_that_is_alerted_on_exists() -> None:
    exposed = set(re.findall(r'Sample\(\s*"(\w+)"', inspect.getsource(health)))
    asked = {name for rule in RULES for name in re.findall(r"\bjarai_\w+", rule["expr"])}
    assert asked
    assert asked <= exposed


def test_every_label_that_is_alerted_on_exists() -> None:
    labels = [found for rule in RULES for found in re.findall(r'jarai_\w+\{(\w+)=~?"([^"]+)"\}', rule["expr"])]
    source = inspect.getsource(health)
    for label, values in labels:
        assert f'"{label}"' in source
        for value in values.split("|"):
            assert value in FACTS if label == "event" else f'"{value}"' in source, f"{label}={value}"
    assert "event" in dict(labels)


def test_each_rule_says_how_urgent_it_is_and_what_to_do() -> None:
    for rule in RULES:
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert rule["expr"].count("(") == rule["expr"].count(")")
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_the_log_events_to_alert_on_are_listed_with_the_rules() -> None:
    listed = re.findall(r"^#   ([a-z]+\.[a-z_]+)\b", (DEPLOY / "alerts.yaml").read_text(), re.M)
    assert sorted(listed) == sorted(name for name, entry in log.CATALOGUE.items() if entry.alert)


# --- nginx.conf and Procfile -----------------------------------------------------------------------------------


def test_the_proxy_lets_through_the_webhook_and_the_health_check_only() -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    blocks = dict(re.findall(r"location ([^{]+?) \{\s*(.*?)\s*\}", text, re.S))
    assert {where for where, body in blocks.items() if "proxy_pass" in body} == {"= /webhooks/jarai", "= /healthz"}
    assert blocks["/"] == "return 404;"


def test_the_proxy_takes_bodies_as_large_as_we_do_and_drops_idle_connections_first() -> None:
    text = (DEPLOY / "nginx.conf").read_text()
    (size,) = re.findall(r"client_max_body_size\s+(\d+)m;", text)
    assert int(size) * 1024 * 1024 == DEFAULTS["MAX_BODY_BYTES"]
    (idle,) = re.findall(r"keepalive_timeout\s+(\d+)s;", text)
    assert int(idle) < UVICORN_KEEP_ALIVE_SECONDS


def test_the_proxy_keeps_what_it_is_told_about_uvicorn() -> None:
    default = inspect.signature(uvicorn.Config.__init__).parameters["timeout_keep_alive"].default
    assert default == UVICORN_KEEP_ALIVE_SECONDS
    assert "timeout_keep_alive" not in inspect.getsource(app), "then nginx.conf has to follow it"


def test_the_procfile_names_commands_that_exist() -> None:
    lines = (TOP / "Procfile").read_text().splitlines()
    named = {name: shlex.split(command) for name, _, command in (line.partition(": ") for line in lines)}
    assert named.keys() == {"web", "worker", "poller"}
    for words in named.values():
        assert_known(words)


def test_the_example_file_is_read_the_same_by_docker_and_systemd() -> None:
    """They know no comment behind a value and no blanks around `=`."""
    values = dotenv_values(TOP / ".env.example", interpolate=False)
    raw = {
        name: value
        for name, _, value in (
            line.partition("=") for line in (TOP / ".env.example").read_text().splitlines() if line[:1].isalpha()
        )
    }
    assert raw == values
