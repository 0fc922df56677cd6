"""The home: one directory with everything that must be kept, and where in it each thing lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """A home and the paths in it. Nothing is made or read here: a path may not exist.

    >>> Home(Path("/srv/tasteloop")).run("20260102-030405-abcd").as_posix()
    '/srv/tasteloop/runs/20260102-030405-abcd'
    """

    path: Path

    @classmethod
    def current(cls) -> Home:
        """The home of this process: `TASTELOOP_HOME`, else `~/.tasteloop`.

        Raises:
            RuntimeError: the variable names the home of a user that does not exist.
        """
        named = os.environ.get("TASTELOOP_HOME") or "~/.tasteloop"
        return cls(Path(named).expanduser().absolute())

    def __str__(self) -> str:
        return str(self.path)

    # Data and training

    @property
    def pseudonym_key(self) -> Path:
        """The secret that turns user ids into pseudonyms."""
        return self.path / "pseudonym.key"

    def accepted(self, source: str) -> Path:
        """The validation of the last data set of a source that was accepted."""
        return self.path / "accepted" / f"{source}.json"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints of fine-tunings: a directory for each combination of data and settings."""
        return self.path / "checkpoints"

    # Runs

    @property
    def runs(self) -> Path:
        """A directory for each run, with its facts, settings, log and verdicts."""
        return self.path / "runs"

    def run(self, run_id: str) -> Path:
        return self.runs / run_id

    @property
    def reports(self) -> Path:
        """The pages that `tasteloop report` writes."""
        return self.path / "reports"

    @property
    def artifacts(self) -> Path:
        """What the steps of runs on this machine made."""
        return self.path / "pipeline" / "artifacts"

    @property
    def step_cache(self) -> Path:
        """kfp's cache of finished steps."""
        return self.path / "pipeline" / "cache"

    @property
    def run_locks(self) -> Path:
        """A lock file for each combination of data and settings that a run trains with."""
        return self.path / "pipeline" / "locks"

    # Registry and releases

    @property
    def registry(self) -> Path:
        """MLflow's SQLite database of versions, where no server is named."""
        return self.path / "mlflow.db"

    @property
    def registry_artifacts(self) -> Path:
        """MLflow's artifacts: the bundle and the verdicts of each version."""
        return self.path / "mlartifacts"

    @property
    def registry_lock(self) -> Path:
        return self.path / "registry.lock"

    @property
    def champion_pointer(self) -> Path:
        """The champion that this home saw last; its version is null after a reset."""
        return self.path / "champion.json"

    @property
    def served_version(self) -> Path:
        """The version that a server here served last, which the next start falls back on."""
        return self.path / "served.json"

    @property
    def rollout(self) -> Path:
        """The running or the last rollout."""
        return self.path / "rollout.json"

    @property
    def past_rollouts(self) -> Path:
        return self.path / "rollouts"

    @property
    def rollout_lock(self) -> Path:
        return self.path / "rollout.lock"

    # Serving and monitoring

    @property
    def journal(self) -> Path:
        """Answers and feedback, written by the servers."""
        return self.path / "journal"

    @property
    def incoming(self) -> Path:
        """Events as they come, which the monitor reads."""
        return self.path / "incoming"

    @property
    def histories(self) -> Path:
        """Users' histories, where a server on this machine keeps them."""
        return self.path / "histories"

    @property
    def monitor(self) -> Path:
        """The monitor's directory: its ledger, and what it measured."""
        return self.path / "monitor"

    @property
    def ledger(self) -> Path:
        """The entries of the ledger: what was decided, and what came of it."""
        return self.monitor / "ledger.jsonl"

    @property
    def monitor_settings(self) -> Path:
        """The settings of the monitor's last pass."""
        return self.monitor / "settings.json"

    @property
    def monitor_metrics(self) -> Path:
        """The monitor's metrics as Prometheus reads them from a file."""
        return self.monitor / "metrics.prom"

    @property
    def windows(self) -> Path:
        """The drift report of each window of the journal."""
        return self.monitor / "windows"

    @property
    def retrainings(self) -> Path:
        """The data of each retraining."""
        return self.monitor / "retrainings"

    def reference(self, champion_digest: str) -> Path:
        """The sample that windows are compared with while this champion is live."""
        return self.monitor / "references" / champion_digest

    def training_data(self, champion_digest: str) -> Path:
        """What a champion learned from, kept where artifacts do not stay on this machine."""
        return self.monitor / "data" / champion_digest

    # Experiments

    @property
    def simulations(self) -> Path:
        """The homes of simulations."""
        return self.path / "simulations"

    @property
    def benchmarks(self) -> Path:
        """Results of benchmarks, and what is kept to carry on with them."""
        return self.path / "bench"
