"""The benchmark: every method in both worlds, searched on the val split, measured on the test split.

``make benchmark`` runs it; benchmarks/README.md is the protocol. A job that is done with the same arguments and
configuration files is skipped, unless a job that it rests on ran later. So a run that was cut goes on where it was.
"""

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from benchmarks.jobs import Job, console, is_done, minutes, run_all
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.estimates import Estimate
from lcg_lightning.evaluation.leaderboard import write_leaderboard

HERE = Path(os.path.relpath(Path(__file__).resolve().parent))  # relative, as records keep the command line
CONFIGS = HERE.parent / "configs"
SEEDED = {"prior", "classifier"}
"""Networks that are trained with every seed; the baselines' own are trained once."""

TRAINED = {
    "flow": "flow/synthfaces.yaml",
    "conditional": "prior/conditional.yaml",
    "prior": "prior/synthfaces.yaml",
    "clean": "classifier/clean.yaml",
    "classifier": "classifier/synthfaces.yaml",
}
"""The configuration that trains each network, the longest training first."""

SLOWEST = ("lace", "lace-langevin", "rejection", "lcg-paper", "retrieval", "lcg", "arithmetic-svm", "cfg", "styleflow")
"""Methods that run before the others, so that no core waits long for the last job."""


def benchmark(
    out: Path = Path("runs/benchmark"),
    results: Path = HERE / "results",
    plan: Path = HERE / "plan.yaml",
    workers: int = 2,
) -> None:
    """Run what is not done yet, then write the leaderboard.

    Args:
        out: folder of stores, checkpoints and records.
        results: folder that gets the leaderboard and the records.
        plan: worlds, methods, tasks and the settings that the search tries.
        workers: jobs at a time, one thread each.
    """
    begin = time.perf_counter()
    text = yaml.safe_load(plan.read_text())
    if faults := list(unknown(text)):
        raise SystemExit(f"{plan}: " + "; ".join(faults))
    worlds = [World(name, out / name, options, text["steps"]) for name, options in text["worlds"].items()]
    stages = {
        "faces and stores": [job for world in worlds for job in (*world.faces(), world.store())],
        "networks": sorted((job for world in worlds for job in world.fits()), key=longest_first),
        "search": [job for world in worlds for job in world.searches(text)],
    }
    failed = run_all([job for jobs in stages.values() for job in jobs], workers)
    stages["test"] = [job for world in worlds for job in world.tests(text)]  # at the settings that the search found
    failed += run_all(stages["test"], workers)
    publish([*stages["test"], *stages["search"]], out, results)
    console.print(minutes(stages))
    console.print(f"{(time.perf_counter() - begin) / 60:.1f} minutes; the leaderboard is in {results}")
    if failed:
        raise SystemExit(f"{len(failed)} jobs failed: {', '.join(failed)}")


class World:
    """One generator with its store, its networks and its evaluations."""

    def __init__(self, name: str, folder: Path, options: dict[str, Any], steps: dict[str, int]) -> None:
        self.name, self.folder, self.steps = name, folder, steps
        self.curvature: float | None = options.get("curvature")
        self.rows: dict[str, int] = options["rows"]
        self.seeds: int = options["seeds"]
        self.networks: list[str] = options["networks"]
        self.tasks: dict[str, dict[str, Any]] = dict(sorted(options["tasks"].items(), key=lambda task: -task[1]["n"]))
        self.methods: list[str] = sorted(options["methods"], key=lambda method: [*SLOWEST, method].index(method))

    def faces(self) -> list[Job]:
        """The renders, where a generator encodes them."""
        if self.curvature is not None:
            return []
        out = self.folder / "faces"
        sizes = [f"--{split}={rows}" for split, rows in self.rows.items()]
        return [Job(f"{self.name}/faces", ("render", str(out), *sizes), out)]

    def store(self) -> Job:
        """The latent store."""
        out, faces = self.folder / "store", self.folder / "faces"
        if self.curvature is None:
            argv = (
                f"--config={CONFIGS / 'encode/synthfaces.yaml'}",
                f"--data.init_args.images={faces / 'images'}",
                f"--data.init_args.annotations={faces / 'attributes.txt'}",
                f"--data.init_args.measure_files=[{faces / 'pose.txt'},{faces / 'age.txt'}]",
                f"--data.init_args.partition={faces / 'splits.txt'}",
            )
        else:
            argv = (
                f"--config={CONFIGS / 'encode/synthfaces-exact.yaml'}",
                f"--generator.curvature={self.curvature}",
                *(f"--data.init_args.{split}={rows}" for split, rows in self.rows.items()),
            )
        return Job(f"{self.name}/store", ("encode", *argv, f"--out={out}"), out, tuple(self.faces()))

    def fits(self) -> Iterator[Job]:
        """Prior and classifier for every seed, the baselines' networks for the first."""
        for network in self.networks:
            for seed in range(self.seeds if network in SEEDED else 1):
                out = self.checkpoint(network, seed).parent
                argv = (
                    "fit",
                    f"--config={CONFIGS / TRAINED[network]}",
                    f"--data.init_args.store={self.folder / 'store'}",
                    f"--seed_everything={seed}",
                    *([f"--model.init_args.seed={seed}"] if network in SEEDED else []),
                    "--trainer.max_epochs=-1",
                    f"--trainer.max_steps={self.steps[network]}",
                    f"--model.init_args.decay_steps={self.steps[network]}",
                    "--trainer.check_val_every_n_epoch=10",
                    "--trainer.enable_progress_bar=false",
                    f"--trainer.default_root_dir={out}",
                )
                yield Job(f"{self.name}/{network}-{seed}", argv, out, (self.store(),))

    def checkpoint(self, network: str, seed: int) -> Path:
        """Where a network's training leaves it."""
        return self.folder / f"{network}-{seed}" / "last.ckpt"

    def searches(self, plan: dict[str, Any]) -> Iterator[Job]:
        """Each setting of each method on the search's task of each kind that the method answers in this world."""
        n = plan["search"]["n"]
        for kind, task in sorted(plan["search"]["tasks"].items()):
            for method in self.methods:
                if not any(self.searched(plan, each) == kind and self.asks(plan, each, method) for each in self.tasks):
                    continue
                for k, setting in enumerate(plan["search"][kind].get(method, [])):
                    name = f"search/{self.name}/{kind}/{method}-{k}"
                    yield self.evaluation(name, plan, task, method, 0, setting, "val", n)

    def tests(self, plan: dict[str, Any]) -> Iterator[Job]:
        """Each method at its best setting on each task that it answers."""
        for task, options in self.tasks.items():
            for method in self.methods:
                if not self.asks(plan, task, method):
                    continue
                entry = plan["methods"][method]
                setting = self.best(plan, self.searched(plan, task), method)
                for seed in range(self.seeds if options.get("seeds") and entry.get("seeds") else 1):
                    name = f"test/{self.name}/{task}/{method}-{seed}"
                    yield self.evaluation(name, plan, task, method, seed, setting, "test", options["n"])

    @staticmethod
    def kind(plan: dict[str, Any], task: str) -> str:
        """What a method must answer: generation, trees or editing."""
        kind: str = plan["tasks"].get(task, "generation")
        return kind

    def searched(self, plan: dict[str, Any], task: str) -> str:
        """The search whose settings a task takes."""
        kind = self.kind(plan, task)
        return "generation" if kind == "trees" else kind

    def asks(self, plan: dict[str, Any], task: str, method: str) -> bool:
        """Whether a task of this world is one that the method answers, and does not leave it out."""
        answers = self.kind(plan, task) in plan["methods"][method]["answers"]
        return answers and method not in self.tasks[task].get("without", [])

    def metrics(self) -> Iterator[str]:
        """Further metrics of the test split; the prior of the first seed judges for all methods."""
        yield json.dumps({"class_path": "OnManifold", "init_args": {"prior": str(self.checkpoint("prior", 0))}})
        if self.curvature is None:
            yield from ('{"class_path": "KID"}', '{"class_path": "PrecisionRecall"}')

    def best(self, plan: dict[str, Any], kind: str, method: str) -> dict[str, Any]:
        """The setting that the search prefers, or none where there was nothing to choose."""
        settings = plan["search"][kind].get(method, [])
        paths = [
            self.folder.parent / "search" / self.name / kind / f"{method}-{k}" / "record.json"
            for k in range(len(settings))
        ]
        found = {k: records.read(path) for k, path in enumerate(paths) if path.exists()}
        measured = {k: record.metrics for k, record in found.items() if record.failure is None}
        return settings[preferred(measured)] if measured else {}

    def evaluation(
        self,
        name: str,
        plan: dict[str, Any],
        task: str,
        method: str,
        seed: int,
        setting: dict[str, Any],
        split: str,
        n: int,
    ) -> Job:
        """One evaluation of a method with a setting and the networks of a training seed."""
        entry = plan["methods"][method]
        out = self.folder.parent / name
        base = "base" if self.curvature is None else "exact"
        options = {key: self.checkpoint(n, seed) for key, n in entry.get("networks", {}).items()} | setting
        if method == "oracle" and self.curvature is None:
            options["faces"] = self.folder / "faces"
        argv = [
            "test",
            f"--config={CONFIGS / f'evaluation/{base}.yaml'}",
            f"--config={CONFIGS / f'evaluation/{method}.yaml'}",
            f"--config={HERE / f'tasks/{task}.yaml'}",
            f"--data.init_args.store={self.folder / 'store'}",
            f"--model.init_args.out={out}",
            f"--model.init_args.n={n}",
            f"--model.init_args.split={split}",
            f"--model.init_args.reference={'train' if split == 'val' else 'val'}",
            f"--model.init_args.label={method}",
            "--trainer.enable_progress_bar=false",
            *(f"--model.init_args.method.init_args.{key}={value}" for key, value in options.items()),
        ]
        if split == "test":
            argv += [f"--model.init_args.metrics+={metric}" for metric in self.metrics()]
        if split == "val" and self.kind(plan, task) == "generation" and self.curvature is None:
            argv.append("--model.init_args.features=none")  # the rule needs no FID, whose reference is all of train
        if self.curvature is None:
            argv.append(f"--model.init_args.images={self.folder / 'faces/images'}")
        else:
            argv.append(f"--model.init_args.generator.curvature={self.curvature}")
        used = [fit for fit in self.fits() if any(str(fit.out / "last.ckpt") in word for word in argv)]
        return Job(name, tuple(argv), out, (self.store(), *used))


def preferred(found: Mapping[int, Mapping[str, Estimate]]) -> int:
    """The setting that the search chooses; the rule is the same for every method.

    Editing: the largest harmonic mean of joint accuracy and identity, which is the cosine, or 1 - 3 times the distance
    of the identity factors (those of strangers are 1/3 apart). Generation: among the settings whose joint accuracy is
    within .01 of the method's best, the one whose latents are nearest to the data's, by the Fréchet distance.
    """
    values = {k: {name: estimate.value for name, estimate in figures.items()} for k, figures in found.items()}
    if "latent_frechet" in next(iter(values.values())):
        least = max(each["acc_joint"] for each in values.values()) - 0.01
        return min((each["latent_frechet"], k) for k, each in values.items() if each["acc_joint"] >= least)[1]
    return max((_kept_and_done(each), k) for k, each in values.items())[1]


def _kept_and_done(figures: Mapping[str, float]) -> float:
    kept = max(0.0, figures["id"] if "id" in figures else 1.0 - 3.0 * figures["id_distance"])
    return 2.0 * figures["acc_joint"] * kept / max(figures["acc_joint"] + kept, 1e-9)


def unknown(plan: dict[str, Any]) -> Iterator[str]:
    """What a plan names and nobody has, or lacks, before anything runs."""
    if gap := {"worlds", "steps", "methods", "tasks", "search"} ^ plan.keys():
        yield f"missing or unknown: {', '.join(sorted(gap))}"
        return
    for name, world in plan["worlds"].items():
        if gap := {"rows", "seeds", "networks", "methods", "tasks"} ^ (world.keys() - {"curvature"}):
            yield f"world {name}: missing or unknown: {', '.join(sorted(gap))}"
            continue
        for task, options in world["tasks"].items():
            options = options or {}
            if "n" not in options:
                yield f"world {name}: task {task} has no n"
            if odd := options.keys() - {"n", "seeds", "without"}:
                yield f"world {name}: task {task}: unknown: {', '.join(sorted(odd))}"
            for method in sorted(set(options.get("without", [])) - set(world["methods"])):
                yield f"world {name}: task {task} leaves out {method}, which is not among the world's methods"
        for kind, named, known in (
            ("method", world["methods"], plan["methods"]),
            ("task", world["tasks"], [path.stem for path in (HERE / "tasks").glob("*.yaml")]),
            ("network", world["networks"], TRAINED.keys() & plan["steps"]),
        ):
            for each in sorted(set(named) - set(known)):
                yield f"world {name}: no {kind} {each}; there are {', '.join(sorted(known))}"
        for method in set(world["methods"]) & plan["methods"].keys():
            if not (CONFIGS / f"evaluation/{method}.yaml").exists():
                yield f"method {method}: no file {CONFIGS}/evaluation/{method}.yaml"
            for network in set(plan["methods"][method].get("networks", {}).values()) - set(world["networks"]):
                yield f"world {name}: method {method} needs the network {network}, which the world does not train"


def longest_first(fit: Job) -> int:
    """The place of a training among those of all worlds."""
    return list(TRAINED).index(fit.out.name.rpartition("-")[0])


def publish(jobs: Iterable[Job], out: Path, results: Path) -> None:
    """Writes the leaderboard of the test split, and that of the search; whatever else the folder holds stays.

    Records of jobs that are not among these, as of an earlier plan, are passed over.
    """
    own = out / ".own"
    shutil.rmtree(own, ignore_errors=True)
    for job in jobs:
        if is_done(job):
            shutil.copytree(job.out, own / job.name)
    for split in ("test", "search"):
        if not (own / split).exists():
            continue
        fresh = results / f".{split}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        write_leaderboard(own / split, fresh)
        shutil.rmtree(results / split, ignore_errors=True)
        fresh.rename(results / split)
    shutil.rmtree(own, ignore_errors=True)


if __name__ == "__main__":
    jsonargparse.auto_cli(benchmark, as_positional=False)
