"""Reading what `torch.save` wrote, from anybody: whole, unchanged, and without running any code.

`weights_only` reads tensors and plain values. Training checkpoints of icefall hold its options too,
so a few classes are read beside them that do nothing but hold values.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ZIP_MAGIC = b"PK\x03\x04"
# class that is made, and the name in the file that it is made for
SAFE_TYPES: list[Any] = [
    argparse.Namespace,
    (collections.OrderedDict, "icefall.utils.AttributeDict"),
    *(
        (kind, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for kind, name in (
            (pathlib.PosixPath, "PosixPath"),
            (pathlib.PurePosixPath, "PurePosixPath"),
            (pathlib.PureWindowsPath, "WindowsPath"),
            (pathlib.PureWindowsPath, "PureWindowsPath"),
        )
    ),
]


def safe_load(path: str | Path, tensors_on_disk: bool = False) -> Any:
    """The content of a file of `torch.save`, on the CPU.

    Args:
        tensors_on_disk: map the tensors instead of reading them; their bytes are not verified then.

    Raises OSError, or ValueError for a file that is damaged, another kind of file, or one that
    refers to anything but tensors, plain values and SAFE_TYPES.
    """
    path = Path(path)
    with open(path, "rb") as file:
        zipped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    if zipped and not tensors_on_disk:
        verify_checksums(path)
    try:
        with torch.serialization.safe_globals(SAFE_TYPES):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=tensors_on_disk and zipped
            )
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds for files that are something else
        name = re.search(r"GLOBAL (\S+)", str(error))
        if name is None:
            raise ValueError(
                f"{path} is no checkpoint that torch can read: damaged, cut short, or another kind"
                " of file"
            ) from error
        raise ValueError(
            f"{path} holds more than tensors and plain values: it refers to {name[1]}, which could"
            " run code, so it is not opened; ask its author for the weights alone"
        ) from error


def verify_checksums(path: Path) -> None:
    """Raises ValueError if a record of a zipped checkpoint is not what was written.

    Files written without checksums (`torch.serialization.set_crc32_options`) are let through.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if not any(record.CRC for record in archive.infolist()):
                return
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises many kinds for tables that make no sense
        raise ValueError(
            f"{path} is no whole checkpoint: damaged or cut short ({error})"
        ) from error
    if damaged is not None:
        raise ValueError(
            f"{path} is damaged: the checksum of its record {damaged} is not that of its bytes"
        )


def nonfinite_names(weights: Mapping[str, Any]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity."""
    return [
        name
        for name, value in weights.items()
        if isinstance(value, Tensor) and value.is_floating_point() and not _is_finite(value)
    ]


def _is_finite(value: Tensor) -> bool:
    # The sum is many times faster, and finite for all but very large values.
    return bool(value.sum(dtype=torch.float64).isfinite()) or bool(value.isfinite().all())
