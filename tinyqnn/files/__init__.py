"""Files that are whole or not there, and that are believed only after a look at what they claim.

    atomic.py        a new file appears under its name at once and complete; what somebody else made is not overwritten
    arrays.py        arrays and a JSON header in one .npz with a checksum: checkpoints, packed models, policies
    safetensors.py   the format in which the rest of the world exchanges weights
    state.py         weights from PyTorch, out of an .npz or a .safetensors

No pickle: reading one runs whatever program its author put there.
"""

from tinyqnn.files.arrays import load_arrays, read_header, save_arrays
from tinyqnn.files.atomic import FileError, atomic_write
from tinyqnn.files.safetensors import load_safetensors, save_safetensors
from tinyqnn.files.state import load_state, save_state

__all__ = [
    "FileError",
    "atomic_write",
    "load_arrays",
    "load_safetensors",
    "load_state",
    "read_header",
    "save_arrays",
    "save_safetensors",
    "save_state",
]
