from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def monitor(
    settings: str, watched: dsl.Output[dsl.Artifact], events: dsl.Input[dsl.Dataset] = None
) -> str:
    """One pass of `tasteloop monitor --once`; returns what was decided, "" where nothing was.

    It is that command in a process of its own, because a retraining is itself a run of kfp.
    `events` stands for the directory `incoming` under TASTELOOP_HOME. That another monitor is at
    work is no failure.
    """
    from components.step import step

    with step("monitor", watched=watched.path) as outputs:
        import json
        import os
        import subprocess
        import sys
        import tempfile
        from pathlib import Path

        from tasteloop.errors import TasteloopError
        from tasteloop.files import atomic_write

        with tempfile.TemporaryDirectory(prefix="tasteloop-") as folder:
            profile = Path(folder) / "monitor.yaml"
            # JSON is YAML, and keeps text apart from numbers
            profile.write_text(settings, encoding="utf-8")
            command = [
                sys.executable,
                "-m",
                "pipelines.cli",
                "monitor",
                "--once",
                "--json",
                "--profile",
                str(profile),
            ]
            if events:
                command += ["--events", events.path]
            # within a step kfp leaves out what makes a graph, unless it does not know where it is
            about = {name: value for name, value in os.environ.items() if name != "_KFP_RUNTIME"}
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=False, env=about
            )
        if done.returncode not in (0, 5):
            raise TasteloopError(
                f"the pass ended with exit code {done.returncode}; what was wrong is said above"
            )
        report = (
            done.stdout
            if done.returncode == 0
            else json.dumps({"outcome": None, "note": "another one is at work"})
        )
        atomic_write(Path(watched.path), report)
        outcome = json.loads(report)["outcome"] or ""
        outputs.update(outcome=outcome)
    return outcome
