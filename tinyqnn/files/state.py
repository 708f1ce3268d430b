"""Weights that PyTorch trained, for a model of ours: both use the same names and shapes.

In PyTorch, one of

    numpy.savez("model.npz", **{name: tensor.numpy() for name, tensor in model.state_dict().items()})
    safetensors.torch.save_file(model.state_dict(), "model.safetensors")

here

    model.load_state_dict(tq.files.load_state("model.npz"))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tinyqnn.files.arrays import EXPORT, MAX_BYTES, Array, load_arrays, pickle_inside, save_arrays
from tinyqnn.files.atomic import FileError, PathLike, open_checked
from tinyqnn.files.safetensors import load_safetensors, save_safetensors


def load_state(path: PathLike, max_bytes: int = MAX_BYTES) -> dict[str, Array]:
    """A state_dict out of an .npz (also one of our checkpoints: the weights in it) or a .safetensors file.

    Raises FileError for other kinds of files (for a pickle with the two lines of PyTorch that convert it), for a name
    that does not say what is in the file, and for files that are damaged or absurdly large; FileNotFoundError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_state(f"{folder}/model.npz", {"fc.weight": np.ones((1, 2), np.float32)})
    ...     load_state(f"{folder}/model.npz")["fc.weight"].tolist()
    [[1.0, 1.0]]
    """
    path = Path(path)
    file, _ = open_checked(path, "an .npz or .safetensors file", max_bytes)
    with file:
        start = file.read(9)
        file.seek(0)
        pickled = pickle_inside(file)
    if path.suffix in (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".tar") or pickled:
        raise FileError(
            f"{path} is a pickle, which runs whatever program its author put there; it is not opened. {EXPORT}"
        )
    holds = ".npz" if start[:2] == b"PK" else ".safetensors" if start[8:9] == b"{" else "neither"
    if path.suffix not in (".npz", ".safetensors"):
        raise FileError(f"{path}: expected a name that ends in .npz or .safetensors")
    if holds != path.suffix and holds != "neither":
        raise FileError(f"{path} is named {path.suffix}, but holds a {holds} file; rename it")
    if path.suffix == ".safetensors":
        return load_safetensors(path, max_bytes)
    arrays, _ = load_arrays(path, kind=None, max_bytes=max_bytes)
    of_model = {name.removeprefix("model/"): array for name, array in arrays.items() if name.startswith("model/")}
    return of_model or arrays


def save_state(path: PathLike, state: Mapping[str, Array], overwrite: bool | None = None) -> None:
    """Write a state_dict as .npz or .safetensors, as the name says. An .npz of ours is replaced unless overwrite=False.

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_state(f"{folder}/model.safetensors", {"weight": np.ones(2, np.float32)})
    ...     load_state(f"{folder}/model.safetensors")["weight"].tolist()
    [1.0, 1.0]
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        save_safetensors(path, state, overwrite=bool(overwrite))
    elif path.suffix == ".npz":
        save_arrays(path, state, kind="state", overwrite=overwrite)
    else:
        raise ValueError(f"{path}: expected a name that ends in .npz or .safetensors")
