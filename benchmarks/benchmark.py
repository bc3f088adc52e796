"""The benchmark: every method in both worlds, searched on the val split, measured on the test split.

``make benchmark`` runs it; benchmarks/README.md is the protocol. A job that is done with the same arguments and
configuration files is skipped, unless a job that it rests on ran later. So a run that was cut goes on where it was.
"""

import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse

from benchmarks.jobs import Job, console, is_done, minutes, run_all
from benchmarks.plan import mistyped
from benchmarks.worlds import CONFIGS, HERE, TRAINED, World
from lcg_lightning.errors import UserError
from lcg_lightning.evaluation import records
from lcg_lightning.evaluation.estimates import Estimate
from lcg_lightning.evaluation.leaderboard import write_leaderboard
from lcg_lightning.yaml_files import load_yaml

KINDS = ("generation", "trees", "editing")
"""What a method must answer."""

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
    try:
        text = load_yaml(plan)
    except UserError as error:
        raise SystemExit(str(error)) from None
    if faults := list(unknown(text)):
        raise SystemExit(f"{plan}: " + "; ".join(faults))
    parts = [Part.read(name, text, out) for name in text["worlds"]]
    stages = {
        "faces and stores": [job for part in parts for job in (*part.world.faces(), part.world.store())],
        "networks": sorted((job for part in parts for job in part.world.fits()), key=longest_first),
        "search": [job for part in parts for job in part.searches()],
    }
    failed = run_all([job for jobs in stages.values() for job in jobs], workers)
    stages["test"] = [job for part in parts for job in part.tests()]  # at the settings that the search found
    failed += run_all(stages["test"], workers)
    publish([*stages["test"], *stages["search"]], out, results)
    console.print(minutes(stages))
    console.print(f"{(time.perf_counter() - begin) / 60:.1f} minutes; the leaderboard is in {results}")
    if failed:
        raise SystemExit(f"{len(failed)} jobs failed: {', '.join(failed)}")


@dataclass(frozen=True)
class Part:
    """A world and what the plan does with it."""

    world: World
    methods: Sequence[str]
    tasks: Mapping[str, Mapping[str, Any]]
    plan: Mapping[str, Any]
    out: Path

    @classmethod
    def read(cls, name: str, plan: Mapping[str, Any], out: Path) -> "Part":
        """The part of a plan that is named after its world."""
        options = plan["worlds"][name]
        steps = {network: plan["steps"][network] for network in options["networks"]}
        world = World(name, out / name, options["rows"], steps, options["seeds"], options.get("curvature"))
        methods = sorted(options["methods"], key=lambda method: [*SLOWEST, method].index(method))
        return cls(world, methods, dict(sorted(options["tasks"].items(), key=lambda task: -task[1]["n"])), plan, out)

    def searches(self) -> Iterator[Job]:
        """Each setting of each method on the search's task of each kind that the method answers in this world."""
        for kind, task in sorted(self.plan["search"]["tasks"].items()):
            more = ["--model.init_args.split=val", "--model.init_args.reference=train"]
            if self.kind(task) == "generation" and self.world.curvature is None:
                more.append("--model.init_args.features=none")  # the rule needs no FID, whose reference is all of train
            for method in self.methods:
                if not any(self.searched(each) == kind and self.asks(each, method) for each in self.tasks):
                    continue
                for k, setting in enumerate(self.plan["search"][kind].get(method, [])):
                    name = self.search_name(kind, method, k)
                    yield self.evaluation(name, task, method, 0, self.plan["search"]["n"], setting, more)

    def tests(self) -> Iterator[Job]:
        """Each method at its best setting on each task that it answers."""
        more = ["--model.init_args.split=test", "--model.init_args.reference=val"]
        more += [f"--model.init_args.metrics+={metric}" for metric in self.metrics()]
        for task, options in self.tasks.items():
            for method in self.methods:
                if not self.asks(task, method):
                    continue
                setting = self.best(self.searched(task), method)
                seeded = options.get("seeds") and self.plan["methods"][method].get("seeds")
                for seed in range(self.world.seeds if seeded else 1):
                    name = f"test/{self.world.name}/{task}/{method}-{seed}"
                    yield self.evaluation(name, task, method, seed, options["n"], setting, more)

    def evaluation(
        self, name: str, task: str, method: str, seed: int, n: int, setting: Mapping[str, Any], more: Sequence[str]
    ) -> Job:
        """One evaluation of a method with a setting and the networks of a training seed."""
        networks = self.plan["methods"][method].get("networks", {})
        options = {key: self.world.checkpoint(network, seed) for key, network in networks.items()} | dict(setting)
        return self.world.evaluation(name, self.out / name, task, method, n, options, *more)

    def search_name(self, kind: str, method: str, k: int) -> str:
        """Of the search's job for a method's setting k."""
        return f"search/{self.world.name}/{kind}/{method}-{k}"

    def kind(self, task: str) -> str:
        """What a method must answer: generation, trees or editing."""
        kind: str = self.plan["tasks"].get(task, "generation")
        return kind

    def searched(self, task: str) -> str:
        """The search whose settings a task takes."""
        kind = self.kind(task)
        return "generation" if kind == "trees" else kind

    def asks(self, task: str, method: str) -> bool:
        """Whether a task of this world is one that the method answers, and does not leave it out."""
        answers = self.kind(task) in self.plan["methods"][method]["answers"]
        return answers and method not in self.tasks[task].get("without", [])

    def metrics(self) -> Iterator[str]:
        """Further metrics of the test split; the prior of the first seed judges for all methods."""
        prior = self.world.checkpoint("prior", 0)
        yield json.dumps({"class_path": "OnManifold", "init_args": {"prior": str(prior)}})
        if self.world.curvature is None:
            yield from ('{"class_path": "KID"}', '{"class_path": "PrecisionRecall"}')

    def best(self, kind: str, method: str) -> Mapping[str, Any]:
        """The setting that the search prefers, or none where there was nothing to choose."""
        settings = self.plan["search"][kind].get(method, [])
        paths = [self.out / self.search_name(kind, method, k) / "record.json" for k in range(len(settings))]
        found = {k: records.read(path) for k, path in enumerate(paths) if path.exists()}
        measured = {k: record.metrics for k, record in found.items() if record.failure is None}
        return settings[preferred(measured)] if measured else {}


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


def unknown(plan: Any) -> Iterator[str]:
    """What a plan names and nobody has, lacks, or gives with another type, before anything runs."""
    if faults := list(mistyped(plan)):
        yield from faults
        return
    if gap := {"worlds", "steps", "methods", "tasks", "search"} ^ plan.keys():
        yield f"missing or unknown: {', '.join(sorted(gap))}"
        return
    if gap := {"n", "tasks", "generation", "editing"} ^ plan["search"].keys():
        yield f"search: missing or unknown: {', '.join(sorted(gap))}"
    for kind in ("generation", "editing"):
        for method in sorted(plan["search"].get(kind, {}).keys() - plan["methods"].keys()):
            yield f"search {kind}: no method {method}; there are {', '.join(sorted(plan['methods']))}"
    for method, entry in plan["methods"].items():
        if not entry.get("answers") or set(entry["answers"]) - set(KINDS):
            yield f"method {method}: answers is {entry.get('answers')}; give some of {', '.join(KINDS)}"
    for task, kind in plan["tasks"].items():
        if kind not in KINDS:
            yield f"task {task} is {kind}; give one of {', '.join(KINDS)}"
    for name, world in plan["worlds"].items():
        if gap := {"rows", "seeds", "networks", "methods", "tasks"} ^ (world.keys() - {"curvature"}):
            yield f"world {name}: missing or unknown: {', '.join(sorted(gap))}"
            continue
        for task, options in world["tasks"].items():
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
            for each in sorted({each for each in named if list(named).count(each) > 1}):
                yield f"world {name}: {kind} {each} is given twice"
        for method in set(world["methods"]) & plan["methods"].keys():
            if not (CONFIGS / f"evaluation/{method}.yaml").exists():
                yield f"method {method}: no file {CONFIGS}/evaluation/{method}.yaml"
            for network in set(plan["methods"][method].get("networks", {}).values()) - set(world["networks"]):
                yield f"world {name}: method {method} needs the network {network}, which the world does not train"


def longest_first(fit: Job) -> int:
    """The place of a training among those of all worlds."""
    return list(TRAINED).index(fit.out.name.partition("-")[0])


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
        write_leaderboard(own / split, fresh, pictures=split == "test")  # those of val rows would be most of the page
        shutil.rmtree(results / split, ignore_errors=True)
        fresh.rename(results / split)
    shutil.rmtree(own, ignore_errors=True)


if __name__ == "__main__":
    jsonargparse.auto_cli(benchmark, as_positional=False)
