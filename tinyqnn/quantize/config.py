"""What the main job is asked for, and what it does for a data set unless it is told otherwise."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyqnn import data
from tinyqnn.quant import scheme
from tinyqnn.search import Policy
from tinyqnn.search.policy import ROLES

METHODS = {
    "autoqnn": "schemes and widths are searched for (AutoQNN, algorithm 2)",
    "dfq": "widths of weights are searched for under a bound on the loss (DFQ)",
    "fixed": "one scheme for all weights and one for all activations",
    "policy": "as a policy file says",
}
SEARCHED = "searched"


@dataclass(frozen=True)
class Config:
    """All that decides the outcome of a run; two runs with equal configs on one machine end with the same bits.

    method                 see METHODS
    target_bits            of "autoqnn": the average width, for weights and for activations
    weights, activations   "searched", or None to leave that side float; of "fixed" a scheme, such as "C-3"
    policy                 of "policy": the text of the policy file
    theta                  of "dfq": the bound on the validation loss; None: that of the float network + 0.05
    fine                   of "autoqnn": a scheme a tensor; False: one for all weights and one for all activations
    keep                   expensive layers left in float: "first", "last", or names
    epochs                 of float training; `search_epochs` of the search for schemes (autoqnn) or widths (dfq);
                           `retrain_epochs` of training afterwards, in the first quarter of which autoqnn learns widths
    lr, retrain_lr         where the cosine of the learning rate begins, before and after quantization
    baselines              train uniform policies of the same size as well, each as long as the search took

    >>> Config(target_bits=2).method
    'autoqnn'
    """

    dataset: str = "glyphs"
    model: str = "lenet-bn"
    method: str = "autoqnn"
    target_bits: float = 2.0
    weights: str | None = SEARCHED
    activations: str | None = SEARCHED
    policy: str | None = None
    theta: float | None = None
    fine: bool = True
    keep: tuple[str, ...] = ()
    epochs: int = 5
    search_epochs: int = 2
    retrain_epochs: int = 10
    batch_size: int = 64
    lr: float = 0.05
    retrain_lr: float = 0.02
    weight_decay: float = 1e-4
    augment: bool = False
    clip_norm: float | None = None
    baselines: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"there is no method {self.method!r}; there are {', '.join(METHODS)}")
        if self.epochs < 1 or self.search_epochs < 1 or self.retrain_epochs < 0 or self.batch_size < 2:
            raise ValueError(
                "epochs and search_epochs are 1 or more, retrain_epochs 0 or more and batch_size 2 or more, "
                f"got {self.epochs}, {self.search_epochs}, {self.retrain_epochs} and {self.batch_size}"
            )
        if self.method == "autoqnn" and self.retrain_epochs < 1:
            raise ValueError("retrain_epochs is 1 or more with autoqnn, which learns the widths in them")


_TEXT = {"batch_size": 20, "clip_norm": 0.25, "weight_decay": 0.0, "fine": False, "search_epochs": 1}
RECIPES: dict[str, dict[str, Any]] = {
    "glyphs": {},
    "rings": {"model": "fcdnn-128-4", "epochs": 20, "search_epochs": 4, "retrain_epochs": 10, "batch_size": 100},
    "mnist": {"epochs": 6, "search_epochs": 2, "retrain_epochs": 14, "batch_size": 128, "weight_decay": 5e-4},
    "cifar10": {"model": "resnet20-16", "epochs": 10, "search_epochs": 2, "retrain_epochs": 6, "batch_size": 128}
    | {"lr": 0.1, "augment": True},
    "grammar": {"model": "lstm-64", "epochs": 6, "retrain_epochs": 3, "lr": 8.0, "retrain_lr": 2.0} | _TEXT,
    "ptb": {"model": "lstm-300", "epochs": 9, "retrain_epochs": 4, "lr": 4.0, "retrain_lr": 1.0} | _TEXT,
}
"""What `Config` says for a data set unless it is told otherwise."""


def configure(dataset: str, **wishes: Any) -> Config:
    """The recipe for a data set, with what was wished for otherwise; None is no wish.

    weights, activations   a notation, or "float". A notation means the method "fixed", with C on the other side
    target_bits            of "fixed", the width where no scheme is named; 3 if it is not given either
    policy                 a path, and means the method "policy"
    keep                   names with commas, or "none"

    Raises ValueError for what does not exist or does not go together, before anything is trained.

    >>> configure("glyphs", weights="P-3", activations="float").method
    'fixed'
    """
    recipe = dict(RECIPES.get(dataset, {})) | {name: wish for name, wish in wishes.items() if wish is not None}
    named = [side for side in ROLES if recipe.get(side, "float") != "float"]
    implied = "policy" if recipe.get("policy") else "fixed" if named else "autoqnn"
    method = recipe.setdefault("method", implied)
    if implied != "autoqnn" and method != implied:
        option = "--policy" if recipe.get("policy") else f"--{named[0]} {recipe[named[0]]}"
        raise ValueError(f"{option} says what --method {method} would search for; leave one of them out")
    if method in ("dfq", "policy") and recipe.get("target_bits") is not None:
        instead = "a bound on the loss, --theta" if method == "dfq" else "the widths of its policy"
        raise ValueError(f"--target-bits is for autoqnn and fixed; --method {method} has {instead}")
    if method != "dfq" and recipe.get("theta") is not None:
        raise ValueError(f"--theta is for dfq, the method here is {method}")
    if method == "policy" and not recipe.get("policy"):
        raise ValueError("--method policy wants a policy: --policy FILE, such as runs/glyphs-1/policy.json")
    for side in ROLES:
        wish = recipe.get(side, f"C-{recipe.get('target_bits') or 3:g}" if method == "fixed" else SEARCHED)
        recipe[side] = None if wish == "float" else wish if wish == SEARCHED else scheme(wish).notation
    if method == "policy":
        if any(recipe[side] is None for side in ROLES):
            raise ValueError("the policy says what stays float; edit it there")
        recipe["policy"] = Policy.load(recipe["policy"]).to_json()
    if isinstance(recipe.get("keep"), str):
        recipe["keep"] = tuple(name for name in recipe["keep"].split(",") if name not in ("", "none"))
    if dataset not in RECIPES:
        if dataset in data.NAMES:
            raise ValueError(f"there is no recipe for {dataset} yet; there are {', '.join(RECIPES)}")
        data.load(dataset)  # says what there is, and what was probably meant
    return Config(dataset=dataset, **recipe)


def read_config(folder: Path) -> Config:
    """What the run in `folder` was asked for."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Config(**{**content, "keep": tuple(content["keep"])})
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{folder} holds no run: there is no {path}; runs are folders such as runs/glyphs-1"
        ) from None
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not what a run wrote ({error}); begin a new run") from None


def as_json(config: Config) -> dict[str, Any]:
    """The config as config.json has it."""
    return dataclasses.asdict(config)
